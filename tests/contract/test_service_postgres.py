"""The service on PostgreSQL: the same responses, several services on one database, a killed database."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from boundaries import apply, mailed, workspace
from crash_support import TWO_NEWCOMERS, ended, forked, nothing_to_do, write_output_to
from http_support import RESET, Asked, forwarded, http_server
from postgres_support import PostgresServer
from service_support import Served, serving

from provisioner import limits
from provisioner.workspace.settings import load_workspace


@pytest.fixture
def served(tmp_path: Path, own_postgres: PostgresServer) -> Iterator[Served]:
    with serving(tmp_path, database=own_postgres.url(own_postgres.new_schema())) as service:
        yield service


def person(name: str, **more: Any) -> dict[str, Any]:
    return {
        "email": f"{name}@example.fr",
        "first_name": name.capitalize(),
        "last_name": "L'Éclair",
        "type": "administrator",
        "billed": "1",
        "companies": ["1"],
        "production": "full",
        "apps": [{"app": "Scan", "state": "active"}],
        "status": "active",
        **more,
    }


def found_a_company(api: httpx2.Client) -> None:
    assert api.post("/v1/companies", json={"number": "1", "name": "Bakery"}).status_code == 201
    billing = {"mode": "client", "offer": "Essentiel"}
    assert api.put("/v1/companies/1/billing", json=billing, headers={"If-Match": '"1"'}).status_code == 200


def test_service_on_postgresql_behaves_as_on_sqlite(served: Served) -> None:
    with served.api() as api, served.api("collaborator") as collaborator:
        found_a_company(api)
        made = api.post("/v1/users", json=person("ann"), headers={"Idempotency-Key": "k1"})
        again = api.post("/v1/users", json=person("ann"), headers={"Idempotency-Key": "k1"})
        assert (made.status_code, made.json()) == (201, again.json())
        path = f"/v1/users/{made.json()['id']}"
        assert api.get(path).json()["last_name"] == "L'Éclair"
        assert collaborator.post("/v1/users", json=person("bob")).json()["rule"] == "R7"
        assert api.post(f"{path}/closing", headers={"If-Match": '"2"'}).status_code == 412
        refused = api.put(f"{path}/type", json={"type": "standard"}, headers={"If-Match": '"1"'})
        assert refused.json()["rule"] == "R2"
        for number in range(5):
            api.post("/v1/users", json=person(f"p{number}", type="standard"))
        pages, after = [], 0
        while True:
            page = api.get("/v1/users", params={"limit": 2, "after": after}).json()
            pages += [one["email"] for one in page["items"]]
            if page["next"] is None:
                break
            after = page["next"]
        assert pages == ["ann@example.fr", *(f"p{number}@example.fr" for number in range(5))]
        link = api.post("/v1/invitations", json={"users": [made.json()["id"]]}).json()["links"][
            made.json()["id"]
        ]
        page_of_link = link.replace("https://portail.example.fr", served.url)
        assert [httpx2.post(page_of_link).status_code for _ in range(2)] == [200, 410]
        odd = {"grant_type": "client_credentials", "client_id": "a\0b", "client_secret": "c"}
        assert httpx2.post(f"{served.url}/oauth/token", data=odd).status_code == 401


def test_two_services_on_one_database_are_one_portal(served: Served, tmp_path: Path) -> None:
    """Both services accept the same clients, tokens, keys, leases and fences."""
    other = replace(served, folder=tmp_path / "other", port=0, process=None)
    other.folder.mkdir()
    other.start()
    try:
        token = {"Authorization": f"Bearer {served.token()}"}
        with (
            httpx2.Client(base_url=served.url, headers=token) as one,
            httpx2.Client(base_url=other.url, headers=token) as two,
        ):
            found_a_company(one)

            def create(number: int) -> tuple[int, str]:
                api = one if number % 2 else two
                name = f"p{number // 4}"
                answer = api.post("/v1/users", json=person(name), headers={"Idempotency-Key": name})
                return answer.status_code, answer.json()["id"]

            with ThreadPoolExecutor(8) as threads:
                answers = list(threads.map(create, range(40)))
            assert {status for status, _ in answers} == {201}
            assert len({id_ for _, id_ in answers}) == 10
            assert len(two.get("/v1/users").json()["items"]) == 10
            lease = {"owner": "a", "holder": "a", "fence": 1, "seconds": 60}
            assert one.put("/v1/leases/shared", json=lease).status_code == 200
            assert two.put("/v1/leases/shared", json={**lease, "holder": "b"}).status_code == 423
            assert two.put("/v1/leases/shared", json={**lease, "holder": "b", "fence": 2}).status_code == 200
            late = {"If-Match": '"2"', "Lease": "shared", "Fencing-Token": "1"}
            assert one.put("/v1/companies/1", json={"name": "Late"}, headers=late).status_code == 423
    finally:
        assert other.stop() == 0


def test_service_answers_503_while_the_database_is_down_and_then_recovers(
    served: Served, own_postgres: PostgresServer
) -> None:
    """The service answers 503 while the database is down, and recovers when the database is back.

    If the client repeats a request with the same key after a 503, the step of the request is done once.
    """
    with served.api() as api:
        found_a_company(api)
        assert len(api.get("/v1/users").json()["items"]) == 0
        own_postgres.kill()
        try:
            away = api.get("/v1/users")
            assert away.status_code == 503
            assert away.headers["retry-after"]
            assert httpx2.get(f"{served.url}/readyz").status_code == 503
            assert httpx2.get(f"{served.url}/healthz").status_code == 200
            late = api.post("/v1/users", json=person("ann"), headers={"Idempotency-Key": "late"})
            assert late.status_code == 503
        finally:
            own_postgres.start()
        until = time.monotonic() + 30
        while True:
            answer = api.post("/v1/users", json=person("ann"), headers={"Idempotency-Key": "late"})
            if answer.status_code != 503:
                break
            assert time.monotonic() < until
        assert answer.json()["verdict"] == "applied"
        assert [one["version"] for one in api.get("/v1/users").json()["items"]] == [1]
        # the result of a readiness check is reused for a second
        while httpx2.get(f"{served.url}/readyz").status_code != 200:
            assert time.monotonic() < until


def test_database_killed_under_load_applies_each_step_once(
    served: Served, own_postgres: PostgresServer
) -> None:
    """Each step is applied once, even if PostgreSQL is killed several times while clients send requests."""
    with served.api() as api:
        found_a_company(api)

        until = time.monotonic() + 60

        def create(number: int) -> str:
            while time.monotonic() < until:
                answer = api.post(
                    "/v1/users", json=person(f"p{number}"), headers={"Idempotency-Key": f"key-{number}"}
                )
                if answer.status_code != 503:
                    return str(answer.json()["verdict"])
            return "given up"

        with ThreadPoolExecutor(8) as threads:
            work = [threads.submit(create, number) for number in range(160)]
            for count in (20, 60, 100):
                work[count].result(timeout=60)
                own_postgres.restart()
            assert {one.result(timeout=60) for one in work} == {"applied"}
        portal = served.portal()
        users = portal.page_of_users(limit=1_000).items
        portal.close()
        assert len(users) == 160
        assert {user.version for user in users} == {1}


@pytest.mark.parametrize("victim", ["client", "service", "database"])
def test_run_is_finished_by_running_again_after_any_process_is_killed(
    victim: str,
    memory_path: Path,
    own_postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After the client, the service or the database is killed, a further run finishes the work.

    The process is killed after the creation of a user, and the response to the creation is lost. The portal
    and the ledger are in one PostgreSQL.
    """
    monkeypatch.setattr(limits, "RETRY_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(limits, "RETRY_JITTER_SECONDS", 0.01)
    portal, ledger = own_postgres.url(own_postgres.new_schema()), own_postgres.place()
    made, killed = threading.Event(), threading.Event()

    def answer(asked: Asked) -> bytes | Iterable[bytes]:
        whole = forwarded(asked, service.port)
        if killed.is_set() or f"{asked.method} {asked.path}" != "POST /v1/users":
            return whole
        made.set()
        killed.wait(60)
        return [RESET]

    with http_server(answer) as relay:
        folder = workspace(memory_path / "firm", clients=TWO_NEWCOMERS, portal=relay.url, ledger=str(ledger))
        loaded = load_workspace(folder)
        home = memory_path / "service"
        home.mkdir()
        with serving(
            home, database=portal, terms=loaded.settings.terms, public_url=loaded.settings.portal.public_url
        ) as service:
            monkeypatch.setenv("PROVISIONER_PORTAL_CLIENT", service.clients["administrator"].id)
            monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", service.clients["administrator"].secret)
            client = forked(partial(quietly_applied, folder))
            assert made.wait(60)
            if victim == "client":
                os.kill(client, signal.SIGKILL)
            elif victim == "service":
                service.kill()
                service.start()
            else:
                own_postgres.restart()
            killed.set()
            assert (ended(client) == -signal.SIGKILL) is (victim == "client")
            assert apply(folder) == 0, capsys.readouterr()
            users = service.portal()
            assert [user.version for user in users.page_of_users(limit=9).items] == [1, 1]
            users.close()
            assert sorted(mailed(folder).values()) == [1, 1]
            assert nothing_to_do(folder, capsys, ledger)


def quietly_applied(folder: Path) -> int:
    """Apply the workspace with all output in a file; returns the exit code."""
    write_output_to(folder / "talk.txt")
    return apply(folder)
