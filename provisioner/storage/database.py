"""The interface of every database: connections, transactions, failures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from provisioner.errors import ProvisionerError
from provisioner.storage.schema import FINGERPRINT, DatabaseSchema

CHUNK = 500
"""How many values one statement asks for; SQLite takes 999 in old builds."""

T = TypeVar("T")


class Cursor(Protocol):
    """The result of a statement."""

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
    def in_transaction(self) -> bool:
        """Whether a transaction is begun and not ended."""
        ...

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement, with a question mark for each value."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object:
        """Run one statement for each of these rows of values."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def no_rows(_: Connection) -> None:
    """The ``initialise`` of a database that needs no more than its tables."""


class Database(ABC):
    """Where a database is. It is opened with the schema of what it should hold; ``str()`` names it for users.

    Errors of the library and of the system become the schema's error.
    """

    @classmethod
    @abstractmethod
    def from_url(cls, url: str, root: Path, secret: str) -> Database:
        """The database behind a url with one of this kind's schemes. Opens nothing.

        A relative path is below ``root``. A password in the url counts as the secret and is shown nowhere.
        """

    def connect(
        self, schema: DatabaseSchema, initialise: Callable[[Connection], None] | None = no_rows
    ) -> Connection:
        """Open it for writing. Makes it if it is missing, and migrates an older layout.

        ``initialise`` writes the first rows in the transaction that makes the tables. With None a missing
        database is refused. A commit that returned has reached the disk.
        """
        with self.translate_errors(schema):
            connection = self._open(schema, making=initialise is not None)
            try:
                self._prepare(connection, schema, initialise)
            except BaseException:
                connection.close()
                raise
            return connection

    def _prepare(
        self,
        connection: Connection,
        schema: DatabaseSchema,
        initialise: Callable[[Connection], None] | None,
    ) -> None:
        """Make the tables, or migrate them, unless they are as this program has them."""
        # the first look waits for no writer
        connection.execute("BEGIN")
        try:
            current = self.layout(connection, schema) == schema.version
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        if current:
            return
        with transaction(connection):
            layout = self.layout(connection, schema)
            if layout is None and initialise is None:
                raise schema.missing(self)
            scripts = (schema.tables,) if layout is None else schema.migrations[layout - 1 :]
            self.define(connection, schema, ";".join(scripts))
            connection.execute(
                "INSERT INTO fact (name, value) VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (FINGERPRINT, schema.fingerprint),
            )
            if layout is None and initialise is not None:
                initialise(connection)

    def has_tables(self, connection: Connection, schema: DatabaseSchema) -> bool:
        """False for an empty database. Refuses an older layout, which only a writer migrates."""
        layout = self.layout(connection, schema)
        if layout is not None and layout < schema.version:
            raise schema.error(
                f"The {schema.noun} {self} was written by an older version of this program.",
                "Whoever writes to it next brings it up to date: provisioner apply",
            )
        return layout is not None

    @abstractmethod
    def _open(self, schema: DatabaseSchema, *, making: bool) -> Connection:
        """Open a connection for writing, without looking at the tables."""

    @abstractmethod
    def reopen(self, schema: DatabaseSchema) -> Connection:
        """Open one more connection to a database that this process opened for writing; checks nothing.

        It is for writes that need not survive the loss of power.
        """

    @abstractmethod
    def read(self, schema: DatabaseSchema, reader: Callable[[Connection], T]) -> T | None:
        """What ``reader`` returns in one consistent view; None if the database is missing. Writes nothing.

        The reader may be called again if another program writes meanwhile. An older layout is refused.
        """

    @abstractmethod
    def translate_errors(self, schema: DatabaseSchema) -> AbstractContextManager[None]:
        """Turn the library's and the system's errors, and corrupt values, into the schema's error."""

    @abstractmethod
    def layout(self, connection: Connection, schema: DatabaseSchema) -> int | None:
        """The number of the layout, None for an empty database. Refuses the tables of anything else."""

    @abstractmethod
    def define(self, connection: Connection, schema: DatabaseSchema, script: str) -> None:
        """Run the statements that make or change tables, and record the schema's kind and layout."""

    # --- what a file and a server do differently: by default nothing is asked of a server ---

    def shared_time(self, connection: Connection, local: Callable[[], float]) -> float:
        """Seconds since 1970 by the server's clock, which all users share; ``local`` without a server."""
        return local()

    def file_identity(self) -> tuple[int, int] | None:
        """A value that differs once the file was replaced by another one; None without a file."""
        return None

    def require_same(self, schema: DatabaseSchema, identity: tuple[int, int] | None) -> None:
        """Raise the schema's error if the open file is no longer the one at its path."""
        # A removed file goes on taking writes and is gone once it is closed. A file in its place is not
        # opened either: SQLite would take the log that the former one left beside it for its own.
        if self.file_identity() != identity:
            raise schema.error(
                f"The {schema.noun} {self} was removed or replaced while it was open.",
                "Put it back; or, with no program at work on it, run the same command again.",
            )

    def side_file(self, suffix: str) -> Path | None:
        """The path of a file beside it that copies of the database do not include; None on a server."""
        return None

    def session_of(self, connection: Connection) -> tuple[int, str]:
        """The server's process for this connection and when it began; (0, "") without a server."""
        return 0, ""

    def has_session(self, connection: Connection, pid: int, began: str) -> bool | None:
        """Whether the server still has that session; None without a server.

        True also while the server has not noticed yet that the program at the other end is gone.
        """
        return None

    def is_cut_off(self, connection: Connection) -> bool:
        """Whether the server has closed this connection, found without asking it."""
        return False


class CorruptValue(Exception):
    """A value that no version of this program writes."""


class Busy(Exception):
    """Another program writes for longer than this one waits."""


class Unreachable(Exception):
    """The server cannot be reached or closed the connection; it may be back in a moment."""


def is_damage(problem: ProvisionerError) -> bool:
    """True if one value is corrupt, so that work which does not read it can go on."""
    return isinstance(problem.__cause__, CorruptValue)


def still_usable(problem: ProvisionerError) -> bool:
    """True if the connection works as before: a value is corrupt, or another program writes."""
    return isinstance(problem.__cause__, CorruptValue | Busy)


@contextmanager
def reject_corrupt_rows() -> Iterator[None]:
    """Around code that makes values of rows: what cannot be made is damage, not a defect of the program."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as problem:
        raise CorruptValue(str(problem)) from problem


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


def chunks(values: Sequence[str], size: int = CHUNK) -> Iterator[Sequence[str]]:
    """The values, at most ``size`` at a time; by default as many as one statement takes."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def placeholders(values: Sequence[object]) -> str:
    """A question mark for each value."""
    return ", ".join("?" * len(values))
