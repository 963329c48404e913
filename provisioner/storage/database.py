"""Databases of ours, on SQLite and on PostgreSQL: opened with care, written one transaction at a time.

Everything that tells the two apart is in :mod:`provisioner.storage.sqlite` and
:mod:`provisioner.storage.postgres`; readers and writers have the same statements for both.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from provisioner.errors import ProvisionerError, install_hint
from provisioner.storage import sqlite
from provisioner.storage.schema import (
    Connection,
    CorruptValue,
    DatabaseSchema,
    Location,
    PostgresSchema,
    reject_corrupt_rows,
    transaction,
)

__all__ = [
    "Connection",
    "DatabaseSchema",
    "Location",
    "chunks",
    "connect",
    "content_stamp",
    "file_fingerprint",
    "file_identity",
    "is_busy",
    "is_damage",
    "is_unreachable",
    "parse_location",
    "placeholders",
    "read",
    "reject_corrupt_rows",
    "reopen",
    "require_same",
    "server_time",
    "still_usable",
    "transaction",
    "translate_errors",
]

CHUNK = 500
"""How many values one statement asks for; SQLite takes 999 in old builds."""

T = TypeVar("T")


def _nothing_more(_: Connection) -> None:
    """A new database needs no more than its tables."""


def parse_location(url: str, root: Path, secret: str = "") -> Location:
    """The place behind ``sqlite:///FILE`` (a relative one is below ``root``) or ``postgresql://…``.

    Opens nothing. A password within the url is taken for the secret and shown nowhere.
    """
    if not url.startswith("postgresql:"):
        return root / url.partition(":")[2].removeprefix("///")
    parts = urlsplit(url)
    user, _, server = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    (schema,) = parse_qs(parts.query).get("schema", [""])
    bare = parts._replace(netloc=f"{name}@{server}" if name else server, query="", fragment="")
    # an empty server is the one of this machine, and keeps its two slashes
    return PostgresSchema(f"postgresql://{bare.netloc}{bare.path}", schema, secret or unquote(password))


def connect(
    place: Location, identity: DatabaseSchema, found: Callable[[Connection], None] | None = _nothing_more
) -> Connection:
    """Open for writing; what is missing is made, for its owner alone, and an older layout is replaced.

    ``found`` writes what a new database holds from its first commit on, so that nobody ever meets it half
    made; without it (None) one that is missing is refused. A commit that returned has reached the disk.
    """
    if isinstance(place, Path):
        return sqlite.connect(place, identity, found)
    connection: Connection = _postgres(identity).connect(place, identity, found)
    return connection


def reopen(place: Location, identity: DatabaseSchema) -> Connection:
    """One more connection to what this process has opened for writing; nothing is examined again.

    For what need not outlive the loss of power.
    """
    if isinstance(place, Path):
        return sqlite.reopen(place, identity)
    connection: Connection = _postgres(identity).reopen(place, identity)
    return connection


def read(place: Location, identity: DatabaseSchema, reader: Callable[[Connection], T]) -> T | None:
    """What ``reader`` finds in one consistent view; None when nothing is there. Makes and changes nothing.

    The reader may be called again, should somebody write meanwhile; it always meets the newest layout.
    """
    if isinstance(place, Path):
        return sqlite.read(place, identity, reader)
    found: T | None = _postgres(identity).read(place, identity, reader)
    return found


def translate_errors(place: Location, identity: DatabaseSchema) -> AbstractContextManager[None]:
    """Turn the library's and the system's errors, and damaged values, into a sentence with a remedy."""
    if isinstance(place, Path):
        return sqlite.translate_errors(place, identity)
    context: AbstractContextManager[None] = _postgres(identity).translate_errors(place, identity)
    return context


def is_damage(problem: ProvisionerError) -> bool:
    """It comes of a value that somebody met, and not of the database, which everybody needs."""
    return isinstance(problem.__cause__, CorruptValue)


def is_busy(problem: ProvisionerError) -> bool:
    """Somebody else writes, for longer than this one waits."""
    postgres = _postgres_if_met()
    return sqlite.is_busy(problem.__cause__) or (
        postgres is not None and bool(postgres.is_busy(problem.__cause__))
    )


def is_unreachable(problem: ProvisionerError) -> bool:
    """The server cannot be reached, or hung up; it may be back in a moment."""
    postgres = _postgres_if_met()
    return postgres is not None and bool(postgres.is_unreachable(problem.__cause__))


def still_usable(problem: ProvisionerError) -> bool:
    """The connection is as good as before: a value in it is damaged, or somebody else writes."""
    return is_damage(problem) or is_busy(problem)


def file_identity(place: Location) -> tuple[int, int] | None:
    """Which file lies there: another one once somebody replaced it. None for no file, and on a server."""
    return sqlite.file_identity(place) if isinstance(place, Path) else None


def require_same(place: Location, identity: DatabaseSchema, file: tuple[int, int] | None) -> None:
    """The file that is open lies there still. Raises the identity's error.

    A file that was removed goes on taking writes, and is gone once it is closed. One that lies in its place
    is not opened either: the log that the former left beside it would be taken for its own.
    """
    if file_identity(place) != file:
        raise identity.error(
            f"The {identity.noun} {place} was removed or replaced while it was open.",
            "Put it back; or, with no program at work on it, run the same command again.",
        )


def file_fingerprint(place: Location) -> str:
    """A file as it is seen from outside: whoever writes there without this program moves it at least.

    To be remembered with the content it is taken before the content is read, or a write in between would
    pass for part of it. Empty where there is no file.
    """
    return sqlite.file_fingerprint(place) if isinstance(place, Path) else ""


def server_time(place: Location, connection: Connection) -> float:
    """Seconds since 1970 by the clock that everybody there shares: the machine's, or the server's."""
    if isinstance(place, Path):
        return time.time()
    (seconds,) = connection.execute(
        "SELECT CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"
    ).fetchone()
    return float(seconds)


def content_stamp(connection: Connection, seen: str) -> str:
    """A value that changes with each change of the content; ``seen`` is from :func:`file_fingerprint`."""
    row = connection.execute("SELECT value FROM fact WHERE name = 'stamp'").fetchone()
    return f"{row[0] if row else ''} {seen}"


def chunks(values: Sequence[str], size: int = CHUNK) -> Iterator[Sequence[str]]:
    """The values, so many at a time; by default as many as one statement takes."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def placeholders(values: Sequence[object]) -> str:
    """A question mark for each value."""
    return ", ".join("?" * len(values))


def _postgres_if_met() -> ModuleType | None:
    """The other kind; whoever met an error of its has imported it."""
    return sys.modules.get("provisioner.storage.postgres")


def _postgres(identity: DatabaseSchema) -> ModuleType:
    """The other kind, imported by whoever needs it."""
    try:
        from provisioner.storage import postgres
    except ImportError as problem:
        raise identity.error(
            f"A {identity.noun} on PostgreSQL needs a part of this program that is not installed "
            f"({problem.name or 'psycopg'}).",
            install_hint("postgres"),
        ) from problem
    return postgres
