"""One connection to a mail server: aiosmtplib's commands, and the delivery that each reply leads to.

    MAIL  RCPT          refused: 4xx owed, 5xx failed; lost: nothing was sent, so the letter may be sent again
    DATA and the body   250 sent; 4xx owed; 5xx failed; no answer, or one that cannot be read: unknown

aiosmtplib sends DATA and the body in one call and reports a lost connection before the reply to DATA like one
after the final dot, so every loss inside that call is unknown.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass

from aiosmtplib import SMTP, SMTPDataError, SMTPException, SMTPResponseException

from provisioner.errors import MailError
from provisioner.mail.delivery import Delivery, DeliveryState, Message

BODY_TIMEOUT = 600.0
"""Seconds to wait for each of the two replies inside DATA (RFC 5321, 4.5.3.2.6 asks it of the second)."""

QUIT_TIMEOUT = 2.0
"""Seconds to wait for the reply to QUIT, which changes nothing."""


@dataclass(frozen=True, slots=True)
class Server:
    """A mail server and how to connect to it. ``password`` is sent over TLS only."""

    host: str
    port: int
    implicit_tls: bool
    starttls: bool
    context: ssl.SSLContext | None
    """None without TLS."""
    username: str
    password: str
    timeout: float
    """Seconds to wait for each reply outside DATA."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class ConnectionLost(Exception):
    """The connection ended before DATA was sent: the letter may be sent over another one."""


class SmtpConnection:
    """A connection that is secured and logged in."""

    def __init__(self, client: SMTP) -> None:
        self._client = client

    @property
    def is_open(self) -> bool:
        """True while another letter can be sent over this connection."""
        return self._client.is_connected

    async def send_envelope(self, message: Message) -> Delivery | None:
        """Send MAIL and RCPT. Returns None if both are accepted, else the delivery of the letter.

        Raises :class:`ConnectionLost`.
        """
        try:
            await self._client.mail(message.sender)
            await self._client.rcpt(message.recipient)
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
        """Send DATA and the body; returns the delivery of the letter."""
        try:
            await self._client.data(message.content, timeout=BODY_TIMEOUT)
        except SMTPDataError as answer:
            await self._recover(answer)
            # a 250 after the body raises nothing: this one was the reply to DATA, and no body was sent
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
        """Send QUIT and close the connection, whatever the server answers."""
        transport = self._client.transport
        with suppress(SMTPException, OSError):
            await self._client.quit(timeout=QUIT_TIMEOUT)
        _abort(transport)
        self._client.close()

    def abort(self) -> None:
        """Close the connection at once."""
        _abort(self._client.transport)
        self._client.close()

    async def _recover(self, answer: SMTPResponseException) -> None:
        """Reset the connection after a refusal; close it after a reply that is not a plain refusal."""
        if not _is_refusal(answer) or answer.code == 421:
            self.abort()
            return
        try:
            await self._client.rset()
        except (SMTPException, OSError):
            self.abort()


async def connect(server: Server) -> SmtpConnection:
    """Connect, start TLS as ``server`` says, never opportunistically, and log in.

    Raises :class:`MailError` where the connection would not be secure, and what aiosmtplib raises.
    """
    client = SMTP(
        hostname=server.host,
        port=server.port,
        timeout=server.timeout,
        use_tls=server.implicit_tls,
        # None would mean: in clear if the server offers no TLS
        start_tls=False,
        tls_context=server.context,
    )
    try:
        await client.connect()
        await client.ehlo()
        if server.starttls:
            if not client.supports_extension("starttls"):
                raise MailError(
                    f"The mail server {server} offers no STARTTLS, so nothing was sent in clear.",
                    "Use a server with TLS; or, for one on this machine, write tls: none under mail:.",
                )
            await client.starttls(tls_context=server.context)
            await client.ehlo()
        if server.username:
            if not (server.implicit_tls or server.starttls):
                raise MailError(
                    "A password is not sent over a connection without TLS.",
                    "Remove tls: none, or username, under mail: in provisioner.yaml.",
                )
            await client.login(server.username, server.password)
        if not client.is_connected:
            raise ConnectionError("the server hung up")
    except BaseException:
        _abort(client.transport)
        client.close()
        raise
    return SmtpConnection(client)


def in_short(problem: Exception | None) -> str:
    """An exception on one line, of at most 300 characters."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text[:300].rstrip(".")


def _abort(transport: asyncio.BaseTransport | None) -> None:
    # close() of a TLS connection waits for the server, perhaps for longer than the event loop runs
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


def _is_refusal(answer: SMTPResponseException) -> bool:
    return 400 <= answer.code < 600


def _refused(message: Message, answer: SMTPResponseException) -> Delivery:
    """The delivery of a letter that the server refused: failed for a 5xx reply, else owed."""
    state = DeliveryState.FAILED if 500 <= answer.code < 600 else DeliveryState.OWED
    return Delivery(message.key, state, _reply(answer))


def _reply(answer: SMTPResponseException) -> str:
    """The server's reply on one line; aiosmtplib gives the code -1 to a reply that cannot be read."""
    code = "" if answer.code < 0 else f"{answer.code} "
    return f"{code}{' '.join(answer.message.split())}"[:300]
