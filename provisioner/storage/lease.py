"""A portal held for as long as a run works, however long a single step of it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from provisioner.errors import Locked, LockLost, PortalError, ProvisionerError
from provisioner.portal import Portal

LEASE_SECONDS = 60
"""How long a run that stands still keeps the portal from copies of its ledger."""


POLL_SECONDS = 0.5
"""How often a portal that another run holds is asked for again under ``--lock-timeout``."""


@contextmanager
def hold_lease(
    portal: Portal,
    ledger: str,
    owner: str,
    fence: int,
    seconds: int = LEASE_SECONDS,
    *,
    patient: Callable[[], bool] = lambda: False,
    waiting: Callable[[str], None] = lambda sentence: None,
) -> Iterator[int]:
    """Write to this portal for this ledger, with the number that is yielded.

    While another run holds it we wait for as long as ``patient`` says so; ``waiting`` is told once, in a
    sentence, for whom. Raises :class:`Locked` thereafter.

    Meanwhile a thread says three times in ``seconds`` that we are alive. Should another run take our
    place, the next write says so.
    """
    number = _hold(portal, ledger, owner, fence, seconds, patient, waiting)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds / 3):
            # whoever cannot say it now says it the next time; who has lost his place finds out as he writes
            with suppress(ProvisionerError):
                portal.hold(ledger, owner, fence, seconds)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield number
    finally:
        ended.set()
        heart.join()
        # it ends by itself as well
        with suppress(PortalError):
            portal.release()


def _hold(
    portal: Portal,
    ledger: str,
    owner: str,
    fence: int,
    seconds: int,
    patient: Callable[[], bool],
    waiting: Callable[[str], None],
) -> int:
    told = False
    while True:
        try:
            return portal.hold(ledger, owner, fence, seconds)
        except Locked as problem:
            if isinstance(problem, LockLost) or not patient():
                raise
            if not told:
                told = True
                waiting(f"Waiting for the portal. {problem.sentence}")
            time.sleep(POLL_SECONDS)
