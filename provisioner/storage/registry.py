"""The kinds of database, by the scheme of their url."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from provisioner.storage.database import Database
from provisioner.storage.postgres import PostgresDatabase
from provisioner.storage.sqlite import SqliteDatabase

DATABASES: Mapping[str, type[Database]] = {
    "sqlite": SqliteDatabase,
    "postgresql": PostgresDatabase,
}


def database_at(url: str, root: Path, secret: str = "") -> Database:
    """The database behind a url whose scheme was checked: see :meth:`Database.from_url`. Opens nothing."""
    return DATABASES[url.partition(":")[0]].from_url(url, root, secret)
