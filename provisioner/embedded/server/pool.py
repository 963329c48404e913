"""The open portals behind the service: several readers and one writer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from typing_extensions import override

from provisioner.embedded.portal import SqlPortal
from provisioner.embedded.server.api_clients import ClientStore
from provisioner.errors import PortalError
from provisioner.storage.database import Connection, still_usable

T = TypeVar("T")


class ReaderPool:
    """Open portals for concurrent reads, each used by one thread at a time; a broken one is replaced."""

    def __init__(self, open_portal: Callable[[], SqlPortal], most: int) -> None:
        self._open_portal = open_portal
        self._idle: SimpleQueue[SqlPortal] = SimpleQueue()
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="portal")

    async def ask(self, query: Callable[[SqlPortal], T]) -> T:
        """The result of a query on one of them. Raises :class:`PortalError` and what ``query`` raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, query)

    def _ask(self, query: Callable[[SqlPortal], T]) -> T:
        try:
            host = self._idle.get_nowait()
        except Empty:
            return self._answer(self._open_portal(), query)
        try:
            return self._answer(host, query)
        except PortalError:
            # the database may have been away while this one was idle; a new one may reach it
            return self._answer(self._open_portal(), query)

    def _answer(self, host: SqlPortal, query: Callable[[SqlPortal], T]) -> T:
        try:
            answer = query(host)
        except PortalError:
            with suppress(PortalError):
                host.close()
            raise
        except BaseException:
            self._idle.put(host)
            raise
        self._idle.put(host)
        return answer

    def close(self) -> None:
        """Close all, after the queries under way."""
        self._threads.shutdown()
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()


class WriterPortal(ClientStore):
    """One portal for all writes; reopened after its database was away."""

    def __init__(self, open_portal: Callable[[], SqlPortal]) -> None:
        self._open_portal = open_portal
        self._lock = threading.Lock()
        self._host: SqlPortal | None = open_portal()

    def ask(self, query: Callable[[SqlPortal], T]) -> T:
        """The result of a call. Raises :class:`PortalError` and what ``query`` raises."""
        with self._held() as host:
            return query(host)

    @override
    @contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        with self._held() as host, host.write_transaction() as connection:
            yield connection

    @override
    @contextmanager
    def read_transaction(self) -> Iterator[Connection]:
        with self._held() as host, host.read_transaction() as connection:
            yield connection

    def close(self) -> None:
        """Close the portal."""
        if self._host is not None:
            self._host.close()

    @contextmanager
    def _held(self) -> Iterator[SqlPortal]:
        with self._lock:
            host = self._host = self._host or self._open_portal()
        try:
            yield host
        except PortalError as problem:
            if still_usable(problem):
                raise
            with self._lock:
                if self._host is host:
                    self._host = None
            with suppress(PortalError):
                host.close()
            raise
