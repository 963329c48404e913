"""Requests to the service: strict parsing, idempotency keys, limits and problem details."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_support import Served, claims, serving

from provisioner.embedded.server.access_log import AccessLog
from provisioner.embedded.server.app import PortalApp
from provisioner.embedded.server.endpoints import URN
from provisioner.embedded.server.handlers import HANDLERS
from provisioner.embedded.server.rate_limit import ServerLimits, TokenBuckets
from provisioner.embedded.server.request_body import MAX_BODY
from provisioner.testing.people import NOW

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("requests"), now=NOW) as service:
        yield service


@pytest.fixture(scope="module")
def api(served: Served) -> Iterator[httpx2.Client]:
    with served.api() as client:
        yield client


@pytest.fixture(scope="module")
def bakery(api: httpx2.Client) -> str:
    """Create a billed company with an administrator. Return the id of the administrator."""
    assert api.post("/v1/companies", json={"number": "1", "name": "Bakery"}).status_code == 201
    billing = api.put("/v1/companies/1/billing", json=BILLING, headers={"If-Match": '"1"'})
    assert billing.json() == {"verdict": "applied", "id": "", "version": 2}
    answer = api.post("/v1/users", json=person("claire"))
    assert answer.headers["location"] == f"/v1/users/{answer.json()['id']}"
    return str(answer.json()["id"])


BILLING = {"mode": "client", "offer": "Essentiel"}


def person(name: str, **more: Any) -> dict[str, Any]:
    return {
        "email": f"{name}@example.fr",
        "first_name": name.capitalize(),
        "last_name": "Martin",
        "phone": "+33612345678",
        "type": "administrator",
        "billed": "1",
        "companies": ["1"],
        "production": "full",
        "apps": [{"app": "Scan", "state": "active", "ends": None}],
        "status": "active",
        **more,
    }


def problem(answer: httpx2.Response) -> str:
    """Assert that the problem details of a refusal are complete. Return the code of the refusal."""
    assert answer.headers["content-type"] == "application/problem+json"
    words = answer.json()
    assert words["status"] == answer.status_code
    assert words["title"]
    assert words["detail"]
    assert str(words["type"]).startswith(URN)
    return str(words["type"]).removeprefix(URN)


# --- bodies ---


@pytest.mark.parametrize(
    ("content", "code", "pointer"),
    [
        (b'{"number": "9", "name": "A", "name": "B"}', "malformed", None),
        (b'{"number": "9", "name": NaN}', "malformed", None),
        (b'{"number": "9", "name": Infinity}', "malformed", None),
        (b'{"number": "9", "name": "A"', "malformed", None),
        (b'{"number": "9", "name": "A"} x', "malformed", None),
        (b"", "malformed", None),
        (b'{"number": "9", "name": "\xe9"}', "malformed", None),
        (b'\xef\xbb\xbf{"number": "9", "name": "A"}', "malformed", None),
        (b'{"number": "9", "name": "\\ud800"}', "malformed", None),
        (b"[" * 100_000, "malformed", None),
        # a string without an end
        (b'{"number": "9", "name": "' + b'\\"' * 500_000, "malformed", None),
        (b'{"number": "9", "name": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}", "malformed", None),
        (b"[]", "invalid", ""),
        (b'"text"', "invalid", ""),
        (b'{"number": "9", "name": "A", "extra": 1}', "invalid", "/extra"),
        (b'{"number": "9", "name": "A", "a/b~c": 1}', "invalid", "/a~1b~0c"),
        (b'{"number": "9"}', "invalid", "/name"),
        (b'{"number": 9, "name": "A"}', "invalid", "/number"),
        (b'{"number": "9", "name": null}', "invalid", "/name"),
        (b'{"number": "9", "name": "A\\u0000B"}', "invalid", "/name"),
        (b'{"number": "9", "name": "A\\nB"}', "invalid", "/name"),
        (b'{"number": "9", "name": "A\\u202eB"}', "invalid", "/name"),
        (b'{"number": "9", "name": ""}', "invalid", "/name"),
        (b'{"number": "../9", "name": "A"}', "invalid", "/number"),
        (b'{"number": "9", "name": "A", "siren": "732829321"}', "invalid", "/siren"),
        (json.dumps({"number": "9", "name": "A" * 101}).encode(), "invalid", "/name"),
    ],
)
def test_body_is_parsed_strictly(api: httpx2.Client, content: bytes, code: str, pointer: str | None) -> None:
    answer = api.post("/v1/companies", content=content, headers=JSON)
    assert problem(answer) == code, answer.text
    assert answer.status_code == (400 if code == "malformed" else 422)
    assert answer.json().get("pointer") == pointer
    assert api.get("/v1/companies/9").status_code == 404


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"email": "claire"}, "/email"),
        ({"email": "a b@example.fr"}, "/email"),
        ({"email": "a@b@example.fr"}, "/email"),
        ({"email": "é" * 130 + "@example.fr"}, "/email"),
        ({"email": "a,b@example.fr"}, "/email"),
        ({"email": "<a@example.fr"}, "/email"),
        ({"email": "a@example..fr"}, "/email"),
        ({"email": "a@example.fr."}, "/email"),
        ({"first_name": "\u00a0 "}, "/first_name"),
        ({"last_name": "\U0001f600"}, "/last_name"),
        ({"phone": "06 12 34 56 78"}, "/phone"),
        ({"phone": "+33612"}, "/phone"),
        ({"type": "Administrator"}, "/type"),
        ({"companies": ["1", "1"]}, "/companies"),
        ({"companies": "1"}, "/companies"),
        ({"apps": [{"app": "Scan", "state": "ending"}]}, "/apps/0"),
        ({"apps": [{"app": "Scan", "state": "active", "ends": "2026-11-30"}]}, "/apps/0"),
        ({"apps": [{"app": "Scan", "state": "ending", "ends": "2026-02-30"}]}, "/apps/0/ends"),
        ({"apps": [{"app": "Scan", "state": "active"}, {"app": "Scan", "state": "requested"}]}, "/apps"),
        ({"status": "closed"}, "/status"),
        ({"id": "mine"}, "/id"),
    ],
)
def test_user_fields_are_validated(
    api: httpx2.Client, bakery: str, change: dict[str, Any], pointer: str
) -> None:
    answer = api.post("/v1/users", json=person("nobody", **change))
    assert problem(answer) == "invalid", answer.text
    assert answer.json()["pointer"] == pointer


def test_written_values_are_normalized_as_in_a_manifest(api: httpx2.Client, bakery: str) -> None:
    """The service normalizes written values as the program normalizes the values of a manifest.

    A manifest that is exported from the portal is therefore accepted unchanged.
    """
    said = person(
        "x", type="standard", email="Noel@Example.FR", first_name="Noe\u0308l", last_name=" de  La Tour "
    )
    made = api.post("/v1/users", json=said).json()["id"]
    found = api.get(f"/v1/users/{made}").json()
    assert [found[name] for name in ("email", "first_name", "last_name")] == [
        "Noel@example.fr",
        "Noël",
        "de La Tour",
    ]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"public_url": "https://"}, "/public_url"),
        ({"public_url": "https://portail.example.fr/accès"}, "/public_url"),
        ({"public_url": "http://portail.example.fr"}, "/public_url"),
        ({"public_url": "https://me:secret@portail.example.fr"}, "/public_url"),
        ({"apps": ["Production Paie"]}, "/apps/0"),
        ({"email_domains": ["no domain"]}, "/email_domains/0"),
        ({"staff": ["claire"]}, "/staff/0"),
    ],
)
def test_terms_are_validated_as_in_the_workspace(
    api: httpx2.Client, change: dict[str, Any], pointer: str
) -> None:
    about = api.get("/v1/portal").json()
    words = {**about["terms"], "public_url": about["public_url"], **change}
    answer = api.put("/v1/portal/terms", json=words)
    assert problem(answer) == "invalid", answer.text
    assert answer.json()["pointer"] == pointer


def test_all_faults_of_a_body_are_reported_at_once(api: httpx2.Client) -> None:
    answer = api.post("/v1/companies", json={"number": 1, "name": "", "more": 1})
    result = {answer.json()["pointer"], *(other["pointer"] for other in answer.json()["others"])}
    assert result == {"/number", "/name", "/more"}


def test_violated_rule_is_named(api: httpx2.Client, bakery: str) -> None:
    cases = [
        (api.post("/v1/users", json=person("x", email="Claire@example.fr")), 409, "exists", "R1"),
        (api.post("/v1/users", json=person("x", email="helene@example.com")), 422, "R1", "R1"),
        (api.post("/v1/users", json=person("x", email="a@durand-associes.fr")), 422, "R14", "R14"),
        (api.post("/v1/users", json=person("x", companies=[])), 422, "R5", "R5"),
        (
            api.post("/v1/users", json=person("x", companies=["1", "404"])),
            422,
            "unknown-company",
            "unknown-company",
        ),
        (api.post("/v1/companies", json={"number": "1", "name": "Other"}), 409, "exists", "R13"),
        (
            api.put(f"/v1/users/{bakery}/type", json={"type": "standard"}, headers={"If-Match": '"1"'}),
            422,
            "R2",
            "R2",
        ),
        (
            api.post(
                f"/v1/users/{bakery}/applications",
                json={"end": ["Scan"], "ends": "2026-12-31"},
                headers={"If-Match": '"1"'},
            ),
            409,
            "month-turned",
            "R9",
        ),
        (api.post(f"/v1/users/{bakery}/validation", headers={"If-Match": '"1"'}), 422, "R7", "R7"),
    ]
    for answer, status, code, rule in cases:
        assert (problem(answer), answer.status_code) == (code, status), answer.text
        assert answer.json()["rule"] == rule


# --- versions and keys ---


def test_head_has_the_headers_of_get_and_no_body(api: httpx2.Client, bakery: str) -> None:
    for path in (f"/v1/users/{bakery}", "/v1/companies/1"):
        first = api.get(path)
        assert first.headers["etag"] == f'"{first.json()["version"]}"'
        head = api.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["etag"] == first.headers["etag"]
        assert head.headers["content-length"] == first.headers["content-length"]


def test_about_says_role_and_scopes_of_each_client(served: Served, bakery: str) -> None:
    with served.api(scope="portal.read") as reader, served.api("collaborator") as colleague:
        assert reader.get("/v1/portal").json()["scopes"] == ["portal.read"]
        assert colleague.get("/v1/portal").json()["operator"] == "collaborator"


def test_application_that_ends_with_the_month_disappears(tmp_path: Path) -> None:
    with serving(tmp_path, now=NOW) as served:
        with served.api() as api:
            api.post("/v1/companies", json={"number": "1", "name": "One"})
            api.put("/v1/companies/1/billing", json=BILLING, headers={"If-Match": '"1"'})
            ending = [{"app": "Scan", "state": "ending", "ends": "2026-11-30"}]
            made = api.post("/v1/users", json=person("paul", apps=ending))
            path = f"/v1/users/{made.json()['id']}"
            assert api.get(path).json()["apps"] == ending
        served.set_clock(NOW + timedelta(days=10))
        with served.api() as api:
            later = api.get(path)
    assert later.status_code == 200
    assert later.json()["apps"] == []


def test_change_needs_the_current_version_in_if_match(api: httpx2.Client, bakery: str) -> None:
    path = "/v1/companies/1"
    missing = api.put(path, json={"name": "Bakery"})
    assert (missing.status_code, problem(missing)) == (428, "version-missing")
    for odd in ("2", '"two"', "*", '"1", "2"', 'W/"2"', '"99999999999999999999"'):
        assert problem(api.put(path, json={"name": "B"}, headers={"If-Match": odd})) == "malformed", odd
    moved = api.put(path, json={"name": "Changed"}, headers={"If-Match": '"1"'})
    assert (moved.status_code, problem(moved)) == (412, "version-moved")
    nobody = api.put("/v1/companies/404", json={"name": "B"}, headers={"If-Match": '"1"'})
    assert (nobody.status_code, problem(nobody)) == (404, "not-on-portal")
    etag = api.get(path).headers["etag"]
    done = api.put(path, json={"name": "Bakery & Sons"}, headers={"If-Match": etag})
    assert done.json()["verdict"] == "applied"
    assert api.get(path).headers["etag"] == done.headers["etag"] == '"3"'
    same = api.put(path, json={"name": "Bakery & Sons"}, headers={"If-Match": etag})
    assert same.json() == {"verdict": "already", "id": "", "version": 3}


def test_same_key_returns_the_first_response(api: httpx2.Client, bakery: str) -> None:
    key = {"Idempotency-Key": "key-of-marc"}
    body = person("marc", type="standard")
    first = api.post("/v1/users", json=body, headers=key)
    again = api.post("/v1/users", json=body, headers=key)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert api.get(first.headers["location"]).headers["etag"] == first.headers["etag"]
    kept = api.get("/v1/receipts/key-of-marc")
    assert kept.json() == {"key": "key-of-marc", **first.json()}
    assert api.get("/v1/receipts/never-seen").status_code == 404
    without = api.post("/v1/users", json=body)
    assert without.json()["verdict"] == "already"


def test_twenty_concurrent_requests_with_one_key_have_one_effect(api: httpx2.Client, bakery: str) -> None:

    def send(_: int) -> tuple[int, str]:
        answer = api.post(
            "/v1/users", json=person("zoe", type="standard"), headers={"Idempotency-Key": "key-of-zoe"}
        )
        return answer.status_code, answer.text

    with ThreadPoolExecutor(20) as threads:
        answers = set(threads.map(send, range(20)))
    assert len(answers) == 1
    everyone = api.get("/v1/users").json()["items"]
    assert [one["email"] for one in everyone].count("zoe@example.fr") == 1


def test_pages_have_cursors_and_since_returns_changed_rows(api: httpx2.Client, bakery: str) -> None:
    whole = api.get("/v1/users").json()
    pieces, after = [], 0
    while True:
        page = api.get("/v1/users", params={"after": after, "limit": 1}).json()
        assert page["counter"] == whole["counter"]
        pieces += page["items"]
        if page["next"] is None:
            break
        after = page["next"]
    assert pieces == whole["items"]
    assert len(pieces) >= 1
    assert api.get("/v1/users", params={"since": whole["counter"]}).json()["items"] == []
    made = api.post("/v1/users", json=person("late", type="standard")).json()
    news = api.get("/v1/users", params={"since": whole["counter"]}).json()
    assert [one["id"] for one in news["items"]] == [made["id"]]
    assert news["counter"] > whole["counter"]


# --- leases and letters ---


def test_higher_fence_takes_the_lease_and_fences_the_earlier_run(api: httpx2.Client, bakery: str) -> None:

    def take(holder: str, fence: int) -> httpx2.Response:
        words = {"owner": f"{holder} on a runner", "holder": holder, "fence": fence, "seconds": 60}
        return api.put("/v1/leases/shared", json=words)

    assert api.get("/v1/leases/shared").status_code == 404
    assert take("first", 3).json()["fence"] == 3
    held = take("copy", 3)
    assert (held.status_code, problem(held)) == (423, "locked")
    assert held.json()["owner"] == "first on a runner"
    assert take("second", 4).json()["fence"] == 4
    step = {"If-Match": api.get("/v1/companies/1").headers["etag"], "Lease": "shared"}
    late = api.put("/v1/companies/1", json={"name": "Late"}, headers={**step, "Fencing-Token": "3"})
    assert (late.status_code, problem(late)) == (423, "fenced")
    lost = api.post(
        "/v1/letter-claims", json=claims("run", "l1"), headers={"Lease": "shared", "Fencing-Token": "3"}
    )
    assert (lost.status_code, problem(lost)) == (423, "fenced")
    done = api.put("/v1/companies/1", json={"name": "In time"}, headers={**step, "Fencing-Token": "4"})
    assert done.json()["verdict"] == "applied"
    assert api.delete("/v1/leases/shared", params={"holder": "second"}).status_code == 204
    assert "holder" not in api.get("/v1/leases/shared").json()


def test_fence_far_above_the_last_one_is_refused(api: httpx2.Client) -> None:
    def take(fence: int) -> httpx2.Response:
        words = {"owner": "ci", "holder": "first", "fence": fence, "seconds": 60}
        return api.put("/v1/leases/own", json=words)

    assert problem(take(2**53 - 1)) == "invalid"
    assert take(5).json()["fence"] == 5
    far = take(1_000_006)
    assert (far.status_code, problem(far), far.json()["pointer"]) == (422, "invalid", "/fence")
    assert take(1_000_005).json()["fence"] == 1_000_005


def test_letter_belongs_to_the_first_ledger_that_claims_it(api: httpx2.Client) -> None:
    leases = {}
    for ledger in ("one", "two"):
        words = {"owner": ledger, "holder": ledger, "fence": 1, "seconds": 60}
        fence = api.put(f"/v1/leases/{ledger}", json=words).json()["fence"]
        leases[ledger] = {"Lease": ledger, "Fencing-Token": str(fence)}

    def claim(ledger: str, *letters: str) -> dict[str, str]:
        said = claims(f"run-{ledger}", *letters)
        answer = api.post("/v1/letter-claims", json=said, headers=leases[ledger])
        return dict(answer.json()["holders"])

    assert claim("one", "a", "b") == {"a": "run-one", "b": "run-one"}
    assert claim("two", "b", "c") == {"b": "", "c": "run-two"}
    assert claim("one", "a", "b", "c") == {"a": "run-one", "b": "run-one", "c": ""}
    twice = api.post("/v1/letter-claims", json=claims("run", "d", "d"), headers=leases["one"])
    assert problem(twice) == "invalid"
    without = api.post("/v1/letter-claims", json=claims("run", "d"))
    assert problem(without) == "malformed"
    half = api.post("/v1/letter-claims", json=claims("run", "d"), headers={"Lease": "one"})
    assert half.status_code in (400, 428)


# --- paths, methods, types and sizes ---


def test_unknown_paths_methods_and_types_get_problem_details(api: httpx2.Client, bakery: str) -> None:
    cases = [
        (api.get("/nowhere"), 404, "not-found"),
        (api.get("/v1/users/"), 404, "not-found"),
        (api.get("/v1/users/a%00b"), 404, "not-on-portal"),
        (api.get("/v1/companies/" + "9" * 300), 404, "not-on-portal"),
        (api.delete("/v1/users"), 405, "method"),
        (api.request("PATCH", "/v1/companies/1"), 405, "method"),
        (api.post("/v1/companies", content=b"{}", headers={"Content-Type": "text/plain"}), 415, "media-type"),
        (api.post("/v1/companies", content=b"{}"), 415, "media-type"),
        (api.get("/v1/users?limit=5001"), 400, "malformed"),
        (api.get("/v1/users?limit=0"), 400, "malformed"),
        (api.get("/v1/users?after=-1"), 400, "malformed"),
        (api.get("/v1/users?after=1&after=2"), 400, "malformed"),
        (api.get("/v1/users?page=2"), 400, "malformed"),
        (api.get("/v1/users?after=%ff"), 400, "malformed"),
        (api.request("GET", "/v1/users", content=b"x"), 400, "malformed"),
        (api.post("/v1/companies", json={}, headers={"Idempotency-Key": "a b"}), 400, "malformed"),
        (api.post("/v1/companies", json={}, headers={"Lease": "l"}), 428, "lease-missing"),
    ]
    for answer, status, code in cases:
        assert (answer.status_code, problem(answer)) == (status, code), answer.request.url
    assert cases[4][0].headers["allow"] == "GET, HEAD, POST"


def test_body_of_one_mebibyte_is_accepted_and_one_byte_more_refused(api: httpx2.Client) -> None:
    filling = b'{"number": "8", "name": "Eight"}'
    exact = filling + b" " * (MAX_BODY - len(filling))
    assert api.post("/v1/companies", content=exact, headers=JSON).status_code == 201
    over = api.post("/v1/companies", content=exact + b" ", headers=JSON)
    assert (over.status_code, problem(over)) == (413, "too-large")

    def drops() -> Iterator[bytes]:
        yield from (b" " * 65_536 for _ in range(17))

    streamed = api.post("/v1/companies", content=drops(), headers=JSON)
    assert (streamed.status_code, problem(streamed)) == (413, "too-large")


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELO there\r\n\r\n",
        b"GET /v1/portal HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/portal HTTP/1.1\r\nA: " + b"a" * 70_000,
        b"POST /v1/companies HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_invalid_http_gets_400_and_the_connection_is_closed(served: Served, content: bytes) -> None:
    with closing(socket.create_connection(("127.0.0.1", served.port), timeout=10)) as line:
        line.sendall(content)
        answer = b""
        while more := line.recv(65_536):
            answer += more
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer


def test_repeated_header_is_refused(served: Served, api: httpx2.Client) -> None:
    token = api.headers["authorization"]
    for name, value in (("Authorization", token), ("If-Match", '"1"'), ("Idempotency-Key", "a")):
        headers = [("Authorization", token), ("If-Match", '"1"'), ("Idempotency-Key", "a"), (name, value)]
        answer = httpx2.put(f"{served.url}/v1/companies/1", json={"name": "A"}, headers=headers)
        assert problem(answer) == "malformed", name


# --- rates ---


def test_requests_of_a_client_are_limited(tmp_path: Path) -> None:
    with serving(tmp_path, "--rate", "2") as served, served.api() as greedy, served.api("reader") as modest:
        answers = [greedy.get("/v1/portal") for _ in range(8)]
        assert [answer.status_code for answer in answers][:4] == [200] * 4
        late = [answer for answer in answers if answer.status_code == 429]
        assert late
        assert problem(late[0]) == "busy"
        assert int(late[0].headers["retry-after"]) >= 1
        assert modest.get("/v1/portal").status_code == 200


def test_bucket_allows_its_burst_and_then_its_rate() -> None:
    now = [0.0]
    buckets = TokenBuckets(rate=2, burst=4, now=lambda: now[0])
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 0, 1]
    assert buckets.take("b") == 0
    now[0] = 0.5
    assert [buckets.take("a") for _ in range(2)] == [0, 1]
    now[0] = 100
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 0, 1]
    slow = TokenBuckets(rate=0.1, burst=1, now=lambda: now[0])
    assert [slow.take("a") for _ in range(2)] == [0, 10]


# --- random bodies and defects ---

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)
known = st.sampled_from(sorted(person("a")))


@given(changes=st.dictionaries(known, values, min_size=1, max_size=3))
def test_any_user_body_is_refused_or_applied(
    api: httpx2.Client, bakery: str, changes: dict[str, Any]
) -> None:
    content = json.dumps({**person("odd"), **changes}).encode()
    answer = api.post("/v1/users", content=content, headers=JSON)
    assert answer.status_code in (200, 201, 400, 409, 422), answer.text


def test_defect_gets_500_and_a_log_line_without_request_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("canary-7f3a")

    monkeypatch.setitem(HANDLERS, "healthz", broken)
    log = io.StringIO()
    border = PortalApp(cast(Any, None), ServerLimits(), AccessLog(log))

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=cast(Any, border), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://portal") as web:
            return await web.get("/healthz")

    answer = asyncio.run(ask())
    assert (answer.status_code, problem(answer)) == (500, "defect")
    said = capsys.readouterr().err
    assert "ZeroDivisionError at test_service_requests.py" in said
    assert "canary" not in said + answer.text
