"""Open portals behind the service: several for whoever reads, one for whoever writes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from provisioner.embedded.host import PortalHost
from provisioner.embedded.server.api_clients import ClientStore
from provisioner.errors import PortalError
from provisioner.storage.database import Connection, still_usable

T = TypeVar("T")


class Opened(PortalHost, ClientStore, Protocol):
    """A portal that is open, with the books of its clients."""


class ReaderPool:
    """Open portals for reading side by side, each in a thread at a time; a broken one is replaced."""

    def __init__(self, opening: Callable[[], Opened], most: int) -> None:
        self._opening = opening
        self._idle: SimpleQueue[Opened] = SimpleQueue()
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="portal")

    async def ask(self, question: Callable[[Opened], T]) -> T:
        """The answer of one of them. Raises :class:`PortalError` and what ``question`` raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, question)

    def _ask(self, question: Callable[[Opened], T]) -> T:
        try:
            host = self._idle.get_nowait()
        except Empty:
            return self._answer(self._opening(), question)
        try:
            return self._answer(host, question)
        except PortalError:
            # it has lain here while the database was away; a new one may reach it
            return self._answer(self._opening(), question)

    def _answer(self, host: Opened, question: Callable[[Opened], T]) -> T:
        try:
            answer = question(host)
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
        """Let go of all; whoever asks is answered first."""
        self._threads.shutdown()
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()


class WriterPortal:
    """One portal for whatever is written; opened anew after its database was away."""

    def __init__(self, opening: Callable[[], Opened]) -> None:
        self._opening = opening
        self._lock = threading.Lock()
        self._host: Opened | None = opening()

    def ask(self, question: Callable[[Opened], T]) -> T:
        """The answer. Raises :class:`PortalError` and what ``question`` raises."""
        with self._held() as host:
            return question(host)

    @contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """See :class:`~provisioner.embedded.server.api_clients.ClientStore`."""
        with self._held() as host, host.write_transaction() as connection:
            yield connection

    @contextmanager
    def read_transaction(self) -> Iterator[Connection]:
        """Likewise."""
        with self._held() as host, host.read_transaction() as connection:
            yield connection

    def close(self) -> None:
        """Let go of it."""
        if self._host is not None:
            self._host.close()

    @contextmanager
    def _held(self) -> Iterator[Opened]:
        with self._lock:
            host = self._host = self._host or self._opening()
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
