"""The HTTP server: uvicorn, with the limits for which uvicorn has no setting.

uvicorn's settings limit the size of the request head, the time between two requests, the backlog, and the
duration of the shutdown. :class:`BoundedProtocol` adds a deadline for the request head, a deadline for a body
that is not complete when the response is sent, a minimum speed at which clients read, and a maximum number of
connections. This module also opens the server itself, to limit the duration of the TLS handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import h11
from typing_extensions import override
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from provisioner.embedded.server.app import PortalApp
from provisioner.embedded.server.problem_details import MEDIA_TYPE, Problem

HEADER_SECONDS = 15.0
"""The maximum time in seconds to receive a request head. The time starts with the first byte of the head. For
the first request of a connection, the time starts when the connection is opened."""

HEADER_BYTES = 64 * 1024
"""The maximum size in bytes of a request head (request line and headers) and of a chunk's header."""

HANDSHAKE_SECONDS = 10.0
"""The maximum time in seconds from opening a connection to the end of its TLS handshake."""

PACE_BYTES, PACE_SECONDS = 128 * 1024, 10.0
"""A client that reads fewer than PACE_BYTES of a response in PACE_SECONDS is disconnected."""

UNREAD_SECONDS = 2.0
"""The maximum time in seconds for the rest of a request body to arrive after the response was sent."""

IDLE_SECONDS = 75
"""The maximum time in seconds between two requests on one connection."""

STOP_SECONDS = 20
"""The maximum time in seconds that a stopping service waits for the running requests."""

END_SECONDS = 30.0
"""The maximum time in seconds from the first stop signal to the end of the process."""

BACKLOG = 32
"""The maximum number of connections that one iteration of the event loop accepts."""

QUEUE = 2_048
"""The maximum number of connections that wait in the kernel until the service accepts them."""

MAX_CONNECTIONS = 4_000

RESERVED_DESCRIPTORS = 256
"""The number of file descriptors kept for the database, logs, and connections that open or close."""


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, with the deadlines and limits that this module adds."""

    _deadline: asyncio.TimerHandle | None = None
    _pace_check: asyncio.TimerHandle | None = None
    _quiet_since = 0.0

    @property
    def is_busy(self) -> bool:
        """True while the application answers a request. During this time, no deadline for a request runs."""
        return self.cycle is not None and not self.cycle.response_complete

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._quiet_since = self.loop.time()
        self._drop_after(HEADER_SECONDS)
        if len(self.connections) > connection_limit():
            self._drop_oldest_idle()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        self.resume_writing()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        had_body = self.conn.their_state is h11.SEND_BODY
        super().data_received(data)
        if self.is_busy:
            self._cancel_deadline()
        elif self._deadline is None:
            # set a new deadline, because uvicorn stops its idle timer at the first byte of a request
            self._drop_after(HEADER_SECONDS)
        elif had_body and self.conn.their_state is h11.IDLE:
            self._drop_after(self.timeout_keep_alive)

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._quiet_since = self.loop.time()
        if not self.is_busy and self.conn.their_state is h11.SEND_BODY:
            self._drop_after(UNREAD_SECONDS)

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    @override
    def resume_writing(self) -> None:
        if self._pace_check is not None:
            self._pace_check.cancel()
            self._pace_check = None
        super().resume_writing()

    @override
    def timeout_keep_alive_handler(self) -> None:
        self._drop()

    @override
    def send_400_response(self, msg: str) -> None:
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = Problem("malformed", msg).body()
            head = (
                f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
                "cache-control: no-store\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()

    @override
    def shutdown(self) -> None:
        super().shutdown()
        if self.is_busy:
            # uvicorn closes the connection after this response, but does not announce it in a header
            self.cycle.default_headers = [*self.cycle.default_headers, (b"connection", b"close")]

    def _watch_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()

        def check() -> None:
            if self.transport.get_write_buffer_size() > unread - PACE_BYTES:
                self.transport.abort()
            else:
                self._watch_reader()

        self._pace_check = self.loop.call_later(PACE_SECONDS, check)

    def _drop_oldest_idle(self) -> None:
        idle = [one for one in self.connections if isinstance(one, BoundedProtocol) and one._is_droppable]
        if idle:
            min(idle, key=lambda one: one._quiet_since)._drop()

    @property
    def _is_droppable(self) -> bool:
        waits_for_reader = bool(self.transport.get_write_buffer_size())
        return not self.is_busy and (waits_for_reader or not self.transport.is_closing())

    def _drop(self) -> None:
        # abort a connection with unsent data, because close() would wait until the client has read it
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _drop_after(self, seconds: float) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(seconds, self._drop)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def connection_limit() -> int:
    """Return the maximum number of open connections. A low limit of file descriptors reduces this number."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return MAX_CONNECTIONS
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, descriptors - RESERVED_DESCRIPTORS))


def raise_descriptor_limit() -> None:
    """Raise this process's soft limit of file descriptors to its hard limit."""
    with contextlib.suppress(ModuleNotFoundError, OSError, ValueError):  # Windows; a fixed limit
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Server(Server):
    """uvicorn's server on the socket ``listener``. The server calls ``listening`` once, when it is ready.
    After the first stop signal, the server finishes the running requests. A second signal stops it at once.
    """

    def __init__(self, config: Config, listener: socket.socket, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listener = listener
        self._listening = listening

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        secured: dict[str, Any] = {}
        if self.config.ssl is not None:
            secured = {"ssl": self.config.ssl, "ssl_handshake_timeout": HANDSHAKE_SECONDS}
        loop = asyncio.get_running_loop()
        self.servers.append(
            await loop.create_server(
                lambda: BoundedProtocol(self.config, self.server_state, self.lifespan.state),
                sock=self._listener,
                backlog=self.config.backlog,
                **secured,
            )
        )
        # asyncio's backlog sets the kernel's queue and the connections accepted at once: set the queue again
        self._listener.listen(QUEUE)
        self._listening()

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._stop) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        end = threading.Timer(END_SECONDS, os._exit, (1,))
        end.daemon = True
        end.start()
        self.should_exit = True


def run(
    app: PortalApp,
    listener: socket.socket,
    *,
    certificate: str | None,
    key: str | None,
    listening: Callable[[], None],
) -> None:
    """Serve ``app`` on ``listener`` until SIGTERM or SIGINT. Call ``listening`` when the server is ready.
    ``certificate`` and ``key`` are the paths of the files for TLS. Without ``certificate``, TLS is not used.
    """
    raise_descriptor_limit()
    # silence uvicorn: the application reports errors in problem documents, in the access log and on stderr
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
    # set the garbage collector for a long process, because the command line has set it for short ones
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    secured: dict[str, Any] = {"ssl_certfile": certificate, "ssl_keyfile": key} if certificate else {}
    config = Config(
        app,
        http=BoundedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        **secured,
    )
    _Server(config, listener, listening).run()
