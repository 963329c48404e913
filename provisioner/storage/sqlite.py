"""SQLite files of ours: opened with care, read without a trace.

A file says by its ``application_id`` what it is and by its ``user_version`` which layout it has.
Errors of the library become one sentence each, at this border and nowhere else.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from provisioner.errors import UPGRADE_HINT, ProvisionerError
from provisioner.storage.schema import Connection, CorruptValue, DatabaseSchema, statements, transaction

BUSY_SECONDS = 10.0
"""How long a writer waits for another one to finish its transaction."""

BUSY_PAUSE = 0.005
"""Seconds between two tries where SQLite itself does not wait."""

READ_ATTEMPTS = 20
"""How often a read is begun again because a writer closed the file meanwhile."""

PERMISSIONS = "Check the permissions of the file and of its folder."
FOLDER = "Check that the folder exists and that you may write in it."

SENTENCES = {
    "SQLITE_NOTADB": ("{path} is not a {noun}.", "Point the {noun}'s url at another file."),
    "SQLITE_BUSY": ("The {noun} {path} is busy: another program writes to it.", "Try again in a moment."),
    "SQLITE_FULL": (
        "The disk is full: the {noun} {path} could not be written.",
        "Free some space, then run the same command again.",
    ),
    "SQLITE_READONLY": ("The {noun} {path} cannot be written: it is read-only.", PERMISSIONS),
    "SQLITE_CANTOPEN": ("The {noun} {path} cannot be opened.", FOLDER),
    "SQLITE_IOERR": (
        "Reading or writing the {noun} {path} failed on the disk.",
        "Check the disk, then run the same command again.",
    ),
    "SQLITE_CORRUPT": ("The {noun} {path} is damaged.", "Restore it from a backup."),
}

T = TypeVar("T")


def connect(
    path: Path, identity: DatabaseSchema, found: Callable[[Connection], None] | None
) -> sqlite3.Connection:
    """See :func:`provisioner.storage.database.connect`.

    WAL with FULL sync: a commit that returned has reached the disk. A damaged file is refused.
    """
    with translate_errors(path, identity):
        if found is None and not path.exists():
            raise _missing(path, identity)
        _make_private(path, identity)
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            mode = _logging(connection)
            if mode != "wal":
                # SQLite would go on with a journal of weaker promises
                raise identity.error(
                    f"The {identity.noun} {path} cannot be kept safely: its folder takes no write-ahead log.",
                    "Check the disk and the space left, keep the file on a local disk, then run the same "
                    "command again.",
                )
            connection.execute("PRAGMA synchronous = FULL")
            _require_sound(connection, path, identity)
            # whoever finds it as it is to be waits for no writer
            if not _is_current(connection, path, identity):
                with transaction(connection):
                    if _is_ours(connection, path, identity):
                        _migrate(connection, identity)
                    elif found is None:
                        raise _missing(path, identity)
                    else:
                        _lay_out(connection, identity)
                        found(connection)
            # not before: a table that is laid out anew is dropped while others still refer to it
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection


def reopen(path: Path, identity: DatabaseSchema) -> sqlite3.Connection:
    """One more connection to a file that this process has opened for writing."""
    with translate_errors(path, identity):
        uri = f"{path.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def read(path: Path, identity: DatabaseSchema, reader: Callable[[Connection], T]) -> T | None:
    """See :func:`provisioner.storage.database.read`. Leaves no trace.

    A file at rest (no WAL beside it) is read as it lies, without the side files that SQLite
    would make; should a writer come by meanwhile, the read is begun again.
    """
    with translate_errors(path, identity):
        for _ in range(READ_ATTEMPTS):
            if not path.exists():
                return None
            at_rest = not _wal(path).exists()
            before = path.stat()
            _require_file(path, identity, before)
            mode = "mode=ro&immutable=1" if at_rest else "mode=ro"
            uri = f"{path.absolute().as_uri()}?{mode}"
            try:
                with closing(
                    sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
                ) as connection:
                    connection.execute("PRAGMA cell_size_check = ON")
                    connection.execute("BEGIN")
                    if not _is_ours(connection, path, identity):
                        return None
                    if _layout(connection) < identity.version:
                        found = _read_older(connection, identity, reader)
                    else:
                        found = reader(connection)
            except sqlite3.DatabaseError:
                if at_rest and _moved(path, before):
                    continue
                raise
            except CorruptValue as problem:
                if at_rest and _moved(path, before):
                    continue
                # a value that no writer of ours wrote
                raise _damaged(path, identity) from problem
            if not (at_rest and _moved(path, before)):
                return found
        raise identity.error(
            f"The {identity.noun} {path} is being written all the time.", "Try again in a moment."
        )


def file_fingerprint(path: Path) -> str:
    """See :func:`provisioner.storage.database.file_fingerprint`."""
    words = []
    for part in (path, _wal(path)):
        # what cannot be seen is told by whoever reads it
        with suppress(OSError):
            status = part.stat()
            words.append(f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}")
    return " ".join(words)


def file_identity(path: Path) -> tuple[int, int] | None:
    """See :func:`provisioner.storage.database.file_identity`."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def translate_errors(path: Path, identity: DatabaseSchema) -> Iterator[None]:
    """See :func:`provisioner.storage.database.translate_errors`."""
    try:
        yield
    except CorruptValue as problem:
        raise _damaged(path, identity) from problem
    except sqlite3.Error as problem:
        raise _sentence(path, identity, problem) from problem
    except OSError as problem:
        raise _unopened(path, identity, problem) from problem


