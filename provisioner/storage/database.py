"""The interface that every database implements: connections, transactions and errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from provisioner.errors import ProvisionerError
from provisioner.storage.schema import FINGERPRINT, DatabaseSchema

CHUNK = 500
"""The maximum number of values per statement. Old builds of SQLite accept only 999 values."""

T = TypeVar("T")


class Cursor(Protocol):
    """The result of an SQL statement."""

    @property
    def rowcount(self) -> int:
        """The number of rows that the statement wrote."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, or None after the last row."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all remaining rows."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection to a database. The class ``sqlite3.Connection`` meets this protocol."""

    @property
    def in_transaction(self) -> bool:
        """True if a transaction has begun and has not ended."""
        ...

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Cursor:
        """Run an SQL statement whose question marks stand for ``values``, in this order."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object:
        """Run an SQL statement once for each row. The row's values take the place of the question marks."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def no_rows(_: Connection) -> None:
    """Do nothing. This is the default of ``initialise``, for a database that needs no first rows."""


class Database(ABC):
    """The location of a database; ``str()`` gives the name that users see.

    Most methods take the ``schema``: the tables that the database should have. Errors of the database library
    and of the operating system are raised as :attr:`DatabaseSchema.error`.
    """

    @classmethod
    @abstractmethod
    def from_url(cls, url: str, root: Path, secret: str) -> Database:
        """Return the database at ``url``, without opening it. This class must support the scheme of ``url``.

        A relative path in ``url`` starts at ``root``. ``secret`` is the password for a server; if ``secret``
        is empty, a password in ``url`` is used.
        """

    def connect(
        self, schema: DatabaseSchema, initialise: Callable[[Connection], None] | None = no_rows
    ) -> Connection:
        """Open the database for writing. Create it if it is missing, and migrate it if its layout is older.

        ``initialise`` writes the first rows, in the transaction that creates the tables. If ``initialise`` is
        None, a missing database is an error. When a commit returns, its data is on the disk.
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
        # first check the layout in a read transaction, which does not wait for a writer
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
        """Return True if there are tables. Raises the schema's error for tables of an older layout."""
        layout = self.layout(connection, schema)
        if layout is not None and layout < schema.version:
            raise schema.error(
                f"The {schema.noun} {self} was written by an older version of this program.",
                "Whoever writes to it next brings it up to date: provisioner apply",
            )
        return layout is not None

    @abstractmethod
    def _open(self, schema: DatabaseSchema, *, making: bool) -> Connection:
        """Open a connection for writing. Do not check the tables. If ``making``, create a missing file."""

    @abstractmethod
    def reopen(self, schema: DatabaseSchema) -> Connection:
        """Open another connection, without checks, to a database that this process has open for writing. Use
        the new connection only for writes whose loss in a power failure does no harm.
        """

    @abstractmethod
    def read(self, schema: DatabaseSchema, reader: Callable[[Connection], T]) -> T | None:
        """Call ``reader`` in a read transaction. Return its result, or None if the database is missing.

        ``reader`` may be called several times, if other programs write at the same time. Raises the schema's
        error if the tables have an older layout.
        """

    @abstractmethod
    def pinned(self, schema: DatabaseSchema) -> AbstractContextManager[Callable[[Path], None]]:
        """Pin the content of the database for a backup, without stopping its writers.

        The context manager yields a function that copies the content, as it was when the block began, to a
        new file. Raises the schema's error if the database is missing, or if it is on a server, which has
        its own tools for backups.
        """

    def dump_command(self, schema: DatabaseSchema) -> str:
        """Return the server's command for a backup of the tables; "" for a file, which has :meth:`pinned`."""
        return ""

    @abstractmethod
    def translate_errors(self, schema: DatabaseSchema) -> AbstractContextManager[None]:
        """Convert library errors, system errors and corrupt values in the block to the schema's error."""

    @abstractmethod
    def layout(self, connection: Connection, schema: DatabaseSchema) -> int | None:
        """Return the layout number of the tables, or None if there are no tables. Raises the schema's error
        for tables that this program has not created or cannot read.
        """

    @abstractmethod
    def define(self, connection: Connection, schema: DatabaseSchema, script: str) -> None:
        """Run ``script``, which creates or changes tables; store the schema's application id and layout."""

    # --- where files and servers differ; the defaults are for a database without a server ---

    def shared_time(self, connection: Connection, local: Callable[[], float]) -> float:
        """Return the server's time in seconds since 1970; without a server, the result of ``local``."""
        return local()

    def file_identity(self) -> tuple[int, int] | None:
        """Return a value that changes if the file is replaced by another file; None if there is no file."""
        return None

    def require_same(self, schema: DatabaseSchema, identity: tuple[int, int] | None) -> None:
        """Raise the schema's error if :meth:`file_identity` no longer returns ``identity``."""
        # A removed file still accepts writes, but they are lost when the file is closed. A file that replaced
        # the removed one is not opened, because SQLite would apply the old file's log to the new file.
        if self.file_identity() != identity:
            raise schema.error(
                f"The {schema.noun} {self} was removed or replaced while it was open.",
                "Put it back; or, with no program at work on it, run the same command again.",
            )

    def side_file(self, suffix: str) -> Path | None:
        """Return the path of the database file with ``suffix`` added; None for a database on a server."""
        return None

    def session_of(self, connection: Connection) -> tuple[int, str]:
        """Return the ID and start time of the server process of this connection; (0, "") without a server."""
        return 0, ""

    def has_session(self, connection: Connection, pid: int, began: str) -> bool | None:
        """Return True if the server still has the session with this process ID and start time; None without
        a server. After the end of a client, its session exists until the server notices the end.
        """
        return None

    def is_cut_off(self, connection: Connection) -> bool:
        """Return True if the server has closed this connection. The check sends nothing to the server."""
        return False


class CorruptValue(Exception):
    """A value in the database that no version of this program writes."""


class Busy(Exception):
    """A timeout while waiting for another program that writes to the database."""


class Unreachable(Exception):
    """A server that cannot be reached or has closed the connection. A later attempt may succeed."""


def is_damage(problem: ProvisionerError) -> bool:
    """Return True if a corrupt value caused ``problem``. Work that does not read this value can continue."""
    return isinstance(problem.__cause__, CorruptValue)


def still_usable(problem: ProvisionerError) -> bool:
    """Return True if a corrupt value or another writer caused ``problem``. The connection still works."""
    return isinstance(problem.__cause__, CorruptValue | Busy)


@contextmanager
def reject_corrupt_rows() -> Iterator[None]:
    """Raise :class:`CorruptValue` if the block, which converts rows to objects, raises a conversion error."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as problem:
        raise CorruptValue(str(problem)) from problem


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Run the block in a write transaction, which holds the write lock from its beginning. Commit it at the
    end, or roll it back if the block raises an exception.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def chunks(values: Sequence[str], size: int = CHUNK) -> Iterator[Sequence[str]]:
    """Yield ``values`` in slices of at most ``size`` values. The default size suits one SQL statement."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def placeholders(values: Sequence[object]) -> str:
    """Return a comma-separated question mark for each value, for an SQL statement."""
    return ", ".join("?" * len(values))
