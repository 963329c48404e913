"""A web server on the loopback interface that sends exactly the bytes that a test defines."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

CUT = b"\0cut"
"""The mark in a response at which the server closes the connection."""

RESET = b"\0reset"
"""The mark in a response at which the server resets the connection (RST)."""

SILENCE = b"\0silence"
"""The mark in a response at which the server stops sending, for 20 seconds or until the block ends."""

PAUSE = b"\0pause"
"""The mark in a response at which the server pauses for 0.02 seconds."""


@dataclass(frozen=True)
class Asked:
    """A request as the server received it."""

    method: str
    path: str
    """The path with the query string."""
    headers: dict[str, str]
    """The values of the headers by lower-case header name."""
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


Answer = Callable[[Asked], bytes | Iterable[bytes]]


def reply(status: int = 200, content: object = None, headers: str = "", kind: str = "") -> bytes:
    """Return a complete response. If ``content`` is not bytes, it is serialized as JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    kind = kind or ("application/json" if status < 400 else "application/problem+json")
    head = f"HTTP/1.1 {status} So\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


@dataclass
class Server:
    """A test server, with the requests, the connections and the unencrypted bytes that it received."""

    port: int = 0
    tls: bool = False
    clear: bytearray = field(default_factory=bytearray)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    sent: int = 0
    """The number of bytes in the responses that were sent."""

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}"

    def paths(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]


@contextmanager
def http_server(answer: Answer, *, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server in the ``with`` block.

    ``answer`` returns a response as bytes, or as a sequence of bytes and of marks such as :data:`CUT`.
    """
    server = Server(tls=tls is not None)
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    over = threading.Event()
    threads: list[threading.Thread] = []
    open_ends: set[socket.socket] = set()

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            server.connections += 1
            open_ends.add(connection)
            threads.append(threading.Thread(target=guarded, args=(connection,), daemon=True))
            threads[-1].start()

    def guarded(connection: socket.socket) -> None:
        line = connection
        with suppress(OSError, ssl.SSLError, _Over):
            if tls is not None:
                head = connection.recv(5, socket.MSG_PEEK)
                if not head.startswith(b"\x16\x03"):
                    server.clear += connection.recv(65536)
                line = tls.wrap_socket(connection, server_side=True)
                open_ends.add(line)
            while True:
                asked = _asked(line, server if tls is None else None)
                server.asked.append(asked)
                parts = answer(asked)
                for part in [parts] if isinstance(parts, bytes) else parts:
                    _say(line, part, over, server)
        line.close()
        connection.close()

    accepting = threading.Thread(target=serve, daemon=True)
    accepting.start()
    try:
        yield server
    finally:
        over.set()
        for end in (listener, *open_ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(5)
        for thread in threads:
            thread.join(5)


class _Over(Exception):
    pass


def _asked(line: socket.socket, server: Server | None) -> Asked:
    received = b""

    def more() -> None:
        nonlocal received
        data = line.recv(65536)
        if not data:
            raise _Over
        if server is not None:
            server.clear += data
        received += data

    while b"\r\n\r\n" not in received:
        more()
    head, _, _ = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): said.strip() for name, _, said in (line.partition(":") for line in lines)}
    length = len(head) + 4 + int(headers.get("content-length", "0"))
    while len(received) < length:
        more()
    method, path, _ = first.split(" ")
    return Asked(method, path, headers, received[len(head) + 4 : length])


def _say(line: socket.socket, part: bytes, over: threading.Event, server: Server) -> None:
    if part == SILENCE:
        over.wait(20)
        raise _Over
    if part == PAUSE:
        if over.wait(0.02):
            raise _Over
        return
    if part == RESET:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Over
    if part == CUT:
        raise _Over
    line.sendall(part)
    server.sent += len(part)


def forwarded(asked: Asked, port: int) -> bytes:
    """Forward a request to the local port ``port`` and return the complete response."""
    head = "".join(f"{name}: {said}\r\n" for name, said in asked.headers.items() if name != "connection")
    with socket.create_connection(("127.0.0.1", port)) as line:
        first = f"{asked.method} {asked.path} HTTP/1.1\r\n"
        line.sendall(f"{first}{head}connection: close\r\n\r\n".encode("latin-1") + asked.content)
        received = bytearray()
        while data := line.recv(65536):
            received += data
    # this line goes on; the other one does not
    return bytes(received).replace(b"connection: close\r\n", b"", 1)
