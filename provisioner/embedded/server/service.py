"""The portal behind the service: its readers, its writer, and the sessions of tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from provisioner.embedded.portal import SqlPortal
from provisioner.embedded.portal_types import AuthorisedCall
from provisioner.embedded.server.api_clients import ApiClient, ApiClients, ClientSession, digest
from provisioner.embedded.server.batch_writer import BatchWriter
from provisioner.embedded.server.pool import PortalPool
from provisioner.embedded.server.problem_details import Problem
from provisioner.embedded.server.routes import Operation
from provisioner.model import Clock
from provisioner.portal import Receipt

READERS = 4
"""How many reads run at once; further reads wait."""

FRESH_SECONDS = 1.0
"""How long a session is used without reading the database again, which delays refusing a disabled client."""

READY_SECONDS = 5.0
"""The time limit for the database in a readiness check."""

MAX_SESSIONS = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class CheckedRequest:
    """A request whose parameters and body are valid, and whose client may do this operation."""

    operation: Operation
    session: ClientSession | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """The values of the parameters in the request, by their names in the table of operations."""
    body: Any = None


class Service:
    """One portal with its readers, its writer and the sessions of its tokens."""

    def __init__(
        self, open_portal: Callable[[], SqlPortal], clock: Clock, monotonic: Callable[[], float]
    ) -> None:
        self.clock = clock
        self._monotonic = monotonic
        # three pools, because a write that waits for the lock of the database must not delay reads
        self._readers = PortalPool(open_portal, READERS)
        self._writer = PortalPool(open_portal, 1)
        self._tokens = PortalPool(open_portal, 1)
        self._batches = BatchWriter(lambda jobs: self.write(lambda portal: portal.work(jobs)))
        self._sessions: dict[str, tuple[ClientSession, float]] = {}

    def close(self) -> None:
        """Finish the calls under way and close the databases."""
        for pool in (self._writer, self._tokens, self._readers):
            pool.close()

    async def read(self, query: Callable[[SqlPortal], T]) -> T:
        """The result of a query on one of the readers."""
        return await self._readers.ask(query)

    async def write(self, query: Callable[[SqlPortal], T]) -> T:
        """The result of a call that writes anything but steps."""
        return await self._writer.ask(query)

    async def issue(self, client: ApiClient, scopes: frozenset[str], seconds: int) -> str:
        """A new token for this client, valid for so many seconds."""
        now = self.clock()
        token = await self._tokens.ask(lambda portal: ApiClients(portal).issue(client, scopes, now, seconds))
        self._remember(
            digest(token), ClientSession(client.id, client.role, scopes, int(now.timestamp()) + seconds)
        )
        return token

    def has_seen(self, token: str) -> bool:
        """True if the token was valid recently."""
        return digest(token) in self._sessions

    async def work(self, job: AuthorisedCall) -> Receipt:
        """Do one step, in one transaction with the other steps that wait, and return its receipt."""
        return await self._batches.do(job)

    async def require_ready(self) -> None:
        """Check that the database answers. Raises :class:`PortalError`, and :class:`TimeoutError`."""
        async with asyncio.timeout(READY_SECONDS):
            await self.read(lambda portal: portal.lease("readyz"))

    async def session(self, token: str) -> ClientSession:
        """The session of this token. Raises :class:`Problem`."""
        hashed = digest(token)
        known = self._sessions.get(hashed)
        if known is None or known[1] <= self._monotonic():
            found = await self.read(lambda portal: ApiClients(portal).session(hashed))
            if found is None:
                self._sessions.pop(hashed, None)
                raise no_token("The access token is unknown, or its client was disabled.")
            known = self._remember(hashed, found)
        session = known[0]
        if session.expires <= self.clock().timestamp():
            self._sessions.pop(hashed, None)
            raise no_token("The access token has expired.")
        return session

    def _remember(self, hashed: str, session: ClientSession) -> tuple[ClientSession, float]:
        if len(self._sessions) >= MAX_SESSIONS:
            self._sessions.clear()
        known = self._sessions[hashed] = session, self._monotonic() + FRESH_SECONDS
        return known


def no_token(sentence: str) -> Problem:
    """The problem (401) of an invalid token."""
    return Problem("token", sentence, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
