"""The service as a process: the commands that start it, its API clients, signals, kills and its output."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from service_support import ROOT, Served, prepare, serving
from shell_support import Shell, copy_sample

from provisioner.cli import run
from provisioner.testing.people import NOW


def program(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "provisioner", "-C", str(folder), *words],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip


# --- start ---


def test_empty_folder_becomes_a_served_portal(tmp_path: Path) -> None:
    served = Served(tmp_path, "sqlite:///portal.db", {})
    served.start()
    try:
        hint = re.search(r"provisioner (.* api-client add) NAME (.*)\n", served.talk)
        assert hint is not None
        # the hint works in any folder
        made = program(tmp_path / "elsewhere", *shlex.split(hint[1]), "ci", *shlex.split(hint[2]))
        assert "new portal" not in made.stderr
        exported = dict(re.findall(r"^export (\w+)=(\S+)$", made.stdout, re.MULTILINE))
        assert list(exported) == ["PROVISIONER_PORTAL_CLIENT", "PROVISIONER_PORTAL_SECRET"]
        answer = httpx2.post(
            f"{served.url}/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(exported["PROVISIONER_PORTAL_CLIENT"], exported["PROVISIONER_PORTAL_SECRET"]),
        )
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        terms = {
            "offers": ["Essentiel"],
            "apps": ["Scan"],
            "email_domains": [],
            "staff": [],
            "public_url": "",
        }
        assert httpx2.put(f"{served.url}/v1/portal/terms", json=terms, headers=bearer).status_code == 204
        assert httpx2.get(f"{served.url}/v1/portal", headers=bearer).json()["terms"]["offers"] == [
            "Essentiel"
        ]
        assert httpx2.get(f"{served.url}/readyz").json() == {"status": "ok"}
    finally:
        assert served.stop() == 0
    assert served.talk.endswith("Stopped.\n")
    assert oct((tmp_path / "portal.db").stat().st_mode)[-3:] == "600"


def test_serve_takes_portal_and_terms_from_the_workspace(tmp_path: Path) -> None:
    folder = copy_sample(tmp_path / "firm")
    added = program(folder, "api-client", "add", "ci", "--role", "partner", "--read-only", "--json")
    client = json.loads(added.stdout)
    assert client["scopes"] == ["portal.read"]
    assert f"made a new portal: {folder / 'portal.db'}" in added.stderr
    # the portal is named in the workspace only
    process = subprocess.Popen(
        [sys.executable, "-m", "provisioner", "-C", str(folder), "serve", "--port", "0"],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    url = process.stderr.readline().split()[-1]
    token = httpx2.post(
        f"{url}/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(client["id"], client["secret"]),
    ).json()["access_token"]
    about = httpx2.get(f"{url}/v1/portal", headers={"Authorization": f"Bearer {token}"}).json()
    process.terminate()
    assert process.wait(timeout=40) == 0
    process.stderr.close()
    assert "Essentiel" in about["terms"]["offers"]
    assert about["operator"] == "partner"


@pytest.mark.parametrize("words", [("list",), ("disable", "ci")])
def test_listing_or_disabling_clients_creates_no_portal(
    tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Listing or disabling clients creates no portal.

    Otherwise a mistyped path would create a portal without clients.
    """
    assert run(["-C", str(tmp_path), "api-client", *words, "--url", "sqlite:///typo.db"]) == 1
    assert f"There is no portal {tmp_path / 'typo.db'}." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_clients_are_listed_and_disabled(shell: Shell) -> None:
    added = shell("api-client", "add", "runner one", "--role", "customer_manager")
    assert added.code == 0
    assert "export PROVISIONER_PORTAL_SECRET=" in added.out
    assert "SECRET" not in added.err
    again = shell("api-client", "add", "runner one", "--role", "partner")
    assert again.code == 64
    assert "There is a client called runner one already." in again.err
    assert "runner one" in shell("api-client", "list").out
    assert shell("api-client", "disable", "runner one").code == 0
    listed = json.loads(shell("api-client", "list", "--json").out)
    assert [(one["role"], one["disabled"] is None) for one in listed] == [("customer_manager", False)]
    assert shell("api-client", "disable", "nobody").code == 64
    # the client has given up its name, and the list still contains it
    assert shell("api-client", "disable", "runner one").code == 64
    assert shell("api-client", "disable", listed[0]["id"]).code == 0
    nameless = shell("api-client", "add", "", "--role", "partner")
    assert nameless.code == 64
    assert "api-client add pipeline" in nameless.err
    assert shell("api-client", "add", "a\u202eb", "--role", "partner").code == 64
    secret = re.findall("SECRET=(.*)", added.out)[0]
    assert secret.encode() not in (shell.folder / "portal.db").read_bytes()


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        yield other.getsockname()[1]


