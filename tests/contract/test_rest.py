"""The HTTP driver: tokens, pages, a portal that changes while it is read, and unexpected responses."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from boundaries import apply
from http_support import RESET, SILENCE, Asked, Server, http_server, reply
from http_worlds import access, empty, the_service
from remote_support import Firm, firm
from service_support import prepare

from provisioner import limits
from provisioner.cli import run
from provisioner.embedded.portal import SqlPortal
from provisioner.embedded.server.endpoints import ENDPOINTS
from provisioner.errors import Locked, LockLost, PortalError
from provisioner.model import Operator, PortalTerms, State, User
from provisioner.planning.codec import writer
from provisioner.planning.steps import CloseUser, CreateCompany, CreateUser, SetBilling
from provisioner.portal import Access, Call
from provisioner.portals.http_messages import (
    NoResponse,
)
from provisioner.portals.registry import open_portal
from provisioner.portals.rest.driver import RestPortal
from provisioner.portals.rest.paths import endpoints_for
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import ESSENTIEL, NOW, TERMS, user

TOKEN = "t0ken-number-"
SECRET = "s3cret of the client: ü&+"
TERMS_ROW = json.loads(writer(PortalTerms)(TERMS))
ANN = user("ann", id="id-ann", version=3)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RETRY_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(limits, "RETRY_JITTER_SECONDS", 0.001)


def user_row(found: User = ANN, **words: object) -> dict[str, object]:
    return {**json.loads(writer(User)(found)), **words}


def company_row(number: object = "1", **words: object) -> dict[str, object]:
    billing = {"mode": "client", "offer": "Essentiel"}
    row = {"number": number, "name": "One", "siren": None, "billing": billing, "billing_ends": None}
    return {**row, "version": 1, **words}


def page(*rows: object, next: object = None, counter: object = 7) -> dict[str, object]:
    return {"items": list(rows), "next": next, "counter": counter}


@dataclass
class Scripted:
    """A portal whose responses a test sets."""

    server: Server = field(default_factory=Server)
    tokens: int = 0
    seconds: object = 900
    counter: int = 7
    says: dict[str, Callable[[Asked], bytes | Iterable[bytes]]] = field(default_factory=dict)
    """Functions that replace the usual responses, by ``METHOD /path`` of the request."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked: Asked) -> bytes | Iterable[bytes]:
        what = f"{asked.method} {asked.path.partition('?')[0]}"
        if what in self.says:
            return self.says[what](asked)
        if what == "POST /oauth/token":
            return self.give_token(asked)
        if asked.headers.get("authorization") != f"Bearer {TOKEN}{self.tokens}":
            return reply(401, {"type": "urn:provisioner:problem:token", "detail": "expired"})
        if what == "GET /v1/portal":
            return reply(200, self.about())
        if what == "GET /v1/companies":
            return reply(200, page(company_row("1"), counter=self.counter))
        if what == "GET /v1/users":
            return reply(200, page(user_row(), counter=self.counter))
        return reply(404, {"type": "urn:provisioner:problem:not-found", "detail": "nothing here"})

    def give_token(self, asked: Asked) -> bytes:
        with self.lock:
            self.tokens += 1
            words = {"access_token": f"{TOKEN}{self.tokens}", "token_type": "Bearer"}
            return reply(200, {**words, "expires_in": self.seconds})

    def about(self, **words: object) -> dict[str, object]:
        usual: dict[str, object] = {
            "portal": "the portal", "stamp": f"stamp {self.counter}", "counter": self.counter,
            "today": "2026-11-24", "operator": "partner", "scopes": ["portal.read", "portal.write"],
            "terms": TERMS_ROW, "public_url": "",
        }  # fmt: skip
        return {**usual, **words}

    def access(self, **words: object) -> Access:
        usual: dict[str, Any] = {
            "url": self.server.url, "root": Path("/"), "operator": Operator.PARTNER, "terms": TERMS,
            "public_url": "", "clock": lambda: NOW, "writing": True, "client_id": "the client: é",
            "secret": SECRET,
        }  # fmt: skip
        return Access(**{**usual, **words})

    @contextmanager
    def portal(self, **words: object) -> Iterator[RestPortal]:
        portal = RestPortal(self.access(**words))
        try:
            yield portal
        finally:
            portal.close()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    mine = Scripted()
    with http_server(mine.answer) as server:
        mine.server = server
        yield mine


# --- tokens ---


def test_token_is_fetched_once_for_concurrent_requests(scripted: Scripted) -> None:
    scripted.says["POST /v1/users/id-ann/closing"] = lambda _: reply(
        200, {"verdict": "applied", "id": "id-ann", "version": 4}
    )
    calls = [Call(f"k{number}", CloseUser("ann@example.fr"), "id-ann", 3) for number in range(30)]
    with scripted.portal() as portal:
        assert {receipt.version for receipt in portal.execute(calls)} == {4}
    assert scripted.tokens == 1
    login = scripted.server.asked[0]
    assert login.content == b"grant_type=client_credentials&scope=portal.read+portal.write"
    # as RFC 6749 has it: each part form-encoded before they are joined
    basic = base64.b64decode(login.headers["authorization"].removeprefix("Basic ")).decode()
    assert basic == "the+client%3A+%C3%A9:s3cret+of+the+client%3A+%C3%BC%26%2B"


