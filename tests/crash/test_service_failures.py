"""The application in this process: without its database, under load and with clients that fail."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from contextlib import closing
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from pydantic import BaseModel
from service_support import Served, prepare

from provisioner.embedded.portal import SqlPortal
from provisioner.embedded.server import app
from provisioner.embedded.server.access_log import AccessLog
from provisioner.embedded.server.api_clients import ApiClients
from provisioner.embedded.server.app import PortalApp
from provisioner.embedded.server.pool import PortalPool
from provisioner.embedded.server.rate_limit import ServerLimits
from provisioner.embedded.server.request_body import read_body
from provisioner.embedded.server.service import Service
from provisioner.errors import PortalError
from provisioner.storage import sqlite
from provisioner.testing.people import NOW


class _Away:
    """A portal whose database is unavailable: every method but ``close`` raises :class:`PortalError`."""

    def __getattr__(self, name: str) -> Any:
        def trouble(*_: object, **__: object) -> None:
            raise PortalError("The portal canary.db is busy.", "Try again.")

        return (lambda: None) if name == "close" else trouble


def test_response_is_503_without_details_while_the_database_is_away() -> None:
    async def ask() -> list[httpx2.Response]:
        away = cast(Any, _Away())
        service = Service(lambda: away, lambda: NOW, time.monotonic)
        app = PortalApp(service, ServerLimits(), AccessLog(StringIO()))
        transport = httpx2.ASGITransport(app=cast(Any, app))
        async with httpx2.AsyncClient(transport=transport, base_url="http://portal") as web:
            bearer = {"Authorization": "Bearer any"}
            answers = [
                await web.get("/readyz"),
                await web.get("/v1/users", headers=bearer),
                await web.post(
                    "/oauth/token",
                    data={"grant_type": "client_credentials", "client_id": "a", "client_secret": "b"},
                ),
                await web.get("/activer/some-link"),
                await web.get("/healthz"),
            ]
        await asyncio.to_thread(service.close)
        return answers

    *troubled, healthy = asyncio.run(ask())
    for answer in troubled:
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) >= 1
        assert "canary" not in answer.text
    assert healthy.status_code == 200


def test_response_is_503_until_a_removed_database_file_is_back(tmp_path: Path) -> None:
    served = prepare(tmp_path)
    file, away = tmp_path / "portal.db", tmp_path / "away.db"
    minutes = count(step=60)

    async def ask(opened: SqlPortal) -> list[int]:
        service = Service(opened.reopen, lambda: NOW, lambda: next(minutes))
        transport = httpx2.ASGITransport(
            app=cast(Any, PortalApp(service, ServerLimits(), AccessLog(StringIO())))
        )
        bearer = {"Authorization": f"Bearer {_token(opened)}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://portal") as web:

            async def answers() -> list[int]:
                one = {"number": "1", "name": "One"}
                made = await web.post("/v1/companies", headers=bearer, json=one)
                login = await web.post("/oauth/token", data=_form(served))
                return [(await web.get("/readyz")).status_code, made.status_code, login.status_code]

            assert (await web.get("/readyz")).status_code == 200
            file.rename(away)
            for _ in range(2):
                assert await answers() == [503, 503, 503]
                assert not file.exists()
            away.rename(file)
            found = await answers()
        await asyncio.to_thread(service.close)
        return found

    with closing(served.portal()) as opened:
        assert asyncio.run(ask(opened)) == [200, 201, 200]


def test_reads_are_answered_while_another_process_writes(tmp_path: Path) -> None:
    """Forty writes wait for the lock of the database, and none of them delays a read."""
    served = prepare(tmp_path)
    with closing(served.portal()) as portal:
        token = _token(portal)

    async def ask() -> None:
        service = Service(served.portal, lambda: NOW, time.monotonic)
        app = PortalApp(service, ServerLimits(), AccessLog(StringIO()))
        transport = httpx2.ASGITransport(app=cast(Any, app))
        async with httpx2.AsyncClient(transport=transport, base_url="http://portal") as web:
            bearer = {"Authorization": f"Bearer {token}"}
            lease = {"owner": "o", "holder": "h", "fence": 1, "seconds": 60}
            with closing(sqlite3.connect(tmp_path / "portal.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                waiting = [
                    asyncio.create_task(web.put(f"/v1/leases/L{number}", headers=bearer, json=lease))
                    for number in range(40)
                ]
                login = asyncio.create_task(web.post("/oauth/token", data=_form(served)))
                read = [await web.get(f"/v1/{what}", headers=bearer) for what in ("portal", "users")]
                wrong = await web.post("/oauth/token", data={**_form(served), "client_secret": "x"})
                assert not any(task.done() for task in (*waiting, login))
                other.execute("ROLLBACK")
            done = await asyncio.gather(*waiting, login)
        await asyncio.to_thread(service.close)
        assert [answer.status_code for answer in read] == [200, 200]
        assert wrong.status_code == 401
        assert {answer.status_code for answer in done} == {200}

    asyncio.run(ask())


def test_log_ins_of_a_client_are_limited(tmp_path: Path) -> None:
    served = prepare(tmp_path)

    async def ask() -> list[int]:
        service = Service(served.portal, lambda: NOW, time.monotonic)
        app = PortalApp(service, ServerLimits(logins=2), AccessLog(StringIO()))
        transport = httpx2.ASGITransport(app=cast(Any, app))
        async with httpx2.AsyncClient(transport=transport, base_url="http://portal") as web:
            answers = [await web.post("/oauth/token", data=_form(served)) for _ in range(3)]
        await asyncio.to_thread(service.close)
        return [answer.status_code for answer in answers]

    assert asyncio.run(ask()) == [200, 200, 429]


def test_long_body_is_parsed_outside_of_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long request body is parsed in another thread, because parsing would block the event loop."""
    served, threads = prepare(tmp_path), list[str]()

    def reading(content: bytes, model: type[BaseModel]) -> BaseModel:
        threads.append(threading.current_thread().name)
        return read_body(content, model)

    monkeypatch.setattr("provisioner.embedded.server.app.read_body", reading)

    async def ask(portal: SqlPortal) -> list[int]:
        service = Service(served.portal, lambda: NOW, time.monotonic)
        transport = httpx2.ASGITransport(
            app=cast(Any, PortalApp(service, ServerLimits(), AccessLog(StringIO())))
        )
        bearer = {"Authorization": f"Bearer {_token(portal)}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://portal", headers=bearer) as web:
            answers = [
                await web.post("/v1/companies", json={"number": "1", "name": name})
                for name in ("One", "x" * 50_000)
            ]
        await asyncio.to_thread(service.close)
        return [answer.status_code for answer in answers]

    with closing(served.portal()) as portal:
        assert asyncio.run(ask(portal)) == [201, 422]
    assert threads[0] == "MainThread"
    assert threads[1] != "MainThread"


