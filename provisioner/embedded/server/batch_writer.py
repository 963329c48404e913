"""Group commit: all waiting steps are applied in one transaction.

A commit takes as long for a hundred steps as for one step. The steps that arrive while a transaction runs are
applied together in the next transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from provisioner.embedded.portal_types import AuthorisedCall
from provisioner.errors import ProvisionerError
from provisioner.portal import Receipt
from provisioner.storage.database import is_damage

BATCH = 500
"""The maximum number of steps in one transaction."""


class BatchWriter:
    """A queue of calls, applied in batches, one batch at a time. Not thread-safe: for one event loop only."""

    def __init__(self, work: Callable[[Sequence[AuthorisedCall]], Awaitable[list[Receipt]]]) -> None:
        """Create an empty queue. ``work`` applies calls in one transaction and returns their receipts."""
        self._work = work
        self._waiting: list[tuple[AuthorisedCall, asyncio.Future[Receipt]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def do(self, job: AuthorisedCall) -> Receipt:
        """Apply one call. Return its receipt after the commit, or raise the error of the transaction."""
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, receipt))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await receipt

    async def _write(self) -> None:
        while self._waiting:
            # skip a call whose request timed out before the transaction began: its client sends it again
            batch = [one for one in self._waiting[:BATCH] if not one[1].done()]
            del self._waiting[:BATCH]
            answers = await self._answers([job for job, _ in batch])
            for (_, receipt), answer in zip(batch, answers, strict=True):
                if receipt.done():
                    # the request timed out, but its call was applied: a repeated request gets this receipt
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
            # one of the calls fails or reads a damaged row: retry each in its own transaction for the others
            return [answer for job in jobs for answer in await self._answers([job])]
