"""What this program remembers between runs: one database, one lock, four books.

    managed   which portal account stands behind each declared user, and what we last applied
    journal   every step we meant to do, and how it ended: intend ▸ write ▸ settle
    outbox    every letter owed, and how far it got: owed ▸ connecting ▸ body ▸ sent · failed · unknown
    runs      who applied what, when, and the digest of the plan

Each write is one transaction that first checks this run still holds the lock, so a run whose
lock was taken away writes nothing more. The lock is a lease: a holder that died is succeeded at once where
that can be known, and one that stands still once its lease has run out.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from provisioner.errors import LedgerError, Locked, LockLost, ProvisionerError, UsageError
from provisioner.model import Clock, Managed, value
from provisioner.storage.database import (
    Connection,
    DatabaseSchema,
    Location,
    chunks,
    connect,
    is_busy,
    is_unreachable,
    placeholders,
    read,
    reject_corrupt_rows,
    reopen,
    server_time,
    transaction,
    translate_errors,
)

if TYPE_CHECKING:
    from provisioner.mail.message import Letter

MOST_RUNS = 16
"""From how many runs a letter is claimed: one for which so many asked and got no answer is rather parked."""

POLL_SECONDS = 0.2
"""How often a held lock is asked for again under ``--lock-timeout``."""

LEASE_SECONDS = 60.0
"""How long a holder that stands still keeps the lock; one that works renews it three times as often."""

GLANCE_SECONDS = 0.2
"""How often a heart looks whether its server has hung up, to come back before anybody takes us for dead."""

SECOND_LOOK_SECONDS = 1.0
"""How long a holder whose connection is gone may take to come back over another one."""

ENDED = ("Z", "X")
"""The states of a process that will do nothing more."""

ADOPTED_AT_ONCE = 5_000
"""How many accounts are remembered in one transaction, for which everybody else waits."""

_SCHEMA = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE lock (
    one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, owner TEXT NOT NULL, host TEXT NOT NULL,
    pid INTEGER NOT NULL, born TEXT NOT NULL, command TEXT NOT NULL, since TEXT NOT NULL,
    fence INTEGER NOT NULL, expires INTEGER NOT NULL, served_by INTEGER NOT NULL, served_since TEXT NOT NULL);
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

_TO_VERSION_2 = """
INSERT INTO fact SELECT 'id', lower(hex(randomblob(16)));
ALTER TABLE lock ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lock ADD COLUMN expires INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lock ADD COLUMN served_by INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lock ADD COLUMN served_since TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox RENAME TO older_outbox;
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
    "user" TEXT NOT NULL, user_id TEXT NOT NULL, recipient TEXT NOT NULL,
    language TEXT NOT NULL, template TEXT NOT NULL, context TEXT NOT NULL, dated TEXT NOT NULL,
    state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, resent INTEGER NOT NULL DEFAULT 0,
    detail TEXT NOT NULL DEFAULT '', changed TEXT NOT NULL, claims TEXT NOT NULL DEFAULT '');
INSERT INTO outbox (key, "user", user_id, recipient, language, template, context, dated, state, attempts,
    resent, detail, changed)
    SELECT key, "user", user_id, recipient, language, template, context, dated, state, attempts,
    resent, detail, changed FROM older_outbox ORDER BY rowid;
DROP TABLE older_outbox;
CREATE INDEX outbox_open ON outbox (state) WHERE state <> 'sent';
CREATE INDEX outbox_claimed ON outbox (key) WHERE state = 'sent' AND claims <> ''
"""

IDENTITY = DatabaseSchema("ledger", 0x70724C65, 2, _SCHEMA, LedgerError, (_TO_VERSION_2,))

T = TypeVar("T")


class LockInfo(NamedTuple):
    """Who holds the lock, since when and until when."""

    id: str
    owner: str
    host: str
    pid: int
    born: str
    command: str
    since: str
    fence: int
    """The number of this acquisition; each one has a higher one."""
    expires: int
    """When the lease runs out unless it is renewed: milliseconds since 1970; 0 for never."""
    served_by: int
    """The server's process that serves the holder's connection; 0 where there is no server."""
    served_since: str

    @property
    def until(self) -> str:
        """When the lease runs out, as people write it; empty for never."""
        if not self.expires:
            return ""
        return datetime.fromtimestamp(self.expires / 1000, UTC).isoformat(timespec="seconds")


@value
class LedgerEffect:
    """What a step leaves in the ledger once the portal has done it.

    ``created`` and ``letter`` hold only if it was done through us; ``email`` and ``phone`` are
    None where the step does not set them.
    """

    user: str = ""
    email: str | None = None
    phone: str | None = None
    created: bool = False
    letter: Mapping[str, object] | None = None


class Intent(NamedTuple):
    """A step about to be done."""

    key: str
    address: str
    action: str
    effect: LedgerEffect


class Settlement(NamedTuple):
    """How an intended step ended; ``user_id`` is the portal's id of the user it touched."""

    key: str
    verdict: str
    problem: str = ""
    user_id: str = ""