def _token(portal: SqlPortal) -> str:
    clients = ApiClients(portal)
    client = next(one for one in clients.all() if one.name == "administrator")
    return clients.issue(client, client.scopes, NOW, 900)


def _form(served: Served) -> dict[str, str]:
    id_, secret = served.clients["partner"]
    return {"grant_type": "client_credentials", "client_id": id_, "client_secret": secret}


def test_busy_portal_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.01)
    served = prepare(tmp_path)
    opened: list[SqlPortal] = []

    def opening() -> SqlPortal:
        opened.append(served.portal())
        return opened[-1]

    pool = PortalPool(opening, 1)

    async def drop() -> None:
        await pool.ask(lambda portal: portal.drop_lease("ledger", "holder"))

    with closing(sqlite3.connect(tmp_path / "portal.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(PortalError, match="busy"):
            asyncio.run(drop())
    asyncio.run(drop())
    pool.close()
    assert len(opened) == 1


def _coming() -> dict[str, Any]:
    return {
        "type": "http", "method": "POST", "path": "/oauth/token", "raw_path": b"/oauth/token",
        "query_string": b"",
        "headers": [(b"content-length", b"10")], "client": ("192.0.2.1", 1), "server": ("portal", 80),
        "scheme": "http", "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip


def test_body_that_does_not_arrive_gets_408() -> None:
    sent: list[dict[str, Any]] = []

    async def never() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    app = PortalApp(cast(Any, None), ServerLimits(body_seconds=0.01), AccessLog(StringIO()))
    asyncio.run(app(_coming(), never, send))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["type"] == "urn:provisioner:problem:timeout"


def test_client_that_disconnects_during_its_body_is_no_defect(capsys: pytest.CaptureFixture[str]) -> None:
    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    app = PortalApp(cast(Any, None), ServerLimits(), AccessLog(StringIO()))
    asyncio.run(app(_coming(), gone, send))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("method", "path", "usual"),
    [
        ("GET", "/activer/made-up", 410),
        ("GET", "/nowhere", 404),
        ("DELETE", "/v1/users", 405),
        ("GET", "/v1/users", 401),
        ("GET", "/v1/users?invented", 401),
        ("POST", "/oauth/token", 400),
    ],
)
def test_requests_without_a_token_are_limited_by_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, usual: int
) -> None:
    monkeypatch.setattr(app, "ANONYMOUS_RATE", 1.0)
    served = prepare(tmp_path)
    with closing(served.portal()) as portal:

        async def ask() -> tuple[list[httpx2.Response], list[int]]:
            service = Service(served.portal, lambda: NOW, time.monotonic)
            token = {"Authorization": f"Bearer {_token(portal)}"}
            transport = httpx2.ASGITransport(
                app=cast(Any, PortalApp(service, ServerLimits(), AccessLog(StringIO())))
            )
            async with httpx2.AsyncClient(transport=transport, base_url="http://portal") as web:
                assert (await web.get("/v1/portal", headers=token)).status_code == 200
                said = {"Authorization": "Bearer made-up"} if "invented" in path else {}
                answers = [await web.request(method, path, headers=said) for _ in range(8)]
                # requests with a token and health checks are not limited
                others = [await web.get("/v1/portal", headers=token)]
                others += [await web.get(path) for path in ("/healthz", "/readyz")]
            await asyncio.to_thread(service.close)
            return answers, [other.status_code for other in others]

        answers, others = asyncio.run(ask())
    assert [answer.status_code for answer in answers] == [usual] * 4 + [429] * 4
    assert answers[-1].headers["retry-after"] == "1"
    assert others == [200, 200, 200]


def test_last_of_several_x_forwarded_for_headers_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "ANONYMOUS_RATE", 1.0)
    away = cast(Any, _Away())
    service = Service(lambda: away, lambda: NOW, time.monotonic)
    asgi = PortalApp(service, ServerLimits(behind_proxy=True), AccessLog(StringIO()))

    async def ask() -> list[int]:
        transport = httpx2.ASGITransport(app=cast(Any, asgi))
        async with httpx2.AsyncClient(transport=transport, base_url="http://portal") as web:
            return [
                (
                    await web.get(
                        "/v1/users",
                        headers=[("X-Forwarded-For", f"10.0.0.{number}"), ("X-Forwarded-For", "192.0.2.3")],
                    )
                ).status_code
                for number in range(6)
            ]

    assert asyncio.run(ask()) == [401] * 4 + [429] * 2
