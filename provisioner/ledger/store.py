"""The ledger's database: its tables, its connection, and its read and write transactions.

Each write transaction first checks that this run still holds the lock, so a run that has lost the lock
can no longer write.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from provisioner.errors import LedgerError, LockLost, ProvisionerError
from provisioner.model import Clock
from provisioner.storage.database import Connection, Database, transaction
from provisioner.storage.lease import BEATS
from provisioner.storage.schema import DatabaseSchema

_TABLES = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE lock (
    one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, owner TEXT NOT NULL, host TEXT NOT NULL,
    pid INTEGER NOT NULL, process_start TEXT NOT NULL, command TEXT NOT NULL, since TEXT NOT NULL,
    fence INTEGER NOT NULL, expires INTEGER NOT NULL,
    session_pid INTEGER NOT NULL, session_start TEXT NOT NULL);
CREATE TABLE run (
    id INTEGER PRIMARY KEY, owner TEXT NOT NULL, command TEXT NOT NULL, digest TEXT NOT NULL,
    began TEXT NOT NULL, ended TEXT, outcome TEXT NOT NULL DEFAULT '');
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES run (id), key TEXT NOT NULL,
    address TEXT NOT NULL, action TEXT NOT NULL, effect TEXT NOT NULL, intended TEXT NOT NULL,
    settled TEXT, verdict TEXT NOT NULL DEFAULT '', problem TEXT NOT NULL DEFAULT '');
CREATE INDEX journal_open ON journal (key) WHERE settled IS NULL;
CREATE INDEX journal_run ON journal (run);
CREATE TABLE managed (
    id TEXT PRIMARY KEY, "user" TEXT NOT NULL UNIQUE, email TEXT, phone TEXT, created INTEGER NOT NULL);
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
    "user" TEXT NOT NULL, user_id TEXT NOT NULL, recipient TEXT NOT NULL,
    language TEXT NOT NULL, template TEXT NOT NULL, context TEXT NOT NULL, dated TEXT NOT NULL,
    state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, resent INTEGER NOT NULL DEFAULT 0,
    detail TEXT NOT NULL DEFAULT '', changed TEXT NOT NULL, claims TEXT NOT NULL DEFAULT '');
CREATE INDEX outbox_open ON outbox (state) WHERE state <> 'sent';
CREATE INDEX outbox_claimed ON outbox (key) WHERE state = 'sent' AND claims <> ''
"""

LEDGER_SCHEMA = DatabaseSchema("ledger", 0x70724C65, 1, _TABLES, LedgerError)


class Store:
    """The open database of the ledger, shared by lock, journal, outbox and accounts."""

    id: str
    """The permanent random id of the ledger."""
    lock_id: str
    """The random id of the lock that this run holds; empty while this run holds no lock."""

    def __init__(self, database: Database, clock: Clock, lease: float) -> None:
        self.database = database
        self.lease = lease
        self.lock_id = ""
        self.connection = database.connect(LEDGER_SCHEMA, _insert_id)
        self._clock = clock
        with self.reading() as connection:
            self.id = read_fact(connection, "id")

    def close(self) -> None:
        """Close the database connection."""
        self.connection.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield the connection. Database errors inside the block are raised as :class:`LedgerError`."""
        with self.database.translate_errors(LEDGER_SCHEMA):
            yield self.connection

    @contextmanager
    def unguarded_write(self) -> Iterator[Connection]:
        """Yield the connection in a transaction, without checking that this run holds the lock."""
        with self.reading() as connection, transaction(connection):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield the connection in a transaction. Raises :class:`LockLost` if this run has lost the lock."""
        began = time.monotonic()
        try:
            with self.unguarded_write() as connection:
                if _lock_id(connection) != self.lock_id or not self.lock_id:
                    raise _lock_lost()
                yield connection
                if time.monotonic() - began > self.lease / BEATS:
                    # renew the lease here, because the heartbeat could not do so during this long transaction
                    connection.execute("UPDATE lock SET expires = ?", (self.expiry(self.server_time()),))
        except LedgerError as problem:
            # the server closes a connection that is idle in a transaction; another run may then hold the lock
            if self.is_superseded():
                raise _lock_lost() from problem
            raise

    def is_superseded(self) -> bool:
        """Return True if it is certain that this run no longer holds the lock."""
        try:
            return self.database.read(LEDGER_SCHEMA, _lock_id) not in (None, self.lock_id)
        except ProvisionerError:
            return False

    def now(self) -> datetime:
        """Return the current time of the run's own clock."""
        return self._clock()

    def timestamp(self) -> str:
        """Return the current time of the run's own clock as the text that the ledger stores."""
        return self._clock().isoformat(timespec="seconds")

    def server_time(self, connection: Connection | None = None) -> float:
        """Return the time, in seconds since 1970, of the clock that all runs with this database share."""
        return self.database.shared_time(connection or self.connection, time.time)

    def expiry(self, now: float) -> int:
        """Return the end, in milliseconds since 1970, of a lease renewed at ``now`` (seconds since 1970)."""
        return int((now + self.lease) * 1000)


def read_fact(connection: Connection, name: str) -> str:
    """Return the value stored under ``name`` in the table ``fact``; empty if there is none."""
    row = connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else ""


def storable(text: str) -> str:
    """Return ``text`` with escapes for the characters that databases refuse: lone surrogates and NUL."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")


def _insert_id(connection: Connection) -> None:
    connection.execute("INSERT INTO fact VALUES ('id', ?)", (os.urandom(16).hex(),))


def _lock_id(connection: Connection) -> str:
    row = connection.execute("SELECT id FROM lock").fetchone()
    return str(row[0]) if row else ""


def _lock_lost() -> LockLost:
    return LockLost(
        "The lock of this ledger was taken away from this run, by provisioner unlock or by another run, "
        "so it stopped.",
        "Run the same command again: what is done is kept, what is not is taken up.",
    )
