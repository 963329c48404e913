"""Work that writes: alone at the ledger and at the portal, from the first write to the last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from provisioner.ledger.ledger import Ledger
from provisioner.model import Clock
from provisioner.operations.open import PARALLELISM, ledger_location, open_portal_for
from provisioner.portal import Portal
from provisioner.storage.lease import hold_lease
from provisioner.terminal.console import Console, interruptible
from provisioner.workspace.settings import Workspace


@dataclass(frozen=True, slots=True)
class Session:
    """What is written to, and when to end."""

    ledger: Ledger
    portal: Portal
    stop: Callable[[], bool]
    """Whether somebody asked to stop; what is in hand is finished first."""


@contextmanager
def writing_session(
    workspace: Workspace,
    command: str,
    console: Console,
    *,
    lock_timeout: float,
    clock: Clock,
    parallelism: int = PARALLELISM,
) -> Iterator[Session]:
    """Hold the ledger's lock and the portal meanwhile.

    Raises :class:`Locked` if another run still has one of them after ``lock_timeout`` seconds.
    """
    deadline = time.monotonic() + lock_timeout
    with (
        closing(Ledger(ledger_location(workspace), clock)) as ledger,
        ledger.lock.hold(command, lock_timeout, on_wait=console.say),
        interruptible(console) as stop,
        closing(open_portal_for(workspace, writing=True, clock=clock, parallelism=parallelism)) as portal,
        hold_lease(
            portal,
            ledger.id,
            ledger.lock.owner,
            ledger.lock.fence,
            patient=lambda: time.monotonic() < deadline and not stop(),
            waiting=console.say,
        ) as number,
    ):
        ledger.lock.raise_fence(number)
        yield Session(ledger, portal, stop)
