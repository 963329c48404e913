"""The outbox: every letter owed, and how far it got.

owed ─▶ connecting ─▶ body ─▶ sent
  ▲         │           ├──▶ failed
  └─────────┴───────────┤
                        └──▶ unknown
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from provisioner.ledger.store import LEDGER_SCHEMA, Store, storable
from provisioner.planning.codec import canonical, parse_json, reader
from provisioner.storage.database import Connection, Database, chunks, placeholders, reject_corrupt_rows

if TYPE_CHECKING:
    from provisioner.mail.message import Letter

MAX_CLAIMS = 16
"""How many claimants are kept for a letter: the latest ones."""


class OutboxState(StrEnum):
    """How far a letter got. The values are stored in the ledger."""

    OWED = "owed"
    """Not sent yet."""
    CONNECTING = "connecting"
    """A run has it in hand; nothing of it has left, so a later run may send it."""
    BODY = "body"
    """Its body is being sent; if the run ends here, whether it was accepted is not known."""
    SENT = "sent"
    """The mail server accepted it."""
    FAILED = "failed"
    """Refused for good."""
    UNKNOWN = "unknown"
    """It may or may not have been accepted; a person decides."""


TRANSITIONS: Mapping[OutboxState, frozenset[OutboxState]] = {
    OutboxState.OWED: frozenset({OutboxState.CONNECTING}),
    OutboxState.CONNECTING: frozenset(
        {OutboxState.OWED, OutboxState.BODY, OutboxState.SENT, OutboxState.FAILED, OutboxState.UNKNOWN}
    ),
    OutboxState.BODY: frozenset(
        {OutboxState.OWED, OutboxState.SENT, OutboxState.FAILED, OutboxState.UNKNOWN}
    ),
    OutboxState.SENT: frozenset(),
    OutboxState.FAILED: frozenset({OutboxState.OWED}),
    OutboxState.UNKNOWN: frozenset({OutboxState.OWED, OutboxState.SENT}),
}


class IllegalTransition(Exception):
    """A defect of the program: it moved a letter to a state that its present one does not lead to."""


Mark = tuple[str, OutboxState, str]
"""A letter's key, the state it moves to, and why."""

# a literal, because SQLite uses the partial index only for the condition it was made with
NOT_SENT = f"state <> '{OutboxState.SENT}'"
_SENT_AND_CLAIMED = f"state = '{OutboxState.SENT}' AND claims <> ''"


class OutboxEntry(NamedTuple):
    """One letter of the outbox."""

    letter: Letter
    user: str
    user_id: str
    state: OutboxState
    attempts: int
    resent: bool
    detail: str
    changed: str
    claims: tuple[str, ...] = ()
    """The runs that may hold its claim on the portal: the one named last, and those that asked since."""


