"""A ledger's lease on the portal: only one run of the ledger at a time can write to the portal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from provisioner.errors import PortalError
from provisioner.portal import Portal
from provisioner.storage.lease import LEASE_SECONDS, heartbeat, wait_for_lease

POLL_SECONDS = 0.5
"""The time in seconds between two attempts to take a lease that another run holds (``--lock-timeout``)."""


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
    """Hold the lease of ``ledger`` on the portal in this block. Yield the run's fencing number on the portal.

    ``owner`` describes this run, ``fence`` is this run's fencing number in the ledger, and ``seconds`` is the
    duration of the lease. As long as another run holds the lease and ``keep_waiting`` returns True, the
    function waits. Before it waits, it calls ``on_wait`` once, with a sentence about the other run. Raises
    :class:`Locked` if ``keep_waiting`` returns False. If this run loses the lease, its next write fails.
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
        # if the release fails, the lease expires by itself
        with suppress(PortalError):
            portal.release()
