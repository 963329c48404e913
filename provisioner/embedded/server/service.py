"""The portal, served: who reads, who writes, and whose token it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from provisioner.embedded.host import AuthorisedCall, Lease
from provisioner.embedded.server.api_clients import ApiClient, ApiClients, Session, digest
from provisioner.embedded.server.batch_writer import BatchWriter
from provisioner.embedded.server.pool import Opened, ReaderPool, WriterPortal
from provisioner.embedded.server.problem_details import Problem
from provisioner.embedded.server.routes import Operation
from provisioner.model import Clock
from provisioner.portal import Receipt

READERS = 4
"""Reads under way at once; more would only share the same processor."""

FRESH_SECONDS = 1.0
"""How long a token is taken without asking the database again: a disabled client is out after that."""

READY_SECONDS = 5.0
"""How long a database that is well takes to answer, at most."""

MOST_SESSIONS = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class CheckedRequest:
    """A request, checked: its values have their types, and its client may do this."""

    entry: Operation
    session: Session | None = None
    path: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    """Those of the endpoint's parameters, by their names in the table."""
    body: Any = None


@dataclass(frozen=True)
class ServiceResponse:
    """An answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Service:
    """A portal, served."""

    def __init__(
        self, opening: Callable[[], Opened], clients: ApiClients, clock: Clock, monotonic: Callable[[], float]
    ) -> None:
        self.clients = clients
        self.clock = clock
        self._monotonic = monotonic
        self._writing = WriterPortal(opening)
        self._hosts = ReaderPool(opening, READERS)
        self._writer: BatchWriter | None = None
        # whoever waits to write, or for a token, waits in a thread of these, and nobody else does
        self._pen = ThreadPoolExecutor(1, thread_name_prefix="pen")
        self._door = ThreadPoolExecutor(1, thread_name_prefix="door")
        self._sessions: dict[str, tuple[Session, float]] = {}
        self._readiness: asyncio.Future[Lease | None] | None = None
        self._ready_until = 0.0

    def start(self) -> None:
        """Begin to write, in the event loop that runs."""
        self._writer = BatchWriter(
            lambda jobs: self._writing.ask(lambda host: host.work(jobs)), asyncio.get_running_loop()
        )

    def close(self) -> None:
        """Finish what is in hand and let go."""
        for threads in (self._pen, self._door):
            threads.shutdown(wait=False, cancel_futures=True)
        if self._writer is not None:
            self._writer.close()
        for threads in (self._pen, self._door):
            threads.shutdown()
        self._hosts.close()
        self._writing.close()

    async def read(self, question: Callable[[Opened], T]) -> T:
        """What one of the reading portals answers."""
        return await self._hosts.ask(question)

    async def write(self, question: Callable[[Opened], T]) -> T:
        """What the writing portal answers: anything but steps."""
        return await asyncio.get_running_loop().run_in_executor(self._pen, self._writing.ask, question)

    async def log_in(self, client_id: str, secret: str) -> ApiClient | None:
        """See :meth:`~provisioner.embedded.server.api_clients.ApiClients.log_in`."""
        return await self.read(lambda host: ApiClients(host).log_in(client_id, secret))

    async def issue(self, client: ApiClient, scopes: frozenset[str], seconds: int) -> str:
        """See :meth:`~provisioner.embedded.server.api_clients.ApiClients.issue`."""
        now = self.clock()
        token = await asyncio.get_running_loop().run_in_executor(
            self._door, self.clients.issue, client, scopes, now, seconds
        )
        self._know(digest(token), Session(client.id, client.role, scopes, int(now.timestamp()) + seconds))
        return token

    def knows(self, token: str) -> bool:
        """It was good not long ago."""
        return digest(token) in self._sessions

    async def work(self, job: AuthorisedCall) -> Receipt:
        """A step, done together with whatever else waits."""
        assert self._writer is not None
        return await self._writer.do(job)

    async def require_ready(self) -> None:
        """The database answers, or did a moment ago: everybody may ask, so it is asked once for all.

        The answer stands for a second, whatever it was. Raises :class:`PortalError`, and
        :class:`TimeoutError` where there is none.
        """
        asked = self._readiness
        if asked is None or (asked.done() and self._ready_until <= self._monotonic()):
            asked = self._readiness = asyncio.ensure_future(self.read(lambda host: host.lease("readyz")))
            self._ready_until = self._monotonic() + FRESH_SECONDS
        async with asyncio.timeout(READY_SECONDS):
            await asyncio.shield(asked)

    async def session(self, token: str) -> Session:
        """Who has this token. Raises :class:`Problem`."""
        hashed = digest(token)
        known = self._sessions.get(hashed)
        if known is None or known[1] <= self._monotonic():
            found = await self.read(lambda host: ApiClients(host).session(hashed))
            if found is None:
                self._sessions.pop(hashed, None)
                raise no_token("The access token is unknown, or its client was disabled.")
            known = self._know(hashed, found)
        session = known[0]
        if session.expires <= self.clock().timestamp():
            self._sessions.pop(hashed, None)
            raise no_token("The access token has expired.")
        return session

    def _know(self, hashed: str, session: Session) -> tuple[Session, float]:
        if len(self._sessions) >= MOST_SESSIONS:
            self._sessions.clear()
        known = self._sessions[hashed] = session, self._monotonic() + FRESH_SECONDS
        return known


def no_token(sentence: str) -> Problem:
    """401: log in first."""
    return Problem("token", sentence, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