class Outbox:
    """The letters owed, written by the run that holds the lock."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def claimant(self) -> str:
        """The id under which this run claims letters on the portal; random, so copies of a ledger differ."""
        return self._store.lock_id

    def enqueue(self, user: str, user_id: str, letter: Letter) -> None:
        """Add a letter, owed; does nothing if its key is there already."""
        with self._store.writing() as connection:
            insert_letters(connection, [(user, user_id, letter)], self._store.timestamp())

    def letters(self, *states: OutboxState) -> list[OutboxEntry]:
        """The letters in these states (all when none is given), oldest first."""
        with self._store.reading() as connection:
            where = f"state IN ({placeholders(states)})" if states else "1 = 1"
            return letters_where(connection, where, states)

    def mark(self, keys: Iterable[str], state: OutboxState, detail: str = "") -> None:
        """Move letters to a state, in one commit."""
        self.record([(key, state, detail) for key in keys])

    def record(self, marks: Iterable[Mark]) -> None:
        """Move letters, each to its state with a detail, in one commit."""
        with self._store.writing() as connection:
            self._mark(connection, marks)

    def begin_delivery(self, keys: Sequence[str]) -> None:
        """Move letters to connecting; committed before the portal is asked for their claims."""
        with self._store.writing() as connection:
            self._mark(connection, [(key, OutboxState.CONNECTING, "") for key in keys])
            connection.executemany(
                "UPDATE outbox SET attempts = attempts + 1, claims = claims || ' ' || ? WHERE key = ?",
                [(self.claimant, key) for key in keys],
            )

    def record_claims(self, holders: Mapping[str, str], marks: Iterable[Mark]) -> None:
        """Store which run holds each letter's claim, and move those that this run does not hold."""
        # one transaction: a letter whose claim a copy of the ledger holds never counts as owed
        with self._store.writing() as connection:
            connection.executemany(
                "UPDATE outbox SET claims = ? WHERE key = ?", [(run, key) for key, run in holders.items()]
            )
            self._mark(connection, marks)

    def sent_claims(self) -> dict[str, tuple[str, ...]]:
        """Sent letters whose claims the portal still holds, with their :attr:`OutboxEntry.claims`."""
        with self._store.reading() as connection:
            rows = connection.execute(f"SELECT key, claims FROM outbox WHERE {_SENT_AND_CLAIMED}")
            return {key: _claims(text) for key, text in rows}

    def end_claims(self, keys: Iterable[str]) -> None:
        """Forget the claims of letters that the portal knows to be sent."""
        with self._store.writing() as connection:
            connection.executemany("UPDATE outbox SET claims = '' WHERE key = ?", [(key,) for key in keys])

    def readdress(self, letters: Iterable[Letter]) -> None:
        """Replace recipient and context of letters that have not been sent."""
        with self._store.writing() as connection:
            connection.executemany(
                "UPDATE outbox SET recipient = ?, context = ? WHERE key = ?",
                [(letter.recipient, canonical(dict(letter.context)), letter.key) for letter in letters],
            )

    def resend(self, key: str) -> None:
        """Move an unknown letter back to owed, once: the same bytes with the same Message-ID."""
        with self._store.writing() as connection:
            connection.execute(
                "UPDATE outbox SET state = ?, resent = 1, changed = ? WHERE key = ? AND state = ?",
                (OutboxState.OWED, self._store.timestamp(), key, OutboxState.UNKNOWN),
            )

    def release_claims(self) -> None:
        """Move letters from connecting back to owed."""
        with self._store.writing() as connection:
            connection.execute(
                "UPDATE outbox SET state = ?, changed = ? WHERE state = ?",
                (OutboxState.OWED, self._store.timestamp(), OutboxState.CONNECTING),
            )

    def reset_interrupted(self) -> list[OutboxEntry]:
        """Settle the letters that an interrupted run was sending: connecting ▸ owed, body ▸ unknown.

        Returns those that are unknown now, as they were before.
        """
        # this run holds the lock, so no other one is sending
        self.release_claims()
        with self._store.writing() as connection:
            interrupted = letters_where(connection, "state = ?", (OutboxState.BODY,))
            detail = "the program was stopped while the mail server was taking it"
            self._mark(connection, [(entry.letter.key, OutboxState.UNKNOWN, detail) for entry in interrupted])
        return interrupted

    def _mark(self, connection: Connection, marks: Iterable[Mark]) -> None:
        """Move letters, each to its state. Raises :class:`IllegalTransition`, which is a defect."""
        marks = list(marks)
        states = _states(connection, [key for key, _, _ in marks])
        for key, state, _ in marks:
            before = states.get(key)
            if before is None or state not in TRANSITIONS[before]:
                raise IllegalTransition(f"letter {key}: {before or 'not in the outbox'} ▸ {state}")
            states[key] = state
        now = self._store.timestamp()
        connection.executemany(
            "UPDATE outbox SET state = ?, detail = ?, changed = ? WHERE key = ?",
            [(state, storable(detail), now, key) for key, state, detail in marks],
        )


def read_letters(database: Database) -> list[OutboxEntry]:
    """The whole outbox, oldest first."""
    return database.read(LEDGER_SCHEMA, lambda connection: letters_where(connection, "1 = 1")) or []


def letter_key(portal: str, user_id: str, generation: int = 1) -> str:
    """The key of a user's welcome; a further welcome to the same user has a higher generation."""
    from hashlib import sha256

    return sha256(f"welcome\n{portal}\n{user_id}\n{generation}".encode()).hexdigest()


def letters_where(connection: Connection, where: str, values: Sequence[object] = ()) -> list[OutboxEntry]:
    """The letters that meet an SQL condition, oldest first."""
    rows = connection.execute(
        "SELECT key, recipient, language, context, dated, template, "
        f'"user", user_id, state, attempts, resent, detail, changed, claims FROM outbox '
        f"WHERE {where} ORDER BY seq",
        values,
    )
    with reject_corrupt_rows():
        return [_entry(*row) for row in rows.fetchall()]


def _entry(
    key: str, recipient: str, language: str, context: str, dated: str, template: str,
    user: str, user_id: str, state: str, attempts: int, resent: int, detail: str, changed: str, claims: str,
) -> OutboxEntry:  # fmt: skip
    from provisioner.mail.message import Letter

    words = reader(Mapping[str, str])(parse_json(context))
    letter = Letter(key, recipient, language, words, datetime.fromisoformat(dated), template)
    return OutboxEntry(
        letter, user, user_id, OutboxState(state), attempts, bool(resent), detail, changed, _claims(claims)
    )


def insert_letters(connection: Connection, letters: Iterable[tuple[str, str, Letter]], now: str) -> None:
    """Add owed letters, each with its user and portal id; leaves letters whose key exists as they are."""
    connection.executemany(
        "INSERT INTO outbox "
        '(key, "user", user_id, recipient, language, template, context, dated, state, changed) '
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
        [
            (
                letter.key, user, user_id, letter.recipient, letter.language, letter.template,
                canonical(dict(letter.context)), letter.dated.isoformat(), OutboxState.OWED, now,
            )
            for user, user_id, letter in letters
        ],
    )  # fmt: skip


def _states(connection: Connection, keys: Sequence[str]) -> dict[str, OutboxState]:
    states = {}
    for some in chunks(keys):
        rows = connection.execute(f"SELECT key, state FROM outbox WHERE key IN ({placeholders(some)})", some)
        with reject_corrupt_rows():
            states.update({key: OutboxState(state) for key, state in rows})
    return states


def _claims(text: str) -> tuple[str, ...]:
    return tuple(text.split()[-MAX_CLAIMS:])
