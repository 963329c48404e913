"""The classes that implement :class:`Database`, by url scheme."""

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
    """Return the database with this url, not opened yet. The url's scheme must be a key of ``DATABASES``."""
    return DATABASES[url.partition(":")[0]].from_url(url, root, secret)