@pytest.mark.parametrize("refusal", ["at first", "in mid run"])
def test_token_timeout_ends_all_waiting_requests(
    refusal: str, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout of the token request ends all ten steps, because the steps wait for the same request."""
    monkeypatch.setattr(limits, "REPLY_SECONDS", 0.2)
    monkeypatch.setattr(limits, "CALL_SECONDS", 0.6)
    monkeypatch.setattr(limits, "RETRY_JITTER_SECONDS", 0.0)
    calls = [Call(f"k{number}", CloseUser("ann@example.fr"), "id-ann", 3) for number in range(10)]
    with scripted.portal() as portal:
        if refusal == "in mid run":
            portal.snapshot()
            scripted.tokens += 1
        before = len(scripted.server.asked)
        scripted.says["POST /oauth/token"] = lambda _: [SILENCE]
        with pytest.raises(NoResponse) as result:
            portal.execute(calls)
    assert not result.value.outcome_unknown
    logins = [asked for asked in scripted.server.asked[before:] if asked.path == "/oauth/token"]
    assert 0 < len(logins) <= limits.CALL_TRIES


def test_token_refusal_ends_all_waiting_requests(scripted: Scripted) -> None:
    """A refused log-in ends all ten waiting requests. They send only one log-in, which avoids a lockout."""
    scripted.says["POST /oauth/token"] = lambda _: reply(401, {"error": "invalid_client"})
    calls = [Call(f"k{number}", CloseUser("ann@example.fr"), "id-ann", 3) for number in range(10)]
    with scripted.portal() as portal, pytest.raises(PortalError, match="does not know this client"):
        portal.execute(calls)
    assert scripted.server.paths() == ["POST /oauth/token"]


def test_token_is_renewed_before_it_expires(scripted: Scripted) -> None:
    scripted.seconds = 0.2
    with scripted.portal() as portal:
        portal.snapshot()
        assert scripted.tokens == 1
        while scripted.tokens == 1:
            portal.snapshot()
    assert [
        asked for asked in scripted.server.asked if asked.headers.get("authorization", "").endswith("-0")
    ] == []


def test_rejected_token_is_replaced_once_for_all_requests(
    scripted: Scripted,
) -> None:
    done = threading.Event()

    def close(asked: Asked) -> bytes:
        if asked.headers["authorization"] != f"Bearer {TOKEN}2":
            return reply(401, {"type": "urn:provisioner:problem:token", "detail": "revoked"})
        done.set()
        return reply(200, {"verdict": "applied", "id": "id-ann", "version": 4})

    scripted.says["POST /v1/users/id-ann/closing"] = close
    calls = [Call(f"k{number}", CloseUser("ann@example.fr"), "id-ann", 3) for number in range(20)]
    with scripted.portal() as portal:
        assert len(portal.execute(calls)) == 20
    assert scripted.tokens == 2


def test_token_rejected_twice_ends_in_a_sentence(scripted: Scripted) -> None:
    scripted.says["GET /v1/portal"] = lambda _: reply(401, {"detail": "you are out"})
    with (
        scripted.portal() as portal,
        pytest.raises(PortalError, match="does not take our token: you are out"),
    ):
        portal.snapshot()
    assert scripted.tokens == 2


LOGINS: dict[str, tuple[bytes, str]] = {
    "wrong secret": (
        reply(401, {"error": "invalid_client"}),
        "does not know this client, or its secret is wrong",
    ),
    "short of scopes": (reply(400, {"error": "invalid_scope"}), "has not the scope portal.write"),
    "fewer scopes": (
        reply(200, {"access_token": "x", "token_type": "bearer", "expires_in": 9, "scope": "portal.read"}),
        "has not the scope portal.write, so nothing was written",
    ),
    "no token": (reply(200, {"token_type": "bearer"}), "it holds no access_token"),
    "another type": (reply(200, {"access_token": "x", "token_type": "mac"}), "not of the type Bearer"),
    "for ever": (
        reply(200, {"access_token": "x", "token_type": "bearer", "expires_in": -1}),
        "lasts no number of seconds",
    ),
    "true": (
        reply(200, {"access_token": "x", "token_type": "bearer", "expires_in": True}),
        "lasts no number of seconds",
    ),
    "an odd token": (
        reply(200, {"access_token": "x\r\ny", "token_type": "bearer"}),
        "has characters that no token has",
    ),
    "a page": (reply(200, b"<html>", kind="text/html"), "it is text/html"),
    "a list": (reply(200, []), "it holds no access_token"),
    "nothing there": (reply(404, b"", kind="text/html"), "gives out no tokens at /oauth/token"),
    "another reason": (reply(400, {"error": "unsupported_grant_type"}), "HTTP 400, unsupported_grant_type"),
    "no reason": (reply(400, {"error": ["x"]}), "HTTP 400, no reason given"),
}


@pytest.mark.parametrize("case", LOGINS)
def test_failed_log_in_ends_in_a_sentence_without_the_secret(case: str, scripted: Scripted) -> None:
    answer, sentence = LOGINS[case]
    scripted.says["POST /oauth/token"] = lambda _: answer
    with scripted.portal() as portal, pytest.raises(PortalError) as refused:
        portal.snapshot()
    assert sentence in str(refused.value)
    assert "s3cret" not in f"{refused.value} {refused.value.remedy}"


def test_given_token_is_used_as_it_is(scripted: Scripted) -> None:
    scripted.tokens = 5
    with scripted.portal(client_id="", secret=f"{TOKEN}5") as portal:
        assert portal.snapshot().portal == "the portal"
    assert "POST /oauth/token" not in scripted.server.paths()


def test_missing_right_is_reported_by_the_portal_too(scripted: Scripted) -> None:
    """A missing scope is read from ``GET /v1/portal``, because a token from the settings names no scopes."""
    scripted.tokens = 5
    scripted.says["GET /v1/portal"] = lambda _: reply(200, scripted.about(scopes=["portal.read"]))
    with (
        scripted.portal(client_id="", secret=f"{TOKEN}5") as portal,
        pytest.raises(PortalError, match=r"has not the scope portal\.write"),
    ):
        portal.snapshot()
    with scripted.portal(client_id="", secret=f"{TOKEN}5", writing=False) as portal:
        portal.snapshot()


def test_run_completes_with_tokens_that_expire_early(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run completes although the service's clock repeatedly moves past the expiry of all tokens."""
    with firm(memory_path / "firm", monkeypatch) as remote:
        now = datetime.now(UTC)

        def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes:
            nonlocal now
            whole = answer()
            # not between two steps side by side: no token would live long enough to be used
            if asked.method != "GET" and asked.path not in ("/oauth/token", "/v1/users"):
                now += timedelta(seconds=1_000)
                remote.served.set_clock(now)
            return whole

        remote.spoilt(spoil)
        assert apply(remote.folder) == 0
        assert set(remote.letters.values()) == {1}
        logins = [asked for asked in remote.relay.asked if asked.path == "/oauth/token"]
        assert len(logins) >= 6


def test_client_disabled_during_a_run_stops_and_done_steps_are_found(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with firm(memory_path / "firm", monkeypatch) as remote:
        out = threading.Event()

        def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes:
            if asked.method == "POST" and asked.path == "/v1/users":
                out.set()
            if out.is_set():
                error = {"error": "invalid_client"}
                return reply(401, error if asked.path == "/oauth/token" else {"detail": "disabled"})
            return answer()

        remote.spoilt(spoil)
        assert apply(remote.folder) == 7
        assert "does not know this client" in capsys.readouterr().err
        assert remote.letters == {}
        remote.spoilt(lambda number, asked, answer: answer())
        assert apply(remote.folder) == 0
        assert set(remote.letters.values()) == {1}


# --- pages ---


@pytest.fixture
def crowd() -> Iterator[tuple[SqlPortal, State]]:
    """A portal behind the service with 25 users in 5 companies, and its state."""
    served = the_service()
    served.set_clock(NOW)
    empty(served.folder / "portal.db")
    portal = SqlPortal(
        SqliteDatabase(served.folder / "portal.db"), Operator.ADMINISTRATOR, TERMS, "", lambda: NOW
    )
    portal.configure(TERMS, "https://example.com/activation")
    for number in range(5):
        portal.execute([Call("", CreateCompany(str(number), f"Company {number}"))])
        portal.execute([Call("", SetBilling(str(number), ESSENTIEL), "", 1)])
    people = [user(f"u{number}", str(number % 5), apps=("Scan",)) for number in range(25)]
    portal.execute([Call("", CreateUser(found.email, found)) for found in people])
    yield portal, portal.snapshot().state
    portal.close()


@pytest.mark.parametrize("size", [1, 2, 7, 24, 25, 26])
def test_pages_of_any_size_give_the_same_portal(
    size: int, crowd: tuple[SqlPortal, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provisioner.portals.rest.driver.MAX_PAGE", size)
    with opened() as portal:
        found = portal.snapshot()
    embedded = crowd[0].snapshot()
    assert found.state == embedded.state
    assert list(found.state.users) == list(embedded.state.users)
    assert [u.version for u in found.state.users.values()] == [
        u.version for u in embedded.state.users.values()
    ]
    assert (found.portal, found.terms, found.operator) == (embedded.portal, TERMS, Operator.ADMINISTRATOR)


def test_long_rows_come_on_smaller_pages(
    crowd: tuple[SqlPortal, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long rows are read on smaller pages. All rows are read, and no response exceeds the size limit."""
    monkeypatch.setattr(limits, "MAX_REPLY_BYTES", 1_500)
    monkeypatch.setattr("provisioner.portals.rest.driver.MAX_PAGE", 40)
    with opened() as portal:
        assert portal.snapshot().state == crowd[1]
    monkeypatch.setattr(limits, "MAX_REPLY_BYTES", 100)
    with opened() as portal, pytest.raises(PortalError, match="longer than 100 bytes"):
        portal.snapshot()


def test_portal_that_changes_while_read_is_read_as_of_one_instant(
    crowd: tuple[SqlPortal, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A portal that changes while it is read is read as of one instant.

    Between two pages, another writer changes users that were already read, and adds users.
    """
    staff = crowd[0]
    monkeypatch.setattr("provisioner.portals.rest.driver.MAX_PAGE", 4)
    written: list[State] = []

    def write(pages: int) -> None:
        someone = staff.snapshot().state.users[f"u{pages}@example.fr"]
        staff.user_changes_profile(someone.id, email=f"moved{pages}@example.fr")
        newcomer = user(f"new{pages}", str(pages % 5), "standard")
        staff.execute([Call("", CreateCompany(f"n{pages}", "New"))])
        staff.execute([Call("", CreateUser(newcomer.email, newcomer))])
        written.append(staff.snapshot().state)

    with opened() as portal:
        original, count = portal._answer, 0

        async def answer_and_write(name: str, **words: Any) -> Any:
            nonlocal count
            found = await original(name, **words)
            if name == "users" and count < 6:
                write(count)
                count += 1
            return found

        monkeypatch.setattr(portal, "_answer", answer_and_write)
        found = portal.snapshot()
    assert len(written) == 6
    assert found.state == staff.snapshot().state
    assert list(found.state.users.values()) == list(staff.snapshot().state.users.values())


def test_snapshot_is_reused_until_the_stamp_changes(crowd: tuple[SqlPortal, State]) -> None:
    staff, before = crowd
    with opened() as portal:
        assert portal.snapshot().state == before
        asked: list[str] = []
        original = portal._ask

        async def noting(request: Any) -> Any:
            asked.append(request.path)
            return await original(request)

        portal._ask = noting  # type: ignore[method-assign]
        assert portal.snapshot().state == before
        assert asked == ["/v1/portal"]
        someone = before.users["u3@example.fr"]
        staff.user_changes_profile(someone.id, email="new@example.fr")
        after = portal.snapshot()
        assert after.state == staff.snapshot().state
        # the one that was given out before stays as it was
        assert "u3@example.fr" in before.users


def test_restored_portal_is_not_mixed_with_the_earlier_reading(
    scripted: Scripted,
) -> None:
    """After a portal is restored from a backup, the driver does not keep users from the earlier reading.

    The changes since the known counter do not contain the changes that the backup undoes.
    """
    with scripted.portal() as portal:
        assert portal.snapshot().state.users["ann@example.fr"].version == 3
        scripted.counter = 9
        scripted.says["GET /v1/users"] = lambda asked: reply(
            200, page(*([] if "since=" in asked.path else [user_row(version=2)]), counter=9)
        )
        assert portal.snapshot().state.users["ann@example.fr"].version == 2


def test_another_day_portal_or_older_copy_is_read_from_the_beginning(
    scripted: Scripted,
) -> None:
    with scripted.portal() as portal:
        assert portal.snapshot().state.users["ann@example.fr"].version == 3
        for change in (
            {"today": "2026-12-01"},
            {"today": "2026-12-01", "portal": "another portal"},
            {"today": "2026-12-01", "portal": "another portal", "counter": 5},
        ):
            scripted.counter = int(str(change.get("counter", 7)))
            scripted.says["GET /v1/portal"] = lambda _, change=change: reply(200, scripted.about(**change))  # type: ignore[misc]
            scripted.says["GET /v1/users"] = lambda asked: reply(
                200,
                page(*([] if "since=" in asked.path else [user_row(version=9)]), counter=scripted.counter),
            )
            scripted.server.asked.clear()
            assert portal.snapshot().state.users["ann@example.fr"].version == 9
            assert any("since=" not in path for path in scripted.server.paths() if "/v1/users" in path)
            scripted.says["GET /v1/users"] = lambda asked: reply(
                200, page(user_row(), counter=scripted.counter)
            )


def test_failed_reading_is_not_mixed_with_a_restored_portal(
    scripted: Scripted,
) -> None:
    scripted.says["GET /v1/users"] = lambda asked: (
        problem(500, "defect") if "since=" in asked.path else reply(200, page(user_row(), counter=8))
    )
    with scripted.portal() as portal:
        with pytest.raises(PortalError, match="HTTP 500"):
            portal.snapshot()
        scripted.counter = 9
        scripted.says["GET /v1/users"] = lambda asked: reply(
            200, page(*([] if "since=" in asked.path else [user_row(version=2)]), counter=9)
        )
        assert portal.snapshot().state.users["ann@example.fr"].version == 2


def test_reading_restarts_when_the_day_ends(scripted: Scripted) -> None:
    """The reading restarts when the day ends, because applications can then end without a new counter."""
    days = iter([("2026-11-30", 7), ("2026-12-01", 8), ("2026-12-01", 8)])
    scripted.counter = 8

    def about(_: Asked) -> bytes:
        today, counter = next(days)
        return reply(200, scripted.about(today=today, counter=counter))

    versions = iter([3, 9])
    scripted.says["GET /v1/portal"] = about
    scripted.says["GET /v1/users"] = lambda asked: reply(
        200, page(*([] if "since=" in asked.path else [user_row(version=next(versions))]), counter=8)
    )
    with scripted.portal() as portal:
        assert portal.snapshot().state.users["ann@example.fr"].version == 9


def test_portal_that_changes_constantly_ends_in_a_sentence(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provisioner.portals.rest.driver.MAX_READINGS", 5)
    moving = iter(range(8, 10_000))
    scripted.says["GET /v1/users"] = lambda _: reply(200, page(user_row(), counter=next(moving)))
    with scripted.portal() as portal, pytest.raises(PortalError, match="changes faster than it can be read"):
        portal.snapshot()
    assert sum("/v1/users" in path for path in scripted.server.paths()) == 5


@contextmanager
def opened(role: str = "administrator", **words: object) -> Iterator[RestPortal]:
    portal = RestPortal(access(the_service(), role, **words))
    try:
        yield portal
    finally:
        portal.close()


# --- absurd answers ---

ABSURD: dict[str, tuple[str, object]] = {
    "a user without id": ("users", page(user_row(id=""))),
    "a user whose id is a number": ("users", page(user_row(id=7))),
    "no e-mail": ("users", page({k: v for k, v in user_row().items() if k != "email"})),
    "an e-mail that is a list": ("users", page(user_row(email=["ann@example.fr"]))),
    "a name of null": ("users", page(user_row(first_name=None))),
    "a phone that is a number": ("users", page(user_row(phone=33612345678))),
    "an unknown type": ("users", page(user_row(type="emperor"))),
    "a type that is a list": ("users", page(user_row(type=["administrator"]))),
    "an unknown status": ("users", page(user_row(status="asleep"))),
    "half a trio": ("users", page(user_row(production="half"))),
    "companies that are a text": ("users", page(user_row(companies="1"))),
    "companies that are numbers": ("users", page(user_row(companies=[1]))),
    "companies that are lists": ("users", page(user_row(companies=[["1"]]))),
    "a company that is not listed": ("users", page(user_row(companies=["1", "2"]))),
    "an application without state": ("users", page(user_row(apps=[{"app": "Scan", "ends": None}]))),
    "an application of an unknown state": (
        "users", page(user_row(apps=[{"app": "Scan", "state": "idle", "ends": None}]))
    ),
    "an application that ends some day": (
        "users", page(user_row(apps=[{"app": "Scan", "state": "ending", "ends": "some day"}]))
    ),
    "applications that are texts": ("users", page(user_row(apps=["Scan"]))),
    "a version that is a text": ("users", page(user_row(version="3"))),
    "a version that is true": ("users", page(user_row(version=True))),
    "a version below none": ("users", page(user_row(version=-1))),
    "a user that is a text": ("users", page("ann")),
    "a user that is null": ("users", page(None)),
    "two with one e-mail": ("users", page(user_row(), user_row(id="id-other"))),
    "no items": ("users", {"next": None, "counter": 7}),
    "items that are none": ("users", {"items": {}, "next": None, "counter": 7}),
    "no counter": ("users", {"items": [], "next": None}),
    "a counter that is a text": ("users", page(counter="7")),
    "a next that is a text": ("users", page(next="5")),
    "a next that is where we are": ("users", page(user_row(), next=0)),
    "a list": ("users", []),
    "a company without a name": ("companies", page({"number": "1"})),
    "a company whose number is one": ("companies", page(company_row(number=1))),
    "an unknown billing mode": ("companies", page(company_row(billing={"mode": "barter", "offer": "x"}))),
    "billing that is a text": ("companies", page(company_row(billing="client"))),
    "billing that ends some day": ("companies", page(company_row(billing_ends="soon"))),
    "a company that is a number": ("companies", page(1)),
    "no terms": ("portal", {"portal": "x"}),
    "an unknown operator": ("portal", Scripted().about(operator="emperor")),
    "terms that are a list": ("portal", Scripted().about(terms=[])),
    "an offer that is a number": ("portal", Scripted().about(terms={**TERMS_ROW, "offers": [1]})),
    "a stamp that is a number": ("portal", Scripted().about(stamp=7)),
    "a counter below none": ("portal", Scripted().about(counter=-1)),
    "no day": ("portal", Scripted().about(today="tomorrow")),
    "scopes in one text": ("portal", Scripted().about(scopes="portal.read portal.write")),
}  # fmt: skip


@pytest.mark.parametrize("case", ABSURD)
def test_unexpected_response_ends_in_a_sentence(case: str, scripted: Scripted) -> None:
    where, said = ABSURD[case]
    scripted.says[f"GET /v1/{where}"] = lambda _: reply(200, said)
    with scripted.portal() as portal, pytest.raises(PortalError, match="gave a reply that cannot be used"):
        portal.snapshot()


def test_cyclic_cursor_ends_in_a_sentence(scripted: Scripted) -> None:
    scripted.says["GET /v1/users"] = lambda asked: reply(
        200, page(user_row(), next=5 if "after=0" in asked.path else 3)
    )
    with scripted.portal() as portal, pytest.raises(PortalError, match="leads back to where it was"):
        portal.snapshot()
    assert sum("/v1/users" in path for path in scripted.server.paths()) <= 2


def test_cursor_in_a_name_is_not_followed(scripted: Scripted) -> None:
    """Text in a name is never read as a cursor, even if the text looks like a cursor."""
    odd = 'Ann","version":1}],"next": 5, "counter": 9}'
    said = json.dumps(page(user_row(first_name=odd))).replace(
        '"next": null, "counter": 7}', '"counter": 7, "next": null}'
    )
    scripted.says["GET /v1/users"] = lambda _: reply(200, said.encode())
    with scripted.portal() as portal:
        assert portal.snapshot().state.users["ann@example.fr"].first_name == odd
    assert sum("/v1/users" in path for path in scripted.server.paths()) == 1


def test_page_with_two_cursors_is_refused(scripted: Scripted) -> None:
    said = b'{"items": [], "next": null, "counter": 7, "x": {"next": 5, "counter": 7}}'
    twice = b'{"items": [], "next": null, "counter": 7, "next":5,"counter":7}'
    for content in (said, twice):
        scripted.says["GET /v1/users"] = lambda asked, content=content: reply(  # type: ignore[misc]
            200, content if "after=0" in asked.path else page()
        )
        with scripted.portal() as portal, pytest.raises(PortalError, match="cannot be used"):
            portal.snapshot()


CLOSE = Call("key", CloseUser("ann@example.fr"), "id-ann", 3)
AT_CLOSING = "POST /v1/users/id-ann/closing"

RECEIPTS: dict[str, object] = {
    "an empty object": {},
    "an unknown verdict": {"verdict": "perhaps", "id": "id-ann", "version": 4},
    "a refusal that succeeds": {"verdict": "failed", "id": "id-ann", "version": 4},
    "no id": {"verdict": "applied", "version": 4},
    "another's id": {"verdict": "applied", "id": "id-bob", "version": 4},
    "a version that is a text": {"verdict": "applied", "id": "id-ann", "version": "4"},
    "a list": [],
}


@pytest.mark.parametrize("case", RECEIPTS)
def test_unexpected_receipt_is_refused(case: str, scripted: Scripted) -> None:
    scripted.says[AT_CLOSING] = lambda _: reply(200, RECEIPTS[case])
    with scripted.portal() as portal, pytest.raises(PortalError, match="cannot be used"):
        portal.execute([CLOSE])


def problem(status: int, code: str, detail: str = "so it is", **more: object) -> bytes:
    return reply(
        status, {"type": f"urn:provisioner:problem:{code}", "status": status, "detail": detail, **more}
    )


VERDICTS: dict[str, tuple[bytes, tuple[str, str, str]]] = {
    "moved": (problem(412, "version-moved", "user:id-ann was changed"),
              ("conflict", "version-moved", "user:ann@example.fr was changed")),
    "exists": (problem(409, "exists", "R1: taken", rule="R1"), ("conflict", "exists", "R1: taken")),
    "month": (problem(409, "month-turned", "it has", rule="R9"), ("conflict", "month-turned", "R9: it has")),
    "gone": (problem(404, "not-on-portal"), ("conflict", "not-on-portal", "so it is")),
    "rule": (problem(422, "R2", "R2: the last one", rule="R2"), ("failed", "R2", "R2: the last one")),
    "value": (problem(422, "invalid", "email: too long"), ("failed", "invalid", "email: too long")),
    "no right": (problem(403, "forbidden", "R7: no", rule="R7"), ("failed", "no-right", "R7: no")),
    "malformed": (problem(400, "malformed"), ("failed", "malformed", "so it is")),
    "too large": (problem(413, "too-large"), ("failed", "too-large", "so it is")),
    "without words": (reply(422, b"", kind="text/plain"),
                      ("failed", "", "the portal gives no reason (HTTP 422)")),
    "hostile words": (problem(422, "R2", "a\x1b[31m\nb" * 200), ("failed", "R2", "")),
}  # fmt: skip


@pytest.mark.parametrize("case", VERDICTS)
def test_refusal_is_the_verdict_of_its_step_alone(case: str, scripted: Scripted) -> None:
    answer, (verdict, code, result) = VERDICTS[case]
    scripted.says[AT_CLOSING] = lambda _: answer
    scripted.says["POST /v1/users/id-bob/closing"] = lambda _: reply(
        200, {"verdict": "applied", "id": "id-bob", "version": 2}
    )
    with scripted.portal() as portal:
        refused, done = portal.execute([CLOSE, Call("other", CloseUser("bob@example.fr"), "id-bob", 1)])
    assert (str(refused.verdict), refused.code) == (verdict, code)
    assert refused.problem == result if result else len(refused.problem) <= 301
    assert (str(done.verdict), done.version) == ("applied", 2)


FATAL: dict[str, tuple[bytes, type[PortalError] | type[Locked], str]] = {
    "fenced": (problem(423, "fenced"), LockLost, "Another run has taken this one's place"),
    "scope": (problem(403, "scope", "This needs more"), PortalError, "does not allow this client"),
    "no such path": (problem(404, "not-found"), PortalError, "has nothing at POST /v1/users/{id}/closing"),
    "not the method": (problem(405, "method"), PortalError, "has nothing at POST"),
    "type": (problem(415, "media-type"), PortalError, "answers close user with HTTP 415"),
}


@pytest.mark.parametrize("case", FATAL)
def test_response_that_concerns_all_steps_stops_the_run(case: str, scripted: Scripted) -> None:
    answer, kind, sentence = FATAL[case]
    scripted.says[AT_CLOSING] = lambda _: answer
    with scripted.portal() as portal, pytest.raises(kind) as stopped:
        portal.execute([replace(CLOSE, key=f"k{number}") for number in range(200)])
    assert sentence in str(stopped.value)
    # those under way were finished, and no more were begun
    assert len(scripted.server.asked) <= 1 + 2 * 10


def test_receipt_is_looked_up_after_a_server_error(scripted: Scripted) -> None:
    scripted.says[AT_CLOSING] = lambda _: problem(500, "defect")
    known = {"key": "key", "verdict": "applied", "id": "id-ann", "version": 4}
    scripted.says["GET /v1/receipts/key"] = lambda _: reply(200, known)
    with scripted.portal() as portal:
        assert portal.execute([CLOSE])[0].version == 4
    scripted.says["GET /v1/receipts/key"] = lambda _: problem(404, "not-on-portal")
    with scripted.portal() as portal, pytest.raises(PortalError, match="failed inside"):
        portal.execute([CLOSE])


@pytest.mark.parametrize("parallelism", [1, 10])
def test_parallelism_limits_concurrent_steps(parallelism: int, scripted: Scripted) -> None:
    """The number of open requests reaches ``parallelism`` and never exceeds it.

    The server answers only when ``parallelism`` requests are open.
    """
    together = threading.Barrier(parallelism)
    asking = most = 0

    def close(_: Asked) -> bytes:
        nonlocal asking, most
        with scripted.lock:
            asking += 1
            most = max(most, asking)
        together.wait(20)
        with scripted.lock:
            asking -= 1
        return reply(200, {"verdict": "applied", "id": "id-ann", "version": 4})

    scripted.says[AT_CLOSING] = close
    with scripted.portal(parallelism=parallelism) as portal:
        assert len(portal.execute([replace(CLOSE, key=f"k{number}") for number in range(30)])) == 30
    assert most == parallelism


def test_step_without_a_key_is_not_sent_twice(scripted: Scripted) -> None:
    scripted.says[AT_CLOSING] = lambda _: [RESET]
    with scripted.portal() as portal, pytest.raises(PortalError, match="gave no usable answer"):
        portal.execute([replace(CLOSE, key="")])
    assert scripted.server.paths().count(AT_CLOSING) == 1
    assert not any("receipts" in path for path in scripted.server.paths())


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("PUT /v1/leases/l", {}), ("PUT /v1/leases/l", {"fence": "1"}), ("PUT /v1/leases/l", []),
    ],
)  # fmt: skip
def test_unexpected_lease_is_refused(where: str, said: object, scripted: Scripted) -> None:
    scripted.says[where] = lambda _: reply(200, said)
    with scripted.portal() as portal, pytest.raises(PortalError, match="cannot be used"):
        portal.hold("l", "me", 1, 60)


@pytest.mark.parametrize("said", [{}, {"holders": "k"}, {"holders": {"k": None}}, []])
def test_unexpected_claims_are_refused(said: object, scripted: Scripted) -> None:
    scripted.says["POST /v1/letter-claims"] = lambda _: reply(200, said)
    with scripted.portal() as portal, pytest.raises(PortalError, match="cannot be used"):
        portal.claim("r", {"k": ()})


def test_letters_that_were_not_claimed_are_ignored(scripted: Scripted) -> None:
    scripted.says["POST /v1/letter-claims"] = lambda _: reply(200, {"holders": {"k": "r", "another": "r"}})
    with scripted.portal() as portal:
        assert portal.claim("r", {"k": (), "l": ()}) == {"k": "r", "l": ""}


@pytest.mark.parametrize(
    "link", [7, "javascript:alert(1)", "https://x y", "https://é.fr", "https://x\n", ["https://x"]]
)
def test_invalid_activation_link_is_refused(link: object, scripted: Scripted) -> None:
    scripted.says["POST /v1/invitations"] = lambda _: reply(200, {"links": {"id-ann": link}})
    with scripted.portal() as portal, pytest.raises(PortalError, match="one of its links is none"):
        portal.activation_links(["id-ann"])


def test_links_and_claims_are_requested_in_portions(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provisioner.portals.rest.driver.MAX_LETTERS", 2)
    scripted.says["POST /v1/invitations"] = lambda asked: reply(
        200, {"links": {id_: f"https://x.fr/{id_}" for id_ in asked.json["users"][:1]}}
    )
    scripted.says["POST /v1/letter-claims"] = lambda asked: reply(
        200, {"holders": {claim["letter"]: "-".join(claim["runs"]) for claim in asked.json["letters"][1:]}}
    )
    with scripted.portal() as portal:
        assert portal.activation_links(list("abcde")) == {
            "a": "https://x.fr/a", "b": "", "c": "https://x.fr/c", "d": "", "e": "https://x.fr/e"
        }  # fmt: skip
        claims = portal.claim("r", {letter: (letter, "known") for letter in "abcde"})
        assert claims == {"a": "", "b": "b-known", "c": "", "d": "d-known", "e": ""}


def test_driver_opened_for_reading_writes_nothing(scripted: Scripted) -> None:
    with scripted.portal(writing=False) as portal:
        for work in (
            lambda: portal.execute([CLOSE]),
            lambda: portal.hold("l", "me", 1, 60),
            lambda: portal.claim("r", {"k": ()}),
            lambda: portal.configure(TERMS, ""),
        ):
            with pytest.raises(PortalError, match="open for reading only"):
                work()
        assert portal.activation_links(["a"]) == {"a": ""}
        portal.release()
    assert scripted.server.asked == []


# --- where a portal's paths differ ---


def test_paths_of_a_firm_are_used(scripted: Scripted) -> None:
    paths = {"token": "/login", "close_user": "/api/{id}/end", "portal": "/about"}
    scripted.says["POST /login"] = scripted.give_token
    scripted.says["GET /about"] = lambda _: reply(200, scripted.about())
    scripted.says["POST /api/a%2F%C3%A9%20%3F/end"] = lambda _: reply(
        200, {"verdict": "applied", "id": "a/é ?", "version": 4}
    )
    with scripted.portal(paths=paths) as portal:
        portal.snapshot()
        assert portal.execute([replace(CLOSE, id="a/é ?")])[0].version == 4
    assert "/oauth/token" not in scripted.server.paths()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("close", "/x"), ("", "/x"), ("close_user", "/users/closing"), ("close_user", "/users/{number}"),
        ("close_user", "/users/{id}/{id}"), ("users", "/users/{id}"), ("users", "users"), ("users", ""),
        ("users", "/users?all=1"), ("users", "/users#x"), ("users", "/us ers"), ("users", "https://x.fr/users"),
        ("users", "/us\ners"), ("users", "/usérs"), ("user", "/users/{id"), ("user", "/users/{{id}}"),
    ],
)  # fmt: skip
def test_invalid_path_is_named(name: str, path: str) -> None:
    with pytest.raises(PortalError) as refused:
        endpoints_for({name: path})
    assert "portal: paths:" in str(refused.value)
    assert repr(path) in str(refused.value) or repr(name) in str(refused.value)


def test_default_paths_are_the_endpoint_table() -> None:
    assert endpoints_for({}) == ENDPOINTS
    assert endpoints_for({"user": "/people/{id}"})["user"].path == "/people/{id}"


# --- with the whole program ---


@pytest.fixture
def remote(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Firm]:
    with firm(memory_path / "firm", monkeypatch) as mine:
        yield mine


def test_configure_works_over_http_and_simulate_does_not(
    remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> tuple[int, str]:
        code = run(["-C", str(remote.folder), *words])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    emily = "emily.clarke@clarke-ceramics.com"
    assert said("portal", "users") == (0, "Nobody is on this portal yet.\n")
    assert apply(remote.folder) == 0
    capsys.readouterr()
    assert emily in said("portal", "users")[1]
    settings = remote.folder / "provisioner.yaml"
    settings.write_text(settings.read_text().replace("apps: [Doc", "apps: [Coffre-fort, Doc", 1))
    code, text = said("portal", "configure")
    assert code == 0, text
    portal = open_portal(access(remote.served))
    assert "Coffre-fort" in portal.snapshot().terms.apps
    portal.close()
    before = remote.users
    for words in (
        ("close", emily),
        ("client-creates", emily, "eve@example.fr", "Eve", "Noël"),
        ("user-changes", emily, "--phone", ""),
        ("requests-app", emily, "Scan"),
        ("activate", "https://example.com/x"),
    ):
        code, text = said("simulate", *words)
        assert code == 64
        assert "simulate works on an embedded portal alone." in text
    assert remote.users == before


def test_only_an_administrator_sets_the_terms() -> None:
    with (
        opened("partner") as portal,
        pytest.raises(PortalError, match="does not allow this client set terms"),
    ):
        portal.configure(TERMS, "")


def test_program_starts_without_the_http_extra(tmp_path: Path) -> None:
    from shell_support import process

    result = process(
        '"$PYTHON" -X importtime -m provisioner --version 2>&1 | grep -cE "httpx2|stamina|asyncio" ; true',
        tmp_path,
    )
    assert result.stdout.strip() == "0"


@pytest.mark.parametrize("module", ["httpx2", "stamina"])
def test_program_without_the_http_extra_says_what_to_install(
    module: str, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "stamina.instrumentation", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PortalError, match=f"needs {module}, which is not installed") as refused:
        open_portal(scripted.access())
    assert refused.value.remedy.endswith("pip install --editable '.[http]'")


def test_run_over_tls_works_and_an_unknown_authority_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run over TLS fails if the authority of the service is unknown, and works with ``ca_file``."""
    import trustme
    from remote_support import settle_workspace

    from provisioner.workspace.settings import load_workspace

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    folder = settle_workspace(tmp_path / "firm", "https://localhost:1")
    loaded = load_workspace(folder)
    home = tmp_path / "portal"
    home.mkdir()
    served = prepare(
        home, "--certificate", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem"),
        terms=loaded.settings.terms, public_url=loaded.settings.portal.public_url,
    )  # fmt: skip
    served.start()
    try:
        client = served.clients["administrator"]
        monkeypatch.setenv("PROVISIONER_PORTAL_CLIENT", client.id)
        monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", client.secret)
        settings = folder / "provisioner.yaml"
        settings.write_text(settings.read_text().replace("localhost:1", f"localhost:{served.port}"))
        assert apply(folder) == 1
        assert "cannot prove who it is" in capsys.readouterr().err
        (folder / "ca.pem").write_bytes((tmp_path / "ca.pem").read_bytes())
        settings.write_text(settings.read_text().replace("portal:\n", "portal:\n  ca_file: ca.pem\n"))
        assert apply(folder) == 0, capsys.readouterr()
    finally:
        served.stop()
