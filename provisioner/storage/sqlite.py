"""Databases in SQLite files. Reading a file that no writer has open creates no other files beside it.

The file's ``application_id`` identifies the kind of database, and its ``user_version`` is the layout number.
Only this module translates the errors of ``sqlite3`` into sentences for users.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import override

from provisioner.errors import ProvisionerError
from provisioner.storage.database import Busy, Connection, CorruptValue, Database
from provisioner.storage.schema import FINGERPRINT, DatabaseSchema, statements
from provisioner.storage.traced import TracedConnection
from provisioner.trace import is_traced

BUSY_SECONDS = 10.0
"""The maximum time in seconds that a writer waits for the transaction of another writer."""

BUSY_PAUSE = 0.005
"""The pause in seconds between two attempts to switch a busy file to a write-ahead log."""

READ_ATTEMPTS = 20
"""The maximum number of attempts to read while writers open or close the file."""

PERMISSIONS = "Check the permissions of the file and of its folder."
FOLDER = "Check that the folder exists and that you may write in it."
READ_ONLY_DISK = (
    "Make the file system writable, or copy the whole workspace to a disk that can be written, and run the "
    "same command there."
)

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


@dataclass(frozen=True, slots=True)
class SqliteDatabase(Database):
    """A database in an SQLite file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @override
    @classmethod
    def from_url(cls, url: str, root: Path, secret: str) -> SqliteDatabase:
        return cls(root / url.partition(":")[2].removeprefix("///"))

    @override
    def _open(self, schema: DatabaseSchema, *, making: bool) -> sqlite3.Connection:
        # WAL with FULL sync: when a commit returns, its data is on the disk
        if self.path.exists():
            self._require_file(schema, self.path.stat())
        elif making:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        else:
            raise schema.missing(self)
        connection = _connect(self.path, schema, check_same_thread=False)
        try:
            if _switch_to_wal(connection) != "wal":
                # otherwise SQLite would continue with a journal mode that gives weaker guarantees
                raise schema.error(
                    f"The {schema.noun} {self} cannot be kept safely: its folder takes no write-ahead log.",
                    "Check the disk and the space left, keep the file on a local disk, then run the same "
                    "command again.",
                )
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            # this takes about 6 µs per user; it is needed because SQLite pages have no checksums
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise schema.damaged(self)
        except BaseException:
            connection.close()
            raise
        return connection

    @override
    def reopen(self, schema: DatabaseSchema) -> sqlite3.Connection:
        with self.translate_errors(schema):
            uri = f"{self.path.absolute().as_uri()}?mode=rw"
            return _connect(uri, schema, uri=True, check_same_thread=False)

    @override
    def read(self, schema: DatabaseSchema, reader: Callable[[Connection], T]) -> T | None:
        # A file without a WAL beside it is opened as immutable, because SQLite would otherwise create files
        # beside it. If a writer opens the file during the read, the read begins again.
        path = self.path
        with self.translate_errors(schema):
            for _ in range(READ_ATTEMPTS):
                if not path.exists():
                    return None
                at_rest = not _wal(path).exists()
                before = path.stat()
                self._require_file(schema, before)
                mode = "mode=ro&immutable=1" if at_rest else "mode=ro"
                uri = f"{path.absolute().as_uri()}?{mode}"
                try:
                    with closing(_connect(uri, schema, uri=True)) as connection:
                        connection.execute("PRAGMA cell_size_check = ON")
                        connection.execute("BEGIN")
                        if not self.has_tables(connection, schema):
                            return None
                        found = reader(connection)
                except (sqlite3.DatabaseError, CorruptValue):
                    if at_rest and _moved(path, before):
                        continue
                    raise
                if not (at_rest and _moved(path, before)):
                    return found
            raise schema.error(
                f"The {schema.noun} {self} is being written all the time.", "Try again in a moment."
            )

    @override
    @contextmanager
    def pinned(self, schema: DatabaseSchema) -> Iterator[Callable[[Path], None]]:
        if not self.path.exists():
            raise schema.missing(self)
        with closing(self.reopen(schema)) as connection:
            with self.translate_errors(schema):
                connection.execute("BEGIN")
                # the transaction sees the content as of this first read
                if not self.has_tables(connection, schema):
                    raise schema.missing(self)
            yield partial(_copy, connection, schema)

    @override
    @contextmanager
    def translate_errors(self, schema: DatabaseSchema) -> Iterator[None]:
        try:
            yield
        except CorruptValue as problem:
            raise schema.damaged(self) from problem
        except sqlite3.Error as problem:
            raise self._sentence(schema, problem) from _cause(problem)
        except OSError as problem:
            raise self._cannot_open(schema, problem) from problem

    @override
    def file_identity(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    @override
    def side_file(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    @override
    def layout(self, connection: Connection, schema: DatabaseSchema) -> int | None:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0 and version == 0:
            return None
        if application_id != schema.application_id:
            raise schema.error(
                f"{self} is not a {schema.noun}.", f"Point the {schema.noun}'s url at another file."
            )
        row = connection.execute("SELECT value FROM fact WHERE name = ?", (FINGERPRINT,)).fetchone()
        schema.require_readable(self, version, row[0] if row else None)
        return int(version)

    @override
    def define(self, connection: Connection, schema: DatabaseSchema, script: str) -> None:
        for statement in statements(script):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {schema.application_id}")
        connection.execute(f"PRAGMA user_version = {schema.version}")

    def _require_file(self, schema: DatabaseSchema, status: os.stat_result) -> None:
        """Raise an error if the path is not a regular file, because SQLite would wait forever for a pipe."""
        if stat.S_ISDIR(status.st_mode):
            raise schema.error(f"{self} is a folder, not a {schema.noun}.", "Give the name of a file in it.")
        if not stat.S_ISREG(status.st_mode):
            raise schema.error(
                f"{self} is not a regular file.", f"Point the {schema.noun}'s url at another file."
            )

    def _sentence(self, schema: DatabaseSchema, problem: sqlite3.Error) -> ProvisionerError:
        name = getattr(problem, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")) and _is_read_only(self.path.parent):
            return self._cannot_open(schema, OSError(errno.EROFS, os.strerror(errno.EROFS)))
        if name.startswith("SQLITE_CANTOPEN") and (refusal := self._system_error()) is not None:
            return self._cannot_open(schema, refusal)
        for prefix, (sentence, remedy) in SENTENCES.items():
            if name.startswith(prefix):
                words = {"noun": schema.noun, "path": self}
                return schema.error(sentence.format(**words), remedy.format(**words))
        return schema.error(
            f"The {schema.noun} {self} cannot be used: {problem}.", "Check the file, or restore a backup."
        )

    def _system_error(self) -> OSError | None:
        for part, mode in ((self.path, "rb"), (_wal(self.path), "r+b"), (self.side_file("-shm"), "r+b")):
            try:
                part.open(mode).close()
            except FileNotFoundError:
                continue
            except OSError as problem:
                return problem
        return None

    def _cannot_open(self, schema: DatabaseSchema, problem: OSError) -> ProvisionerError:
        remedy = PERMISSIONS if isinstance(problem, PermissionError) else FOLDER
        if problem.errno == errno.EROFS:
            remedy = READ_ONLY_DISK
        return schema.error(
            f"The {schema.noun} {self} cannot be opened: {problem.strerror or problem}.", remedy
        )


def _is_read_only(folder: Path) -> bool:
    """Return True if the folder is on a file system that is mounted read-only, as far as the system says."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except (OSError, AttributeError):  # Windows has no statvfs
        return False


def _copy(connection: sqlite3.Connection, schema: DatabaseSchema, path: Path) -> None:
    """Copy what the transaction of ``connection`` sees to the new file ``path``, which has mode 0600."""
    with SqliteDatabase(path).translate_errors(schema):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(sqlite3.connect(path)) as target:
            connection.backup(target)


def _connect(place: Path | str, schema: DatabaseSchema, **options: Any) -> sqlite3.Connection:
    """Open a connection in autocommit mode. If SQL is traced, the connection records each statement."""
    if is_traced("sql"):
        options["factory"] = TracedConnection
    connection: sqlite3.Connection = sqlite3.connect(
        place, timeout=BUSY_SECONDS, isolation_level=None, **options
    )
    if isinstance(connection, TracedConnection):
        connection.place = schema.noun
    return connection


def _cause(problem: sqlite3.Error) -> Exception:
    if not _is_busy(problem):
        return problem
    cause = Busy(str(problem))
    cause.__cause__ = problem
    return cause


def _is_busy(problem: sqlite3.Error) -> bool:
    # the low byte is the primary error code; some errors of sqlite3 have no code at all
    code = getattr(problem, "sqlite_errorcode", 0)
    return isinstance(problem, sqlite3.OperationalError) and code & 0xFF == sqlite3.SQLITE_BUSY


def _switch_to_wal(connection: sqlite3.Connection) -> str:
    """Switch the file to a write-ahead log, and return the journal mode that it then has. Try again while the
    file is busy, because SQLite does not wait for another program that switches the file.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as problem:
            if not _is_busy(problem) or time.monotonic() >= deadline:
                raise
            time.sleep(BUSY_PAUSE)
        else:
            return str(mode)


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _moved(path: Path, before: os.stat_result) -> bool:
    if _wal(path).exists() or not path.exists():
        return True
    now = path.stat()
    return (now.st_mtime_ns, now.st_size, now.st_ino) != (before.st_mtime_ns, before.st_size, before.st_ino)
