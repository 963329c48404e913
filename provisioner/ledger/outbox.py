"""The outbox: all letters to send, each with its state. After each state: the states to which it can change.

owed        to connecting
connecting  to owed, body, sent, failed or unknown
body        to owed, sent, failed or unknown
sent        to no other state
failed      to owed
unknown     to owed or sent
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
"""The maximum number of claimants (runs) stored for one letter. Only the latest claimants are kept."""


class OutboxState(StrEnum):
    """The state of a letter. The values are stored in the ledger."""

    OWED = "owed"
    """The letter is still to be sent."""
    CONNECTING = "connecting"
    """A run has begun the delivery, but has sent no body, so a later run can safely send the letter."""
    BODY = "body"
    """The body is being sent. If the run ends now, it is unknown whether the server has accepted it."""
    SENT = "sent"
    """The mail server has accepted the letter."""
    FAILED = "failed"
    """The letter was permanently refused."""
    UNKNOWN = "unknown"
    """It is unknown whether the mail server accepted the letter. A person decides whether to resend it."""


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
    """A defect of the program: a letter got a state that :data:`TRANSITIONS` does not allow."""


Mark = tuple[str, OutboxState, str]
"""A change of a letter's state: the key of the letter, the new state, and the reason."""

# the state is a literal, because SQLite uses a partial index only for exactly the index's own condition
NOT_SENT = f"state <> '{OutboxState.SENT}'"
_SENT_AND_CLAIMED = f"state = '{OutboxState.SENT}' AND claims <> ''"


class OutboxEntry(NamedTuple):
    """A letter in the outbox, with its user and its state."""

    letter: Letter
    user: str
    user_id: str
    state: OutboxState
    attempts: int
    resent: bool
    """True if the letter was set from ``unknown`` to ``owed``, to be sent a second time."""
    detail: str
    changed: str
    claims: tuple[str, ...] = ()
    """The ids of the runs that may hold the letter's claim on the portal. First the last known holder, if
    any, then the runs that tried to claim the letter later and did not record the result."""


