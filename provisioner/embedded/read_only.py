"""The embedded portal, opened only for reading, because a plan must not write to the portal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from typing_extensions import override

from provisioner.diagnostics import Diagnostic
from provisioner.embedded.tables import BATCH, PORTAL_SCHEMA, load_receipts, load_snapshot, users_by_id
from provisioner.model import Clock, PortalTerms, State, User, paris_date
from provisioner.portal import Call, Capabilities, Portal, Receipt, Snapshot, read_only
from provisioner.storage.database import Database


class ReadOnlyPortal(Portal):
    """The embedded portal, opened only for reading; its writing methods raise :class:`PortalError`. If the
    database does not exist, the snapshot has no companies and no users, and its terms are ``terms``.
    """

    def __init__(self, database: Database, terms: PortalTerms, clock: Clock) -> None:
        self._database = database
        self._terms = terms
        self._clock = clock

    @override
    def snapshot(self) -> Snapshot:
        today = paris_date(self._clock())
        found = self._database.read(PORTAL_SCHEMA, lambda connection: load_snapshot(connection, today))
        return found or Snapshot("", State(), self._terms)

    @override
    def users(self, ids: Collection[str]) -> dict[str, User]:
        today = paris_date(self._clock())
        return (
            self._database.read(PORTAL_SCHEMA, lambda connection: users_by_id(connection, ids, today)) or {}
        )

    @override
    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        raise read_only()

    @override
    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        return desired, ()

    @override
    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        raise read_only()

    @override
    def release(self) -> None:
        pass

    @override
    def claim(self, run: str, letters: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        raise read_only()

    @override
    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        return (
            self._database.read(PORTAL_SCHEMA, lambda connection: load_receipts(connection, keys, ledger))
            or {}
        )

    @override
    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        return dict.fromkeys(user_ids, "")

    @override
    def capabilities(self) -> Capabilities:
        return Capabilities(batch=BATCH)

    @override
    def close(self) -> None:
        pass
