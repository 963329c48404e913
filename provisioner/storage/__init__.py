"""Databases: the same statements on SQLite and PostgreSQL, one transaction at a time.

``database`` is the interface, ``sqlite`` and ``postgres`` implement it, ``registry`` finds the implementation
for a url. ``schema`` describes the tables of one kind of database, ``lease`` keeps a lease alive.

To add a database: implement :class:`~provisioner.storage.database.Database` in one module beside ``sqlite``,
name it in ``registry``, and say in :mod:`provisioner.manifest.urls` which urls are valid.
"""
