"""The journal: all runs, the steps that each run intended to send to the portal, and their outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from provisioner.ledger.accounts import accounts_by_id, store_accounts
from provisioner.ledger.backup import BACKUP
from provisioner.ledger.outbox import insert_letters, letter_key
from provisioner.ledger.process import process_owner
from provisioner.ledger.store import LEDGER_SCHEMA, Store, storable
from provisioner.model import Managed
from provisioner.planning.codec import parse_json, reader, writer
from provisioner.planning.plan import PlannedLetter
from provisioner.planning.steps import CreateUser
from provisioner.portal import DONE, Receipt, Verdict
from provisioner.storage.database import Connection, Database, reject_corrupt_rows

if TYPE_CHECKING:
    from provisioner.mail.message import Letter


@dataclass(frozen=True, slots=True)
class LedgerEffect:
    """The changes that the ledger stores for a step after the portal has applied the step.

    ``user`` is the user's key, or "" for a step on a company. ``email`` and ``phone`` are None if the step
    does not set them. ``created`` is True if the step creates the account, and ``letter`` is the letter that
    the step makes necessary. Both are ignored if the verdict is *already*: another writer made the change.
    """

    user: str = ""
    email: str | None = None
    phone: str | None = None
    created: bool = False
    letter: PlannedLetter | None = None


class Intent(NamedTuple):
    """A step that the run is about to send to the portal; ``action`` is the class name of the step."""

    key: str
    address: str
    action: str
    effect: LedgerEffect


class Run(NamedTuple):
    """A run, with the values that the history command shows."""

    id: int
    owner: str
    command: str
    digest: str
    began: str
    ended: str | None
    outcome: str


class JournalEntry(NamedTuple):
    """A step of a run, with the values that the history command shows."""

    run: int
    key: str
    address: str
    action: str
    verdict: str
    problem: str


class Journal:
    """The tables of runs and of their steps. Only the run that holds the lock writes to these tables."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._run = 0

    def begin(self, command: str, digest: str) -> int:
        """Store the beginning of a run and return its number. ``digest`` is the digest of the plan."""
        with self._store.writing() as connection:
            ((self._run,),) = connection.execute(
                "INSERT INTO run (owner, command, digest, began) VALUES (?, ?, ?, ?) RETURNING id",
                (process_owner(), storable(command), digest, self._store.timestamp()),
            ).fetchall()
        return self._run

    def end(self, outcome: str) -> None:
        """Store the end of the run. ``outcome`` is the text that the history shows as the run's result."""
        with self._store.writing() as connection:
            connection.execute(
                "UPDATE run SET ended = ?, outcome = ? WHERE id = ?",
                (self._store.timestamp(), outcome, self._run),
            )
            # the plan of this run has shown that the ledger was restored
            connection.execute("DELETE FROM fact WHERE name = ?", (BACKUP,))

    def intend(self, intents: Sequence[Intent]) -> None:
        """Store the steps that the run will send to the portal next, and commit before it sends them."""
        now, effect = self._store.timestamp(), writer(LedgerEffect)
        with self._store.writing() as connection:
            connection.executemany(
                "INSERT INTO journal (run, key, address, action, effect, intended) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (self._run, intent.key, intent.address, intent.action, effect(intent.effect), now)
                    for intent in intents
                ],
            )

    def settle(self, receipts: Sequence[Receipt], portal: str) -> None:
        """Store the outcome of each step in ``receipts``, the changed accounts, and the letters to send.

        A receipt is ignored if its step was not intended or is already settled. ``portal`` is the identity of
        the portal, from which the keys of the letters are derived.
        """
        # one transaction, because a step must not be settled without storing its letter
        now = self._store.timestamp()
        with self._store.writing() as connection:
            # the open steps of this run and of interrupted runs
            rows = connection.execute("SELECT key, seq, effect FROM journal WHERE settled IS NULL")
            intended = {key: (seq, effect) for key, seq, effect in rows}
            known = [receipt for receipt in receipts if receipt.key in intended]
            connection.executemany(
                "UPDATE journal SET settled = ?, verdict = ?, problem = ? WHERE seq = ?",
                [
                    (now, receipt.verdict, storable(receipt.problem), intended[receipt.key][0])
                    for receipt in known
                ],
            )
            read = reader(LedgerEffect)
            with reject_corrupt_rows():
                effects = [(read(parse_json(intended[receipt.key][1])), receipt) for receipt in known]
            _store_effects(connection, effects, portal, now)

    def creations(self) -> dict[str, int]:
        """Return how many times provisioner has created each user, by resource address (``user:KEY``)."""
        with self._store.reading() as connection, reject_corrupt_rows():
            return dict(
                connection.execute(
                    "SELECT address, count(*) FROM journal WHERE action = ? AND verdict = ? GROUP BY address",
                    (CreateUser.__name__, Verdict.APPLIED),
                )
            )


