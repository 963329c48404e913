"""Group commit: all steps that wait share one transaction.

A commit costs as much for a hundred steps as for one. Steps that arrive during a commit make up the next
transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from provisioner.embedded.portal_types import AuthorisedCall
from provisioner.errors import ProvisionerError
from provisioner.portal import Receipt
from provisioner.storage.database import is_damage

BATCH = 500
"""The largest number of steps in one transaction."""


class BatchWriter:
    """Does the waiting calls in batches, one batch at a time. Not thread-safe: used from one event loop."""

    def __init__(self, work: Callable[[Sequence[AuthorisedCall]], Awaitable[list[Receipt]]]) -> None:
        """``work`` does calls in one transaction and returns their receipts."""
        self._work = work
        self._waiting: list[tuple[AuthorisedCall, asyncio.Future[Receipt]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def do(self, job: AuthorisedCall) -> Receipt:
        """The job's receipt, once it is committed. Raises what the transaction raised."""
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, receipt))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await receipt

    async def _write(self) -> None:
        while self._waiting:
            # a request that timed out before its call began is not done: its client sends it again
            batch = [one for one in self._waiting[:BATCH] if not one[1].done()]
            del self._waiting[:BATCH]
            answers = await self._answers([job for job, _ in batch])
            for (_, receipt), answer in zip(batch, answers, strict=True):
                if receipt.done():
                    # the request timed out; its repetition finds the receipt
                    continue
                if isinstance(answer, Exception):
                    receipt.set_exception(answer)
                else:
                    receipt.set_result(answer)

    async def _answers(self, jobs: Sequence[AuthorisedCall]) -> Sequence[Receipt | Exception]:
        try:
            return await self._work(jobs)
        except Exception as problem:  # noqa: BLE001  (a defect in one call does not end the writer)
            if len(jobs) == 1 or (isinstance(problem, ProvisionerError) and not is_damage(problem)):
                return [problem] * len(jobs)
            # one of the calls fails or reads a damaged row: do each call alone, so that the others succeed
            return [answer for job in jobs for answer in await self._answers([job])]
