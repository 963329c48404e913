"""The token endpoint of the service: credentials, expiry, scopes and limits."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_support import Served, serving

from provisioner.embedded.server.api_clients import ApiClients
from provisioner.testing.people import NOW

ERRORS = {"invalid_request", "invalid_client", "unsupported_grant_type", "invalid_scope"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("login"), "--failed-logins", "1000000", now=NOW) as service:
        yield service


@pytest.fixture(scope="module")
def web() -> Iterator[httpx2.Client]:
    with httpx2.Client() as client:
        yield client


def log_in(served: Served, role: str = "administrator", **form: str) -> httpx2.Response:
    client = served.clients[role]
    return httpx2.post(
        f"{served.url}/oauth/token",
        data={"grant_type": "client_credentials", **form},
        auth=(client.id, client.secret),
    )


def portal(served: Served, token: str) -> httpx2.Response:
    return httpx2.get(f"{served.url}/v1/portal", headers={"Authorization": f"Bearer {token}"})


def test_client_logs_in_by_basic_or_form_and_the_response_is_not_cached(served: Served) -> None:
    client = served.clients["partner"]
    by_form = httpx2.post(
        f"{served.url}/oauth/token",
        data={"grant_type": "client_credentials", "client_id": client.id, "client_secret": client.secret},
    )
    # a field without a value counts as left out (RFC 6749, 3.2)
    for answer in (log_in(served, "partner"), log_in(served, "partner", client_id="", scope=""), by_form):
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        words = answer.json()
        assert words["token_type"] == "Bearer"
        assert words["expires_in"] == 900
        assert words["scope"] == "portal.read portal.write"
        about = portal(served, words["access_token"])
        assert about.json()["operator"] == "partner"


def test_wrong_secret_and_unknown_client_get_the_same_error(served: Served) -> None:
    known = served.clients["partner"]
    answers = [
        httpx2.post(f"{served.url}/oauth/token", data={"grant_type": "client_credentials"}, auth=pair)
        for pair in ((known.id, "wrong"), ("nobody", known.secret), (known.id, ""), ("a\0b", "c"), ("é", "c"))
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["error"] == "invalid_client"
    assert answers[0].headers["www-authenticate"].startswith("Basic ")


def test_malformed_token_requests_get_the_errors_of_rfc_6749(served: Served) -> None:
    client = served.clients["reader"]
    url, auth = f"{served.url}/oauth/token", (client.id, client.secret)
    credentials = {"client_id": client.id, "client_secret": client.secret}
    grant = {"grant_type": "client_credentials"}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    cases: list[tuple[int, str, dict[str, Any]]] = [
        (400, "invalid_request", {"auth": auth}),
        (400, "invalid_request", {"auth": auth, "json": grant}),
        (400, "invalid_request", {"auth": auth, "data": {**grant, **credentials}}),
        (400, "invalid_request", {"auth": auth, "headers": form, "content": b"grant_type=a&grant_type=b"}),
        (400, "invalid_request", {"auth": auth, "headers": form, "content": b"\xff\xfe"}),
        (400, "unsupported_grant_type", {"auth": auth, "data": {"grant_type": "password"}}),
        (400, "invalid_scope", {"auth": auth, "data": {**grant, "scope": "everything"}}),
        (400, "invalid_scope", {"auth": auth, "data": {**grant, "scope": "portal.write"}}),
        (401, "invalid_client", {"data": grant}),
        (401, "invalid_client", {"data": grant, "headers": {"Authorization": "Basic !!!"}}),
        (401, "invalid_client", {"data": grant, "headers": {"Authorization": "Bearer abc"}}),
    ]
    for status, error, request in cases:
        answer = httpx2.post(url, **request)
        assert (answer.status_code, answer.json()["error"]) == (status, error), request


def test_token_may_have_fewer_scopes_than_its_client(served: Served) -> None:
    with served.api("administrator", "portal.read") as narrow:
        assert narrow.get("/v1/portal").json()["scopes"] == ["portal.read"]
        refused = narrow.post("/v1/companies", json={"number": "narrow", "name": "Narrow"})
    assert refused.status_code == 403
    assert refused.json()["type"] == "urn:provisioner:problem:scope"
    with served.api("administrator", "portal.write") as blind:
        assert blind.get("/v1/users").status_code == 403


def test_token_expires(tmp_path: Path) -> None:
    with serving(tmp_path, "--token-seconds", "60", now=NOW) as served:
        token = served.token()
        served.set_clock(NOW + timedelta(seconds=59))
        assert portal(served, token).status_code == 200
        served.set_clock(NOW + timedelta(seconds=60))
        answer = portal(served, token)
        assert answer.status_code == 401
        assert "expired" in answer.json()["detail"]
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert portal(served, served.token()).status_code == 200


def test_tokens_of_a_disabled_client_are_refused(served: Served) -> None:
    with closing(served.portal()) as direct:
        clients = ApiClients(direct)
        client, secret = clients.add("soon gone", clients.all()[0].role, frozenset({"portal.read"}), NOW)
        answer = httpx2.post(
            f"{served.url}/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(client.id, secret),
        )
        token = answer.json()["access_token"]
        assert portal(served, token).status_code == 200
        clients.disable("soon gone", NOW)
    again = httpx2.post(
        f"{served.url}/oauth/token", data={"grant_type": "client_credentials"}, auth=(client.id, secret)
    )
    assert again.status_code == 401
    until = time.monotonic() + 20
    while portal(served, token).status_code == 200:
        assert time.monotonic() < until
    assert portal(served, token).status_code == 401


def test_request_without_a_valid_token_is_refused(served: Served) -> None:
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "x"}):
        answer = httpx2.get(f"{served.url}/v1/portal", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="provisioner"'
    for token in ("abc", "a" * 300, served.clients["partner"].secret):
        assert portal(served, token).status_code == 401


def test_database_contains_no_secret_and_no_token(served: Served) -> None:
    token = served.token("partner")
    content = b"".join(path.read_bytes() for path in served.folder.glob("portal.db*"))
    for secret in (token, *(client.secret for client in served.clients.values())):
        assert secret.encode() not in content
        assert base64.urlsafe_b64decode(secret + "=") not in content


def test_token_is_valid_after_a_restart_of_the_service(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        token = served.token()
        assert served.stop() == 0
        served.start()
        assert portal(served, token).status_code == 200


texts = st.text(max_size=20) | st.sampled_from(["client_credentials", "portal.read", "portal.write", "\x00"])
fields = st.sampled_from(["grant_type", "scope", "client_id", "client_secret", "x"])


@given(
    form=st.lists(st.tuples(fields, texts), max_size=5),
    raw=st.none() | st.binary(max_size=40),
    authorization=st.none()
    | st.tuples(st.sampled_from(["Basic", "basic", "Bearer", ""]), st.binary(max_size=30)),
    media=st.sampled_from(["application/x-www-form-urlencoded", "application/json", "text/plain", ""]),
    known=st.booleans(),
)
def test_token_endpoint_reveals_nothing_without_the_secret(
    served: Served,
    web: httpx2.Client,
    form: list[tuple[str, str]],
    raw: bytes | None,
    authorization: tuple[str, bytes] | None,
    media: str,
    known: bool,
) -> None:
    if known:
        form = [("client_id", served.clients["administrator"].id), *form]
    headers = {"Content-Type": media} if media else {}
    if authorization is not None:
        encoded = base64.b64encode(authorization[1]).decode()
        headers["Authorization"] = f"{authorization[0]} {encoded}".strip()
    content = urlencode(form).encode() if raw is None else raw
    answer = web.post(f"{served.url}/oauth/token", content=content, headers=headers)
    assert answer.status_code in (400, 401), answer.text
    assert answer.json()["error"] in ERRORS
    assert "access_token" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_failed_log_ins_are_limited_by_address(tmp_path: Path) -> None:
    with serving(tmp_path, "--failed-logins", "3") as served:
        wrong = [
            httpx2.post(
                f"{served.url}/oauth/token", data={"grant_type": "client_credentials"}, auth=("a", "b")
            )
            for _ in range(5)
        ]
        assert [answer.status_code for answer in wrong] == [401, 401, 401, 429, 429]
        assert 1 <= int(wrong[-1].headers["retry-after"]) <= 20
        assert wrong[-1].json()["type"] == "urn:provisioner:problem:busy"
