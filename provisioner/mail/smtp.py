"""Sends letters to a mail server over a few connections, each used for many letters.

    MAIL RCPT ─▶ recorded: body ─▶ DATA and the body ─▶ 250 ─▶ recorded: sent
    └ safe to repeat ┘             └ ambiguous ┘

Each command waits for its reply. One commit records the bodies and deliveries of all connections.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from aiosmtplib import SMTPAuthenticationError, SMTPException
from typing_extensions import override

from provisioner.errors import MailError
from provisioner.mail.delivery import Delivery, DeliveryState, Message, Record, Transport
from provisioner.mail.group_commit import GroupCommit
from provisioner.mail.smtp_connection import ConnectionLost, Server, SmtpConnection, connect, in_short

MESSAGES_A_CONNECTION = 500
"""Letters a connection: servers limit how many they accept over one."""

CONNECT_ATTEMPTS = 3
"""Attempts to connect before the letters stay owed."""

RETRY_SECONDS = 0.4
"""The pause before the second attempt; the pause doubles with each further attempt."""


class Smtp(Transport):
    """Sends over at most ``connections`` connections to one mail server."""

    def __init__(self, server: Server, connections: int) -> None:
        self._server = server
        self._connections = connections

    @override
    def deliver(self, messages: Iterable[Message], *, record: Record, stop: Callable[[], bool]) -> None:
        asyncio.run(_Delivery(self._server, iter(messages), record, stop).run(self._connections))


class _Delivery:
    """One delivery: workers that share the letters and the first problem that concerns them all."""

    def __init__(
        self, server: Server, messages: Iterator[Message], record: Record, stop: Callable[[], bool]
    ) -> None:
        self._server = server
        self._messages = messages
        self._records = GroupCommit(record)
        self._stop = stop
        self._problem: MailError | None = None
        self._returned: deque[Message] = deque()
        self._parallel = False
        """True while several workers send: a letter without a connection is returned to them."""
        self._open: set[SmtpConnection] = set()

    async def run(self, connections: int) -> None:
        """Send all letters. Raises the first problem that concerns all letters."""
        workers: list[asyncio.Task[None]] = []
        try:
            # the first connection shows whether the server accepts any, before others are opened
            first = self._next()
            connection = await self._connected(first) if first is not None else None
            if connection is not None:
                workers.append(asyncio.create_task(self._work(connection, first)))
                workers += [asyncio.create_task(self._work(None, None)) for _ in range(connections - 1)]
                self._parallel = True
                await asyncio.gather(*workers)
                self._parallel = False
                # letters of a worker that could not connect, returned when the others had ended
                while self._returned and self._problem is None and not self._stop():
                    await self._work(None, None)
        finally:
            for worker in workers:
                worker.cancel()
            # one that was connecting may have a connection to close
            await asyncio.gather(*workers, return_exceptions=True)
            for connection in self._open:
                connection.abort()
            self._records.close()
        if self._records.broken is not None:
            raise self._records.broken
        if self._problem is not None:
            raise self._problem

    def _next(self) -> Message | None:
        """The next letter with usable addresses."""
        while self._problem is None and not self._stop():
            message = self._returned.popleft() if self._returned else next(self._messages, None)
            if message is None or (_is_address(message.sender) and _is_address(message.recipient)):
                return message
            detail = f"{message.recipient!r} is not an address that mail can go to"
            self._records.delivered(Delivery(message.key, DeliveryState.FAILED, detail))
        return None

    async def _work(self, connection: SmtpConnection | None, message: Message | None) -> None:
        """Send letters until none is left; connect again when the server closes the connection."""
        message = message or self._next()
        while message is not None:
            connection = connection or await self._connected(message)
            if connection is None:
                return
            with self._records.active_connection():
                message = await self._send_over(connection, message)
            await connection.close()
            self._open.discard(connection)
            connection = None
            message = message or self._next()

    async def _send_over(self, connection: SmtpConnection, message: Message) -> Message | None:
        """Send letters until the connection ends; returns a letter that needs another one, or None."""
        current: Message | None = message
        sent = 0
        while current is not None:
            try:
                delivery = await self._send(connection, current)
            except ConnectionLost as loss:
                # a server may close a connection between two letters; a new connection gets one attempt
                if sent:
                    return current
                delivery = Delivery(current.key, DeliveryState.OWED, str(loss))
            self._records.delivered(delivery)
            sent += 1
            current = self._next() if connection.is_open and sent < MESSAGES_A_CONNECTION else None
        return None

    async def _send(self, connection: SmtpConnection, message: Message) -> Delivery:
        """Send one letter. Raises :class:`ConnectionLost` if the connection ends before DATA."""
        refusal = await connection.send_envelope(message)
        if refusal is not None:
            return refusal
        await self._records.body(message.key)
        # one round of the event loop to see a connection that was closed during the commit, one to act
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not connection.is_open:
            raise ConnectionLost("no connection: the server hung up")
        self._records.body_started(message.key)
        return await connection.send_body(message)

    async def _connected(self, message: Message) -> SmtpConnection | None:
        """Open a connection that is ready for MAIL.

        Returns None if that fails; ``message`` is then recorded as owed, or returned to the other workers.
        """
        problem: Exception | None = None
        for attempt in range(CONNECT_ATTEMPTS):
            if attempt and self._stop():
                break
            if attempt:
                await asyncio.sleep(RETRY_SECONDS * 2 ** (attempt - 1))
            try:
                connection = await connect(self._server)
            except MailError as trouble:
                self._give_up(message, trouble)
                return None
            except SMTPAuthenticationError as refused:
                self._give_up(message, self._refused_login(refused))
                return None
            except (SMTPException, OSError, TimeoutError, ValueError) as trouble:
                problem = trouble
                if _is_lasting(trouble):
                    break
            else:
                self._open.add(connection)
                return connection
        if self._parallel:
            # a server may accept fewer connections than configured: the others send this letter
            self._returned.appendleft(message)
            return None
        self._give_up(
            message,
            MailError(
                f"The mail server {self._server} cannot be used: {in_short(problem)}.",
                "Check mail: transport: in provisioner.yaml and the server; the letters stay owed: "
                "provisioner mail send",
            ),
        )
        return None

    def _give_up(self, message: Message, problem: MailError) -> None:
        self._problem = self._problem or problem
        self._records.delivered(Delivery(message.key, DeliveryState.OWED, problem.sentence))

    def _refused_login(self, refused: Exception) -> MailError:
        return MailError(
            f"The mail server {self._server} refuses the login of {self._server.username!r}: "
            f"{in_short(refused)}.",
            "Check username and password; the letters stay owed: provisioner mail send",
        )


_is_address = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+").fullmatch
"""Matches an address that aiosmtplib sends unchanged; it cuts other addresses at a comma or a comment."""


def _is_lasting(problem: Exception) -> bool:
    """True if another attempt would not help: a certificate, or a permanent refusal."""
    return isinstance(problem, ssl.SSLError) or 500 <= int(getattr(problem, "code", 0) or 0) < 600
