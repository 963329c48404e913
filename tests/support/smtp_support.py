"""A mail server on loopback. The test defines each of its replies byte for byte."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

CUT = b"\0cut"
"""The mark at the end of a reply after which the server closes the connection."""

SILENCE = b"\0silence"
"""A reply with which the server sends nothing until the ``with`` block ends, for at most 20 seconds."""

USUAL: dict[str, bytes] = {
    "greeting": b"220 ready\r\n",
    "EHLO": b"250-me\r\n250 8BITMIME\r\n",
    "STARTTLS": b"220 go\r\n",
    "AUTH": b"235 ok\r\n",
    "MAIL": b"250 ok\r\n",
    "RCPT": b"250 ok\r\n",
    "DATA": b"354 go\r\n",
    "body": b"250 taken\r\n",
    "RSET": b"250 ok\r\n",
    "QUIT": b"221 bye\r\n",
}


@dataclass
class Server:
    """The data that the server received: bytes before TLS, accepted messages, recipients, and connections."""

    port: int = 0
    clear: bytearray = field(default_factory=bytearray)
    accepted: list[bytes] = field(default_factory=list)
    recipients: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: list[socket.socket] = field(default_factory=list)

    def hang_up(self) -> None:
        """Close all connections."""
        for connection in self.open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def smtp_server(
    script: dict[str, bytes] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    implicit: bool = False,
    answer_body: Callable[[bytes], bytes] | None = None,
    lingers: bool = False,
    most: int = 1_000,
) -> Iterator[Server]:
    """Run a mail server in the ``with`` block.

    ``script`` replaces usual replies, by command. If its entry "in body" is :data:`CUT`, the server closes a
    connection while it receives a body. ``tls`` is used after STARTTLS or, if ``implicit`` is True, from the
    first byte. ``answer_body`` returns the reply to a message. If ``lingers`` is True, the server keeps a
    connection open after QUIT until the block ends. The server accepts at most ``most`` connections at a time
    and refuses further connections with a temporary error.
    """
    answers = {**USUAL, **(script or {})}
    server = Server()
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    over = threading.Event()
    threads: list[threading.Thread] = []

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            server.connections += 1
            if sum(thread.is_alive() for thread in threads) >= most:
                connection.sendall(b"421 too many connections\r\n")
                connection.close()
                continue
            server.open.append(connection)
            thread = threading.Thread(target=_guarded, args=(connection,), daemon=True)
            threads.append(thread)
            thread.start()

    def _guarded(connection: socket.socket) -> None:
        with suppress(OSError, ssl.SSLError, _Over):
            _Session(connection, server, answers, tls, implicit, answer_body, over, lingers).run()
        connection.close()

    accepting = threading.Thread(target=serve, daemon=True)
    accepting.start()
    try:
        yield server
    finally:
        over.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(5)
        for thread in threads:
            thread.join(5)


class _Over(Exception):
    pass


class _Session:
    def __init__(
        self,
        connection: socket.socket,
        server: Server,
        answers: dict[str, bytes],
        tls: ssl.SSLContext | None,
        implicit: bool,
        answer_body: Callable[[bytes], bytes] | None,
        over: threading.Event,
        lingers: bool,
    ) -> None:
        self.connection = connection
        self.server = server
        self.answers = answers
        self.tls = tls
        self.answer_body = answer_body
        self.over = over
        self.lingers = lingers
        self.secure = False
        self.pending = b""
        if implicit and tls is not None:
            self._wrap()

    def run(self) -> None:
        try:
            self._say("greeting")
            while True:
                line = self._line()
                verb = line[:4].decode("ascii", "replace").upper()
                verb = {"STAR": "STARTTLS", "HELO": "EHLO"}.get(verb, verb)
                if verb == "RCPT":
                    self.server.recipients.append(line)
                if verb == "EHLO" and self.tls is not None and not self.secure and "EHLO" in self.answers:
                    self._send(self.answers.get("EHLO tls", b"250-me\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n"))
                elif verb == "EHLO" and self.secure:
                    self._send(b"250-me\r\n250 AUTH PLAIN\r\n")
                else:
                    self._say(verb)
                if verb == "STARTTLS" and self.answers["STARTTLS"].startswith(b"220"):
                    self._wrap()
                if verb == "DATA" and self.answers["DATA"].startswith(b"354"):
                    self._body()
                if verb == "QUIT":
                    if self.lingers:
                        self.over.wait(20)
                    return
        finally:
            self.connection.close()

    def _body(self) -> None:
        if self.answers.get("in body") == CUT:
            self.connection.recv(16)
            # a reset, not a farewell: the rest is still on its way
            raise _Over
        content, mark = b"", b"\r\n.\r\n"
        while mark not in content:
            content += self._more()
        content, _, self.pending = content.partition(mark)
        message = (content + b"\r\n").replace(b"\r\n..", b"\r\n.")
        answer = self.answer_body(message) if self.answer_body else self.answers["body"]
        if answer.startswith(b"250"):
            self.server.accepted.append(message)
        self._send(answer)

    def _wrap(self) -> None:
        assert self.tls is not None
        self.connection = self.tls.wrap_socket(self.connection, server_side=True)
        self.secure = True

    def _say(self, verb: str) -> None:
        self._send(self.answers.get(verb, b"500 what\r\n"))

    def _send(self, answer: bytes) -> None:
        if answer == SILENCE:
            self.over.wait(20)
            raise _Over
        if answer.endswith(CUT):
            self.connection.sendall(answer[: -len(CUT)])
            raise _Over
        self.connection.sendall(answer)

    def _line(self) -> bytes:
        while b"\n" not in self.pending:
            self.pending += self._more()
        line, _, self.pending = self.pending.partition(b"\n")
        return line

    def _more(self) -> bytes:
        if self.pending and b"\n" not in self.pending:
            data = self.connection.recv(65536)
        else:
            held, self.pending = self.pending, b""
            data = held or self.connection.recv(65536)
        if not data:
            raise _Over
        if not self.secure:
            self.server.clear += data
        return data
