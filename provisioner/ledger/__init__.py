"""The ledger: the data that provisioner keeps between runs, in one database.

    lock      which run may write: a lease with a fencing number
    journal   the runs, the steps that each run intended, and the outcome of each step
    outbox    the letters to send, and the state of each letter
    accounts  the portal account of each user, with the e-mail address and phone number last applied

``store`` opens the database, ``snapshot`` reads what planning needs, and ``ledger`` combines these modules.
To store another value, add a column to the schema in ``store`` and a method to the module of that table.
"""
