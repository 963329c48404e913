"""Connections to the service: deadlines, slow peers, limits, and the parts of uvicorn that are overridden."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
import trustme
from service_support import prepare, serving
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from provisioner.embedded.server import http_protocol
from provisioner.embedded.server.access_log import AccessLog
from provisioner.embedded.server.app import PortalApp
from provisioner.embedded.server.rate_limit import ServerLimits


def test_uvicorn_has_each_method_that_is_overridden() -> None:
    protocol = {
        "connection_made", "connection_lost", "data_received", "on_response_complete", "pause_writing",
        "resume_writing", "timeout_keep_alive_handler", "send_400_response", "shutdown",
    }  # fmt: skip
    server = {"startup", "capture_signals"}
    for ours, theirs, names in (
        (http_protocol.BoundedProtocol, H11Protocol, protocol),
        (http_protocol._Server, Server, server),
    ):
        assert {name for name in vars(ours) if not name.startswith("__") and hasattr(theirs, name)} == names
        assert all(callable(getattr(theirs, name)) for name in names)


@pytest.mark.parametrize(
    ("begins", "answer"),
    [
        (b"", b""),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ", b""),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 20_000, b"HTTP/1.1 400 "),
    ],
)
def test_connection_without_complete_headers_is_closed(
    monkeypatch: pytest.MonkeyPatch, begins: bytes, answer: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.05)

    async def talk() -> bytes:
        async with _connection() as (reader, writer):
            writer.write(begins)
            return await reader.read()

    assert asyncio.run(talk()).startswith(answer)


@pytest.mark.parametrize(
    ("asked", "answer", "then"),
    [
        # the beginning of a request starts the deadline of its headers
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b'{"status": "ok"}', b"G"),
        # the response comes first, then the body one byte at a time
        (b"POST /v1/companies HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n", b"}", b"x"),
    ],
)
def test_connection_that_drips_after_its_response_is_closed(
    monkeypatch: pytest.MonkeyPatch, asked: bytes, answer: bytes, then: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.1)
    monkeypatch.setattr(http_protocol, "UNREAD_SECONDS", 0.1)

    async def talk() -> bytes:
        async with _connection() as (reader, writer), asyncio.timeout(20):
            writer.write(asked)
            await reader.readuntil(answer)
            writer.write(then)
            return await reader.read()

    assert asyncio.run(talk()) == b""


def test_connection_is_reused_when_body_arrives_after_the_response() -> None:
    async def talk() -> bytes:
        async with _connection() as (reader, writer), asyncio.timeout(20):
            writer.write(b"POST /v1/companies HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
            await reader.readuntil(b"}")
            writer.write(b"later" + b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            return await reader.readuntil(b"}")

    assert asyncio.run(talk()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "endless",
    [b"0\r\n" + b"a: b\r\n" * 200_000, b"0\r\na: " + b"b" * 1_000_000, b"1;" + b"e" * 1_000_000],
    ids=["many trailer fields", "a long trailer field", "a chunk extension"],
)
def test_framing_of_a_chunked_body_is_limited(endless: bytes) -> None:
    async def talk() -> bytes:
        async with _connection() as (reader, writer), asyncio.timeout(20):
            writer.write(b"POST /oauth/token HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(endless)
            with suppress(ConnectionError):
                return await reader.read()
        return b""

    assert asyncio.run(talk()).partition(b"\r\n")[0] in (b"", b"HTTP/1.1 400 Bad Request")


def test_chunked_body_with_many_chunks_and_trailers_is_read() -> None:
    async def talk() -> bytes:
        async with _connection() as (reader, writer), asyncio.timeout(20):
            writer.write(b"POST /oauth/token HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"400\r\n" + b"x" * 1_024 + b"\r\n")
            writer.write(b"1\r\ny\r\n" * 3_000 + b"0\r\nLater: field\r\n\r\n")
            return await reader.readuntil(b"}")

    assert asyncio.run(talk()).startswith(b"HTTP/1.1 4")


def test_connection_whose_responses_are_not_read_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "PACE_SECONDS", 0.05)
    state = ServerState()

    async def talk() -> None:
        async with _connection(state=state) as (_, writer), asyncio.timeout(20):
            writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
            while state.total_requests < 2 or state.connections:
                await asyncio.sleep(0.01)

    asyncio.run(talk())
    assert state.total_requests < 200


@asynccontextmanager
async def _connection(
    idle: float = 75, state: ServerState | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Yield a connection to the HTTP protocol of the service. The application behind it has no portal."""
    app = PortalApp(cast(Any, None), ServerLimits(), AccessLog(StringIO()))
    config = Config(app, lifespan="off", timeout_keep_alive=cast(int, idle))
    config.load()
    state = state or ServerState()
    listener = await asyncio.get_running_loop().create_server(
        lambda: http_protocol.BoundedProtocol(config, state, {}), "127.0.0.1", 0
    )
    async with listener:
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()


