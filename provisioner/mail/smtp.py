"""Letters to a mail server: some connections, each used for many letters. The only async part of the program.

    MAIL RCPT DATA ─▶ 354 ─▶ recorded: body ─▶ the body ─▶ 250 ─▶ recorded: sent
    └────── safe to try again ───────┘        └ ambiguous ┘

Only a loss between the body's first byte and its answer is ambiguous, so SMTP is spoken step by step;
whatever breaks before may be tried again, and whatever is refused is known. Where the server takes it
(PIPELINING, RFC 2920) the body of one letter and the next one's envelope travel together: one round trip a
letter. What is to be recorded is recorded for all connections together, in one commit.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from provisioner.errors import MailError
from provisioner.limits import MAX_MAIL_REPLY_BYTES
from provisioner.mail.delivery import Delivery, DeliveryState, Message, Record

BODY_TIMEOUT = 600.0
"""Seconds to wait for the answer after the final dot (RFC 5321, 4.5.3.2.6)."""

MESSAGES_A_CONNECTION = 500
"""Servers tire of endless connections; a new one is opened after this many letters."""

CONNECT_ATTEMPTS = 3
"""How often a connection is tried before the letters stay owed."""

RETRY_SECONDS = 0.4
"""The pause before the second attempt; it doubles with each further one."""

GATHER_SECONDS = 0.01
"""How long a letter that may go waits for those of the other connections, to be recorded with them."""

FAREWELL_SECONDS = 2.0
"""How long the answer to QUIT is waited for; it is of no importance."""


@dataclass(frozen=True, slots=True)
class Server:
    """A mail server and how it is spoken to. ``password`` goes out only once TLS stands."""

    host: str
    port: int
    implicit_tls: bool
    starttls: bool
    context: ssl.SSLContext | None
    """None where no TLS is spoken."""
    username: str
    password: str
    timeout: float

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Smtp:
    """Some connections to one mail server."""

    def __init__(self, server: Server, connections: int) -> None:
        self._server = server
        self._connections = connections

    def deliver(self, messages: Iterable[Message], *, record: Record, stop: Callable[[], bool]) -> None:
        """See :class:`~provisioner.mail.delivery.Transport`."""
        asyncio.run(_Dispatch(self._server, iter(messages), record, stop).run(self._connections))


class _Lost(Exception):
    """The connection is of no more use."""


class _Reply(NamedTuple):
    code: int
    text: str

    @property
    def good(self) -> bool:
        return 200 <= self.code < 300

    @property
    def words(self) -> str:
        return f"{self.code} {' '.join(self.text.split())}"[:300]


class _Line(asyncio.Protocol):
    """A connection past its greeting and login: what is written, and the replies in their order."""

    def __init__(self, transport: asyncio.Transport, *, pipelining: bool, timeout: float) -> None:
        self.pipelining = pipelining
        self.timeout = timeout
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._lines: list[str] = []
        self._size = 0
        self._replies: deque[_Reply] = deque()
        self._expected = 0
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._lost: Exception | None = None

    @property
    def is_lost(self) -> bool:
        """Nothing can be sent over it any more."""
        return self._lost is not None

    def write(self, data: bytes, *, replies: int) -> None:
        """Send, and expect so many replies to it. Raises :class:`_Lost`."""
        if self._lost is not None:
            raise _Lost(f"no connection: {_words(self._lost)}")
        self._expected += replies
        self._transport.write(data)

    async def reply(self, timeout: float = 0) -> _Reply:
        """The next reply. Raises :class:`_Lost`."""
        if not self._replies and self._lost is None:
            self._waiter = self._loop.create_future()
            self._deadline = self._loop.time() + (timeout or self.timeout)
            # one timer for many replies: it looks at the deadline of its day
            if self._timer is not None and self._timer.when() > self._deadline:
                self._timer.cancel()
                self._timer = None
            if self._timer is None:
                self._timer = self._loop.call_at(self._deadline, self._look_at_the_clock)
            try:
                await self._waiter
            finally:
                self._waiter = None
        if not self._replies:
            raise _Lost(f"no connection: {_words(self._lost)}")
        return self._replies.popleft()

    async def ask(self, command: bytes) -> _Reply:
        """One command and its reply. Raises :class:`_Lost`."""
        self.write(command, replies=1)
        return await self.reply()

    async def leave(self) -> None:
        """Say goodbye; how the server takes it is of no importance."""
        try:
            self.write(b"QUIT\r\n", replies=1)
            await self.reply(FAREWELL_SECONDS)
        except _Lost:
            pass
        self.drop()

    def drop(self) -> None:
        """Hang up."""
        self._lost = self._lost or ConnectionError("the connection was closed")
        if self._timer is not None:
            self._timer.cancel()
        # to close it politely would wait for the server's end of TLS, which may outlive the loop
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        *whole, self._buffer = (self._buffer + data).split(b"\n")
        self._size += len(data)
        for line in whole:
            if not line[:3].isdigit() or line[3:4] not in (b"-", b" ", b"", b"\r"):
                self._lose(ValueError(f"a reply that is none: {line[:80]!r}"))
                return
            self._lines.append(line[4:].decode("utf-8", "replace").strip())
            if line[3:4] == b"-":
                continue
            self._take(_Reply(int(line[:3]), "\n".join(self._lines)))
            self._lines.clear()
            self._size = len(self._buffer)
        if self._size > MAX_MAIL_REPLY_BYTES:
            self._lose(ValueError("a reply without end"))

    def _take(self, reply: _Reply) -> None:
        if self._expected:
            self._expected -= 1
            self._replies.append(reply)
            self._wake()
        elif reply.code == 421:
            self._lose(ConnectionError(reply.words))
        # anything else that nobody asked for belongs to no command

    def eof_received(self) -> None:
        self._lose(ConnectionError("the server hung up"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc or ConnectionError("the connection was closed"))

    def _look_at_the_clock(self) -> None:
        self._timer = None
        if self._waiter is None or self._lost is not None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look_at_the_clock)
        else:
            self._lose(TimeoutError("no answer"))

    def _lose(self, problem: Exception) -> None:
        self._lost = self._lost or problem
        self._transport.close()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Records:
    """Group commit: what all connections have to record at one time is one commit."""

    def __init__(self, record: Record) -> None:
        self.broken: BaseException | None = None
        """Why the last commit failed; none is tried after that."""
        self._record = record
        self._talking = 0
        self._bodies: dict[str, asyncio.Future[None]] = {}
        self._recorded: set[str] = set()
        self._deliveries: list[Delivery] = []
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Inside, one more connection may come with a letter that wants to go."""
        self._talking += 1
        try:
            yield
        finally:
            self._talking -= 1
            self._when_due()

    async def body(self, key: str) -> None:
        """Returns once it is committed that this letter's body may leave."""
        if self.broken is not None:
            raise self.broken
        waiter = self._bodies[key] = asyncio.get_running_loop().create_future()
        self._when_due()
        await waiter

    def leaves(self, key: str) -> None:
        """The next byte is this body's: from here on nobody can tell."""
        self._recorded.discard(key)

    def delivered(self, delivery: Delivery) -> None:
        """Recorded with the next commit."""
        self._recorded.discard(delivery.key)
        self._deliveries.append(delivery)
        self._when_due()

    def close(self) -> None:
        """Record the rest, also on the way out of an interrupted run: what did not leave is owed."""
        if isinstance(self.broken, Exception):
            return
        stopped = [Delivery(key, DeliveryState.OWED, "stopped before it was sent") for key in self._recorded]
        if self._deliveries or stopped:
            self._record((), [*self._deliveries, *stopped])
            self._deliveries.clear()
            self._recorded.clear()

    def _when_due(self) -> None:
        """At once when every connection waits for it, and in a moment otherwise."""
        if self.broken is not None or not (self._bodies or self._deliveries):
            return
        if len(self._bodies) >= self._talking:
            self._commit()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._commit)

    def _commit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiters, self._bodies = self._bodies, {}
        self._recorded.update(waiters)
        told = len(self._deliveries)
        try:
            self._record(tuple(waiters), self._deliveries[:told])
        except Exception as problem:  # noqa: BLE001  # whoever waits, or comes next, raises it
            # nothing of this was recorded, so no body leaves any more
            self.broken = problem
            for waiter in waiters.values():
                if not waiter.done():
                    waiter.set_exception(problem)
            return
        except BaseException as interruption:
            self.broken = interruption
            raise
        del self._deliveries[:told]
        for waiter in waiters.values():
            if not waiter.done():
                waiter.set_result(None)


