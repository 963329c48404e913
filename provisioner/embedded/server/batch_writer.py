"""One writer for all requests: all waiting steps share one transaction.

A commit costs as much for a hundred steps as for one. Requests that arrive while it reaches the disk make up
the next transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from provisioner.embedded.portal_types import AuthorisedCall
from provisioner.errors import ProvisionerError
from provisioner.portal import Receipt
from provisioner.storage.database import is_damage

BATCH = 500
"""Steps in one transaction, at most."""


class BatchWriter:
    """Does the waiting calls in batches, one batch at a time. Used from one event loop."""

    def __init__(self, work: Callable[[Sequence[AuthorisedCall]], Awaitable[list[Receipt]]]) -> None:
        """``work`` does some calls in one transaction."""
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
            # the client sends a request again that timed out before its call began
            batch = [one for one in self._waiting[:BATCH] if not one[1].done()]
            del self._waiting[:BATCH]
            answers = await self._answers([job for job, _ in batch])
            for (_, receipt), answer in zip(batch, answers, strict=True):
                if receipt.done():
                    # the client has gone; a repeated request finds the receipt
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
            # one call fails or meets a damaged row: do each alone, so that the others succeed
            return [answer for job in jobs for answer in await self._answers([job])]
