"""The commands. Each one calls an operation, prints the result of the operation, and returns the exit code.

``options`` defines the parts of the command line that ``cli.py`` uses. It imports no library except click.

To add a command: write its module here, and declare it in ``cli.py``.
"""
