"""The commands. Each one calls an operation, prints the result of the operation, and returns the exit code.

``options`` has what the declarations in ``cli.py`` share; click is the only library that it imports.

To add a command: write its module here, and declare it in ``cli.py``.
"""
