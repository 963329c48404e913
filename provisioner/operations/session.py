"""The writing session: during a session, no other run of the ledger writes to the ledger or the portal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass

from provisioner.ledger.ledger import Ledger
from provisioner.model import Clock
from provisioner.operations.open import PARALLELISM, ledger_location, open_portal_for
from provisioner.operations.portal_lease import hold_portal
from provisioner.portal import Portal
from provisioner.workspace.settings import Workspace


@dataclass(frozen=True, slots=True)
class Session:
    """The ledger and the portal of a writing session."""

    ledger: Ledger
    portal: Portal
    stop: Callable[[], bool]
    """A function that returns True once the user has asked to stop. The run ends after the current batch."""


@contextmanager
def writing_session(
    workspace: Workspace,
    command: str,
    *,
    on_wait: Callable[[str], None],
    interruptible: Callable[[], AbstractContextManager[Callable[[], bool]]],
    lock_timeout: float,
    clock: Clock,
    parallelism: int = PARALLELISM,
) -> Iterator[Session]:
    """Yield the opened ledger and portal, while this run holds the ledger's lock and the portal's lease.

    ``on_wait`` is called with a sentence if the session must wait for another run. ``interruptible`` is
    called after the ledger is locked; its context manager yields the function for :attr:`Session.stop`.
    Raises :class:`Locked` if another run still holds the lock or the lease after ``lock_timeout`` seconds.
    """
    deadline = time.monotonic() + lock_timeout
    with (
        closing(Ledger(ledger_location(workspace), clock)) as ledger,
        ledger.lock.hold(command, lock_timeout, on_wait=on_wait),
        interruptible() as stop,
        closing(open_portal_for(workspace, writing=True, clock=clock, parallelism=parallelism)) as portal,
        hold_portal(
            portal,
            ledger.id,
            ledger.lock.owner,
            ledger.lock.fence,
            keep_waiting=lambda: time.monotonic() < deadline and not stop(),
            on_wait=on_wait,
        ) as number,
    ):
        ledger.lock.raise_fence(number)
        yield Session(ledger, portal, stop)
