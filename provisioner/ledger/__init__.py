"""The ledger: what provisioner remembers between runs, in one database.

    lock      who may write: a lease with a fencing number
    journal   the runs, every step they intended, and how it ended: intend ▸ write ▸ settle
    outbox    every letter owed, and how far it got
    accounts  the portal account behind each user, and the values last applied

``store`` is the database below them, ``snapshot`` what planning reads, ``ledger`` puts them together.
To remember one more fact: add a column to the schema in ``store`` and a method to the module of its table.
"""
