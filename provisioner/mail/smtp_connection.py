"""A connection to a mail server. Each reply of the server determines the delivery of a letter:

    MAIL  RCPT          4xx: owed; 5xx: failed; connection lost: the letter can safely be sent again
    DATA and the body   250: sent; 4xx: owed; 5xx: failed; no reply or an unreadable reply: unknown

aiosmtplib sends DATA and the body in one call, and reports every connection lost during the call in the same
way. Therefore the delivery is ``unknown`` even if the connection was lost before the body was sent.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass

from aiosmtplib import SMTP, SMTPDataError, SMTPException, SMTPResponse, SMTPResponseException

from provisioner.errors import MailError
from provisioner.mail.delivery import Delivery, DeliveryState, Message
from provisioner.trace import exchange, is_traced

BODY_TIMEOUT = 600.0
"""The timeout in seconds for the reply to DATA, and for the reply to the body (RFC 5321, 4.5.3.2.6)."""

QUIT_TIMEOUT = 2.0
"""The timeout in seconds for the reply to QUIT. It is short because that reply has no consequences."""


@dataclass(frozen=True, slots=True)
class Server:
    """The address of a mail server and the options to connect to it. ``password`` is sent only over TLS."""

    host: str
    port: int
    implicit_tls: bool
    starttls: bool
    context: ssl.SSLContext | None
    """The TLS settings; None for a connection without TLS."""
    username: str
    password: str
    timeout: float
    """The timeout in seconds for each reply, except the replies to DATA, to the body and to QUIT."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class ConnectionLost(Exception):
    """A connection lost before DATA. The letter can safely be sent over another connection."""


class SmtpConnection:
    """A connection to a mail server, ready for a letter: TLS and the login, if configured, are complete."""

    def __init__(self, client: SMTP, server: Server) -> None:
        self._client = client
        self._server = server

    @property
    def is_open(self) -> bool:
        """True if another letter can be sent over this connection."""
        return self._client.is_connected

    async def send_envelope(self, message: Message) -> Delivery | None:
        """Send MAIL and RCPT. Return None if the server accepts both, otherwise the delivery of the letter.

        Raises :class:`ConnectionLost` if the connection is lost, or if the server closes it (reply 421).
        """
        try:
            await _traced(self._server, f"MAIL FROM:<{message.sender}>", self._client.mail(message.sender))
            await _traced(
                self._server, f"RCPT TO:<{message.recipient}>", self._client.rcpt(message.recipient)
            )
        except SMTPResponseException as refusal:
            await self._recover(refusal)
            if refusal.code == 421:
                raise ConnectionLost(_reply(refusal)) from refusal
            return _refused(message, refusal)
        except (SMTPException, OSError) as loss:
            self.abort()
            raise ConnectionLost(f"no connection: {in_short(loss)}") from loss
        return None

    async def send_body(self, message: Message) -> Delivery:
        """Send DATA and the body, and return the delivery of the letter."""
        try:
            sending = self._client.data(message.content, timeout=BODY_TIMEOUT)
            await _traced(self._server, "DATA", sending, size=len(message.content))
        except SMTPDataError as answer:
            await self._recover(answer)
            # a 250 after the body raises no error, so this 250 was the reply to DATA, and no body was sent
            if _is_refusal(answer) or answer.code == 250:
                return _refused(message, answer)
            return Delivery(message.key, DeliveryState.UNKNOWN, f"the server answered {answer.code}")
        except (SMTPException, OSError) as loss:
            self.abort()
            return Delivery(
                message.key, DeliveryState.UNKNOWN, f"cut off while the server had it: {in_short(loss)}"
            )
        return Delivery(message.key, DeliveryState.SENT)

    async def close(self) -> None:
        """Send QUIT and close the connection, without regard to the reply."""
        transport = self._client.transport
        with suppress(SMTPException, OSError):
            await _traced(self._server, "QUIT", self._client.quit(timeout=QUIT_TIMEOUT))
        _abort(transport)
        self._client.close()

    def abort(self) -> None:
        """Close the connection at once, without QUIT."""
        _abort(self._client.transport)
        self._client.close()

    async def _recover(self, answer: SMTPResponseException) -> None:
        """Send RSET after a 4xx or 5xx reply except 421. After all other replies, close the connection."""
        if not _is_refusal(answer) or answer.code == 421:
            self.abort()
            return
        try:
            await _traced(self._server, "RSET", self._client.rset())
        except (SMTPException, OSError):
            self.abort()


async def connect(server: Server) -> SmtpConnection:
    """Connect to ``server``, start TLS if it is configured, and log in if there is a user name.

    Raises :class:`MailError` if the connection would not be secure. Also raises exceptions of aiosmtplib.
    """
    client = SMTP(
        hostname=server.host,
        port=server.port,
        timeout=server.timeout,
        use_tls=server.implicit_tls,
        # None would mean opportunistic TLS: no encryption if the server does not offer TLS
        start_tls=False,
        tls_context=server.context,
    )
    try:
        await _traced(server, "connect", client.connect())
        await _traced(server, "EHLO", client.ehlo())
        if server.starttls:
            if not client.supports_extension("starttls"):
                raise MailError(
                    f"The mail server {server} offers no STARTTLS, so nothing was sent in clear.",
                    "Use a server with TLS; or, for one on this machine, write tls: none under mail:.",
                )
            await _traced(server, "STARTTLS", client.starttls(tls_context=server.context))
            await _traced(server, "EHLO", client.ehlo())
        if server.username:
            if not (server.implicit_tls or server.starttls):
                raise MailError(
                    "A password is not sent over a connection without TLS.",
                    "Remove tls: none, or username, under mail: in provisioner.yaml.",
                )
            await _traced(server, "AUTH", client.login(server.username, server.password))
        if not client.is_connected:
            raise ConnectionError("the server hung up")
    except BaseException:
        _abort(client.transport)
        client.close()
        raise
    return SmtpConnection(client, server)


async def _traced(server: Server, command: str, reply: Awaitable[SMTPResponse], *, size: int = 0) -> None:
    """Wait for the reply. Trace the command, ``size`` (the bytes sent) and the code of the reply."""
    if not is_traced("smtp"):
        # three commands a letter: an exchange that no logger records would cost 4 % of the time
        await reply
        return
    with exchange("smtp", f"{server} {command}") as done:
        if size:
            done.size = f"{size:,} B sent"
        try:
            done.result = str((await reply).code)
        except SMTPResponseException as refusal:
            done.result = str(refusal.code)
            raise


def in_short(problem: Exception | None) -> str:
    """Return the text of an exception on one line, with at most 300 characters."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text[:300].rstrip(".")


def _abort(transport: asyncio.BaseTransport | None) -> None:
    # not close(): on a TLS connection it waits for the server, which may outlast the event loop
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


def _is_refusal(answer: SMTPResponseException) -> bool:
    return 400 <= answer.code < 600


def _refused(message: Message, answer: SMTPResponseException) -> Delivery:
    state = DeliveryState.FAILED if 500 <= answer.code < 600 else DeliveryState.OWED
    return Delivery(message.key, state, _reply(answer))


def _reply(answer: SMTPResponseException) -> str:
    """Return the server's reply on one line. aiosmtplib uses the code -1 for a reply that cannot be read."""
    code = "" if answer.code < 0 else f"{answer.code} "
    return f"{code}{' '.join(answer.message.split())}"[:300]
