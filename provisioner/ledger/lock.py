"""The ledger's one lock: a lease that a heartbeat renews, with a fencing number that grows.

A holder that died is succeeded at once where that can be known, and one that stopped responding once its
lease has run out. Every write of the ledger checks that its run still holds the lock.
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
"""How often a held lock is asked for again under ``--lock-timeout``."""

RECONNECT_SECONDS = 1.0
"""How long a holder whose connection is gone may take to come back over another one."""


class LockInfo(NamedTuple):
    """Who holds the lock, since when and until when."""

    id: str
    owner: str
    host: str
    pid: int
    process_start: str
    command: str
    since: str
    fence: int
    """The number of this acquisition; each one has a higher one."""
    expires: int
    """When the lease runs out unless it is renewed: milliseconds since 1970; 0 for never."""
    session_pid: int
    """The server's process that serves the holder's connection; 0 where there is no server."""
    session_start: str

    @property
    def until(self) -> str:
        """When the lease runs out, as an ISO timestamp; empty for never."""
        if not self.expires:
            return ""
        return datetime.fromtimestamp(self.expires / 1000, UTC).isoformat(timespec="seconds")


_COLUMNS = ", ".join(LockInfo._fields)


class Lock:
    """The lock, as one run takes, keeps and releases it."""

    owner: str
    """The run that asks: account, host and process."""
    fence: int
    """The number of this run's acquisition; 0 before it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.owner = f"{process_owner()} on {host_name()} (process {os.getpid()})"
        self.fence = 0
        self._disconnected: tuple[str, float] = ("", 0)

    @contextmanager
    def hold(
        self, command: str, timeout: float = 0, on_wait: Callable[[str], None] = lambda sentence: None
    ) -> Iterator[None]:
        """Hold the lock; waits up to ``timeout`` seconds. Raises :class:`Locked`.

        ``on_wait`` is called once, with a sentence that names the holder.
        """
        # on a server it shows that this run is alive; the connection that works may idle while a portal or a
        # mail server answers, and be cut for it
        with closing(self._store.database.reopen(LEDGER_SCHEMA)) as own:
            self._acquire(command, timeout, on_wait, own)
            renew = partial(self._renew, own, self._store.lock_id)
            try:
                with heartbeat(renew, self._store.lease, partial(self._store.database.is_cut_off, own)):
                    yield
            except BaseException:
                # the first error is raised, not a failed release that it caused
                with suppress(ProvisionerError):
                    self._release()
                raise
            self._release()

    def raise_fence(self, fence: int) -> None:
        """Make the next acquisition's number higher than this one, which the portal gave.

        After a restore from a backup, the portal knows of later runs than the ledger does.
        """
        if fence > self.fence:
            with self._store.writing() as connection:
                connection.execute("UPDATE fact SET value = ? WHERE name = 'fence'", (str(fence),))

    def remove(self, lock_id: str) -> LockInfo:
        """Take the lock away from its holder, who finishes its current transaction and writes no other.

        Raises :class:`UsageError`.
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
        """Take the lock for one lease; ``own`` is the connection that shows that this run is alive."""
        deadline = time.monotonic() + timeout
        holder: LockInfo | None = None

        def keep_waiting() -> bool:
            return time.monotonic() < deadline

        def attempt() -> None:
            nonlocal holder
            try:
                holder = self._try_acquire(command, own)
                # a holder that lost its connection is given a moment to reconnect
                while holder is not None and holder.id == self._disconnected[0]:
                    time.sleep(POLL_SECONDS)
                    holder = self._try_acquire(command, own)
            except LedgerError as problem:
                # a server that goes away while this run waits may come back
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
        """Take the lock if it is free or its holder is known to be gone; None on success, else the holder."""
        try:
            return self._acquire_once(command, own)
        except LedgerError as problem:
            # a holder whose transaction lasts longer than this one waits is at work
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
        """True if the holder's lease has run out, or its process is known to have ended."""
        if holder.expires and now * 1000 >= holder.expires:
            return True
        store = self._store
        connected = store.database.has_session(store.connection, holder.session_pid, holder.session_start)
        if connected is None:
            return not is_alive(holder.host, holder.pid, holder.process_start)
        if connected:
            self._disconnected = ("", 0)
            return False
        # its connection may have been cut while the run is alive: leave it time to reconnect
        if self._disconnected[0] != holder.id:
            self._disconnected = (holder.id, time.monotonic())
        return time.monotonic() - self._disconnected[1] >= RECONNECT_SECONDS

    def _renew(self, connection: Connection, lock_id: str) -> bool:
        """Renew the lease, in the heartbeat's thread; False if this run no longer holds the lock."""
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
            # a lock that is released all the same, or held by another run, needs no release
            if not self._store.is_superseded():
                raise
        self._store.lock_id = ""


def read_lock(database: Database) -> LockInfo | None:
    """Who holds the lock now; None if it is free."""
    return database.read(LEDGER_SCHEMA, _holder)


def describe_lock(holder: LockInfo, now: datetime) -> str:
    """Owner and age, in words."""
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
