"""The interface of every database: connections, transactions, failures.

Readers and writers use the same statements for all of them. What only one kind has (a file that can be
replaced, a server that can close a connection) is part of the interface and has no effect in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from provisioner.errors import ProvisionerError
from provisioner.storage.schema import FINGERPRINT, DatabaseSchema, statements

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


class Database(Protocol):
    """Where a database is. It is opened with the schema of what it should hold; ``str()`` names it for users.

    To add a kind: implement this protocol in one module and add it to :mod:`provisioner.storage.registry`.
    """

    has_sessions: ClassVar[bool]
    """Whether a server keeps a session for each connection, so that it knows which connections are open."""

    @classmethod
    def from_url(cls, url: str, root: Path, secret: str) -> Database:
        """The database behind a url with one of this kind's schemes. Opens nothing.

        A relative path is below ``root``. A password in the url counts as the secret and is shown nowhere.
        """
        ...

    def connect(
        self, schema: DatabaseSchema, initialise: Callable[[Connection], None] | None = no_rows
    ) -> Connection:
        """Open it for writing. Makes it if it is missing, and migrates an older layout.

        ``initialise`` writes the first rows in the transaction that makes the tables, so that no other
        program sees the database without them. With None a missing database is refused. A commit that
        returned has reached the disk. Raises the schema's error.
        """
        ...

    def reopen(self, schema: DatabaseSchema) -> Connection:
        """Open one more connection to a database that this process opened for writing; checks nothing.

        For writes that need not survive the loss of power. Raises the schema's error.
        """
        ...

    def read(self, schema: DatabaseSchema, reader: Callable[[Connection], T]) -> T | None:
        """What ``reader`` returns in one consistent view; None if the database is missing. Writes nothing.

        The reader may be called again if another program writes meanwhile; it always sees the newest
        layout. Raises the schema's error.
        """
        ...

    def translate_errors(self, schema: DatabaseSchema) -> AbstractContextManager[None]:
        """Turn the library's and the system's errors, and corrupt values, into the schema's error."""
        ...

    def shared_time(self, connection: Connection, local: Callable[[], float]) -> float:
        """Seconds since 1970 by a clock that all users of the database share.

        That is the server's, or ``local`` where there is no server.
        """
        ...

    # --- what only a file has ---

    def file_identity(self) -> tuple[int, int] | None:
        """Which file it is: a different value once the file was replaced. None without a file."""
        ...

    def require_same(self, schema: DatabaseSchema, identity: tuple[int, int] | None) -> None:
        """Raise the schema's error if the open file is no longer the one at its path."""
        ...

    def file_fingerprint(self) -> str:
        """A value that changes when anything writes to the file, "" without a file.

        Take it before the content is read: a write in between would otherwise pass for part of the content.
        """
        ...

    def side_file(self, suffix: str) -> Path | None:
        """The path of a file beside it that copies of the database do not include; None on a server."""
        ...

    # --- what only a server has ---

    def session_of(self, connection: Connection) -> tuple[int, str]:
        """The server's process for this connection and when it began; (0, "") without a server."""
        ...

    def has_session(self, connection: Connection, pid: int, began: str) -> bool | None:
        """Whether the server still has that session; None without a server.

        True also while the server has not noticed yet that the program at the other end is gone.
        """
        ...

    def is_cut_off(self, connection: Connection) -> bool:
        """Whether the server has closed this connection, found without asking it."""
        ...


class CorruptValue(Exception):
    """A value that no version of this program writes."""


class Busy(Exception):
    """Another program writes for longer than this one waits."""


class Unreachable(Exception):
    """The server cannot be reached or closed the connection; it may be back in a moment."""


def is_damage(problem: ProvisionerError) -> bool:
    """True if one value is corrupt, so that work which does not read it can go on."""
    return isinstance(problem.__cause__, CorruptValue)


def is_busy(problem: ProvisionerError) -> bool:
    """True if another program writes for longer than this one waits."""
    return isinstance(problem.__cause__, Busy)


def is_unreachable(problem: ProvisionerError) -> bool:
    """True if the server cannot be reached or closed the connection; it may be back in a moment."""
    return isinstance(problem.__cause__, Unreachable)


def still_usable(problem: ProvisionerError) -> bool:
    """True if the connection works as before: a value is corrupt, or another program writes."""
    return is_damage(problem) or is_busy(problem)


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


class Tables(Protocol):
    """How one kind of database records which tables it has."""

    def layout(self, connection: Connection, schema: DatabaseSchema) -> int | None:
        """The number of the layout, None for an empty database. Raises the schema's error for any other."""
        ...

    def create(self, connection: Connection, schema: DatabaseSchema) -> None:
        """Make the tables, without rows."""
        ...

    def mark(self, connection: Connection, schema: DatabaseSchema) -> None:
        """Record the schema's kind and layout in a database whose tables were just made or migrated."""
        ...

    def define(self, connection: Connection, statement: str) -> None:
        """Run a statement that makes or changes a table."""
        ...


def prepare(
    tables: Tables,
    connection: Connection,
    schema: DatabaseSchema,
    initialise: Callable[[Connection], None] | None,
    name: object,
) -> None:
    """Make the tables, or migrate them, unless they are as this program has them.

    Raises the schema's error, also for a database without tables if ``initialise`` is None.
    """
    # the first look waits for no writer
    connection.execute("BEGIN")
    try:
        current = tables.layout(connection, schema) == schema.version
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    if current:
        return
    with transaction(connection):
        layout = tables.layout(connection, schema)
        if layout is not None:
            migrate(tables, connection, schema, layout)
            return
        if initialise is None:
            raise schema.missing(name)
        tables.create(connection, schema)
        _mark(tables, connection, schema)
        initialise(connection)


def migrate(tables: Tables, connection: Connection, schema: DatabaseSchema, layout: int) -> None:
    """Bring the tables from an older layout to the schema's, within a transaction."""
    if layout == schema.version:
        return
    for script in schema.migrations[layout - 1 :]:
        for statement in statements(script):
            tables.define(connection, statement)
    _mark(tables, connection, schema)


def _mark(tables: Tables, connection: Connection, schema: DatabaseSchema) -> None:
    tables.mark(connection, schema)
    connection.execute(
        "INSERT INTO fact (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (FINGERPRINT, schema.fingerprint),
    )


def content_stamp(connection: Connection, fingerprint: str) -> str:
    """A value that changes with each change of the content.

    ``fingerprint`` is from :meth:`Database.file_fingerprint`.
    """
    row = connection.execute("SELECT value FROM fact WHERE name = 'stamp'").fetchone()
    return f"{row[0] if row else ''} {fingerprint}"


def chunks(values: Sequence[str], size: int = CHUNK) -> Iterator[Sequence[str]]:
    """The values, at most ``size`` at a time; by default as many as one statement takes."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def placeholders(values: Sequence[object]) -> str:
    """A question mark for each value."""
    return ", ".join("?" * len(values))
