"""One module for each command: it calls an operation, prints what it returns, and returns the exit code.

``options`` has what the declarations in ``cli.py`` share, and imports click alone.

To add a command: write its module here, and declare it in ``cli.py``.
"""