class Run(NamedTuple):
    """One run, as history shows it."""

    id: int
    owner: str
    command: str
    digest: str
    began: str
    ended: str | None
    outcome: str


class JournalEntry(NamedTuple):
    """One step of a run, as history shows it."""

    run: int
    key: str
    address: str
    action: str
    verdict: str
    problem: str


class OutboxEntry(NamedTuple):
    """One letter of the outbox."""

    letter: Letter
    user: str
    user_id: str
    state: str
    attempts: int
    resent: bool
    detail: str
    changed: str
    claims: tuple[str, ...] = ()
    """The runs that may have it on the portal: the one that it named last, and those that asked since."""


@value
class LedgerSnapshot:
    """Everything that planning reads of the ledger, at one instant."""

    portal: str = ""
    """The portal this ledger belongs to; empty before the first run."""
    ledger: str = ""
    """The ledger's own lasting name; empty where there is none yet."""
    managed: Mapping[str, Managed] = field(default_factory=dict)
    open_letters: tuple[OutboxEntry, ...] = ()
    """Every letter that is not sent."""
    unsettled: tuple[JournalEntry, ...] = ()
    """Steps of an interrupted run whose end is not known."""


def read_ledger(place: Location) -> LedgerSnapshot:
    """The ledger as planning needs it; an absent file is an empty ledger. Writes nothing."""
    return read(place, IDENTITY, _books) or LedgerSnapshot()


def read_runs(place: Location, most: int) -> list[Run]:
    """The latest runs, newest first."""

    def runs(connection: Connection) -> list[Run]:
        rows = connection.execute(
            "SELECT id, owner, command, digest, began, ended, outcome FROM run ORDER BY id DESC LIMIT ?",
            (most,),
        )
        return [Run(*row) for row in rows]

    return read(place, IDENTITY, runs) or []


def has_run(place: Location, run: int) -> bool:
    """There was a run with this number."""

    def found(connection: Connection) -> bool:
        return connection.execute("SELECT 1 FROM run WHERE id = ?", (run,)).fetchone() is not None

    return read(place, IDENTITY, found) or False


def read_entries(place: Location, run: int) -> list[JournalEntry]:
    """The steps of one run, in the order in which they were meant."""
    return read(place, IDENTITY, lambda connection: _entries(connection, "run = ?", (run,))) or []


def read_letters(place: Location) -> list[OutboxEntry]:
    """The whole outbox, oldest first."""
    return read(place, IDENTITY, lambda connection: _letters(connection, "1 = 1")) or []


def read_lock(place: Location) -> LockInfo | None:
    """Who holds the lock now, if anybody."""
    return read(place, IDENTITY, _holder)


def read_ledger_id(place: Location) -> str:
    """The ledger's own lasting name; empty where there is no ledger."""
    return read(place, IDENTITY, lambda connection: _fact(connection, "id")) or ""


def letter_key(portal: str, user_id: str, generation: int = 1) -> str:
    """The identity of a welcome: one a user; a further one, asked for, needs a further generation."""
    from hashlib import sha256

    return sha256(f"welcome\n{portal}\n{user_id}\n{generation}".encode()).hexdigest()


