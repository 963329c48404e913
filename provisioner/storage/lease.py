"""A lease: taken as soon as no other run holds it, and renewed by a heartbeat while the work lasts.

The ledger's lock and the portal's lease are taken and kept by these two functions. Where a lease is stored,
and when another run may take it over, is up to the ledger and the portal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from provisioner.errors import Locked, LockLost, ProvisionerError

LEASE_SECONDS = 60
"""How long a run that has stopped responding keeps a lease."""

BEATS = 3
"""How often a running one renews its lease within that time."""

CONNECTION_CHECK_SECONDS = 0.2
"""How often the heartbeat checks for a dropped connection, to reconnect before the lease is taken over."""

T = TypeVar("T")


def wait_for_lease(
    acquire: Callable[[], T],
    *,
    keep_waiting: Callable[[], bool],
    on_wait: Callable[[Locked], None],
    poll_seconds: float,
) -> T:
    """The result of ``acquire``, which is called again while it raises :class:`Locked`.

    ``on_wait`` is called once, before the first wait. Raises :class:`Locked` once ``keep_waiting`` says so,
    and :class:`LockLost` at once.
    """
    announced = False
    while True:
        try:
            return acquire()
        except Locked as problem:
            if isinstance(problem, LockLost) or not keep_waiting():
                raise
            if not announced:
                announced = True
                on_wait(problem)
            time.sleep(poll_seconds)


@contextmanager
def heartbeat(
    renew: Callable[[], bool], seconds: float, is_cut_off: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Renew a lease of so many seconds in a thread for as long as this block lasts.

    It ends early when ``renew`` returns False: the lease is lost. After an error it tries again at
    the next beat; if none succeeds, the next write finds out. A beat is due at once when ``is_cut_off`` says
    that the connection is gone.
    """
    ended = threading.Event()

    def beat() -> None:
        while not _wait_for_beat(ended, seconds / BEATS, is_cut_off):
            with suppress(ProvisionerError):
                if not renew():
                    return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _wait_for_beat(ended: threading.Event, seconds: float, is_cut_off: Callable[[], bool]) -> bool:
    """Wait until the next beat is due or the connection is gone; True once the block has ended."""
    due = time.monotonic() + seconds
    while (left := due - time.monotonic()) > 0:
        if ended.wait(min(left, CONNECTION_CHECK_SECONDS)):
            return True
        if is_cut_off():
            return False
    return ended.is_set()