class _Dispatch:
    """One delivery: workers that share the queue of letters and the first trouble that concerns them all."""

    def __init__(
        self, server: Server, messages: Iterator[Message], record: Record, stop: Callable[[], bool]
    ) -> None:
        self._server = server
        self._messages = messages
        self._records = _Records(record)
        self._stop = stop
        self._trouble: MailError | None = None
        self._ahead: deque[Message] = deque()
        self._most_ahead = 0
        self._open: set[_Line] = set()

    async def run(self, connections: int) -> None:
        """Send everything. Raises the trouble that concerns all letters."""
        self._most_ahead = 2 * connections
        try:
            # the first connection shows whether the server takes us at all, before others are opened
            first = self._next()
            line = await self._connected(first) if first is not None else None
            if line is not None:
                await asyncio.gather(
                    self._work(line, first), *(self._work(None, None) for _ in range(connections - 1))
                )
                # given back by a connection that could not be had, when nobody was left to take it
                while self._ahead and self._trouble is None and not self._stop():
                    await self._work(None, None)
        finally:
            for line in self._open:
                line.drop()
            self._records.close()
        if self._records.broken is not None:
            raise self._records.broken
        if self._trouble is not None:
            raise self._trouble

    def _next(self) -> Message | None:
        """The next letter that can be addressed."""
        while self._trouble is None and not self._stop():
            message = self._ahead.popleft() if self._ahead else next(self._messages, None)
            if message is None or (_is_address(message.sender) and _is_address(message.recipient)):
                return message
            detail = f"{message.recipient!r} is not an address that mail can go to"
            self._records.delivered(Delivery(message.key, DeliveryState.FAILED, detail))
        return None

    def _look_ahead(self) -> None:
        """Have a letter written while the server is at work."""
        if len(self._ahead) < self._most_ahead and self._trouble is None and not self._stop():
            message = next(self._messages, None)
            if message is not None:
                self._ahead.append(message)

    async def _work(self, line: _Line | None, message: Message | None) -> None:
        """Send letters until none is left; connect again when the server hangs up."""
        message = message or self._next()
        while message is not None:
            line = line or await self._connected(message)
            if line is None:
                return
            with self._records.talking():
                message = await self._converse(line, message)
            await line.leave()
            self._open.discard(line)
            line = None
            message = message or self._next()

    async def _converse(self, line: _Line, message: Message) -> Message | None:
        """Letters over one connection until it is used up; returns one that has to go over another."""
        announced = False
        current: Message | None = message
        for used in range(1, MESSAGES_A_CONNECTION + 1):
            if current is None:
                break
            try:
                refusal = await self._offer(line, current, announced=announced)
            except _Lost as loss:
                # a server may hang up on a connection it has had enough of: nothing of this letter has left
                if used > 1:
                    return current
                self._records.delivered(Delivery(current.key, DeliveryState.OWED, str(loss)))
                return None
            following: Message | None = None
            if refusal is None:
                # committed before the first byte of the body leaves: from here on nobody can tell
                await self._records.body(current.key)
                if line.pipelining and used < MESSAGES_A_CONNECTION:
                    following = self._next()
                fate = await self._hand_over(line, current, following)
            else:
                fate = refusal
            self._records.delivered(fate)
            if line.is_lost:
                return following
            announced = following is not None
            current = following or (self._next() if used < MESSAGES_A_CONNECTION else None)
        return None

    async def _offer(self, line: _Line, message: Message, *, announced: bool) -> Delivery | None:
        """The envelope and DATA; None once the server waits for the body. Raises :class:`_Lost`."""
        if line.pipelining and not announced:
            line.write(_envelope(message), replies=3)
        refusal: _Reply | None = None
        for verb in (_mail, _rcpt, _data):
            if not line.pipelining:
                line.write(verb(message), replies=1)
            reply = await line.reply()
            if reply.code == 421:
                raise _Lost(reply.words)
            if not (reply.code == 354 if verb is _data else reply.good):
                refusal = refusal or reply
                if not line.pipelining:
                    break
        if refusal is None:
            return None
        if reply.code == 354 or refusal.code < 400:
            # a body is waited for that must not come, or nobody knows what: no way on but to hang up
            line.drop()
        else:
            with suppress(_Lost):
                await line.ask(b"RSET\r\n")
        return _refused(message, refusal)

    async def _hand_over(self, line: _Line, message: Message, following: Message | None) -> Delivery:
        """The body, and what becomes of it."""
        key = message.key
        try:
            self._records.leaves(key)
            _send_body(line, message.content, following)
        except _Lost as loss:
            return Delivery(key, DeliveryState.OWED, str(loss))
        self._look_ahead()
        try:
            answer = await line.reply(BODY_TIMEOUT)
        except _Lost as loss:
            return Delivery(key, DeliveryState.UNKNOWN, f"cut off while the server had it: {loss}")
        if answer.good:
            return Delivery(key, DeliveryState.SENT)
        if answer.code < 400:
            line.drop()
            return Delivery(key, DeliveryState.UNKNOWN, f"the server answered {answer.code}")
        if answer.code == 421:
            line.drop()
        return _refused(message, answer)

    async def _connected(self, message: Message) -> _Line | None:
        """A connection ready for MAIL; None when there is none to be had: ``message`` stays owed."""
        from aiosmtplib import SMTPAuthenticationError, SMTPException

        problem: Exception | None = None
        for attempt in range(CONNECT_ATTEMPTS):
            if attempt and self._stop():
                break
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
        if self._open:
            # a server may take fewer connections than we would like: the others go on
            self._ahead.appendleft(message)
            return None
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
        self._records.delivered(Delivery(message.key, DeliveryState.OWED, trouble.sentence))

    def _refused_login(self, refused: Exception) -> MailError:
        return MailError(
            f"The mail server {self._server} refuses the login of {self._server.username!r}: "
            f"{_words(refused)}.",
            "Check username and password; the letters stay owed: provisioner mail send",
        )

    async def _connect(self) -> _Line:
        """Aiosmtplib opens, secures and logs in; then the connection is ours."""
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
            transport: Any = client.transport
            if transport is None or transport.is_closing():
                raise ConnectionError("the server hung up")
        except BaseException:
            client.close()
            raise
        pipelining = client.supports_extension("pipelining")
        line = _Line(transport, pipelining=pipelining, timeout=server.timeout)
        transport.set_protocol(line)
        self._open.add(line)
        return line


