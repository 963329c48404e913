"""How letters travel: into a maildir, or to a mail server. The only async part of the program.

SMTP is spoken step by step, because only a loss between the body's first byte and its answer is
ambiguous; whatever breaks before may be tried again, and whatever is refused is known.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from provisioner.errors import MailError

BODY_TIMEOUT = 600.0
"""Seconds to wait for the answer after the final dot (RFC 5321, 4.5.3.2.6)."""

MESSAGES_A_CONNECTION = 500
"""Servers tire of endless connections; a new one is opened after this many letters."""

CONNECT_ATTEMPTS = 3
"""How often a connection is tried before the letters stay owed."""

RETRY_SECONDS = 0.4
"""The pause before the second attempt; it doubles with each further one."""


class Message(NamedTuple):
    """A letter ready to travel; ``sender`` and ``recipient`` are bare addresses."""

    key: str
    sender: str
    recipient: str
    content: bytes


class DeliveryState(StrEnum):
    """Where a letter stands after an attempt."""

    SENT = "sent"
    OWED = "owed"
    """Not accepted, or never asked: safe to try again."""
    FAILED = "failed"
    """Refused for good."""
    UNKNOWN = "unknown"
    """Cut off while the server had the body: it may or may not have been accepted."""


class Delivery(NamedTuple):
    """What became of one letter, and why."""

    key: str
    state: DeliveryState
    detail: str = ""


class Transport(Protocol):
    """Takes letters one by one and tells each one's fate."""

    repeatable: bool
    """Delivering a letter twice leaves one: its key is its name there."""

    def deliver(
        self,
        messages: Iterable[Message],
        *,
        on_body: Callable[[str], None],
        on_delivery: Callable[[Delivery], None],
        stop: Callable[[], bool],
    ) -> None:
        """Deliver; ``on_body`` has returned before the first byte of a body leaves.

        ``on_delivery`` is called once a message. When ``stop`` says so the letters in hand are
        finished and no more are taken. Raises :class:`MailError` at the end when something
        concerns them all: no connection, a refused password, a certificate that does not hold.
        """
        ...


def open_transport(
    url: str,
    *,
    root: Path,
    username: str = "",
    password: str = "",
    tls: str = "required",
    ca_file: str = "",
    connections: int = 4,
    timeout: float = 60.0,
) -> Transport:
    """The transport behind ``maildir:PATH``, ``smtp://HOST[:PORT]`` or ``smtps://HOST[:PORT]``."""
    scheme, _, rest = url.partition(":")
    if scheme == "maildir" and rest:
        return Maildir(root / rest)
    if scheme in ("smtp", "smtps"):
        parts = urlsplit(url)
        if not parts.hostname:
            raise MailError(f"{url} names no mail server.", "Write smtp://mail.example.com:587")
        server = Server(
            host=parts.hostname,
            port=parts.port or (465 if scheme == "smtps" else 587),
            implicit_tls=scheme == "smtps",
            starttls=scheme == "smtp" and tls == "required",
            context=_tls_context(root, ca_file),
            username=username,
            password=password,
            timeout=timeout,
        )
        return Smtp(server, connections)
    raise MailError(f"No transport for {url}.", "Use maildir:PATH, smtp://HOST:PORT or smtps://HOST:PORT.")