def read_runs(database: Database, most: int) -> list[Run]:
    """Return the latest runs, newest first. ``most`` is the maximum number of runs."""

    def runs(connection: Connection) -> list[Run]:
        rows = connection.execute(
            "SELECT id, owner, command, digest, began, ended, outcome FROM run ORDER BY id DESC LIMIT ?",
            (most,),
        )
        return [Run(*row) for row in rows]

    return database.read(LEDGER_SCHEMA, runs) or []


def has_run(database: Database, run: int) -> bool:
    """Return True if the journal contains a run with this number."""

    def found(connection: Connection) -> bool:
        return connection.execute("SELECT 1 FROM run WHERE id = ?", (run,)).fetchone() is not None

    return database.read(LEDGER_SCHEMA, found) or False


def read_entries(database: Database, run: int) -> list[JournalEntry]:
    """Return the steps of a run, in the order in which the run intended them."""
    return database.read(LEDGER_SCHEMA, lambda connection: entries_where(connection, "run = ?", (run,))) or []


def entries_where(connection: Connection, where: str, values: Sequence[object] = ()) -> list[JournalEntry]:
    """Return the steps that match the SQL condition ``where``, in the order in which they were intended."""
    rows = connection.execute(
        f"SELECT run, key, address, action, verdict, problem FROM journal WHERE {where} ORDER BY seq",
        values,
    ).fetchall()
    with reject_corrupt_rows():
        if any(None in row for row in rows):
            raise ValueError("a column of a journal entry is empty")
        return [JournalEntry(*row) for row in rows]


def _store_effects(
    connection: Connection, effects: Iterable[tuple[LedgerEffect, Receipt]], portal: str, now: str
) -> None:
    changed = [
        (effect, storable(receipt.id), receipt.verdict)
        for effect, receipt in effects
        if effect.user and receipt.verdict in DONE
    ]
    known = accounts_by_id(connection, [id_ for _, id_, _ in changed])
    records: list[tuple[str, Managed]] = []
    owed: list[tuple[str, str, Letter]] = []
    for effect, id_, verdict in changed:
        applied = verdict is Verdict.APPLIED
        before = known.get(id_) or Managed(id_, None, None, applied and effect.created)
        record = known[id_] = Managed(
            id_,
            before.email if effect.email is None else effect.email,
            before.phone if effect.phone is None else effect.phone,
            before.created,
        )
        records.append((effect.user, record))
        # no letter is sent for an account that someone else created or validated
        if effect.letter is not None and applied:
            owed.append((effect.user, id_, _owed_letter(effect.letter, letter_key(portal, id_), now)))
    store_accounts(connection, records)
    insert_letters(connection, owed, now)


def _owed_letter(letter: PlannedLetter, key: str, now: str) -> Letter:
    from provisioner.mail.message import Letter

    return Letter(key, letter.recipient, letter.language, letter.context, datetime.fromisoformat(now))
