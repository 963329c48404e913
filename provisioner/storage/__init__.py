"""Access to SQLite and PostgreSQL databases with the same SQL statements, one write transaction at a time.

``database`` is the interface. ``sqlite`` and ``postgres`` implement the interface. ``registry`` finds the
implementation for a url. ``schema`` describes the tables of a database. ``lease`` takes and renews leases.

To add a database, implement :class:`~provisioner.storage.database.Database` in a module beside ``sqlite``,
add the class to ``registry``, and add the rules for its urls to :mod:`provisioner.manifest.urls`.
"""
