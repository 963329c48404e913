"""The base class of drivers for portals that store leases (locks that expire). A driver serves one run."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence

from typing_extensions import override

from provisioner.diagnostics import Diagnostic
from provisioner.embedded.portal_types import AuthorisedCall, Lease
from provisioner.errors import Locked, LockLost
from provisioner.model import Operator, State
from provisioner.portal import Call, Portal, Receipt, Verdict


def superseded() -> LockLost:
    """Return the error for a run whose lease another run of the same ledger has taken over."""
    return LockLost(
        "Another run has taken this one's place on the portal, so this one stopped.",
        "Run the same command again: what is done is kept, what is not is taken up.",
    )


class LeasedPortal(Portal):
    """The base class of drivers whose portal stores leases. Each write is made under the lease of the run."""

    @abstractmethod
    def work(self, jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        """Apply the calls in one transaction, and return their receipts. A refused call does not stop the
        others. A call whose lease is not the latest of its ledger gets the verdict *fenced*.
        """

    @abstractmethod
    def take_lease(self, ledger: str, owner: str, holder: str, fence: int, seconds: int) -> Lease:
        """Give the lease of ``ledger`` to ``holder`` for ``seconds``, and return the lease.

        If ``holder`` has the lease already, the lease is renewed. A new holder whose ``fence`` is higher than
        the fencing number of the current lease takes over the lease at once. Every other new holder gets the
        lease, with the next fencing number, only after the current lease has ended. Until then,
        :class:`Locked` is raised. ``owner`` is the name of the run in messages.
        """

    @abstractmethod
    def drop_lease(self, ledger: str, holder: str) -> None:
        """End the lease if ``holder`` has it. Its fencing number stays stored, because the next lease of the
        ledger must get a higher number.
        """

    @abstractmethod
    def claim_letters(
        self, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        """Claim letters as ``Portal.claim`` does. Raises :class:`LockLost` if the fencing number of the
        latest lease of ``ledger`` is not ``fence``.
        """

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._holder = os.urandom(16).hex()
        self._ledger = ""
        self._fence = 0

    @override
    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        return desired, ()

    @override
    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        renewing = self._ledger == ledger
        try:
            lease = self.take_lease(
                ledger, owner, self._holder, max(fence, self._fence) if renewing else fence, seconds
            )
        except Locked as problem:
            raise (superseded() if renewing else problem) from None
        if renewing and lease.fence != self._fence:
            # another run held the lease meanwhile and released it: the data this run has read may be outdated
            self.drop_lease(ledger, self._holder)
            raise superseded()
        self._ledger, self._fence = ledger, lease.fence
        return lease.fence

    @override
    def release(self) -> None:
        if self._ledger:
            self.drop_lease(self._ledger, self._holder)
            self._ledger, self._fence = "", 0

    @override
    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        receipts = self.work(
            [AuthorisedCall(call, self._operator, self._ledger, self._fence) for call in calls]
        )
        if any(receipt.verdict is Verdict.FENCED for receipt in receipts):
            raise superseded()
        return receipts

    @override
    def claim(self, run: str, letters: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        return self.claim_letters(self._ledger, self._fence, run, letters)
