"""The journal: every run, every step a run intended, and how it ended (intend ▸ write ▸ settle)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from provisioner.ledger.accounts import accounts_by_id, store_accounts
from provisioner.ledger.outbox import insert_letters, letter_key
from provisioner.ledger.process import process_owner
from provisioner.ledger.store import LEDGER_SCHEMA, Store, storable
from provisioner.model import Managed
from provisioner.storage.database import Connection, Database, reject_corrupt_rows

if TYPE_CHECKING:
    from provisioner.mail.message import Letter


@dataclass(frozen=True, slots=True)
class LedgerEffect:
    """What the ledger stores of a step once the portal has done it.

    ``created`` and ``letter`` apply only if this portal call did the step, not if it was done already;
    ``email`` and ``phone`` are None where the step does not set them.
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
    """How an intended step ended; ``user_id`` is the portal's id of the user it changed."""

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


class Journal:
    """The runs and their steps, written by the run that holds the lock."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._run = 0
        self._intended: dict[str, LedgerEffect] = {}

    def begin(self, command: str, digest: str) -> int:
        """Open a run; returns its number."""
        with self._store.writing() as connection:
            ((self._run,),) = connection.execute(
                "INSERT INTO run (owner, command, digest, began) VALUES (?, ?, ?, ?) RETURNING id",
                (process_owner(), storable(command), digest, self._store.timestamp()),
            ).fetchall()
        return self._run

    def end(self, outcome: str) -> None:
        """Close the run with its outcome in words."""
        with self._store.writing() as connection:
            connection.execute(
                "UPDATE run SET ended = ?, outcome = ? WHERE id = ?",
                (self._store.timestamp(), outcome, self._run),
            )

    def intend(self, intents: Sequence[Intent]) -> None:
        """Store what is about to be done; committed before the portal is called."""
        now = self._store.timestamp()
        with self._store.writing() as connection:
            connection.executemany(
                "INSERT INTO journal (run, key, address, action, effect, intended) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (self._run, intent.key, intent.address, intent.action, _effect_text(intent.effect), now)
                    for intent in intents
                ],
            )
        self._intended.update({intent.key: intent.effect for intent in intents})

    def settle(self, settlements: Sequence[Settlement], portal: str) -> None:
        """Store how intended steps ended, with the accounts they changed and the letters they earned."""
        # one transaction: a step is never settled without the letter it owes
        now = self._store.timestamp()
        with self._store.writing() as connection:
            open_entries: dict[str, int] = dict(
                connection.execute("SELECT key, seq FROM journal WHERE settled IS NULL")
            )
            known = [settlement for settlement in settlements if settlement.key in open_entries]
            connection.executemany(
                "UPDATE journal SET settled = ?, verdict = ?, problem = ? WHERE seq = ?",
                [
                    (now, str(settlement.verdict), storable(settlement.problem), open_entries[settlement.key])
                    for settlement in known
                ],
            )
            effects = [(self._effect(connection, s.key, open_entries[s.key]), s) for s in known]
            _store_effects(connection, effects, portal, now)

    def creations(self) -> dict[str, int]:
        """How often each user was created by provisioner, by address."""
        with self._store.reading() as connection, reject_corrupt_rows():
            return dict(
                connection.execute(
                    "SELECT address, count(*) FROM journal "
                    "WHERE action = 'CreateUser' AND verdict = 'applied' GROUP BY address"
                )
            )

    def _effect(self, connection: Connection, key: str, seq: int) -> LedgerEffect:
        """The effect that was intended, by this run or by an interrupted one."""
        intended = self._intended.pop(key, None)
        if intended is None:
            (text,) = connection.execute("SELECT effect FROM journal WHERE seq = ?", (seq,)).fetchone()
            with reject_corrupt_rows():
                intended = LedgerEffect(**json.loads(text))
        return intended


def read_runs(location: Database, most: int) -> list[Run]:
    """The latest runs, newest first."""

    def runs(connection: Connection) -> list[Run]:
        rows = connection.execute(
            "SELECT id, owner, command, digest, began, ended, outcome FROM run ORDER BY id DESC LIMIT ?",
            (most,),
        )
        return [Run(*row) for row in rows]

    return location.read(LEDGER_SCHEMA, runs) or []


def has_run(location: Database, run: int) -> bool:
    """True if there was a run with this number."""

    def found(connection: Connection) -> bool:
        return connection.execute("SELECT 1 FROM run WHERE id = ?", (run,)).fetchone() is not None

    return location.read(LEDGER_SCHEMA, found) or False


def read_entries(location: Database, run: int) -> list[JournalEntry]:
    """The steps of one run, in the order in which they were intended."""
    return location.read(LEDGER_SCHEMA, lambda connection: entries_where(connection, "run = ?", (run,))) or []


def entries_where(connection: Connection, where: str, values: Sequence[object] = ()) -> list[JournalEntry]:
    """The steps that meet an SQL condition, in the order in which they were intended."""
    rows = connection.execute(
        f"SELECT run, key, address, action, verdict, problem FROM journal WHERE {where} ORDER BY seq",
        values,
    ).fetchall()
    with reject_corrupt_rows():
        if any(None in row for row in rows):
            raise ValueError("a column of a journal entry is empty")
        return [JournalEntry(*row) for row in rows]


def _store_effects(
    connection: Connection, effects: Iterable[tuple[LedgerEffect, Settlement]], portal: str, now: str
) -> None:
    done = [
        (effect, settlement)
        for effect, settlement in effects
        if effect.user and settlement.verdict in ("applied", "already")
    ]
    known = accounts_by_id(connection, [storable(settlement.user_id) for _, settlement in done])
    records: list[tuple[str, Managed]] = []
    owed: list[tuple[str, str, Letter]] = []
    for effect, settlement in done:
        id_ = storable(settlement.user_id)
        applied = settlement.verdict == "applied"
        before = known.get(id_) or Managed(id_, None, None, applied and effect.created)
        record = known[id_] = Managed(
            id_,
            before.email if effect.email is None else effect.email,
            before.phone if effect.phone is None else effect.phone,
            before.created,
        )
        records.append((effect.user, record))
        # an account that someone else created or validated is owed no letter
        if effect.letter is not None and applied:
            owed.append((effect.user, id_, _letter_from(effect.letter, letter_key(portal, id_), now)))
    store_accounts(connection, records)
    insert_letters(connection, owed, now)


def _letter_from(words: Mapping[str, object], key: str, now: str) -> Letter:
    from provisioner.mail.message import Letter

    with reject_corrupt_rows():
        context = words["context"]
        if not isinstance(context, dict):
            raise TypeError("a letter's context is not an object")
        return Letter(
            key, str(words["recipient"]), str(words["language"]), context, datetime.fromisoformat(now)
        )


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
