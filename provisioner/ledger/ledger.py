"""The ledger, open for writing: lock, journal, outbox and accounts in one database."""

from __future__ import annotations

from collections.abc import Mapping

from provisioner.errors import LedgerError
from provisioner.ledger.accounts import store_accounts
from provisioner.ledger.journal import Journal
from provisioner.ledger.lock import Lock
from provisioner.ledger.outbox import Outbox
from provisioner.ledger.snapshot import LedgerSnapshot, snapshot_of
from provisioner.ledger.store import Store
from provisioner.model import Clock, Managed
from provisioner.storage.database import Database, chunks
from provisioner.storage.lease import LEASE_SECONDS

MAX_ADOPTED_AT_ONCE = 5_000
"""The maximum number of accounts that one transaction stores. Other runs wait during the transaction."""


class Ledger:
    """The ledger of one run. Writes are possible only inside ``with lock.hold``. Call ``close`` after use."""

    id: str
    """The permanent random id of this ledger."""

    def __init__(self, database: Database, clock: Clock, lease: float = LEASE_SECONDS) -> None:
        self._store = Store(database, clock, lease)
        self.id = self._store.id
        self.lock = Lock(self._store)
        self.journal = Journal(self._store)
        self.outbox = Outbox(self._store)

    def close(self) -> None:
        """Close the database connection."""
        self._store.close()

    def snapshot(self) -> LedgerSnapshot:
        """Return the current content of the ledger."""
        with self._store.reading() as connection:
            return snapshot_of(connection)

    def adopt(self, records: Mapping[str, Managed]) -> None:
        """Store accounts that already exist on the portal. ``records`` maps user keys to accounts."""
        for some in chunks(list(records), MAX_ADOPTED_AT_ONCE):
            with self._store.writing() as connection:
                store_accounts(connection, [(user, records[user]) for user in some])

    def bind_portal(self, portal: str) -> None:
        """Bind the ledger to this portal. Raises :class:`LedgerError` if it is bound to another portal."""
        with self._store.writing() as connection:
            row = connection.execute("SELECT value FROM fact WHERE name = 'portal'").fetchone()
            if row is None:
                connection.execute("INSERT INTO fact VALUES ('portal', ?)", (portal,))
            elif row[0] != portal:
                raise LedgerError(
                    f"The ledger {self._store.database} belongs to another portal.",
                    "Use this portal's own ledger: see portal: and ledger: in provisioner.yaml.",
                )
