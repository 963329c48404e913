"""What a database of ours is: its marks, its tables, where it lies, and what its readers may assume.

The statements are the same for SQLite and PostgreSQL; they are written in SQLite's way, and
:mod:`provisioner.storage.postgres` translates the few words that differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from provisioner.errors import ProvisionerError


@dataclass(frozen=True, slots=True)
class DatabaseSchema:
    """What a database of ours is: how people call it, its marks, its tables, and the error to raise."""

    noun: str
    application_id: int
    version: int
    schema: str
    error: type[ProvisionerError]
    migrations: tuple[str, ...] = ()
    """Statements that lead from one version to the next, the first of them from version 1 to 2."""


@dataclass(frozen=True, slots=True)
class PostgresSchema:
    """Tables of ours on a PostgreSQL server."""

    url: str
    """``postgresql://USER@HOST/DATABASE``, without a schema and without a password."""
    schema: str = ""
    """The schema of our tables; by default named for what they are."""
    secret: str = field(default="", repr=False)
    """The password; without one, libpq looks where it always does (PGPASSWORD, ~/.pgpass)."""

    def __str__(self) -> str:
        return f"{self.url}?schema={self.schema}" if self.schema else self.url

    def schema_of(self, identity: DatabaseSchema) -> str:
        """Where the tables of this kind are."""
        return self.schema or f"provisioner_{identity.noun}"


Location = Path | PostgresSchema
"""Where a database is: a SQLite file, or a schema on a PostgreSQL server."""


class Cursor(Protocol):
    """What a statement found."""

    @property
    def rowcount(self) -> int:
        """How many rows it wrote."""
        ...

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """An open database; ``sqlite3``'s own connection is one."""

    @property
    def total_changes(self) -> int:
        """How many rows were written so far."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Something is begun and not ended."""
        ...

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Cursor:
        """One statement, with a question mark for each value."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object:
        """One statement for each of these rows of values."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class CorruptValue(Exception):
    """A value that no writer of ours wrote; told as damage at the border."""


@contextmanager
def reject_corrupt_rows() -> Iterator[None]:
    """Around what makes values of rows: what cannot be made is damage, and not a defect of the program."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as problem:
        raise CorruptValue(str(problem)) from problem


def statements(script: str) -> Iterator[str]:
    """The single statements of a script."""
    return (statement for statement in script.split(";") if statement.strip())


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """One write transaction, begun at once so that two writers wait instead of failing."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
