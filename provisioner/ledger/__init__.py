"""The ledger: what provisioner remembers between runs, in one database.

It holds the lock, the journal of steps, the outbox of letters, and the accounts that provisioner manages.

To remember one more fact: add a column to the schema and a method to the module of its table.
"""
