"""A pool of open portals, which the threads of the service use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from provisioner.embedded.portal import SqlPortal
from provisioner.errors import PortalError
from provisioner.storage.database import still_usable

T = TypeVar("T")


class PortalPool:
    """Open portals for concurrent calls, each used by one thread at a time; a broken one is replaced."""

    def __init__(self, open_portal: Callable[[], SqlPortal], threads: int) -> None:
        self._open_portal = open_portal
        self._idle: SimpleQueue[SqlPortal] = SimpleQueue()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="portal")

    async def ask(self, query: Callable[[SqlPortal], T]) -> T:
        """The result of ``query`` on one of the portals. Raises :class:`PortalError` and what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, query)

    def _ask(self, query: Callable[[SqlPortal], T]) -> T:
        try:
            portal = self._idle.get_nowait()
        except Empty:
            return self._answer(self._open_portal(), query)
        try:
            return self._answer(portal, query)
        except PortalError as problem:
            if still_usable(problem):
                raise
            # the database may have been away while this portal was idle; a new one may reach it
            return self._answer(self._open_portal(), query)

    def _answer(self, portal: SqlPortal, query: Callable[[SqlPortal], T]) -> T:
        broken = False
        try:
            return query(portal)
        except PortalError as problem:
            broken = not still_usable(problem)
            raise
        finally:
            if broken:
                with suppress(PortalError):
                    portal.close()
            else:
                self._idle.put(portal)

    def close(self) -> None:
        """Finish the calls under way, drop the calls that wait, and close the portals."""
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().close()
