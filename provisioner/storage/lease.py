"""Functions that wait for a lease and that renew it with a heartbeat during the work.

The ledger's lock and the portal's lease both use these functions. The ledger and the portal themselves define
where a lease is stored and when another run can take the lease over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from provisioner.errors import Locked, LockLost, ProvisionerError

LEASE_SECONDS = 60
"""The time in seconds after which a lease expires if its holder does not renew it."""

BEATS = 3
"""The number of times that a run renews its lease within the duration of the lease."""

CONNECTION_CHECK_SECONDS = 0.2
"""The time in seconds between two connection checks. It is short because another run can soon take over the
lease of a run that has lost its connection."""

T = TypeVar("T")


def wait_for_lease(
    acquire: Callable[[], T],
    *,
    keep_waiting: Callable[[], bool],
    on_wait: Callable[[Locked], None],
    poll_seconds: float,
) -> T:
    """Call ``acquire`` every ``poll_seconds`` until it does not raise :class:`Locked`, and return its result.

    ``on_wait`` is called once, before the first wait. If ``keep_waiting`` returns False, :class:`Locked`
    is raised instead of a further wait. :class:`LockLost`, a subclass of it, is always raised at once.
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
    """Renew a lease from a thread until the ``with`` block ends. ``seconds`` is the duration of the lease.

    The thread calls ``renew`` :data:`BEATS` times within the duration. The thread ends early if ``renew``
    returns False, because the lease is then lost. If ``renew`` raises an error, the thread waits for the next
    time. If ``is_cut_off`` returns True, the connection is lost, and ``renew`` is called at once.
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
    """Wait until the next beat is due or the connection is lost. Return True if ``ended`` is set earlier."""
    due = time.monotonic() + seconds
    while (left := due - time.monotonic()) > 0:
        if ended.wait(min(left, CONNECTION_CHECK_SECONDS)):
            return True
        if is_cut_off():
            return False
    return ended.is_set()
