"""Over a faulty connection, a run does each step once and sends each letter once, or ends with an error.

A relay between the program and a real service sees every request and spoils the responses.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from boundaries import apply
from crash_support import nothing_to_do
from http_support import CUT, PAUSE, RESET, SILENCE, Asked, http_server, reply
from remote_support import Firm, Spoil, faithful, firm, settle_workspace

from provisioner import limits

EMILY, JAMES = "emily.clarke@clarke-ceramics.com", "james.clarke@clarke-ceramics.com"
REQUESTS = 22
"""The number of requests of one undisturbed run. A test below checks this number."""


def asked_by(apply_once: Firm) -> list[str]:
    """The requests of a run, without the parts that differ between runs."""
    paths = (path.partition("?")[0] for path in apply_once.relay.paths())
    return ["/".join(path.split("/")[:3]) for path in paths]


@pytest.fixture
def remote(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Firm]:
    with firm(memory_path / "firm", monkeypatch) as opened:
        yield opened


def require_done_once(firm: Firm) -> None:
    """Check in the users' versions and in the maildir that each effect happened once."""
    assert firm.users == {EMILY: ("active", 1), JAMES: ("active", 1)}
    assert firm.letters == {EMILY: 1, JAMES: 1}


def test_undisturbed_run_sends_a_known_number_of_requests(
    remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    """An undisturbed run sends exactly the requests that the tests below enumerate."""
    assert apply(remote.folder) == 0
    assert remote.count == REQUESTS
    require_done_once(remote)
    assert Counter(path for path in asked_by(remote) if not path.startswith("GET")) == {
        "POST /oauth/token": 2,
        "PUT /v1/leases": 1,
        "POST /v1/companies": 1,
        "PUT /v1/companies": 1,
        "POST /v1/users": 2,
        "POST /v1/letter-claims": 2,
        "POST /v1/invitations": 1,
        "DELETE /v1/leases": 1,
    }
    assert nothing_to_do(remote.folder, capsys)


def lost(at: int, mark: bytes) -> Spoil:
    """Cut the response to request number ``at`` in the middle, after the portal has handled the request."""

    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        whole = answer()
        return [whole[: len(whole) // 2], mark] if number == at else whole

    return spoil


@pytest.mark.parametrize("at", range(1, REQUESTS + 1))
def test_response_lost_after_the_effect_has_no_consequence(
    at: int, remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    """If any one response of a run is lost, each step still has one effect, and each letter is sent once."""
    remote.spoilt(lost(at, RESET if at % 2 else CUT))
    assert apply(remote.folder) == 0
    assert remote.count == REQUESTS + 1
    assert "4 steps done, 2 e-mails sent" in capsys.readouterr().out
    require_done_once(remote)


def test_run_succeeds_with_each_response_lost_once(remote: Firm, capsys: pytest.CaptureFixture[str]) -> None:
    """A run succeeds even if the first response to each request is lost."""
    seen: set[str] = set()

    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        whole, what = answer(), f"{asked.method} {asked.path} {asked.headers.get('idempotency-key')}"
        with remote.lock:
            first = what not in seen
            seen.add(what)
        return [RESET] if first else whole

    remote.spoilt(spoil)
    assert apply(remote.folder) == 0
    require_done_once(remote)
    remote.spoilt(faithful)
    assert nothing_to_do(remote.folder, capsys)


@pytest.mark.parametrize(
    ("dies_at", "code", "done"), [("PUT /v1/leases", 1, ""), ("PUT /v1/companies", 7, "1 step")]
)
def test_portal_that_dies_halfway_leaves_a_run_applied_in_part(
    dies_at: str, code: int, done: str, remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the portal dies after a step, the exit code is 7, and the output says how to finish the run."""
    dead = threading.Event()

    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        if f"{asked.method} {asked.path}".startswith(dies_at):
            dead.set()
        return [RESET] if dead.is_set() else answer()

    remote.spoilt(spoil)
    assert apply(remote.folder) == code
    said = capsys.readouterr().err
    assert (f"Stopped after {done}." in said) is bool(done)
    assert (f"To finish: provisioner -C {remote.folder} apply --auto-approve (what is" in said) is bool(done)
    assert "https://" not in said
    remote.spoilt(faithful)
    assert apply(remote.folder) == 0
    require_done_once(remote)


@pytest.mark.parametrize("what", ["POST /v1/companies", "PUT /v1/companies", "POST /v1/users"])
def test_step_without_a_response_is_looked_up(
    what: str, remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the portal does a step but all responses are lost, the run looks up the receipt of the step."""

    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        whole = answer()
        return [CUT] if f"{asked.method} {asked.path}".startswith(what) else whole

    remote.spoilt(spoil)
    assert apply(remote.folder) == 0
    assert any("/v1/receipts/" in asked.path for asked in remote.relay.asked)
    require_done_once(remote)


@pytest.mark.parametrize("receipts", [False, True])
def test_step_with_unknown_outcome_stops_the_run_and_is_found_by_the_next(
    receipts: bool, remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step with neither a response nor a receipt stops the run and stays unsettled.

    The next run settles the step.
    """

    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        if asked.path == "/v1/users" and asked.method == "POST":
            if not receipts:
                answer()
            return [RESET]
        if "/v1/receipts/" in asked.path and not receipts:
            return reply(500, {})
        return answer()

    remote.spoilt(spoil)
    assert apply(remote.folder) == 7
    said = capsys.readouterr()
    assert "gave no usable answer" in said.err
    assert remote.letters == {}
    remote.spoilt(faithful)
    assert apply(remote.folder) == 0
    require_done_once(remote)
    assert nothing_to_do(remote.folder, capsys)


# --- faulty responses in place of the responses of the portal ---


def drip(head: bytes) -> Iterator[bytes]:
    yield head
    while True:
        yield b"X: y\r\n"
        yield PAUSE


def endless() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    while True:
        yield b" " * 65536


BOMB = gzip.compress(b" " * 20_000_000)

FAULTS: dict[str, tuple[Callable[[], bytes | Iterable[bytes]], str]] = {
    "reset": (lambda: [RESET], "gave no usable answer: Connection reset by peer"),
    "hang": (lambda: [SILENCE], "no whole reply within"),
    "half a body": (lambda: [reply(200, {"items": []})[:-4], CUT], "its reply breaks off"),
    "garbage": (lambda: [b"what?\r\n\r\n", CUT], "its reply breaks off or is not HTTP"),
    "header drip": (lambda: drip(b"HTTP/1.1 200 OK\r\n"), "no whole reply within"),
    "body drip": (
        lambda: drip(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n"),
        "no whole reply within",
    ),
    "gzip bomb": (lambda: reply(200, BOMB, "Content-Encoding: gzip\r\n"), "it is packed"),
    "endless": (endless, "longer than 10,485,760 bytes"),
    "busy": (lambda: reply(429, {}), "it is busy (HTTP 429)"),
    "away for an hour": (
        lambda: reply(503, {}, "Retry-After: 3600\r\n"),
        "asks to be left alone for 3600 seconds",
    ),
    "huge headers": (lambda: reply(200, {}, f"X: {'y' * 200_000}\r\n"), "its reply breaks off"),
    "a page": (lambda: reply(200, b"<html>please log in</html>", kind="text/html"), "it is text/html"),
    "no JSON": (lambda: reply(200, b"please log in"), "it is not JSON"),
    "other JSON": (lambda: reply(200, ["fine"]), "it is no JSON object"),
    "an empty object": (lambda: reply(200, {}), "cannot be used"),
    "nothing there": (lambda: reply(404, b"<html>", kind="text/html"), "has nothing at"),
    "a defect": (lambda: reply(500, {"detail": "ouch"}), "HTTP 500"),
    "not the method": (lambda: reply(405, {}), "has nothing at"),
    "a teapot": (lambda: reply(418, {}), "HTTP 418"),
}


SLOW = ("hang", "header drip", "body drip")


@pytest.mark.parametrize("fault", FAULTS)
def test_any_response_instead_of_users_ends_in_a_sentence(
    fault: str, remote: Firm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the response with the users is faulty, the run ends with an error sentence and creates no user."""
    if fault in SLOW:
        monkeypatch.setattr(limits, "REPLY_SECONDS", 0.4)
        monkeypatch.setattr(limits, "CALL_SECONDS", 1.0)
    make, sentence = FAULTS[fault]
    remote.spoilt(lambda number, asked, answer: make() if asked.path.startswith("/v1/users?") else answer())
    assert apply(remote.folder) == 1
    said = capsys.readouterr()
    assert sentence in said.err
    assert "Traceback" not in said.err
    assert remote.count <= 5 + limits.CALL_TRIES
    assert remote.users == {}
    # a page that is too long is asked for in smaller ones, a few times
    assert remote.relay.sent < 10 * limits.MAX_REPLY_BYTES


# a reply that never comes is one of test_run_completes_on_a_slow_portal
@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in SLOW or name == "body drip"])
def test_any_response_instead_of_a_receipt_loses_nothing(
    fault: str, remote: Firm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the response to the creation of a user is faulty, no effect and no letter is lost.

    The portal has done the step. The same run or the next run finds that the step is done.
    """
    monkeypatch.setattr(limits, "CALL_SECONDS", 1.0 if fault in SLOW else 5.0)
    monkeypatch.setattr(limits, "REPLY_SECONDS", 0.4 if fault in SLOW else limits.REPLY_SECONDS)
    make, _ = FAULTS[fault]

    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        whole = answer()
        return make() if asked.method == "POST" and asked.path == "/v1/users" else whole

    remote.spoilt(spoil)
    code = apply(remote.folder)
    assert "Traceback" not in capsys.readouterr().err
    # with an answer that is none, what was done is looked up; with a lie, the run stops
    assert code in (0, 7)
    if code:
        assert remote.letters == {}
    remote.spoilt(faithful)
    assert apply(remote.folder) == 0
    require_done_once(remote)
    assert nothing_to_do(remote.folder, capsys)


def test_redirect_leads_neither_run_nor_secret_elsewhere(
    remote: Firm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the portal redirects a request to another host, the run stops and does not connect to that host."""
    with http_server(lambda _: reply(200, {})) as elsewhere:
        for what in ("/oauth/token", "/v1/portal", "/v1/users?", "/v1/leases/", "/v1/companies"):
            remote.spoilt(
                lambda number, asked, answer, what=what: (  # type: ignore[misc]
                    reply(307, b"", f"Location: {elsewhere.url}/x\r\n")
                    if asked.path.startswith(what)
                    else answer()
                )
            )
            assert apply(remote.folder) == 1
            assert f"sends us on to {elsewhere.url}/x" in capsys.readouterr().err
    assert elsewhere.connections == 0
    assert remote.users == {}


def test_run_waits_for_a_portal_that_is_busy_at_times(
    remote: Firm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run succeeds even if the portal answers every third request with 429 or 503."""

    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        if number % 3:
            return answer()
        return reply(429 if number % 2 else 503, {}, "Retry-After: 0\r\n")

    remote.spoilt(spoil)
    assert apply(remote.folder) == 0
    require_done_once(remote)


def test_run_completes_on_a_slow_portal(
    remote: Firm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on a slow portal completes, and no step is done twice.

    The portal handles the first attempt of each write, but the response does not arrive in time.
    """
    monkeypatch.setattr(limits, "REPLY_SECONDS", 0.3)
    seen: set[str] = set()

    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        what = f"{asked.method} {asked.path} {asked.headers.get('idempotency-key')}"
        whole = answer()
        with remote.lock:
            first = what not in seen
            seen.add(what)
        return [SILENCE] if first and asked.method in ("POST", "PUT") else whole

    remote.spoilt(spoil)
    assert apply(remote.folder) == 0
    require_done_once(remote)


# --- planning never writes ---


def test_plan_sends_get_requests_only(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands that only read send no requests except GET requests and the token request."""
    from provisioner.cli import run

    with firm(memory_path / "firm", monkeypatch, role="reader") as remote:
        plan_file = memory_path / "plan.json"
        commands = (
            ["plan"], ["plan", "--out", str(plan_file)], ["plan", "--json"], ["validate"],
            ["portal", "users"], ["export", str(memory_path / "exported")], ["mail", "status"],
        )  # fmt: skip
        for words in commands:
            assert run(["-C", str(remote.folder), *words]) == 0, capsys.readouterr()
        assert plan_file.exists()
        asked = {(asked.method, asked.path.partition("?")[0]) for asked in remote.relay.asked}
        assert asked == {
            ("POST", "/oauth/token"), ("GET", "/v1/portal"), ("GET", "/v1/companies"), ("GET", "/v1/users")
        }  # fmt: skip
        scopes = {bytes(asked.content) for asked in remote.relay.asked if asked.method == "POST"}
        assert scopes == {b"grant_type=client_credentials&scope=portal.read"}
        assert remote.users == {}


def test_missing_write_scope_is_reported_before_any_write(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with firm(memory_path / "firm", monkeypatch, role="reader") as remote:
        before = remote.counter
        assert apply(remote.folder) == 1
        assert "has not the scope portal.write, so nothing was written" in capsys.readouterr().err
        assert remote.counter == before
        assert {asked.method for asked in remote.relay.asked if asked.path != "/oauth/token"} == {"GET"}


def test_output_and_files_contain_no_secret(
    remote: Firm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output and files contain neither the client secret nor a token, even if a response repeats both."""
    secret = remote.served.clients["administrator"].secret
    tokens: set[str] = set()

    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        whole = answer()
        if asked.path == "/oauth/token":
            tokens.add(json.loads(whole.partition(b"\r\n\r\n")[2])["access_token"])
        if asked.method == "POST" and asked.path == "/v1/users":
            said = f"you said {asked.headers['authorization']} and {secret}"
            return reply(422, {"type": "urn:provisioner:problem:R2", "detail": said, "rule": "R2"})
        return whole

    remote.spoilt(spoil)
    assert apply(remote.folder) == 7
    said = capsys.readouterr()
    assert "you said Bearer … and …" in said.out + said.err
    kept = b"".join(file.read_bytes() for file in remote.folder.rglob("*") if file.is_file())
    assert tokens
    for hidden in (secret, *tokens):
        assert hidden not in said.out + said.err
        assert hidden.encode() not in kept


def test_missing_secret_is_reported_with_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = settle_workspace(tmp_path / "firm", "http://localhost:1")
    assert apply(folder) == 1
    assert "PROVISIONER_PORTAL_SECRET" in capsys.readouterr().err