class Outbox:
    """The table of letters. Only the run that holds the lock writes to it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def claimant(self) -> str:
        """The id with which this run claims letters on the portal.

        The id is random, because runs with different copies of a ledger must have different ids.
        """
        return self._store.lock_id

    def enqueue(self, user: str, user_id: str, letter: Letter) -> None:
        """Add a letter with the state ``owed``. Do nothing if the outbox has a letter with the same key."""
        with self._store.writing() as connection:
            insert_letters(connection, [(user, user_id, letter)], self._store.timestamp())

    def letters(self, *states: OutboxState) -> list[OutboxEntry]:
        """Return the letters in these states, oldest first; without arguments, return all letters."""
        with self._store.reading() as connection:
            where = f"state IN ({placeholders(states)})" if states else "1 = 1"
            return letters_where(connection, where, states)

    def mark(self, keys: Iterable[str], state: OutboxState, detail: str = "") -> None:
        """Set the state and the detail of all letters with these keys, as :meth:`record` does."""
        self.record([(key, state, detail) for key in keys])

    def record(self, marks: Iterable[Mark]) -> None:
        """Apply changes of state in one transaction. Raises :class:`IllegalTransition` if one is illegal."""
        with self._store.writing() as connection:
            self._mark(connection, marks)

    def begin_delivery(self, keys: Sequence[str]) -> None:
        """Set letters to ``connecting``, and store that this run is about to claim them on the portal."""
        with self._store.writing() as connection:
            self._mark(connection, [(key, OutboxState.CONNECTING, "") for key in keys])
            connection.executemany(
                "UPDATE outbox SET attempts = attempts + 1, claims = claims || ' ' || ? WHERE key = ?",
                [(self.claimant, key) for key in keys],
            )

    def record_claims(self, holders: Mapping[str, str], marks: Iterable[Mark]) -> None:
        """Store ``holders``: for each letter key, the run that holds the claim. Also apply ``marks``."""
        # one transaction, because a letter claimed by a copy of this ledger must never be ``owed``
        with self._store.writing() as connection:
            connection.executemany(
                "UPDATE outbox SET claims = ? WHERE key = ?", [(run, key) for key, run in holders.items()]
            )
            self._mark(connection, marks)

    def sent_claims(self) -> dict[str, tuple[str, ...]]:
        """Return :attr:`OutboxEntry.claims` of all sent letters that have claims, by letter key."""
        with self._store.reading() as connection:
            rows = connection.execute(f"SELECT key, claims FROM outbox WHERE {_SENT_AND_CLAIMED}")
            return {key: _claims(text) for key, text in rows}

    def end_claims(self, keys: Iterable[str]) -> None:
        """Delete the stored claims of letters that the portal has recorded as sent."""
        with self._store.writing() as connection:
            connection.executemany("UPDATE outbox SET claims = '' WHERE key = ?", [(key,) for key in keys])

    def readdress(self, letters: Iterable[Letter]) -> None:
        """Replace the stored recipient and context by those of ``letters``, which have not been sent yet."""
        with self._store.writing() as connection:
            connection.executemany(
                "UPDATE outbox SET recipient = ?, context = ? WHERE key = ?",
                [(letter.recipient, canonical(dict(letter.context)), letter.key) for letter in letters],
            )

    def resend(self, key: str) -> None:
        """Set the letter to ``owed`` if it is ``unknown``. Its bytes and its Message-ID stay the same."""
        with self._store.writing() as connection:
            connection.execute(
                "UPDATE outbox SET state = ?, resent = 1, changed = ? WHERE key = ? AND state = ?",
                (OutboxState.OWED, self._store.timestamp(), key, OutboxState.UNKNOWN),
            )

    def release_claims(self) -> None:
        """Set all letters that are ``connecting`` back to ``owed``."""
        with self._store.writing() as connection:
            connection.execute(
                "UPDATE outbox SET state = ?, changed = ? WHERE state = ?",
                (OutboxState.OWED, self._store.timestamp(), OutboxState.CONNECTING),
            )

    def reset_interrupted(self) -> list[OutboxEntry]:
        """Set letters of an interrupted run from ``connecting`` to ``owed``, or from ``body`` to ``unknown``.

        Return the entries of the letters that are now ``unknown``. The entries still have the state ``body``.
        """
        # this run holds the lock, so no other run is sending letters
        self.release_claims()
        with self._store.writing() as connection:
            interrupted = letters_where(connection, "state = ?", (OutboxState.BODY,))
            detail = "the program was stopped while the mail server was taking it"
            self._mark(connection, [(entry.letter.key, OutboxState.UNKNOWN, detail) for entry in interrupted])
        return interrupted

    def _mark(self, connection: Connection, marks: Iterable[Mark]) -> None:
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


def read_letters(database: Database, *states: OutboxState) -> list[OutboxEntry]:
    """Return the letters in these states, oldest first; without states, return all letters."""
    where = f"state IN ({placeholders(states)})" if states else "1 = 1"
    return database.read(LEDGER_SCHEMA, lambda connection: letters_where(connection, where, states)) or []


def letter_key(portal: str, user_id: str, generation: int = 1) -> str:
    """Return the key of a welcome letter. ``generation`` is its number among the account's letters."""
    from hashlib import sha256

    return sha256(f"welcome\n{portal}\n{user_id}\n{generation}".encode()).hexdigest()


def letters_where(connection: Connection, where: str, values: Sequence[object] = ()) -> list[OutboxEntry]:
    """Return the letters that match the SQL condition ``where``, oldest first."""
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
    """Add letters to the outbox with the state ``owed``. ``now`` is the time of this change.

    Each item of ``letters`` has the key of the user, the portal id of the account, and the letter. If the
    outbox already has a letter with the same key, that letter stays unchanged.
    """
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
