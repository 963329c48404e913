"""Group commit: one commit records what several connections have to record."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from provisioner.mail.delivery import Delivery, DeliveryState, Record

GATHER_SECONDS = 0.01
"""How long a letter that is ready for DATA waits for those of the other connections."""

DELIVERY_SECONDS = 0.25
"""How long a delivery waits for the next commit of bodies. A kill within that time leaves it unknown."""


class GroupCommit:
    """Collects the bodies that are about to be sent and the deliveries, and records them together."""

    def __init__(self, record: Record) -> None:
        self.broken: BaseException | None = None
        """The exception of the commit that failed; no other commit is tried."""
        self._record = record
        self._active = 0
        self._bodies: dict[str, asyncio.Future[None]] = {}
        self._recorded: set[str] = set()
        self._deliveries: list[Delivery] = []
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def active_connection(self) -> Iterator[None]:
        """Within the block, one more connection may call :meth:`body`."""
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            self._commit_when_due()

    async def body(self, key: str) -> None:
        """Wait until the letter is committed as ``body``. Raises the exception of a failed commit."""
        if self.broken is not None:
            raise self.broken
        # committed already, for a connection that closed before DATA
        if key in self._recorded:
            return
        waiter = self._bodies[key] = asyncio.get_running_loop().create_future()
        self._commit_when_due()
        await waiter

    def body_started(self, key: str) -> None:
        """The body is being sent: the delivery is unknown until the server replies."""
        self._recorded.discard(key)

    def delivered(self, delivery: Delivery) -> None:
        """Record a delivery with the next commit."""
        self._recorded.discard(delivery.key)
        self._deliveries.append(delivery)
        self._commit_when_due()

    def close(self) -> None:
        """Record the remaining deliveries; a letter whose body was not sent is recorded as owed."""
        if isinstance(self.broken, Exception):
            return
        stopped = [Delivery(key, DeliveryState.OWED, "stopped before it was sent") for key in self._recorded]
        if self._deliveries or stopped:
            self._record((), [*self._deliveries, *stopped])
            self._deliveries.clear()
            self._recorded.clear()

    def _commit_when_due(self) -> None:
        """Commit at once if every connection waits for it, else after a short while."""
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
        except Exception as problem:  # noqa: BLE001  # raised by every call of body() that waits or follows
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
