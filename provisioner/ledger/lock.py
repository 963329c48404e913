"""The only lock of the ledger: a lease that a heartbeat renews, with an increasing fencing number.

Another run can take the lock at once if the holder is known to have ended, otherwise as soon as the lease
has expired. Every write to the ledger checks that the writing run still holds the lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from provisioner.diagnostics import plural
from provisioner.errors import LedgerError, Locked, ProvisionerError, UsageError
from provisioner.ledger.process import host_name, is_alive, process_owner, process_start
from provisioner.ledger.store import LEDGER_SCHEMA, Store, read_fact, storable
from provisioner.storage.database import (
    Busy,
    Connection,
    Database,
    Unreachable,
    placeholders,
    reject_corrupt_rows,
    transaction,
)
from provisioner.storage.lease import heartbeat, wait_for_lease

POLL_SECONDS = 0.2
"""The time in seconds between two attempts to take a lock that another run holds (``--lock-timeout``)."""

RECONNECT_SECONDS = 1.0
"""A lock holder that loses its connection keeps the lock for this time in seconds, so it can reconnect."""


class LockInfo(NamedTuple):
    """The database row of the lock: which run holds the lock, since when, and until when."""

    id: str
    owner: str
    host: str
    pid: int
    process_start: str
    command: str
    since: str
    fence: int
    """The fencing number. Each acquisition of the lock gets a higher number than all earlier acquisitions."""
    expires: int
    """The time at which the lease expires, in milliseconds since 1970; 0 if the lease never expires."""
    session_pid: int
    """The ID of the database server's process for the holder's connection; 0 if there is no server."""
    session_start: str

    @property
    def until(self) -> str:
        """The time at which the lease expires, as an ISO timestamp; "" if the lease never expires."""
        if not self.expires:
            return ""
        return datetime.fromtimestamp(self.expires / 1000, UTC).isoformat(timespec="seconds")


_COLUMNS = ", ".join(LockInfo._fields)


class Lock:
    """The handle with which one run takes, renews and releases the lock."""

    owner: str
    """A text that names this run: system account, host and process ID."""
    fence: int
    """The fencing number of this run; 0 before the run has taken the lock."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.owner = f"{process_owner()} on {host_name()} (process {os.getpid()})"
        self.fence = 0
        self._disconnected: tuple[str, float] = ("", 0)

    @contextmanager
    def hold(
        self, command: str, timeout: float = 0, on_wait: Callable[[str], None] = lambda sentence: None
    ) -> Iterator[None]:
        """Hold the lock during the block.

        ``command`` is the command that other runs see in the description of the lock. ``on_wait`` is called
        once, before the first wait, with a sentence that names the holder. Raises :class:`Locked` if another
        run still holds the lock after ``timeout`` seconds.
        """
        # a second connection, which shows the server that this run is alive: the server may close the store's
        # connection if that is idle while a portal or a mail server answers
        with closing(self._store.database.reopen(LEDGER_SCHEMA)) as own:
            self._acquire(command, timeout, on_wait, own)
            renew = partial(self._renew, own, self._store.lock_id)
            try:
                with heartbeat(renew, self._store.lease, partial(self._store.database.is_cut_off, own)):
                    yield
            except BaseException:
                # raise the first error, and not the error of a release that failed because of it
                with suppress(ProvisionerError):
                    self._release()
                raise
            self._release()

    def raise_fence(self, fence: int) -> None:
        """Make the fencing number of the next acquisition higher than ``fence``, which the portal returned.

        After the ledger was restored from a backup, the portal can know higher numbers than the ledger.
        """
        if fence > self.fence:
            with self._store.writing() as connection:
                connection.execute("UPDATE fact SET value = ? WHERE name = 'fence'", (str(fence),))

    def remove(self, lock_id: str) -> LockInfo:
        """Remove the lock. The holder can finish its current transaction, but cannot begin another one.

        Return the removed lock. Raises :class:`UsageError` if no lock has the id ``lock_id``.
        """
        with self._store.unguarded_write() as connection:
            holder = _holder(connection)
            if holder is None:
                raise UsageError("Nobody holds the lock.", "Nothing to do.")
            if holder.id != lock_id:
                raise UsageError(
                    f"The lock is {holder.id}, not {lock_id}; "
                    f"it belongs to {describe_lock(holder, self._store.now())}.",
                    f"If that run is dead: provisioner unlock {holder.id}",
                )
            connection.execute("DELETE FROM lock")
        return holder

    def _acquire(self, command: str, timeout: float, on_wait: Callable[[str], None], own: Connection) -> None:
        """Take the lock. ``own`` is the connection by which other runs see that this run is alive."""
        deadline = time.monotonic() + timeout
        holder: LockInfo | None = None

        def keep_waiting() -> bool:
            return time.monotonic() < deadline

        def attempt() -> None:
            nonlocal holder
            try:
                holder = self._try_acquire(command, own)
                # a holder that lost its connection gets RECONNECT_SECONDS to reconnect
                while holder is not None and holder.id == self._disconnected[0]:
                    time.sleep(POLL_SECONDS)
                    holder = self._try_acquire(command, own)
            except LedgerError as problem:
                # a server that becomes unreachable while this run waits may become reachable again
                if holder is None or not isinstance(problem.__cause__, Unreachable) or not keep_waiting():
                    raise
            if holder is not None:
                raise Locked(
                    f"The ledger is locked by {describe_lock(holder, self._store.now())}.",
                    "Wait for it (--lock-timeout 60), or if that run is stuck: "
                    f"provisioner unlock {holder.id}",
                )

        def announce(_: Locked) -> None:
            if holder is not None:
                on_wait(f"Waiting for the ledger: locked by {describe_lock(holder, self._store.now())}.")

        wait_for_lease(attempt, keep_waiting=keep_waiting, on_wait=announce, poll_seconds=POLL_SECONDS)

    def _try_acquire(self, command: str, own: Connection) -> LockInfo | None:
        """Take the lock if it is free or its holder is gone. Return None on success, else the holder."""
        try:
            return self._acquire_once(command, own)
        except LedgerError as problem:
            # the database is busy: the holder is working in a long transaction
            holder = read_lock(self._store.database) if isinstance(problem.__cause__, Busy) else None
            if holder is None:
                raise
            return holder

    def _acquire_once(self, command: str, own: Connection) -> LockInfo | None:
        store = self._store
        with store.unguarded_write() as connection:
            now = store.server_time()
            holder = _holder(connection)
            if holder is not None and not self._is_over(holder, now):
                return holder
            with reject_corrupt_rows():
                fence = int(read_fact(connection, "fence") or "0") + 1
            pid = os.getpid()
            session = store.database.session_of(own)
            taken = LockInfo(
                os.urandom(6).hex(), process_owner(), host_name(), pid, process_start(pid), storable(command),
                store.timestamp(), fence, store.expiry(now), *session,
            )  # fmt: skip
            connection.execute(
                "INSERT INTO fact VALUES ('fence', ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (str(fence),),
            )
            connection.execute("DELETE FROM lock")
            connection.execute(f"INSERT INTO lock (one, {_COLUMNS}) VALUES (1, {placeholders(taken)})", taken)
        store.lock_id, self.fence = taken.id, fence
        return None

    def _is_over(self, holder: LockInfo, now: float) -> bool:
        """Return True if the lease of ``holder`` has expired, or if the holder is known to have ended."""
        if holder.expires and now * 1000 >= holder.expires:
            return True
        store = self._store
        connected = store.database.has_session(store.connection, holder.session_pid, holder.session_start)
        if connected is None:
            return not is_alive(holder.host, holder.pid, holder.process_start)
        if connected:
            self._disconnected = ("", 0)
            return False
        # the run may be alive although its connection was lost: give it time to reconnect
        if self._disconnected[0] != holder.id:
            self._disconnected = (holder.id, time.monotonic())
        return time.monotonic() - self._disconnected[1] >= RECONNECT_SECONDS

    def _renew(self, connection: Connection, lock_id: str) -> bool:
        """Renew the lease, in the heartbeat's thread. Return False if this run no longer holds the lock."""
        database = self._store.database
        with database.translate_errors(LEDGER_SCHEMA), transaction(connection):
            expires = self._store.expiry(self._store.server_time(connection))
            renewed = connection.execute(
                "UPDATE lock SET expires = ?, session_pid = ?, session_start = ? WHERE id = ?",
                (expires, *database.session_of(connection), lock_id),
            )
            return bool(renewed.rowcount)

    def _release(self) -> None:
        try:
            with self._store.unguarded_write() as connection:
                connection.execute("DELETE FROM lock WHERE id = ?", (self._store.lock_id,))
        except LedgerError:
            # ignore the error if the lock is already released or another run holds it
            if not self._store.is_superseded():
                raise
        self._store.lock_id = ""


def read_lock(database: Database) -> LockInfo | None:
    """Return the current holder of the lock; None if the lock is free."""
    return database.read(LEDGER_SCHEMA, _holder)


def describe_lock(holder: LockInfo, now: datetime) -> str:
    """Return a text that names the holder of the lock and says how long, at ``now``, it has held the lock."""
    minutes = int((now - datetime.fromisoformat(holder.since)).total_seconds() // 60)
    age = "less than a minute" if minutes < 1 else f"{minutes} {plural(minutes, 'minute')}"
    return f"{holder.owner} on {holder.host} (process {holder.pid}, {holder.command}), for {age}"


def _holder(connection: Connection) -> LockInfo | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM lock").fetchone()
    if row is None:
        return None
    with reject_corrupt_rows():
        holder = LockInfo(*row)
        if datetime.fromisoformat(holder.since).tzinfo is None or holder.pid <= 0:
            raise ValueError("the lock has no time zone or no process")
    return holder