def _send_body(line: _Line, content: bytes, following: Message | None) -> None:
    """The body after a 354, dot-stuffed, and the next letter's envelope. Raises :class:`_Lost`."""
    if following is None:
        line.write(_stuffed(content), replies=1)
    else:
        line.write(_stuffed(content) + _envelope(following), replies=4)


_LINE_END = re.compile(rb"\r\n|\r|\n")


def _stuffed(content: bytes) -> bytes:
    """As it travels: every line end is one, and no line but the last is a lone dot."""
    if not content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r"):
        content = _LINE_END.sub(b"\r\n", content)
    if content.startswith(b"."):
        content = b"." + content
    if b"\r\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    return content + (b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n")


def _envelope(message: Message) -> bytes:
    return _mail(message) + _rcpt(message) + _data(message)


def _mail(message: Message) -> bytes:
    return b"MAIL FROM:<%s>\r\n" % message.sender.encode("ascii")


def _rcpt(message: Message) -> bytes:
    return b"RCPT TO:<%s>\r\n" % message.recipient.encode("ascii")


def _data(_: Message) -> bytes:
    return b"DATA\r\n"


_is_address = re.compile(r"[!-;=?-~]+").fullmatch
"""Nothing that ends the command, or the address in it."""


def _refused(message: Message, reply: _Reply) -> Delivery:
    """4xx: for now, 5xx: for good."""
    state = DeliveryState.FAILED if 500 <= reply.code < 600 else DeliveryState.OWED
    return Delivery(message.key, state, reply.words)


def _is_lasting(problem: Exception) -> bool:
    """Trying again at once would not help: a certificate, or a refusal for good."""
    return isinstance(problem, ssl.SSLError) or 500 <= int(getattr(problem, "code", 0) or 0) < 600


def _words(problem: Exception | None) -> str:
    """An exception in a few words on one line."""
    words = " ".join(str(problem).split()) or type(problem).__name__
    return words[:300].rstrip(".")