def test_what_cannot_be_served_ends_in_a_sentence(
    tmp_path: Path, taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noise.pem").write_text("noise")
    (tmp_path / "text.db").write_text("not a database, but long enough to be taken for one" * 100)
    here = ["--url", "sqlite:///portal.db"]
    cases: list[tuple[list[str], int, str]] = [
        ([*here, "--port", str(taken)], 1, f"Cannot listen at 127.0.0.1, port {taken}"),
        ([*here, "--host", "203.0.113.7", "--behind-proxy"], 1, "Cannot listen at 203.0.113.7"),
        ([*here, "--host", "no.such.host.invalid", "--behind-proxy"], 1, "is no address of this machine"),
        ([*here, "--host", "0.0.0.0"], 64, "everything would travel in clear"),
        ([*here, "--host", "::"], 64, "everything would travel in clear"),
        ([*here, "--key", "k.pem"], 64, "There is a key and no certificate"),
        ([*here, "--certificate", str(tmp_path / "none.pem")], 1, "There is no file"),
        ([*here, "--certificate", str(tmp_path / "noise.pem")], 1, "cannot be used"),
        (["--url", "sqlite:///no/such/folder/portal.db"], 1, "cannot be opened"),
        (["--url", "sqlite:///text.db"], 1, "is not a portal"),
        (["--url", "https://portal.example.fr"], 64, "https://… is not a portal that can be served"),
        (["--url", "mysql://root:hunter2@db/portal"], 64, "mysql://… is not a portal that can be served"),
        (["--url", "root:hunter2@db/portal"], 64, "That is not a portal that can be served"),
        (["--url", "postgresql://root:hunter2@db/portal"], 64, "set PROVISIONER_PORTAL_SECRET"),
        (["--url", "postgresql://db/portal?sslmode=require"], 64, "?schema=NAME"),
        (["--url", "postgresql://db/portal?password=hunter2"], 64, "?schema=NAME"),
        ([*here, "--public-url", "portail.example.fr"], 64, "it is not a web address"),
        ([*here, "--public-url", "http://portail.example.fr"], 64, "would travel unprotected"),
        ([*here, "--public-url", "https://me:hunter2@portail.example.fr"], 64, "--public-url cannot be used"),
        ([], 64, "Which portal?"),
    ]
    for words, code, sentence in cases:
        assert run(["-C", str(tmp_path), "serve", *words]) == code, words
        said = capsys.readouterr()
        assert sentence in said.err, words
        assert "Traceback" not in said.err
        assert "hunter2" not in said.err
        assert said.out == ""


def test_serve_without_its_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "provisioner.embedded.server.http_protocol")
    assert run(["-C", str(tmp_path), "serve", "--url", "sqlite:///portal.db"]) == 1
    said = capsys.readouterr().err
    assert "uvicorn is missing" in said
    assert "pip install --editable '.[serve]'" in said
    assert list(tmp_path.iterdir()) == []


def test_service_speaks_tls_with_the_given_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "service.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    served = prepare(tmp_path, "--certificate", str(tmp_path / "service.pem"))
    served.certified = True
    served.start()
    try:
        assert f"listens at https://127.0.0.1:{served.port}\n" in served.talk
        answer = httpx2.get(f"{served.url}/healthz", verify=trusting)
        assert answer.json() == {"status": "ok"}
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{served.url}/healthz")
    finally:
        assert served.stop() == 0


