"""The operations of the program, such as making and applying a plan. They do not use the terminal.

Only ``pipeline`` makes a plan from files. A command calls an operation and prints what the operation returns.

To add an operation: write a module here and a command in :mod:`provisioner.commands`.
"""