HALF_A_POST = b"POST /oauth/token HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"


def test_oldest_idle_connection_is_closed_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "MAX_CONNECTIONS", 3)

    async def talk() -> tuple[bytes, bytes, list[bytes]]:
        async with _connection() as (reader, busy), asyncio.timeout(20):
            address = busy.get_extra_info("peername")
            busy.write(HALF_A_POST)
            # when a later request is answered, the service has begun this one
            oldest, used = await asyncio.open_connection(*address), await asyncio.open_connection(*address)
            await _ask(used)
            newest = await asyncio.open_connection(*address)
            dropped = await oldest[0].read()
            answers = [await _ask(one) for one in (used, newest)]
            busy.write(b" body")
            for _, writer in (oldest, used, newest):
                writer.close()
            return dropped, await reader.readuntil(b"}"), answers

    dropped, answer, others = asyncio.run(talk())
    assert dropped == b""
    assert answer.startswith(b"HTTP/1.1 4")
    assert all(other.startswith(b"HTTP/1.1 200 ") for other in others)


async def _ask(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    reader, writer = connection
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    return await reader.readuntil(b"}")


def test_connection_limit_stays_below_the_descriptor_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for descriptors, connections in ((1_024, 768), (100_000, 4_000), (resource.RLIM_INFINITY, 4_000), (8, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=descriptors: (soft, soft))
        assert http_protocol.connection_limit() == connections


def test_service_raises_its_soft_descriptor_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(256, 4_096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.append(wanted))
    http_protocol.raise_descriptor_limit()
    assert limits[-1] == (4_096, 4_096)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux only")
def test_service_answers_beside_more_idle_connections_than_descriptors(tmp_path: Path) -> None:
    """A service with 1,024 descriptors answers beside 1,100 idle connections (case H8)."""
    with serving(tmp_path) as served, ExitStack() as idle:
        assert served.process is not None
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (1_024, 1_024))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        idle.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(2_000, hard)), hard))
        for _ in range(1_100):
            idle.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=20))
        for _ in range(3):
            assert httpx2.get(f"{served.url}/readyz", timeout=20).json() == {"status": "ok"}
        assert "Traceback" not in served.talk


FAST_HANDSHAKE = (
    "from provisioner.embedded.server import http_protocol as protocol\n"
    "protocol.HANDSHAKE_SECONDS = 0.2\n"
    "from provisioner.__main__ import main\n"
    "main()"
)


def test_connection_without_a_complete_tls_handshake_is_closed(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "service.pem")
    served = prepare(tmp_path, "--certificate", str(tmp_path / "service.pem"))
    served.program = ("-c", FAST_HANDSHAKE)
    served.certified = True
    served.start()
    try:
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
            connection.sendall(b"\x16\x03\x01")
            with suppress(ConnectionError):
                assert connection.recv(100) == b""
    finally:
        served.stop()
    assert "Traceback" not in served.talk