class Ledger:
    """The ledger, opened by one run for writing; use as a context manager, inside :meth:`locked`."""

    id: str
    """The ledger's own lasting name."""
    owner: str
    """Who this run is, in words."""
    fence: int
    """The number of our acquisition of the lock; 0 before it."""

    def __init__(self, place: Location, clock: Clock, lease: float = LEASE_SECONDS) -> None:
        self._place = place
        self._clock = clock
        self._lease = lease
        self._connection = connect(place, IDENTITY, _found)
        with translate_errors(place, IDENTITY):
            self.id = _fact(self._connection, "id")
        self.owner = f"{_owner()} on {_host()} (process {os.getpid()})"
        self.fence = 0
        self._lock = ""
        self._vein: Connection | None = None
        self._missed: tuple[str, float] = ("", 0)
        self._run = 0
        self._meant: dict[str, LedgerEffect] = {}

    @property
    def claimant(self) -> str:
        """As whom this run claims letters: drawn by chance, so that no run of a copy of this ledger is it."""
        return self._lock

    def close(self) -> None:
        """Let go of the file or the connection."""
        self._connection.close()

    @contextmanager
    def locked(
        self, command: str, timeout: float = 0, waiting: Callable[[str], None] = lambda sentence: None
    ) -> Iterator[None]:
        """Hold the one lock of this ledger; waits up to ``timeout`` seconds. Raises :class:`Locked`.

        ``waiting`` is told once, in a sentence, for whom.
        """
        with self._standing():
            self._acquire(command, timeout, waiting)
            ended = threading.Event()
            heart = threading.Thread(target=self._beat, args=(self._lock, ended), daemon=True)
            heart.start()
            try:
                try:
                    yield
                finally:
                    ended.set()
                    heart.join()
            except BaseException:
                # what went wrong is told, and not that the lock could not be given back for the same reason
                with suppress(ProvisionerError):
                    self._release()
                raise
            self._release()

    def books(self) -> LedgerSnapshot:
        """The ledger as it stands."""
        with translate_errors(self._place, IDENTITY):
            return _books(self._connection)

    def bind(self, portal: str) -> None:
        """Tie this ledger to a portal at the first run; refuse another one afterwards."""
        with self._write() as connection:
            row = connection.execute("SELECT value FROM fact WHERE name = 'portal'").fetchone()
            if row is None:
                connection.execute("INSERT INTO fact VALUES ('portal', ?)", (portal,))
            elif row[0] != portal:
                raise LedgerError(
                    f"The ledger {self._place} belongs to another portal.",
                    "Use this portal's own ledger: see portal: and ledger: in provisioner.yaml.",
                )

    def raise_fence(self, fence: int) -> None:
        """Let the next run have a higher number than this one, which the portal gave us.

        It knows of later runs than we do once we were restored from a backup.
        """
        if fence > self.fence:
            with self._write() as connection:
                connection.execute("UPDATE fact SET value = ? WHERE name = 'fence'", (str(fence),))

    def begin(self, command: str, digest: str) -> int:
        """Open a run; returns its number."""
        with self._write() as connection:
            ((self._run,),) = connection.execute(
                "INSERT INTO run (owner, command, digest, began) VALUES (?, ?, ?, ?) RETURNING id",
                (_owner(), _legible(command), digest, self._now()),
            ).fetchall()
        return self._run

    def end(self, outcome: str) -> None:
        """Close the run with its outcome in words."""
        with self._write() as connection:
            connection.execute(
                "UPDATE run SET ended = ?, outcome = ? WHERE id = ?", (self._now(), outcome, self._run)
            )

    def intend(self, intents: Sequence[Intent]) -> None:
        """Write down what is about to be done; committed before the portal is called."""
        now = self._now()
        with self._write() as connection:
            connection.executemany(
                "INSERT INTO journal (run, key, address, action, effect, intended) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (self._run, intent.key, intent.address, intent.action, _effect_text(intent.effect), now)
                    for intent in intents
                ],
            )
        self._meant.update({intent.key: intent.effect for intent in intents})

    def settle(self, settlements: Sequence[Settlement], portal: str) -> None:
        """Write down how it ended."""
        # one transaction: a step is never settled without the letter it owes
        now = self._now()
        with self._write() as connection:
            open_entries: dict[str, int] = dict(
                connection.execute("SELECT key, seq FROM journal WHERE settled IS NULL")
            )
            known = [settlement for settlement in settlements if settlement.key in open_entries]
            connection.executemany(
                "UPDATE journal SET settled = ?, verdict = ?, problem = ? WHERE seq = ?",
                [
                    (now, str(settlement.verdict), _legible(settlement.problem), open_entries[settlement.key])
                    for settlement in known
                ],
            )
            effects = [(self._effect(connection, s.key, open_entries[s.key]), s) for s in known]
            _take_effects(connection, effects, portal, now)

    def _effect(self, connection: Connection, key: str, seq: int) -> LedgerEffect:
        """What was meant: by this run, or by one that did not get to its end."""
        meant = self._meant.pop(key, None)
        if meant is None:
            (text,) = connection.execute("SELECT effect FROM journal WHERE seq = ?", (seq,)).fetchone()
            with reject_corrupt_rows():
                meant = LedgerEffect(**json.loads(text))
        return meant

    def creations(self) -> dict[str, int]:
        """How often each user was created through us, by his address."""
        with translate_errors(self._place, IDENTITY), reject_corrupt_rows():
            return dict(
                self._connection.execute(
                    "SELECT address, count(*) FROM journal "
                    "WHERE action = 'CreateUser' AND verdict = 'applied' GROUP BY address"
                )
            )

    def adopt(self, records: Mapping[str, Managed]) -> None:
        """Remember accounts that exist already, by declared user."""
        # in portions, between which others get their turn
        for some in chunks(list(records), ADOPTED_AT_ONCE):
            with self._write() as connection:
                _remember(connection, [(user, records[user]) for user in some])

    def enqueue(self, user: str, user_id: str, letter: Letter) -> None:
        """Put a letter into the outbox, once."""
        with self._write() as connection:
            _owe(connection, [(user, user_id, letter)], self._now())

    def letters(self, *states: str) -> list[OutboxEntry]:
        """The letters in these states (all when none is given), oldest first."""
        with translate_errors(self._place, IDENTITY):
            marks = ", ".join("?" for _ in states)
            where = f"state IN ({marks})" if states else "1 = 1"
            return _letters(self._connection, where, states)

    def mark(self, keys: Iterable[str], state: str, detail: str = "") -> None:
        """Move letters to a state of the outbox, in one commit."""
        self.record([(key, state, detail) for key in keys])

    def record(self, marks: Iterable[tuple[str, str, str]]) -> None:
        """Move letters, each to its state of the outbox with a detail, in one commit."""
        with self._write() as connection:
            _mark(connection, marks, self._now())

    def begin_delivery(self, keys: Iterable[str]) -> None:
        """Take letters in hand; committed before the portal is asked, which may then have them as ours."""
        now = self._now()
        with self._write() as connection:
            connection.executemany(
                "UPDATE outbox SET state = 'connecting', detail = '', changed = ?, attempts = attempts + 1, "
                "claims = claims || ' ' || ? WHERE key = ?",
                [(now, self.claimant, key) for key in keys],
            )

    def record_claims(self, holders: Mapping[str, str], marks: Iterable[tuple[str, str, str]]) -> None:
        """Write down which run has each letter, and what becomes of those that are not ours."""
        # one transaction: a letter that a copy has is not owed again but by whoever decides that
        with self._write() as connection:
            connection.executemany(
                "UPDATE outbox SET claims = ? WHERE key = ?", [(run, key) for key, run in holders.items()]
            )
            _mark(connection, marks, self._now())

    def sent_claims(self) -> dict[str, tuple[str, ...]]:
        """Sent letters whose claims the portal still holds, with their :attr:`OutboxEntry.claims`."""
        with translate_errors(self._place, IDENTITY):
            rows = self._connection.execute(
                "SELECT key, claims FROM outbox WHERE state = 'sent' AND claims <> ''"
            )
            return {key: _runs(claims) for key, claims in rows}

    def end_claims(self, keys: Iterable[str]) -> None:
        """The portal was told that these letters are sent."""
        with self._write() as connection:
            connection.executemany("UPDATE outbox SET claims = '' WHERE key = ?", [(key,) for key in keys])

    def readdress(self, letters: Iterable[Letter]) -> None:
        """Letters that nobody got yet: they go to another address than they were written for."""
        with self._write() as connection:
            connection.executemany(
                "UPDATE outbox SET recipient = ?, context = ? WHERE key = ?",
                [(letter.recipient, _context_text(dict(letter.context)), letter.key) for letter in letters],
            )

    def resend(self, key: str) -> None:
        """Owe an unknown letter again, this once: the same letter with the same Message-ID."""
        with self._write() as connection:
            connection.execute(
                "UPDATE outbox SET state = 'owed', resent = 1, changed = ? "
                "WHERE key = ? AND state = 'unknown'",
                (self._now(), key),
            )

    def release_claims(self) -> None:
        """Letters taken in hand and not sent are owed again."""
        with self._write() as connection:
            connection.execute(
                "UPDATE outbox SET state = 'owed', changed = ? WHERE state = 'connecting'", (self._now(),)
            )

    def reset_interrupted(self) -> list[OutboxEntry]:
        """Letters a dead run was sending: before the body they are owed, within it nobody knows.

        Returns those of which nobody knows.
        """
        # we hold the lock, so whoever was sending is gone
        self.release_claims()
        with self._write() as connection:
            cut_off = _letters(connection, "state = 'body'")
            connection.execute(
                "UPDATE outbox SET state = 'unknown', changed = ?, "
                "detail = 'the program was stopped while the mail server was taking it' WHERE state = 'body'",
                (self._now(),),
            )
        return cut_off

    def unlock(self, lock_id: str) -> LockInfo:
        """Take the lock away from its holder, who ends the batch in hand and writes no other.

        Raises :class:`UsageError`.
        """
        with translate_errors(self._place, IDENTITY), transaction(self._connection):
            holder = _holder(self._connection)
            if holder is None:
                raise UsageError("Nobody holds the lock.", "Nothing to do.")
            if holder.id != lock_id:
                raise UsageError(
                    f"The lock is {holder.id}, not {lock_id}; "
                    f"it belongs to {describe_lock(holder, self._clock())}.",
                    f"If that run is dead: provisioner unlock {holder.id}",
                )
            self._connection.execute("DELETE FROM lock")
        return holder

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        began = time.monotonic()
        try:
            with translate_errors(self._place, IDENTITY), transaction(self._connection):
                row = self._connection.execute("SELECT id FROM lock").fetchone()
                if row is None or row[0] != self._lock:
                    raise _lost()
                yield self._connection
                if time.monotonic() - began > self._lease / 3:
                    # the heart waited for this very transaction, and so did whoever will look at the lease
                    self._connection.execute(
                        "UPDATE lock SET expires = ?",
                        (self._expiry(server_time(self._place, self._connection)),),
                    )
        except LedgerError as problem:
            # a server cuts off whoever stands still within a transaction; by now another run may go on
            if self._is_succeeded():
                raise _lost() from problem
            raise

    def _is_succeeded(self) -> bool:
        """The lock is known to be ours no more."""
        if isinstance(self._place, Path):
            return False
        try:
            holder = read_lock(self._place)
        except ProvisionerError:
            return False
        return holder is None or holder.id != self._lock

    def _acquire(
        self, command: str, timeout: float, waiting: Callable[[str], None] = lambda sentence: None
    ) -> None:
        deadline = time.monotonic() + timeout
        told = False
        holder = self._try_acquire(command)
        while holder is not None:
            # a moment tells whether one that was missed lives, and nobody is told to wait for the dead
            if holder.id != self._missed[0]:
                if time.monotonic() >= deadline:
                    raise Locked(
                        f"The ledger is locked by {describe_lock(holder, self._clock())}.",
                        "Wait for it (--lock-timeout 60), or if that run is stuck: "
                        f"provisioner unlock {holder.id}",
                    )
                if not told:
                    told = True
                    waiting(f"Waiting for the ledger: locked by {describe_lock(holder, self._clock())}.")
            time.sleep(POLL_SECONDS)
            holder = self._try_again(command, holder, deadline)

    def _try_again(self, command: str, holder: LockInfo, deadline: float) -> LockInfo | None:
        """As :meth:`_try_acquire`, for one who waits: a server that goes away may come back as well."""
        try:
            return self._try_acquire(command)
        except LedgerError as problem:
            if not is_unreachable(problem) or time.monotonic() >= deadline:
                raise
            return holder

    def _try_acquire(self, command: str) -> LockInfo | None:
        """None once the lock is ours, else who holds it. A holder that is known to be gone is succeeded."""
        try:
            return self._acquired(command)
        except LedgerError as problem:
            # whoever writes for so long that nobody else gets his turn is still at work
            holder = read_lock(self._place) if is_busy(problem) else None
            if holder is None:
                raise
            return holder

    def _acquired(self, command: str) -> LockInfo | None:
        with translate_errors(self._place, IDENTITY), transaction(self._connection):
            connection = self._connection
            now = server_time(self._place, connection)
            holder = _holder(connection)
            if holder is not None and not self._is_over(holder, now):
                return holder
            with reject_corrupt_rows():
                fence = int(_fact(connection, "fence") or "0") + 1
            lock, pid = os.urandom(6).hex(), os.getpid()
            served = self._who_serves(self._vein or connection)
            connection.execute(
                "INSERT INTO fact VALUES ('fence', ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (str(fence),),
            )
            connection.execute("DELETE FROM lock")
            connection.execute(
                "INSERT INTO lock (one, id, owner, host, pid, born, command, since, fence, expires, "
                "served_by, served_since) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    lock, _owner(), _host(), pid, _born(pid), _legible(command), self._now(), fence,
                    self._expiry(now), *served,
                ),
            )  # fmt: skip
        self._lock, self.fence = lock, fence
        return None

    def _is_over(self, holder: LockInfo, now: float) -> bool:
        """It died, where that can be known; or it has stood still for longer than its lease."""
        if holder.expires and now * 1000 >= holder.expires:
            return True
        if isinstance(self._place, Path):
            return not _alive(holder)
        from provisioner.storage.postgres import is_served

        if is_served(self._connection, holder.served_by, holder.served_since):
            self._missed = ("", 0)
            return False
        # it may have been cut off, and be on its way back
        if self._missed[0] != holder.id:
            self._missed = (holder.id, time.monotonic())
        return time.monotonic() - self._missed[1] >= SECOND_LOOK_SECONDS

    @contextmanager
    def _standing(self) -> Iterator[None]:
        """On a server, a connection that the heart alone uses, and by which we are known to live.

        The one that works may stand idle for as long as a portal or a mail server takes, and be cut off.
        """
        if isinstance(self._place, Path):
            yield
            return
        with closing(reopen(self._place, IDENTITY)) as self._vein:
            try:
                yield
            finally:
                self._vein = None

    def _who_serves(self, connection: Connection) -> tuple[int, str]:
        """The server's process at the other end; (0, "") for a file."""
        if isinstance(self._place, Path):
            return (0, "")
        from provisioner.storage.postgres import backend_of

        return backend_of(connection)

    def _beat(self, lock: str, ended: threading.Event) -> None:
        """Renew the lease as long as the lock is ours, in a thread, over a connection of its own."""
        while not self._rest(ended):
            # the next beat tries again; should none get through, the next write finds out
            with (
                suppress(ProvisionerError),
                translate_errors(self._place, IDENTITY),
                self._heart() as connection,
            ):
                with transaction(connection):
                    expires = self._expiry(server_time(self._place, connection))
                    renewed = connection.execute(
                        "UPDATE lock SET expires = ?, served_by = ?, served_since = ? WHERE id = ?",
                        (expires, *self._who_serves(connection), lock),
                    ).rowcount
                if not renewed:
                    return

    def _rest(self, ended: threading.Event) -> bool:
        """Until the next beat is due, or the server has hung up on us; true once the run has ended."""
        due = time.monotonic() + self._lease / 3
        while (left := due - time.monotonic()) > 0:
            if ended.wait(left if self._vein is None else min(left, GLANCE_SECONDS)):
                return True
            if self._vein is not None and self._is_cut_off(self._vein):
                return False
        return ended.is_set()

    def _is_cut_off(self, connection: Connection) -> bool:
        from provisioner.storage.postgres import is_cut_off

        return is_cut_off(connection)

    @contextmanager
    def _heart(self) -> Iterator[Connection]:
        if self._vein is not None:
            yield self._vein
        else:
            with closing(reopen(self._place, IDENTITY)) as connection:
                yield connection

    def _expiry(self, now: float) -> int:
        return int((now + self._lease) * 1000)

    def _release(self) -> None:
        try:
            with translate_errors(self._place, IDENTITY), transaction(self._connection):
                self._connection.execute("DELETE FROM lock WHERE id = ?", (self._lock,))
        except LedgerError:
            # given back all the same, or another's by now
            if not self._is_succeeded():
                raise
        self._lock = ""

    def _now(self) -> str:
        return self._clock().isoformat(timespec="seconds")


