"""Databases: the same statements on SQLite and PostgreSQL, one transaction at a time.

``database`` is what the ledger and the embedded portal import; ``sqlite`` and ``postgres`` are the two
implementations, ``schema`` describes the tables of one kind of database, ``lease`` keeps a lease alive.

To add a database: write one module beside ``sqlite`` and name its scheme in ``database``.
"""
