"""What the program does, without a terminal: plan, apply, deliver letters, open portal and ledger.

``pipeline`` is the only way from files to a plan. A command calls an operation and prints what it returns.

To add an operation: write a module here and a command in :mod:`provisioner.commands`.
"""