def test_behind_a_proxy_the_client_address_is_the_one_the_proxy_saw(tmp_path: Path) -> None:
    with serving(tmp_path, "--behind-proxy", "--failed-logins", "1") as served:

        def attempt(seen: str) -> int:
            answer = httpx2.post(
                f"{served.url}/oauth/token",
                data={"grant_type": "client_credentials"},
                auth=("a", "b"),
                headers={"X-Forwarded-For": seen},
            )
            return answer.status_code

        assert [attempt("192.0.2.1"), attempt("192.0.2.1")] == [401, 429]
        # an X-Forwarded-For header of the client itself has no effect
        assert attempt("198.51.100.9, 192.0.2.1") == 429
        assert attempt("192.0.2.2") == 401
        # IPv6 addresses of one /64 network count together, and so do invalid ones
        assert [attempt("2001:db8::1"), attempt("2001:db8::2")] == [401, 429]
        assert attempt("2001:db8:0:1::1") == 401
        assert [attempt("nonsense"), attempt("x" * 60_000), attempt("nonsense 2")] == [401, 429, 429]


# --- stop and kill ---


def test_sigterm_finishes_the_requests_under_way(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        body = json.dumps({"number": "1", "name": "In hand"}).encode()
        head = (
            f"POST /v1/companies HTTP/1.1\r\nHost: portal\r\nAuthorization: Bearer {served.token()}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with closing(socket.create_connection(("127.0.0.1", served.port), timeout=30)) as line:
            line.sendall(head.encode() + body[:5])
            # when a later request is answered, the service has begun this one
            httpx2.get(f"{served.url}/healthz")
            assert served.process is not None
            served.process.terminate()
            _await_refusal(served.port)
            # the service waits for the request instead of ending at once
            with pytest.raises(subprocess.TimeoutExpired):
                served.process.wait(timeout=0.7)
            line.sendall(body[5:])
            answer = b""
            while more := line.recv(4096):
                answer += more
        assert answer.startswith(b"HTTP/1.1 201 ")
        assert b"connection: close" in answer
        assert served.process.wait(timeout=40) == 0
        portal = served.portal()
        assert portal.company("1") is not None
        portal.close()


def _await_refusal(port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            return
        except ConnectionError:
            # the listener closed before it accepted this connection
            continue
    raise AssertionError("it goes on listening")


def test_sigterm_under_load_loses_no_response(tmp_path: Path) -> None:
    """If the service gets SIGTERM under load, each step with a response is done.

    A step without a response is done completely or not at all.
    """
    answered: dict[str, int] = {}
    begun = threading.Event()
    with serving(tmp_path) as served, served.api() as api:

        def work(worker: int) -> None:
            for number in range(1_000):
                name = f"{worker}-{number}"
                try:
                    answer = api.post(
                        "/v1/companies",
                        json={"number": name, "name": "Company"},
                        headers={"Idempotency-Key": name},
                    )
                except httpx2.TransportError:
                    return
                answered[name] = answer.status_code
                if len(answered) > 40:
                    begun.set()

        workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for one in workers:
            one.start()
        assert begun.wait(30)
        assert served.stop() == 0
        for one in workers:
            one.join()
        portal = served.portal()
        kept = {company.number for company in portal.page_of_companies(limit=5_000).items}
        portal.close()
    assert set(answered.values()) == {201}
    assert set(answered) <= kept
    assert len(kept) < 8_000


STEPS: Sequence[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "/v1/companies", {"number": "1", "name": "Bakery"}, 0),
    ("PUT", "/v1/companies/1/billing", {"mode": "client", "offer": "Essentiel"}, 1),
    *(
        (
            "POST",
            "/v1/users",
            {
                "email": f"user{number}@example.fr",
                "first_name": "Claire",
                "last_name": "Martin",
                "type": "standard" if number else "administrator",
                "billed": "1",
                "companies": ["1"],
                "production": "full",
                "apps": [],
                "status": "active",
            },
            0,
        )
        for number in range(6)
    ),
    ("PUT", "/v1/companies/1", {"name": "Bakery & Sons"}, 2),
]


def test_service_killed_repeatedly_applies_each_step_once(tmp_path: Path) -> None:
    """Each step is applied once, even if the service is killed before and after commits.

    The client repeats each request with the same idempotency key until the service responds.
    """
    served = prepare(tmp_path)
    served.start()
    token = served.token()
    served.kill()
    lives, before_commit, after_commit = 0, 0, 0

    def live() -> None:
        nonlocal lives
        while True:
            lives += 1
            served.program = ("-m", "doomed_service", str(lives))
            try:
                served.start()
            except AssertionError:
                # killed before it listened
                continue
            return

    live()
    for number, (method, path, body, version) in enumerate(STEPS):
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"step-{number}"}
        if version:
            headers["If-Match"] = f'"{version}"'
        while True:
            try:
                answer = httpx2.request(method, f"{served.url}{path}", json=body, headers=headers)
                break
            except httpx2.TransportError:
                assert served.process is not None
                assert served.process.wait(timeout=20) == -9
                portal = served.portal()
                done = bool(portal.receipts([f"step-{number}"], ""))
                portal.close()
                after_commit, before_commit = after_commit + done, before_commit + (not done)
                live()
        assert answer.json()["verdict"] == "applied", answer.text
    served.kill()
    assert before_commit >= 2
    assert after_commit >= 2
    portal = served.portal()
    assert portal.about().counter == len(STEPS)
    state = portal.snapshot().state
    portal.close()
    assert {user.version for user in state.users.values()} == {1}
    assert len(state.users) == 6
    assert state.companies["1"].version == 3


# --- output ---


def test_log_and_stderr_contain_no_personal_data_and_no_secret(tmp_path: Path) -> None:
    """The log and stderr contain no personal data and no secret from the requests.

    Every part of the requests contains a word that must not appear in the output.
    """
    canary = "canary7f3a"
    with serving(tmp_path, now=NOW) as served, served.api() as api:
        terms = api.get("/v1/portal").json()
        api.put("/v1/portal/terms", json={**terms["terms"], "public_url": terms["public_url"]})
        api.get(f"/v1/users/{canary}")
        api.get(f"/v1/companies/{canary}?{canary}=1")
        api.get(f"/v1/receipts/{canary}")
        api.get(f"/{canary}")
        api.get("/v1/portal", headers={"User-Agent": canary, "X-Forwarded-For": canary, "Referer": canary})
        api.post("/v1/companies", json={"number": "1", "name": canary})
        api.post("/v1/companies", json={"number": "1", canary: canary})
        api.post("/v1/companies", content=canary.encode())
        api.put("/v1/companies/1", json={"name": canary}, headers={"If-Match": canary})
        api.request(canary, "/v1/companies")
        person = {
            "email": f"{canary}@example.fr", "first_name": canary, "last_name": canary, "billed": "1",
            "type": "administrator", "companies": ["1"], "production": "full", "apps": [], "status": "active",
        }  # fmt: skip
        api.put(
            "/v1/companies/1/billing",
            json={"mode": "client", "offer": "Essentiel"},
            headers={"If-Match": '"1"'},
        )
        made = api.post("/v1/users", json=person, headers={"Idempotency-Key": canary}).json()
        link = api.post("/v1/invitations", json={"users": [made["id"]]}).json()["links"][made["id"]]
        httpx2.post(link.replace("https://portail.example.fr", served.url) + f"?lang={canary}")
        httpx2.get(f"{served.url}/activer/{canary}{'a' * 80}")
        httpx2.post(
            f"{served.url}/oauth/token",
            data={"grant_type": canary, "client_id": canary},
            auth=(canary, canary),
        )
        httpx2.post(f"{served.url}/oauth/token", content=canary.encode())
        token = api.headers["authorization"].split()[1]
        secrets = [one.secret for one in served.clients.values()]
        assert served.stop() == 0
        said = served.log + served.talk
        for word in (canary, token, made["id"], link.rpartition("/")[2], *secrets, "example.fr", "127.0.0.1"):
            assert word not in said.replace(f"http://127.0.0.1:{served.port}", ""), word
        basic = base64.b64encode(f"{canary}:{canary}".encode()).decode()
        assert basic not in said
        lines = [json.loads(line) for line in served.log.splitlines()]
    fields = {"time", "method", "endpoint", "path", "status", "ms", "client", "bytes"}
    assert all(line.keys() == fields for line in lines)
    assert len(lines) == 20
    assert [line["status"] for line in lines if line["method"] == "other"] == [405]
    known = [line for line in lines if line["endpoint"] == "create_user"]
    assert [(line["method"], line["path"], line["status"]) for line in known] == [("POST", "/v1/users", 201)]
    assert known[0]["client"] == served.clients["administrator"].id
    assert {line["endpoint"] for line in lines} >= {"token", "invitation", "user", ""}
