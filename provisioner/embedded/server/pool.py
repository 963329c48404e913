"""A pool of open portals (database connections), which the threads of the service share."""

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
    """A pool of open portals. Each serves one thread at a time and is closed if its connection is lost."""

    def __init__(self, open_portal: Callable[[], SqlPortal], threads: int) -> None:
        self._open_portal = open_portal
        self._idle: SimpleQueue[SqlPortal] = SimpleQueue()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="portal")

    async def ask(self, query: Callable[[SqlPortal], T]) -> T:
        """Run ``query`` on a free portal, in a thread, and return its result. Raises :class:`PortalError` if
        no portal can be opened. Exceptions of ``query`` are passed on.
        """
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
            # the database may have been unavailable while this portal was idle: try once on a new connection
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
        """Wait for the running calls, cancel the calls that have not started, and close the portals."""
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().close()