def _lost() -> LockLost:
    return LockLost(
        "The lock of this ledger was taken away from this run, by provisioner unlock or by another run, "
        "so it stopped.",
        "Run the same command again: what is done is kept, what is not is taken up.",
    )


def describe_lock(holder: LockInfo, now: datetime) -> str:
    """Owner and age, in words."""
    minutes = int((now - datetime.fromisoformat(holder.since)).total_seconds() // 60)
    age = "less than a minute" if minutes < 1 else f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{holder.owner} on {holder.host} (process {holder.pid}, {holder.command}), for {age}"


def _found(connection: Connection) -> None:
    """What a ledger has from its first moment: a name for life."""
    connection.execute("INSERT INTO fact VALUES ('id', ?)", (os.urandom(16).hex(),))


def _fact(connection: Connection, name: str) -> str:
    row = connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else ""


def _books(connection: Connection) -> LedgerSnapshot:
    return LedgerSnapshot(
        portal=_fact(connection, "portal"),
        ledger=_fact(connection, "id"),
        managed=_managed_where(connection, "1 = 1", ()),
        open_letters=tuple(_letters(connection, "state <> 'sent'")),
        unsettled=tuple(_entries(connection, "settled IS NULL", ())),
    )


def _managed_where(connection: Connection, where: str, values: Sequence[str]) -> dict[str, Managed]:
    rows = connection.execute(f'SELECT id, "user", email, phone, created FROM managed WHERE {where}', values)
    return {user: Managed(id_, email, phone, bool(created)) for id_, user, email, phone, created in rows}


def _entries(connection: Connection, where: str, values: Sequence[object]) -> list[JournalEntry]:
    rows = connection.execute(
        f"SELECT run, key, address, action, verdict, problem FROM journal WHERE {where} ORDER BY seq",
        values,
    ).fetchall()
    with reject_corrupt_rows():
        if any(None in row for row in rows):
            raise ValueError("nobody writes an entry like this")
        return [JournalEntry(*row) for row in rows]


def _letters(connection: Connection, where: str, values: Sequence[object] = ()) -> list[OutboxEntry]:
    rows = connection.execute(
        "SELECT context, dated, key, recipient, language, template, "
        f'"user", user_id, state, attempts, resent, detail, changed, claims FROM outbox '
        f"WHERE {where} ORDER BY seq",
        values,
    ).fetchall()
    if not rows:
        return []
    from provisioner.mail.message import Letter

    # decoded together: one call for each costs more than the letters
    with reject_corrupt_rows():
        contexts = json.loads(f"[{','.join([row[0] for row in rows])}]")
        days = {text: datetime.fromisoformat(text) for text in {row[1] for row in rows}}
        if len(contexts) != len(rows) or not all(isinstance(context, dict) for context in contexts):
            raise ValueError("nobody writes letters like these")
    return [
        OutboxEntry(
            Letter(key, recipient, language, context, days[dated], template),
            user, user_id, state, attempts, bool(resent), detail, changed, _runs(claims),
        )
        for context, (
            _, dated, key, recipient, language, template,
            user, user_id, state, attempts, resent, detail, changed, claims,
        ) in zip(contexts, rows, strict=True)
    ]  # fmt: skip


def _runs(claims: str) -> tuple[str, ...]:
    return tuple(claims.split()[-MOST_RUNS:])


def _mark(connection: Connection, marks: Iterable[tuple[str, str, str]], now: str) -> None:
    connection.executemany(
        "UPDATE outbox SET state = ?, detail = ?, changed = ? WHERE key = ?",
        [(state, _legible(detail), now, key) for key, state, detail in marks],
    )


def _holder(connection: Connection) -> LockInfo | None:
    row = connection.execute(
        "SELECT id, owner, host, pid, born, command, since, fence, expires, served_by, served_since FROM lock"
    ).fetchone()
    if row is None:
        return None
    with reject_corrupt_rows():
        holder = LockInfo(*row)
        if datetime.fromisoformat(holder.since).tzinfo is None or holder.pid <= 0:
            raise ValueError("nobody writes a lock like this")
    return holder


def _take_effects(
    connection: Connection, effects: Iterable[tuple[LedgerEffect, Settlement]], portal: str, now: str
) -> None:
    done = [
        (effect, settlement)
        for effect, settlement in effects
        if effect.user and settlement.verdict in ("applied", "already")
    ]
    before = {
        known.id: known
        for some in chunks([_legible(settlement.user_id) for _, settlement in done])
        for known in _managed_where(connection, f"id IN ({placeholders(some)})", some).values()
    }
    records: list[tuple[str, Managed]] = []
    owed: list[tuple[str, str, Letter]] = []
    for effect, settlement in done:
        id_ = _legible(settlement.user_id)
        through_us = settlement.verdict == "applied"
        was = before.get(id_) or Managed(id_, None, None, through_us and effect.created)
        record = before[id_] = Managed(
            id_,
            was.email if effect.email is None else effect.email,
            was.phone if effect.phone is None else effect.phone,
            was.created,
        )
        records.append((effect.user, record))
        # a user whom somebody else created or validated is owed none
        if effect.letter is not None and through_us:
            owed.append((effect.user, id_, _letter_from(effect.letter, letter_key(portal, id_), now)))
    _remember(connection, records)
    _owe(connection, owed, now)


def _letter_from(words: Mapping[str, object], key: str, now: str) -> Letter:
    from provisioner.mail.message import Letter

    with reject_corrupt_rows():
        context = words["context"]
        if not isinstance(context, dict):
            raise TypeError("nobody writes a letter like this")
        return Letter(
            key, str(words["recipient"]), str(words["language"]), context, datetime.fromisoformat(now)
        )


def _owe(connection: Connection, letters: Iterable[tuple[str, str, Letter]], now: str) -> None:
    """Letters into the outbox, each once: with the user's name, and his id on the portal."""
    connection.executemany(
        "INSERT INTO outbox "
        '(key, "user", user_id, recipient, language, template, context, dated, state, changed) '
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'owed', ?) ON CONFLICT (key) DO NOTHING",
        [
            (
                letter.key, user, user_id, letter.recipient, letter.language, letter.template,
                _context_text(dict(letter.context)), letter.dated.isoformat(), now,
            )
            for user, user_id, letter in letters
        ],
    )  # fmt: skip


