"""What the service does at each endpoint, once the border has checked the request."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date
from functools import cache
from hashlib import sha256
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, cast

from provisioner.errors import Locked, LockLost, PortalError
from provisioner.identity import DamagedValue
from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Clock,
    Grant,
    Production,
    Status,
    Terms,
    User,
    UserType,
    email_key,
)
from provisioner.planning.steps import (
    CloseUser,
    CreateCompany,
    CreateUser,
    EditApps,
    EditCompanies,
    EditCompany,
    EditProfile,
    ReopenUser,
    SetBilledCompany,
    SetBilling,
    SetType,
    Step,
    ValidateUser,
)
from provisioner.portals.base import Call, Receipt, Verdict
from provisioner.portals.hosting import Host, Job, Lease
from provisioner.service import bodies
from provisioner.service.clients import Books, Client, Clients, Session, digest
from provisioner.service.problems import PROBLEMS, Problem
from provisioner.service.table import Entry
from provisioner.service.wire import company_text, page_text, user_text
from provisioner.service.writer import Writer

READERS = 4
"""Reads under way at once; more would only share the same processor."""

USUAL_PAGE = 1_000

FRESH_SECONDS = 1.0
"""How long a token is taken without asking the database again: a disabled client is out after that."""

MOST_SESSIONS = 10_000

MOST_AHEAD = 1_000_000
"""How far the number of a run may be above that of the one before: a ledger counts by ones."""

READY_SECONDS = 5.0
"""How long a database that is well takes to answer, at most."""

T = TypeVar("T")
H = TypeVar("H", bound=Host)


@dataclass(frozen=True)
class Asked:
    """A request, checked: its values have their types, and its client may do this."""

    entry: Entry
    session: Session | None = None
    path: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    """Those of the endpoint's parameters, by their names in the table."""
    body: Any = None


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Hosts:
    """Open portals for reading side by side, each in a thread at a time; a broken one is replaced."""

    def __init__(self, opening: Callable[[], Host], most: int) -> None:
        self._opening = opening
        self._idle: SimpleQueue[Host] = SimpleQueue()
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="portal")

    async def ask(self, question: Callable[[Host], T]) -> T:
        """The answer of one of them. Raises :class:`PortalError` and what ``question`` raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, question)

    def _ask(self, question: Callable[[Host], T]) -> T:
        try:
            host = self._idle.get_nowait()
        except Empty:
            return self._answer(self._opening(), question)
        try:
            return self._answer(host, question)
        except PortalError:
            # it has lain here while the database was away; a new one may reach it
            return self._answer(self._opening(), question)

    def _answer(self, host: Host, question: Callable[[Host], T]) -> T:
        try:
            answer = question(host)
        except PortalError:
            with suppress(PortalError):
                host.close()
            raise
        except BaseException:
            self._idle.put(host)
            raise
        self._idle.put(host)
        return answer

    def close(self) -> None:
        """Let go of all; whoever asks is answered first."""
        self._threads.shutdown()
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()


class Lasting(Generic[H]):
    """One portal for whatever is written; opened anew after its database was away."""

    def __init__(self, opening: Callable[[], H]) -> None:
        self._opening = opening
        self._lock = threading.Lock()
        self._host: H | None = opening()

    def ask(self, question: Callable[[H], T]) -> T:
        """The answer. Raises :class:`PortalError` and what ``question`` raises."""
        with self._held() as host:
            return question(host)

    @contextmanager
    def keeping(self) -> Iterator[Any]:
        """See :class:`~provisioner.service.clients.Books`."""
        with self._held() as host, cast(Books, host).keeping() as connection:
            yield connection

    @contextmanager
    def looking(self) -> Iterator[Any]:
        """Likewise."""
        with self._held() as host, cast(Books, host).looking() as connection:
            yield connection

    def close(self) -> None:
        """Let go of it."""
        if self._host is not None:
            self._host.close()

    @contextmanager
    def _held(self) -> Iterator[H]:
        with self._lock:
            host = self._host = self._host or self._opening()
        try:
            yield host
        except PortalError as problem:
            if _is_well(problem):
                raise
            with self._lock:
                if self._host is host:
                    self._host = None
            with suppress(PortalError):
                host.close()
            raise


def _is_well(problem: PortalError) -> bool:
    """The connection, that is: somebody else writes, or a row is damaged."""
    cause = problem.__cause__
    return (
        isinstance(cause, DamagedValue)
        or getattr(cause, "sqlite_errorname", "") == "SQLITE_BUSY"
        or getattr(cause, "sqlstate", "") == "55P03"
    )


class Service:
    """A portal, served."""

    def __init__(
        self, opening: Callable[[], Host], clients: Clients, clock: Clock, monotonic: Callable[[], float]
    ) -> None:
        self.clients = clients
        self.clock = clock
        self._monotonic = monotonic
        self._writing = Lasting(opening)
        self._hosts = Hosts(opening, READERS)
        self._writer: Writer | None = None
        # whoever waits to write, or for a token, waits in a thread of these, and nobody else does
        self._pen = ThreadPoolExecutor(1, thread_name_prefix="pen")
        self._door = ThreadPoolExecutor(1, thread_name_prefix="door")
        self._sessions: dict[str, tuple[Session, float]] = {}

    def start(self) -> None:
        """Begin to write, in the event loop that runs."""
        self._writer = Writer(
            lambda jobs: self._writing.ask(lambda host: host.work(jobs)), asyncio.get_running_loop()
        )

    def close(self) -> None:
        """Finish what is in hand and let go."""
        for threads in (self._pen, self._door):
            threads.shutdown(wait=False, cancel_futures=True)
        if self._writer is not None:
            self._writer.close()
        for threads in (self._pen, self._door):
            threads.shutdown()
        self._hosts.close()
        self._writing.close()

    async def read(self, question: Callable[[Host], T]) -> T:
        """What one of the reading portals answers."""
        return await self._hosts.ask(question)

    async def write(self, question: Callable[[Host], T]) -> T:
        """What the writing portal answers: anything but steps."""
        return await asyncio.get_running_loop().run_in_executor(self._pen, self._writing.ask, question)

    async def log_in(self, client_id: str, secret: str) -> Client | None:
        """See :meth:`~provisioner.service.clients.Clients.log_in`."""
        return await self.read(lambda host: Clients(cast(Books, host)).log_in(client_id, secret))

    async def issue(self, client: Client, scopes: frozenset[str], seconds: int) -> str:
        """See :meth:`~provisioner.service.clients.Clients.issue`."""
        now = self.clock()
        token = await asyncio.get_running_loop().run_in_executor(
            self._door, self.clients.issue, client, scopes, now, seconds
        )
        self._know(digest(token), Session(client.id, client.role, scopes, int(now.timestamp()) + seconds))
        return token

    def knows(self, token: str) -> bool:
        """It was good not long ago."""
        return digest(token) in self._sessions

    async def work(self, job: Job) -> Receipt:
        """A step, done together with whatever else waits."""
        assert self._writer is not None
        return await self._writer.do(job)

    async def session(self, token: str) -> Session:
        """Who has this token. Raises :class:`Problem`."""
        hashed = digest(token)
        known = self._sessions.get(hashed)
        if known is None or known[1] <= self._monotonic():
            found = await self.read(lambda host: Clients(cast(Books, host)).session(hashed))
            if found is None:
                self._sessions.pop(hashed, None)
                raise no_token("The access token is unknown, or its client was disabled.")
            known = self._know(hashed, found)
        session = known[0]
        if session.expires <= self.clock().timestamp():
            self._sessions.pop(hashed, None)
            raise no_token("The access token has expired.")
        return session

    def _know(self, hashed: str, session: Session) -> tuple[Session, float]:
        if len(self._sessions) >= MOST_SESSIONS:
            self._sessions.clear()
        known = self._sessions[hashed] = session, self._monotonic() + FRESH_SECONDS
        return known


def no_token(sentence: str) -> Problem:
    """401: log in first."""
    return Problem("token", sentence, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(value, ensure_ascii=False).encode(), headers or {})


# --- reading ---


async def _portal(service: Service, asked: Asked) -> Reply:
    about = await service.read(lambda host: host.about())
    assert asked.session is not None
    stamp = _token_of(about.stamp or about.portal)
    answer = {
        "portal": about.portal,
        "stamp": stamp,
        "counter": about.counter,
        "today": about.today.isoformat(),
        "operator": str(asked.session.role),
        "scopes": sorted(asked.session.scopes),
        "terms": {
            "offers": sorted(about.terms.offers),
            "apps": sorted(about.terms.apps),
            "email_domains": sorted(about.terms.email_domains),
            "staff": sorted(about.terms.staff),
        },
        "public_url": about.public_url,
    }
    return _unless_known(asked, f'"{stamp}.{about.today}"', lambda: json.dumps(answer, ensure_ascii=False))


def _token_of(stamp: str) -> str:
    return stamp if re.fullmatch(r"[A-Za-z0-9._-]+", stamp) else sha256(stamp.encode()).hexdigest()[:32]


async def _companies(service: Service, asked: Asked) -> Reply:
    def read(host: Host) -> bytes:
        page = host.page_of_companies(*_cursor(asked))
        return page_text(map(company_text, page.items), page.next, page.counter)

    return Reply(body=await service.read(read))


async def _users(service: Service, asked: Asked) -> Reply:
    def read(host: Host) -> bytes:
        page = host.page_of_users(*_cursor(asked))
        return page_text(map(user_text, page.items), page.next, page.counter)

    return Reply(body=await service.read(read))


def _cursor(asked: Asked) -> tuple[int, int, int]:
    query = asked.query
    return query.get("after", 0), query.get("limit", USUAL_PAGE), query.get("since", 0)


async def _company(service: Service, asked: Asked) -> Reply:
    number = asked.path["number"]
    found = await service.read(lambda host: host.company(number))
    if found is None:
        raise Problem("not-on-portal", f"company:{number} is not on this portal.")
    # the portal marks by itself when billing ends, without a new version
    ends = f".{found.billing_ends}" if found.billing_ends else ""
    return _unless_known(asked, f'"{found.version}{ends}"', lambda: company_text(found))


async def _user(service: Service, asked: Asked) -> Reply:
    id_ = asked.path["id"]
    found = await service.read(lambda host: host.user(id_))
    if found is None:
        raise Problem("not-on-portal", f"user:{id_} is not on this portal.")
    # what ends with the month is gone by itself, without a new version
    return _unless_known(asked, f'"{found.version}.{len(found.apps)}"', lambda: user_text(found))


def _unless_known(asked: Asked, etag: str, text: Callable[[], str]) -> Reply:
    known = asked.headers.get("If-None-Match", "")
    if known.strip() == "*" or etag in [one.strip().removeprefix("W/") for one in known.split(",")]:
        return Reply(304, headers={"ETag": etag})
    return Reply(200, text().encode(), {"ETag": etag})


async def _receipt(service: Service, asked: Asked) -> Reply:
    key, ledger = asked.path["key"], asked.query.get("ledger", "")
    found = await service.read(lambda host: host.receipt(key, ledger))
    if found is None:
        raise Problem("not-on-portal", "No step was ever done with this key.")
    return _json({"key": found.key, "verdict": str(found.verdict), "id": found.id, "version": found.version})


async def _lease(service: Service, asked: Asked) -> Reply:
    found = await service.read(lambda host: host.lease(asked.path["ledger"]))
    if found is None:
        raise Problem("not-on-portal", "This ledger never held the portal.")
    return _json(_lease_words(found))


def _lease_words(lease: Any) -> dict[str, Any]:
    return {
        "ledger": lease.ledger,
        "owner": lease.owner,
        "fence": lease.fence,
        "expires": lease.expires.astimezone(UTC).isoformat(),
    }


# --- writing ---


async def _set_terms(service: Service, asked: Asked) -> Reply:
    body: bodies.NewTerms = asked.body
    terms = Terms(
        frozenset(body.offers),
        frozenset(body.apps),
        frozenset(domain.lower() for domain in body.email_domains),
        frozenset(map(email_key, body.staff)),
    )
    await service.write(lambda host: host.configure(terms, body.public_url))
    return Reply(204)


async def _claim_letters(service: Service, asked: Asked) -> Reply:
    ledger, fence = asked.headers["Lease"], asked.headers["Fencing-Token"]
    body: bodies.Letters = asked.body
    letters = {claim.letter: claim.runs for claim in body.letters}
    try:
        holders = await service.write(lambda host: host.claim_letters(ledger, fence, body.run, letters))
    except LockLost as problem:
        raise Problem("fenced", problem.sentence) from None
    return _json({"holders": {letter: holders[letter] for letter in letters}})


async def _invitations(service: Service, asked: Asked) -> Reply:
    users = list(dict.fromkeys(asked.body.users))
    return _json({"links": dict(await service.write(lambda host: host.activation_links(users)))})


async def _take_lease(service: Service, asked: Asked) -> Reply:
    ledger, body = asked.path["ledger"], asked.body

    def take(host: Host) -> Lease:
        known = host.lease(ledger)
        if body.fence > (known.fence if known else 0) + MOST_AHEAD:
            # it never goes back: one that is near the end of all numbers would lock the ledger out for ever
            raise Problem("invalid", "fence is far above the last one of this ledger.", pointer="/fence")
        return host.take_lease(ledger, body.owner, body.holder, body.fence, body.seconds)

    try:
        lease = await service.write(take)
    except Locked as problem:
        held = await service.read(lambda host: host.lease(ledger))
        words = _lease_words(held) if held is not None else {}
        more = {name: words[name] for name in ("owner", "expires") if name in words}
        raise Problem("locked", problem.sentence, **more) from None
    return _json(_lease_words(lease))


async def _drop_lease(service: Service, asked: Asked) -> Reply:
    await service.write(lambda host: host.drop_lease(asked.path["ledger"], asked.query["holder"]))
    return Reply(204)


async def _step(service: Service, asked: Asked) -> Reply:
    session = asked.session
    assert session is not None
    step = STEPS[asked.entry.name](asked)
    call = Call(
        key=asked.headers.get("Idempotency-Key", ""),
        step=step,
        id=asked.path.get("id", ""),
        version=asked.headers.get("If-Match", 0),
    )
    ledger, fence = asked.headers.get("Lease", ""), asked.headers.get("Fencing-Token", 0)
    receipt = await service.work(Job(call, session.role, ledger, fence))
    if receipt.verdict not in (Verdict.APPLIED, Verdict.ALREADY):
        raise refusal(receipt)
    answer = {"verdict": str(receipt.verdict), "id": receipt.id, "version": receipt.version}
    headers = {"ETag": f'"{receipt.version}"'}
    if receipt.verdict is Verdict.APPLIED and isinstance(step, CreateUser):
        return _json(answer, 201, {**headers, "Location": f"/v1/users/{receipt.id}"})
    if receipt.verdict is Verdict.APPLIED and isinstance(step, CreateCompany):
        return _json(answer, 201, {**headers, "Location": f"/v1/companies/{step.company}"})
    return _json(answer, 200, headers)


def refusal(receipt: Receipt) -> Problem:
    """The problem that a refused step is answered with."""
    code, problem = receipt.code, receipt.problem
    if code in PROBLEMS:
        rule = _rule(problem) if code in ("exists", "month-turned") else ""
        return Problem(code, problem, rule=rule)
    if code == "no-right":
        return Problem("forbidden", problem, rule=_rule(problem))
    return Problem("rule", problem, rule=code)


def _rule(problem: str) -> str:
    """The rule that a sentence begins with."""
    found = re.match("(R[0-9]+): ", problem)
    return found[1] if found else ""


def _new_user(asked: Asked) -> Step:
    body: bodies.NewUser = asked.body
    profile = User(
        body.email, body.first_name, body.last_name, body.phone, UserType(body.type), body.billed,
        frozenset(body.companies), Production(body.production), frozenset(map(_grant, body.apps)),
        Status(body.status),
    )  # fmt: skip
    return CreateUser(email_key(body.email), profile)


def _grant(body: bodies.GrantBody) -> Grant:
    return Grant(body.app, AppState(body.state), _day(body.ends))


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def _billing(asked: Asked) -> Step:
    body = asked.body
    return SetBilling(asked.path["number"], Billing(BillingMode(body.mode), body.offer))


def _apps(asked: Asked) -> Step:
    body: bodies.AppsEdit = asked.body
    return EditApps(
        asked.path["id"],
        Production(body.production) if body.production else None,
        tuple(body.grant),
        tuple(body.end),
        tuple(body.remove),
        _day(body.ends),
    )


def _profile(asked: Asked) -> Step:
    body: bodies.ProfileEdit = asked.body
    return EditProfile(asked.path["id"], body.email, body.first_name, body.last_name, body.phone)


def _new_company(asked: Asked) -> Step:
    return CreateCompany(asked.body.number, asked.body.name, asked.body.siren)


def _company_edit(asked: Asked) -> Step:
    return EditCompany(asked.path["number"], asked.body.name, asked.body.siren)


def _billed(asked: Asked) -> Step:
    return SetBilledCompany(asked.path["id"], asked.body.billed, UserType(asked.body.type))


def _dossiers(asked: Asked) -> Step:
    return EditCompanies(asked.path["id"], tuple(asked.body.add), tuple(asked.body.remove))


STEPS: dict[str, Callable[[Asked], Step]] = {
    "create_company": _new_company,
    "edit_company": _company_edit,
    "set_billing": _billing,
    "create_user": _new_user,
    "edit_profile": _profile,
    "set_type": lambda asked: SetType(asked.path["id"], UserType(asked.body.type)),
    "set_billed_company": _billed,
    "edit_companies": _dossiers,
    "edit_apps": _apps,
    "validate_user": lambda asked: ValidateUser(asked.path["id"]),
    "close_user": lambda asked: CloseUser(asked.path["id"]),
    "reopen_user": lambda asked: ReopenUser(asked.path["id"]),
}
"""The step behind each endpoint that does one."""


# --- health and the document ---


async def _healthz(service: Service, asked: Asked) -> Reply:
    return _json({"status": "ok"})


async def _readyz(service: Service, asked: Asked) -> Reply:
    async with asyncio.timeout(READY_SECONDS):
        await service.read(lambda host: host.lease("readyz"))
    return _json({"status": "ok"})


async def _openapi(service: Service, asked: Asked) -> Reply:
    return Reply(body=_document())


@cache
def _document() -> bytes:
    from provisioner.service.openapi import openapi

    return json.dumps(openapi(), ensure_ascii=False).encode()


Handler = Callable[[Service, Asked], Awaitable[Reply]]

HANDLERS: dict[str, Handler] = {
    "portal": _portal,
    "set_terms": _set_terms,
    "companies": _companies,
    "company": _company,
    "users": _users,
    "user": _user,
    "receipt": _receipt,
    "claim_letters": _claim_letters,
    "invitations": _invitations,
    "lease": _lease,
    "take_lease": _take_lease,
    "drop_lease": _drop_lease,
    "healthz": _healthz,
    "readyz": _readyz,
    "openapi": _openapi,
    **dict.fromkeys(STEPS, _step),
}
"""Who answers at each endpoint; logging in is oauth.py's."""
