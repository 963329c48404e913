"""The portal's lease: one run of one ledger writes to a portal at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from provisioner.errors import PortalError
from provisioner.portal import Portal
from provisioner.storage.lease import LEASE_SECONDS, heartbeat, wait_for_lease

POLL_SECONDS = 0.5
"""How often a portal that another run holds is asked for again under ``--lock-timeout``."""


@contextmanager
def hold_portal(
    portal: Portal,
    ledger: str,
    owner: str,
    fence: int,
    seconds: int = LEASE_SECONDS,
    *,
    keep_waiting: Callable[[], bool] = lambda: False,
    on_wait: Callable[[str], None] = lambda sentence: None,
) -> Iterator[int]:
    """Hold the portal for this ledger within this block; yields the fencing number that the portal gave.

    Waits for another run while ``keep_waiting`` says so; ``on_wait`` is called once, with a sentence that
    names that run. Raises :class:`Locked`. A run that loses the lease learns it from its next write.
    """

    def hold() -> int:
        return portal.hold(ledger, owner, fence, seconds)

    def renew() -> bool:
        hold()
        return True

    number = wait_for_lease(
        hold,
        keep_waiting=keep_waiting,
        on_wait=lambda problem: on_wait(f"Waiting for the portal. {problem.sentence}"),
        poll_seconds=POLL_SECONDS,
    )
    try:
        with heartbeat(renew, seconds):
            yield number
    finally:
        # without a release it ends when the lease has run out
        with suppress(PortalError):
            portal.release()