def _tls_context(root: Path, ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(root / ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as problem:
        raise MailError(
            f"The certificates of {ca_file} cannot be read: {problem}.", "Check ca_file."
        ) from problem


class Maildir:
    """A folder in the maildir format; a letter's file is named by its key, so a second finds the first."""

    repeatable = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def deliver(
        self,
        messages: Iterable[Message],
        *,
        on_body: Callable[[str], None],
        on_delivery: Callable[[Delivery], None],
        stop: Callable[[], bool],
    ) -> None:
        """See :class:`Transport`."""
        try:
            self._prepare()
        except OSError as problem:
            raise MailError(
                f"The maildir {self._path} cannot be used: {problem.strerror or problem}.",
                "Check the folder, its permissions and the space left; the letters stay owed.",
            ) from problem
        there = self._present()
        trouble: OSError | None = None
        for message in messages:
            name = f"{message.key}.provisioner"
            on_body(message.key)
            try:
                if name not in there:
                    self._write(name, message.content)
                on_delivery(Delivery(message.key, DeliveryState.SENT))
            except OSError as problem:
                trouble = problem
                on_delivery(Delivery(message.key, DeliveryState.OWED, str(problem.strerror or problem)))
            if trouble or stop():
                break
        if trouble is not None:
            raise MailError(
                f"The maildir {self._path} cannot be written: {trouble.strerror or trouble}.",
                "Mend it, then send what is owed: provisioner mail send",
            ) from trouble

    def _prepare(self) -> None:
        for folder in ("tmp", "new", "cur"):
            (self._path / folder).mkdir(mode=0o700, parents=True, exist_ok=True)

    def _present(self) -> set[str]:
        return {
            entry.name.partition(":")[0]
            for folder in ("new", "cur")
            for entry in os.scandir(self._path / folder)
        }

    def _write(self, name: str, content: bytes) -> None:
        temporary = self._path / "tmp" / name
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.replace(b"\r\n", b"\n"))
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, self._path / "new" / name)
        folder = os.open(self._path / "new", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@dataclass(frozen=True, slots=True)
class Server:
    """A mail server and how it is spoken to. ``password`` goes out only once TLS stands."""

    host: str
    port: int
    implicit_tls: bool
    starttls: bool
    context: ssl.SSLContext
    username: str
    password: str
    timeout: float

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class _Lost(Exception):
    """The connection is of no more use; the letter in hand has been told already."""


class Smtp:
    """Some connections to one mail server, each used for many letters."""

    repeatable = False

    def __init__(self, server: Server, connections: int) -> None:
        self._server = server
        self._connections = connections

    def deliver(
        self,
        messages: Iterable[Message],
        *,
        on_body: Callable[[str], None],
        on_delivery: Callable[[Delivery], None],
        stop: Callable[[], bool],
    ) -> None:
        """See :class:`Transport`."""
        asyncio.run(
            _Dispatch(self._server, iter(messages), on_body, on_delivery, stop).run(self._connections)
        )


class _Dispatch:
    """One delivery: workers that share the queue of letters and the first trouble that concerns them all."""

    def __init__(
        self,
        server: Server,
        messages: Iterator[Message],
        on_body: Callable[[str], None],
        on_delivery: Callable[[Delivery], None],
        stop: Callable[[], bool],
    ) -> None:
        self._server = server
        self._messages = messages
        self._on_body = on_body
        self._on_delivery = on_delivery
        self._stop = stop
        self._trouble: MailError | None = None

    async def run(self, connections: int) -> None:
        # the first connection shows whether the server takes us at all, before others are opened
        first = self._next()
        if first is None:
            return
        client = await self._connected(first)
        if client is not None:
            await asyncio.gather(
                self._work(client, first), *(self._work(None, None) for _ in range(connections - 1))
            )
        if self._trouble is not None:
            raise self._trouble

    def _next(self) -> Message | None:
        if self._trouble is not None or self._stop():
            return None
        return next(self._messages, None)

    async def _work(self, client: Any, message: Message | None) -> None:
        """Send letters until none is left; reconnect when the server hangs up."""
        used = 0
        message = message or self._next()
        while message is not None:
            if client is None:
                client = await self._connected(message)
                if client is None:
                    return
                used = 0
            try:
                delivery = await self._send(client, message)
                used += 1
            except _Lost:
                used = MESSAGES_A_CONNECTION
            else:
                self._on_delivery(delivery)
            if used >= MESSAGES_A_CONNECTION:
                await self._closed(client)
                client = None
            message = self._next()
        await self._closed(client)

    async def _connected(self, message: Message) -> Any:
        """A connection ready for MAIL; None when there is none to be had: ``message`` stays owed."""
        from aiosmtplib import SMTPAuthenticationError, SMTPException

        problem: Exception | None = None
        for attempt in range(CONNECT_ATTEMPTS):
            if attempt:
                await asyncio.sleep(RETRY_SECONDS * 2 ** (attempt - 1))
            try:
                return await self._connect()
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
        self._give_up(
            message,
            MailError(
                f"The mail server {self._server} cannot be used: {_words(problem)}.",
                "Check mail: transport: in provisioner.yaml and the server; the letters stay owed: "
                "provisioner mail send",
            ),
        )
        return None

    def _give_up(self, message: Message, trouble: MailError) -> None:
        self._trouble = self._trouble or trouble
        self._on_delivery(Delivery(message.key, DeliveryState.OWED, trouble.sentence))

    def _refused_login(self, refused: Exception) -> MailError:
        return MailError(
            f"The mail server {self._server} refuses the login of {self._server.username!r}: "
            f"{_words(refused)}.",
            "Check username and password; the letters stay owed: provisioner mail send",
        )

    async def _connect(self) -> Any:
        from aiosmtplib import SMTP

        server = self._server
        client = SMTP(
            hostname=server.host,
            port=server.port,
            timeout=server.timeout,
            use_tls=server.implicit_tls,
            # never None, which means: in clear if the server says so
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
        except BaseException:
            client.close()
            raise
        return client

    async def _send(self, client: Any, message: Message) -> Delivery:
        """One letter over a standing connection. Raises :class:`_Lost` once its fate has been told."""
        from aiosmtplib import SMTPException, SMTPResponseException

        key = message.key
        try:
            await client.mail(message.sender)
            await client.rcpt(message.recipient)
            answer = await client.execute_command(b"DATA")
            if answer.code != 354:
                return await self._refused(client, key, answer.code, answer.message)
        except SMTPResponseException as refusal:
            return await self._refused(client, key, refusal.code, refusal.message)
        except (SMTPException, OSError, TimeoutError, ValueError) as problem:
            self._on_delivery(Delivery(key, DeliveryState.OWED, f"no connection: {_words(problem)}"))
            raise _Lost from problem
        # committed before the first byte of the body leaves: from here on nobody can tell
        self._on_body(key)
        try:
            answer = await _send_body(client, message.content)
        except (SMTPException, OSError, TimeoutError, ValueError) as problem:
            self._on_delivery(
                Delivery(key, DeliveryState.UNKNOWN, f"cut off while the server had it: {_words(problem)}")
            )
            raise _Lost from problem
        if 200 <= answer.code < 300:
            return Delivery(key, DeliveryState.SENT)
        if answer.code < 400:
            self._on_delivery(Delivery(key, DeliveryState.UNKNOWN, f"the server answered {answer.code}"))
            raise _Lost
        return await self._refused(client, key, answer.code, answer.message)

    async def _refused(self, client: Any, key: str, code: int, words: str) -> Delivery:
        """4xx: for now, 5xx: for good. 421 means that the server hangs up."""
        from aiosmtplib import SMTPException

        said = f"{code} {' '.join(words.split())}"[:300]
        state = DeliveryState.FAILED if 500 <= code < 600 else DeliveryState.OWED
        if code == 421 or code < 400:
            self._on_delivery(Delivery(key, state, said))
            raise _Lost
        try:
            await client.rset()
        except (SMTPException, OSError, TimeoutError) as problem:
            self._on_delivery(Delivery(key, state, said))
            raise _Lost from problem
        return Delivery(key, state, said)

    async def _closed(self, client: Any) -> None:
        """Say goodbye; how the server takes it is of no importance."""
        from aiosmtplib import SMTPException

        if client is None:
            return
        try:
            await client.quit(timeout=2.0)
        except (SMTPException, OSError, TimeoutError, ValueError):
            pass
        finally:
            client.close()


_BARE_LINE_END = re.compile(rb"\r\n|\r|\n")


async def _send_body(client: Any, content: bytes) -> Any:
    """The body after a 354, dot-stuffed, and the server's answer to it."""
    lines = _BARE_LINE_END.sub(b"\r\n", content)
    body = re.sub(rb"(?m)^\.", b"..", lines)
    protocol = client.protocol
    # as aiosmtplib's own DATA does; it has no call for the body apart from the command
    protocol._response_pending = True
    protocol.write(body + (b"" if body.endswith(b"\r\n") else b"\r\n") + b".\r\n")
    return await protocol.read_response(timeout=BODY_TIMEOUT)


def _is_lasting(problem: Exception) -> bool:
    """Trying again at once would not help: a certificate, or a refusal for good."""
    return isinstance(problem, ssl.SSLError) or 500 <= int(getattr(problem, "code", 0) or 0) < 600


def _words(problem: Exception | None) -> str:
    """A library's exception in a few words on one line."""
    words = " ".join(str(problem).split()) or type(problem).__name__
    return words[:300].rstrip(".")
