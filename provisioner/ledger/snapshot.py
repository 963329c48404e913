"""A snapshot of the ledger: the data that planning reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from provisioner.ledger.accounts import accounts_where
from provisioner.ledger.backup import BACKUP
from provisioner.ledger.journal import JournalEntry, entries_where
from provisioner.ledger.outbox import NOT_SENT, OutboxEntry, letters_where
from provisioner.ledger.store import LEDGER_SCHEMA, read_fact
from provisioner.model import Managed
from provisioner.storage.database import Connection, Database


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """The data that planning reads from the ledger, all from the same instant."""

    portal: str = ""
    """The identity of the portal that this ledger is bound to; empty before the first run."""
    id: str = ""
    """The permanent random id of the ledger; empty if the ledger does not exist yet."""
    managed: Mapping[str, Managed] = field(default_factory=dict)
    """The managed accounts, by the key of the user in the manifests."""
    open_letters: tuple[OutboxEntry, ...] = ()
    """The letters that have not been sent."""
    unsettled: tuple[JournalEntry, ...] = ()
    """The steps whose outcome is unknown because their run was interrupted."""
    backup: str = ""
    """The time of the backup from which the ledger was restored. Empty if it was never restored, or if a run
    has ended since it was restored."""


def read_ledger(database: Database) -> LedgerSnapshot:
    """Return the snapshot of the ledger, which is empty if the ledger does not exist. Writes nothing."""
    return database.read(LEDGER_SCHEMA, snapshot_of) or LedgerSnapshot()


def read_ledger_id(database: Database) -> str:
    """Return the permanent random id of the ledger; empty if the ledger does not exist."""
    return database.read(LEDGER_SCHEMA, lambda connection: read_fact(connection, "id")) or ""


def snapshot_of(connection: Connection) -> LedgerSnapshot:
    """Return the snapshot of the ledger, read over this connection."""
    return LedgerSnapshot(
        portal=read_fact(connection, "portal"),
        id=read_fact(connection, "id"),
        managed=accounts_where(connection, "1 = 1", ()),
        open_letters=tuple(letters_where(connection, NOT_SENT)),
        unsettled=tuple(entries_where(connection, "settled IS NULL")),
        backup=read_fact(connection, BACKUP),
    )
