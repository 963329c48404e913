"""The embedded portal, opened for planning."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from provisioner.diagnostics import Diagnostic
from provisioner.embedded.tables import (
    BATCH,
    PORTAL_SCHEMA,
    load_receipts,
    load_snapshot,
    users_by_id,
)
from provisioner.model import (
    Clock,
    PortalTerms,
    State,
    User,
    paris_date,
)
from provisioner.portal import Call, Capabilities, Receipt, Snapshot, read_only
from provisioner.storage.database import Database


def read_snapshot(database: Database, terms: PortalTerms, clock: Clock) -> Snapshot:
    """The portal in one consistent view; a file that is not there yet is an empty portal under ``terms``."""
    today, seen = paris_date(clock()), database.file_fingerprint()
    return database.read(
        PORTAL_SCHEMA, lambda connection: load_snapshot(connection, seen, today)
    ) or Snapshot("", State(), terms)


class ReadOnlyPortal:
    """The portal opened for planning: it can be looked at, and has no way to write."""

    def __init__(self, database: Database, terms: PortalTerms, clock: Clock) -> None:
        self._database = database
        self._terms = terms
        self._clock = clock

    def snapshot(self) -> Snapshot:
        """See :meth:`~provisioner.portal.Portal.snapshot`."""
        return read_snapshot(self._database, self._terms, self._clock)

    def users(self, ids: Collection[str]) -> dict[str, User]:
        """See :meth:`~provisioner.portal.Portal.users`."""
        today = paris_date(self._clock())
        return (
            self._database.read(PORTAL_SCHEMA, lambda connection: users_by_id(connection, ids, today)) or {}
        )

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """Refuses: planning never writes."""
        raise read_only()

    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        """See :meth:`~provisioner.portal.Portal.project`."""
        return desired, ()

    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        """Refuses: planning never writes."""
        raise read_only()

    def release(self) -> None:
        """Nothing is held."""

    def claim(self, run: str, letters: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        """Refuses: planning never writes."""
        raise read_only()

    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        """See :meth:`~provisioner.portal.Portal.receipts`."""
        return (
            self._database.read(PORTAL_SCHEMA, lambda connection: load_receipts(connection, keys, ledger))
            or {}
        )

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """Nothing: links are made when a letter is sent."""
        return dict.fromkeys(user_ids, "")

    def capabilities(self) -> Capabilities:
        """See :meth:`~provisioner.portal.Portal.capabilities`."""
        return Capabilities(batch=BATCH)

    def close(self) -> None:
        """Nothing is held."""
