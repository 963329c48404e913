"""One writer for all requests: all waiting steps share one transaction.

A commit costs as much for a hundred steps as for one. Requests that arrive while it reaches the disk make up
the next transaction.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from provisioner.embedded.portal_types import AuthorisedCall
from provisioner.errors import ProvisionerError
from provisioner.portal import Receipt
from provisioner.storage.database import is_damage

BATCH = 500
"""Steps in one transaction, at most."""

WriteJob = Callable[[Sequence[AuthorisedCall]], list[Receipt]]

_Answer = Receipt | BaseException
_Waiting = tuple[AuthorisedCall, "asyncio.Future[Receipt]"]


class BatchWriter:
    """A thread that does queued calls in batches."""

    def __init__(self, work: WriteJob, loop: asyncio.AbstractEventLoop) -> None:
        self._work = work
        self._loop = loop
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    async def do(self, job: AuthorisedCall) -> Receipt:
        """The job's receipt, once it is committed. Raises what the transaction raised."""
        waiting: asyncio.Future[Receipt] = self._loop.create_future()
        self._queue.put((job, waiting))
        return await waiting

    def close(self) -> None:
        """Finish what waits, then end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            batch: list[_Waiting] = []
            while len(batch) < BATCH:
                # wait for the first call only, and take what else is queued
                try:
                    found = self._queue.get(block=not batch)
                except queue.Empty:
                    break
                if found is None:
                    ended = True
                    break
                # a request that timed out before its call began is sent again by its client
                if not found[1].done():
                    batch.append(found)
            if batch:
                answers = self._answers([job for job, _ in batch])
                # after a forced end the loop is closed
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(_settle, [waiting for _, waiting in batch], answers)

    def _answers(self, jobs: Sequence[AuthorisedCall]) -> Sequence[_Answer]:
        try:
            return self._work(jobs)
        except Exception as problem:  # noqa: BLE001  (the writer outlives whatever one request does to it)
            if len(jobs) == 1 or (isinstance(problem, ProvisionerError) and not is_damage(problem)):
                return [problem] * len(jobs)
            # one call fails or meets a damaged row: do each alone, so that the others succeed
            return [answer for job in jobs for answer in self._answers([job])]


def _settle(waiting: Sequence[asyncio.Future[Receipt]], answers: Sequence[_Answer]) -> None:
    for future, answer in zip(waiting, answers, strict=True):
        if future.done():
            # the client has gone; a repeated request finds the receipt
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
