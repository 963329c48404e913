"""One module for each command: it calls an operation, prints what it returns, and returns the exit code.

``options`` and ``portal_cli`` declare commands for click and import nothing else.

To add a command: write its module here, and declare it in ``cli.py`` or ``portal_cli.py``.
"""
