"""The driver's side of a portal of ours: it writes for one operator and one run of one ledger."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence

from provisioner.diagnostics import Diagnostic
from provisioner.embedded.host import AuthorisedCall, Lease
from provisioner.errors import Locked, LockLost
from provisioner.model import Operator, State
from provisioner.portal import Call, Receipt, Verdict


def superseded() -> LockLost:
    """What is raised once another run of the same ledger has taken our place."""
    return LockLost(
        "Another run has taken this one's place on the portal, so this one stopped.",
        "Run the same command again: what is done is kept, what is not is taken up.",
    )


class LeasedPortal:
    """Whose writes they are; the base of the drivers whose portal is in this very process."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._holder = os.urandom(16).hex()
        self._ledger = ""
        self._fence = 0

    @abstractmethod
    def work(self, jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        """See :class:`~provisioner.embedded.host.PortalHost`, also for the three that follow."""

    @abstractmethod
    def take_lease(self, ledger: str, owner: str, holder: str, fence: int, seconds: int) -> Lease:
        """See there."""

    @abstractmethod
    def drop_lease(self, ledger: str, holder: str) -> None:
        """See there."""

    @abstractmethod
    def claim_letters(
        self, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        """See there."""

    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        """See :meth:`~provisioner.portal.Portal.project`: this portal holds everything."""
        return desired, ()

    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        """See :meth:`~provisioner.portal.Portal.hold`."""
        holding = self._ledger == ledger
        try:
            lease = self.take_lease(
                ledger, owner, self._holder, max(fence, self._fence) if holding else fence, seconds
            )
        except Locked as problem:
            raise (superseded() if holding else problem) from None
        if holding and lease.fence != self._fence:
            # somebody had it meanwhile and has let it go again; what we know is not what is
            self.drop_lease(ledger, self._holder)
            raise superseded()
        self._ledger, self._fence = ledger, lease.fence
        return lease.fence

    def release(self) -> None:
        """See :meth:`~provisioner.portal.Portal.release`."""
        if self._ledger:
            self.drop_lease(self._ledger, self._holder)
            self._ledger, self._fence = "", 0

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """See :meth:`~provisioner.portal.Portal.execute`."""
        receipts = self.work(
            [AuthorisedCall(call, self._operator, self._ledger, self._fence) for call in calls]
        )
        if any(receipt.verdict is Verdict.FENCED for receipt in receipts):
            raise superseded()
        return receipts

    def claim(self, run: str, letters: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        """See :meth:`~provisioner.portal.Portal.claim`."""
        return self.claim_letters(self._ledger, self._fence, run, letters)