def _remember(connection: Connection, records: Sequence[tuple[str, Managed]]) -> None:
    # the name may pass from one account to another: the new holder takes it
    holders: dict[str, Managed] = {}
    for user, record in records:
        holders.pop(user, None)
        holders[user] = record
    latest = {record.id: (user, record) for user, record in holders.items()}
    created: set[str] = set()
    for ids in chunks(list(latest)):
        rows = connection.execute(
            f"SELECT id FROM managed WHERE created = 1 AND id IN ({placeholders(ids)})", ids
        )
        created.update(id_ for (id_,) in rows)
    # all leave before the first one enters, so that two may swap their names; and a few statements do for
    # thousands, while others wait for this transaction
    for column, values in (("id", list(latest)), ('"user"', list(holders))):
        for some in chunks(values):
            connection.execute(f"DELETE FROM managed WHERE {column} IN ({placeholders(some)})", some)
    connection.executemany(
        'INSERT INTO managed (id, "user", email, phone, created) VALUES (?, ?, ?, ?, ?)',
        [
            (id_, user, record.email, record.phone, int(record.created or id_ in created))
            for id_, (user, record) in latest.items()
        ],
    )


_context_text = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
_effect_json = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


def _effect_text(effect: LedgerEffect) -> str:
    words = {
        "user": effect.user,
        "email": effect.email,
        "phone": effect.phone,
        "created": effect.created,
        "letter": effect.letter,
    }
    return _effect_json(words)


