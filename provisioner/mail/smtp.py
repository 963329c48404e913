"""A transport that sends letters to a mail server over a few connections, many letters per connection.

    1. MAIL and RCPT are sent.
    2. The state ``body`` of the letter is recorded.
    3. DATA and the body are sent.
    4. After the reply 250, the state ``sent`` is recorded.

If the connection is lost before step 3, the letter can safely be sent again. If it is lost in step 3, it is
unknown whether the server accepted the letter. A connection sends a command only after the reply to the
previous command. The states of the letters of all connections are recorded together, in one commit.
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
"""The maximum number of letters per connection, because mail servers limit this number."""

CONNECT_ATTEMPTS = 3
"""The maximum number of attempts to connect. If all attempts fail, the letters stay ``owed``."""

RETRY_SECONDS = 0.4
"""The pause in seconds before the second attempt to connect. It doubles before each further attempt."""


class Smtp(Transport):
    """A transport that uses at most ``connections`` connections to one mail server at the same time."""

    def __init__(self, server: Server, connections: int) -> None:
        self._server = server
        self._connections = connections

    @override
    def deliver(self, messages: Iterable[Message], *, record: Record, stop: Callable[[], bool]) -> None:
        asyncio.run(_Delivery(self._server, iter(messages), record, stop).run(self._connections))


class _Delivery:
    """One call of :meth:`Smtp.deliver`: the letters and the first fatal problem, shared by all workers."""

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
        """True while several workers send. If one of them cannot connect, the others send its letter."""
        self._open: set[SmtpConnection] = set()

    async def run(self, connections: int) -> None:
        workers: list[asyncio.Task[None]] = []
        try:
            # open one connection first, to see whether the server accepts connections at all
            first = self._next()
            connection = await self._connected(first) if first is not None else None
            if connection is not None:
                workers.append(asyncio.create_task(self._work(connection, first)))
                workers += [asyncio.create_task(self._work(None, None)) for _ in range(connections - 1)]
                self._parallel = True
                await asyncio.gather(*workers)
                self._parallel = False
                # send the letters that a worker returned after the other workers had ended
                while self._returned and self._problem is None and not self._stop():
                    await self._work(None, None)
        finally:
            for worker in workers:
                worker.cancel()
            # wait, because a cancelled worker may still have to close its connection
            await asyncio.gather(*workers, return_exceptions=True)
            for connection in self._open:
                connection.abort()
            self._records.close()
        if self._records.broken is not None:
            raise self._records.broken
        if self._problem is not None:
            raise self._problem

    def _next(self) -> Message | None:
        """Return the next letter, or None at the end. Record letters with an invalid address as failed."""
        while self._problem is None and not self._stop():
            message = self._returned.popleft() if self._returned else next(self._messages, None)
            if message is None or (_is_address(message.sender) and _is_address(message.recipient)):
                return message
            detail = f"{message.recipient!r} is not an address that mail can go to"
            self._records.delivered(Delivery(message.key, DeliveryState.FAILED, detail))
        return None

    async def _work(self, connection: SmtpConnection | None, message: Message | None) -> None:
        """Send letters until no letter is left. Reconnect when the server closes the connection."""
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
        """Send letters until the connection ends. Return the letter that needs a new connection, or None."""
        current: Message | None = message
        sent = 0
        while current is not None:
            try:
                delivery = await self._send(connection, current)
            except ConnectionLost as loss:
                # a server may close the connection between two letters: then try once over a new connection
                if sent:
                    return current
                delivery = Delivery(current.key, DeliveryState.OWED, str(loss))
            self._records.delivered(delivery)
            sent += 1
            current = self._next() if connection.is_open and sent < MESSAGES_A_CONNECTION else None
        return None

    async def _send(self, connection: SmtpConnection, message: Message) -> Delivery:
        """Send one letter. Raises :class:`ConnectionLost` if the connection is lost before DATA."""
        refusal = await connection.send_envelope(message)
        if refusal is not None:
            return refusal
        await self._records.body(message.key)
        # two rounds of the event loop, which detect and handle a connection that was closed during the commit
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not connection.is_open:
            raise ConnectionLost("no connection: the server hung up")
        self._records.body_started(message.key)
        return await connection.send_body(message)

    async def _connected(self, message: Message) -> SmtpConnection | None:
        """Open a connection that is ready for the command MAIL. Return None if no connection can be opened.

        In the case of None, ``message`` has been recorded as ``owed`` or left to the other workers.
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
            # a server may accept fewer connections than configured, so another worker sends this letter
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
"""Matches only addresses that aiosmtplib sends unchanged. It cuts others at a comma or at a comment."""


def _is_lasting(problem: Exception) -> bool:
    """Return True if another attempt would also fail: after a TLS error or a permanent refusal (5xx)."""
    return isinstance(problem, ssl.SSLError) or 500 <= int(getattr(problem, "code", 0) or 0) < 600
