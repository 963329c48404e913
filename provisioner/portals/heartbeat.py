"""A portal held for as long as a run works, however long a single step of it takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from provisioner.errors import PortalError, ProvisionerError
from provisioner.portals.base import Portal

LEASE_SECONDS = 60
"""How long a run that stands still keeps the portal from copies of its ledger."""


@contextmanager
def held(portal: Portal, ledger: str, owner: str, fence: int, seconds: int = LEASE_SECONDS) -> Iterator[None]:
    """Write to this portal for this ledger. Raises :class:`Locked`.

    Meanwhile a thread says three times in ``seconds`` that we are alive. Should another run take our
    place, the next write says so.
    """
    portal.hold(ledger, owner, fence, seconds)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds / 3):
            # whoever cannot say it now says it the next time; who has lost his place finds out as he writes
            with suppress(ProvisionerError):
                portal.hold(ledger, owner, fence, seconds)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        # it ends by itself as well
        with suppress(PortalError):
            portal.let_go()
