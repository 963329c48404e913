"""The operations of the program, which use no terminal: plan, apply, deliver letters, open portal and ledger.

Only ``pipeline`` makes a plan from files. A command calls an operation and prints what the operation returns.

To add an operation: write a module here and a command in :mod:`provisioner.commands`.
"""