def is_busy(problem: BaseException | None) -> bool:
    """Another program writes; whoever waits may try again on the same connection."""
    # the low byte: the extended codes say what for, and a few errors have none
    code = getattr(problem, "sqlite_errorcode", 0)
    return isinstance(problem, sqlite3.OperationalError) and code & 0xFF == sqlite3.SQLITE_BUSY


def _sentence(path: Path, identity: DatabaseSchema, problem: sqlite3.Error) -> ProvisionerError:
    name = getattr(problem, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_CANTOPEN") and (refusal := _refusal(path)) is not None:
        return _unopened(path, identity, refusal)
    for prefix, (sentence, remedy) in SENTENCES.items():
        if name.startswith(prefix):
            words = {"noun": identity.noun, "path": path}
            return identity.error(sentence.format(**words), remedy.format(**words))
    return identity.error(
        f"The {identity.noun} {path} cannot be used: {problem}.", "Check the file, or restore a backup."
    )


def _refusal(path: Path) -> OSError | None:
    """What the system says of the file or of those beside it, which SQLite keeps to itself."""
    for part, mode in ((path, "rb"), (_wal(path), "r+b"), (path.with_name(f"{path.name}-shm"), "r+b")):
        try:
            part.open(mode).close()
        except FileNotFoundError:
            continue
        except OSError as problem:
            return problem
    return None


def _unopened(path: Path, identity: DatabaseSchema, problem: OSError) -> ProvisionerError:
    return identity.error(
        f"The {identity.noun} {path} cannot be opened: {problem.strerror or problem}.",
        PERMISSIONS if isinstance(problem, PermissionError) else FOLDER,
    )


def _logging(connection: sqlite3.Connection) -> str:
    """Ask for a write-ahead log; the journal that there is.

    While somebody else turns it on, as when several open a new file, SQLite does not wait but says that it
    is busy.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as problem:
            if not is_busy(problem) or time.monotonic() >= deadline:
                raise
            time.sleep(BUSY_PAUSE)
        else:
            return str(mode)


def _missing(path: Path, identity: DatabaseSchema) -> ProvisionerError:
    return identity.error(f"There is no {identity.noun} {path}.", f"Check the {identity.noun}'s url.")


def _make_private(path: Path, identity: DatabaseSchema) -> None:
    if path.exists():
        _require_file(path, identity, path.stat())
    else:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _require_file(path: Path, identity: DatabaseSchema, status: os.stat_result) -> None:
    """SQLite would wait for a pipe, and read a device, for ever."""
    if stat.S_ISDIR(status.st_mode):
        raise identity.error(f"{path} is a folder, not a {identity.noun}.", "Give the name of a file in it.")
    if not stat.S_ISREG(status.st_mode):
        raise identity.error(
            f"{path} is not a regular file.", f"Point the {identity.noun}'s url at another file."
        )


def _is_ours(connection: sqlite3.Connection, path: Path, identity: DatabaseSchema) -> bool:
    """True for a file of this kind, False for an empty one; anything else is refused."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables == 0 and version == 0:
        return False
    if application_id != identity.application_id:
        raise identity.error(
            f"{path} is not a {identity.noun}.", f"Point the {identity.noun}'s url at another file."
        )
    if version > identity.version:
        raise identity.error(
            f"The {identity.noun} {path} was written by a newer version of this program.",
            UPGRADE_HINT,
        )
    return True


def _is_current(connection: sqlite3.Connection, path: Path, identity: DatabaseSchema) -> bool:
    """Laid out already, as this program has it; seen at one instant."""
    connection.execute("BEGIN")
    try:
        return _is_ours(connection, path, identity) and _layout(connection) == identity.version
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _require_sound(connection: sqlite3.Connection, path: Path, identity: DatabaseSchema) -> None:
    """Refuse to build upon a damaged file; about 6 µs a user, since SQLite has no checksums of its pages."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, identity)


def _damaged(path: Path, identity: DatabaseSchema) -> ProvisionerError:
    sentence, remedy = SENTENCES["SQLITE_CORRUPT"]
    return identity.error(sentence.format(noun=identity.noun, path=path), remedy)


def _lay_out(connection: sqlite3.Connection, identity: DatabaseSchema) -> None:
    for statement in statements(identity.schema):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {identity.application_id}")
    connection.execute(f"PRAGMA user_version = {identity.version}")


def _layout(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _migrate(connection: sqlite3.Connection, identity: DatabaseSchema) -> None:
    """Within a transaction: from the layout of an older program to this one's."""
    if (layout := _layout(connection)) == identity.version:
        return
    for script in identity.migrations[layout - 1 :]:
        for statement in statements(script):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {identity.version}")


def _read_older(
    connection: sqlite3.Connection, identity: DatabaseSchema, reader: Callable[[Connection], T]
) -> T:
    """What ``reader`` finds in a file of an older program, which only a writer brings up to date."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
        connection.backup(copy)
        _migrate(copy, identity)
        return reader(copy)


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _moved(path: Path, before: os.stat_result) -> bool:
    if _wal(path).exists() or not path.exists():
        return True
    now = path.stat()
    return (now.st_mtime_ns, now.st_size, now.st_ino) != (before.st_mtime_ns, before.st_size, before.st_ino)
