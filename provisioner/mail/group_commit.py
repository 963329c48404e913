"""Group commit: one transaction stores the records of several connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from provisioner.mail.delivery import Delivery, DeliveryState, Record

GATHER_SECONDS = 0.01
"""The maximum time in seconds that a commit waits so that letters of other connections can join it."""

DELIVERY_SECONDS = 0.25
"""The maximum time in seconds that a finished delivery waits for a commit. If the run is killed before the
commit, the letter is still in the state ``body``, and the next run changes this state to ``unknown``."""


class GroupCommit:
    """A collector of records, which are stored together in one commit.

    A record is the result of a delivery, or the state ``body`` of a letter that is about to be sent.
    """

    def __init__(self, record: Record) -> None:
        self.broken: BaseException | None = None
        """The exception of the failed commit, which :meth:`body` raises from then on, or None."""
        self._record = record
        self._active = 0
        self._bodies: dict[str, asyncio.Future[None]] = {}
        self._recorded: set[str] = set()
        self._deliveries: list[Delivery] = []
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def active_connection(self) -> Iterator[None]:
        """Count a connection as active during the block. Only an active connection may call :meth:`body`."""
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            self._commit_when_due()

    async def body(self, key: str) -> None:
        """Wait until the state ``body`` of this letter is committed. Raises the error of a failed commit."""
        if self.broken is not None:
            raise self.broken
        # an earlier connection, which closed before DATA, has committed the letter already
        if key in self._recorded:
            return
        waiter = self._bodies[key] = asyncio.get_running_loop().create_future()
        self._commit_when_due()
        await waiter

    def body_started(self, key: str) -> None:
        """Note that the body of this letter is being sent. :meth:`close` then does not set it to ``owed``."""
        self._recorded.discard(key)

    def delivered(self, delivery: Delivery) -> None:
        """Add a delivery to the next commit."""
        self._recorded.discard(delivery.key)
        self._deliveries.append(delivery)
        self._commit_when_due()

    def close(self) -> None:
        """Commit the remaining deliveries. Unsent letters in the state ``body`` become ``owed``."""
        if isinstance(self.broken, Exception):
            return
        stopped = [Delivery(key, DeliveryState.OWED, "stopped before it was sent") for key in self._recorded]
        if self._deliveries or stopped:
            self._record((), [*self._deliveries, *stopped])
            self._deliveries.clear()
            self._recorded.clear()

    def _commit_when_due(self) -> None:
        """Commit at once if every active connection waits for a commit, otherwise after a short time."""
        if self.broken is not None or not (self._bodies or self._deliveries):
            return
        if len(self._bodies) >= self._active:
            self._commit()
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + (GATHER_SECONDS if self._bodies else DELIVERY_SECONDS)
        if self._timer is None or due < self._timer.when():
            self._stop_timer()
            self._timer = loop.call_at(due, self._commit)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _commit(self) -> None:
        self._stop_timer()
        waiters, self._bodies = self._bodies, {}
        self._recorded.update(waiters)
        count = len(self._deliveries)
        try:
            self._record(tuple(waiters), self._deliveries[:count])
        except Exception as problem:  # noqa: BLE001  # every waiting or later call of body() raises it
            self.broken = problem
            for waiter in waiters.values():
                if not waiter.done():
                    waiter.set_exception(problem)
            return
        except BaseException as interruption:
            self.broken = interruption
            raise
        del self._deliveries[:count]
        for waiter in waiters.values():
            if not waiter.done():
                waiter.set_result(None)
