"""What planning reads of the ledger, at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from provisioner.ledger.accounts import accounts_where
from provisioner.ledger.journal import JournalEntry, entries_where
from provisioner.ledger.outbox import NOT_SENT, OutboxEntry, letters_where
from provisioner.ledger.store import LEDGER_SCHEMA, read_fact
from provisioner.model import Managed
from provisioner.storage.database import Connection, Database


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """Everything that planning reads of the ledger."""

    portal: str = ""
    """The portal this ledger belongs to; empty before the first run."""
    id: str = ""
    """The ledger's own lasting id; empty where there is none yet."""
    managed: Mapping[str, Managed] = field(default_factory=dict)
    open_letters: tuple[OutboxEntry, ...] = ()
    """Every letter that is not sent."""
    unsettled: tuple[JournalEntry, ...] = ()
    """Steps of an interrupted run whose end is not known."""


def read_ledger(database: Database) -> LedgerSnapshot:
    """The ledger as planning needs it; an absent file is an empty ledger. Writes nothing."""
    return database.read(LEDGER_SCHEMA, snapshot_of) or LedgerSnapshot()


def read_ledger_id(database: Database) -> str:
    """The ledger's own lasting id; empty where there is no ledger."""
    return database.read(LEDGER_SCHEMA, lambda connection: read_fact(connection, "id")) or ""


def snapshot_of(connection: Connection) -> LedgerSnapshot:
    """The ledger as this connection reads it."""
    return LedgerSnapshot(
        portal=read_fact(connection, "portal"),
        id=read_fact(connection, "id"),
        managed=accounts_where(connection, "1 = 1", ()),
        open_letters=tuple(letters_where(connection, NOT_SENT)),
        unsettled=tuple(entries_where(connection, "settled IS NULL")),
    )
