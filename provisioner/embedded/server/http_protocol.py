"""The service on its socket: uvicorn, with the time-outs, bounds and the polite end that it lacks."""

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

from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from provisioner.embedded.server.app import PortalApp
from provisioner.embedded.server.problem_details import MEDIA_TYPE, Problem

HEADER_SECONDS = 15.0
"""From the first byte of a request, or from the connection on, to the end of its headers."""

HEADER_BYTES = 64 * 1024
"""Request line and headers together."""

FRAMING_BYTES = 256 * 1024
"""Around the pieces of a body that comes in pieces: their sizes and extensions, and fields after the last."""

PACE_BYTES, PACE_SECONDS = 128 * 1024, 10.0
"""What a peer reads in so long, at least, of an answer that waits for him; then the line is cut."""

UNREAD_SECONDS = 2.0
"""For the peer to read an answer that was given before his body had come; then the line is cut."""

IDLE_SECONDS = 75
"""Between two requests on one connection."""

STOP_SECONDS = 20
"""How long requests in hand are given when the service stops."""

END_SECONDS = 30.0
"""From the first signal to the end, whatever the database does: what it has not committed then is undone."""


class Protocol(HttpToolsProtocol):
    """HTTP/1.1, for peers who drip, flood or talk something else."""

    _clock: asyncio.TimerHandle | None = None
    _cut: asyncio.TimerHandle | None = None
    _pace: asyncio.TimerHandle | None = None
    _pending = 0
    _framing = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The clock runs from here."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more to wait for."""
        self._have_headers()
        self._have_body()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Headers have an end, and a size."""
        if self._clock is not None:
            self._pending += len(data)
            if self._pending > HEADER_BYTES + len(data) or self._endless(data):
                self.send_400_response("The headers of the request are too large.")
                return
        else:
            self._framing += len(data)
        # what is no request leaves the idle clock running: uvicorn stops it at any byte
        idle, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        super().data_received(data)
        if self._clock is None and self._framing > FRAMING_BYTES:
            self._drop()
        if idle is not None:
            if self._clock is None and (self.cycle is None or self.cycle.response_complete):
                self.timeout_keep_alive_task = idle
            else:
                idle.cancel()

    def on_response_complete(self) -> None:
        """What is answered before its body has come is not read on for ever."""
        unread = self.cycle is not None and self.cycle.more_body
        super().on_response_complete()
        if unread and not self.transport.is_closing():
            self._cut = self.loop.call_later(UNREAD_SECONDS, self._drop)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Fields after the body are not kept: nobody asks for them."""
        if self._clock is not None:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """The body itself has a bound of its own."""
        self._framing -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The rest of a body that nobody read has come: the line may be used again."""
        self._have_body()
        super().on_message_complete()

    def on_message_begin(self) -> None:
        """Another request on the same line."""
        super().on_message_begin()
        if self._clock is None:
            self._await_headers()

    def on_headers_complete(self) -> None:
        """What follows is the border's to time."""
        self._have_headers()
        self._framing = 0
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """An answer waits for its reader, and its request is under way until then."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """He has read on."""
        if self._pace is not None:
            self._pace.cancel()
            self._pace = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for long; an answer that is not read by now never will be."""
        self._drop()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered like any other malformed request, and the line is cut."""
        body = Problem("malformed", msg).body()
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            "cache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _watch_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() > unread - PACE_BYTES:
                self.transport.abort()
            else:
                self._watch_reader()

        self._pace = self.loop.call_later(PACE_SECONDS, look)

    def _drop(self) -> None:
        """The end of a line; what its peer has not read is thrown away, as closing would wait for him."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _endless(self, data: bytes) -> bool:
        return self._pending > HEADER_BYTES and b"\r\n\r\n" not in data

    def _await_headers(self) -> None:
        self._pending = 0
        self._clock = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _have_headers(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _have_body(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


class _Server(Server):
    """uvicorn's, which says when it listens and takes the first signal as a wish, not as an end."""

    def __init__(self, config: Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        wanted = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._stop) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            end = threading.Timer(END_SECONDS, os._exit, (1,))
            end.daemon = True
            end.start()
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def run(
    border: PortalApp,
    listener: socket.socket,
    *,
    certificate: str | None,
    key: str | None,
    listening: Callable[[], None],
) -> None:
    """Serve until SIGTERM or SIGINT; requests in hand are finished. ``listening`` is called once ready."""
    # what it says is said by us: as problems, in the access log, and in sentences
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
    # it lives long, unlike a command: garbage is looked for now and then
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    secured: dict[str, Any] = {"ssl_certfile": certificate, "ssl_keyfile": key} if certificate else {}
    config = Config(
        border,
        http=Protocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        **secured,
    )
    _Server(config, listening).run(sockets=[listener])