def _legible(words: str) -> str:
    """What others say, and names that the system gives, as every database takes them.

    A byte that is no UTF-8, half a character and a NUL are written out.
    """
    return words.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")


def _host() -> str:
    import socket

    return _legible(socket.gethostname())


def _owner() -> str:
    import getpass

    try:
        return _legible(getpass.getuser())
    except (KeyError, OSError):  # a user without a name, as in some containers
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def _born(pid: int) -> str:
    """When a process of this machine began, so that a reused number is not taken for its predecessor.

    And among which processes its number counts: those of a container may bear their machine's name.
    """
    return " ".join(filter(None, (_seen(pid)[1], _numbering())))


def _numbering() -> str:
    """The kernel's name for the processes that this one may see; empty where there is none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _seen(pid: int) -> tuple[str, str]:
    """In which state a process of this machine is, and when it began; empty where that cannot be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    words = stat.rpartition(")")[2].split()
    return words[0], words[19]


def _alive(holder: LockInfo) -> bool:
    """False only where we can know: the holder ran on this machine, among processes we see, and is gone."""
    born, _, numbering = holder.born.partition(" ")
    if holder.host != _host() or numbering not in ("", _numbering()):
        return True
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    state, began = _seen(holder.pid)
    # a process that was killed keeps its number until whoever started it asks how it ended
    return state not in ENDED and (not born or began in ("", born))
