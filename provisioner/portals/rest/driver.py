"""A portal over HTTP: the documented service of this program, or a firm's own that answers likewise.

The portal decides everything, as the embedded one does; this driver asks, and reads the answers as verdicts.
Each step carries its key and the version it starts from, so it may be sent again when the answer was lost.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import Any, assert_never
from urllib.parse import quote

from provisioner.embedded.host import AuthorisedCall, Lease
from provisioner.embedded.leased import LeasedPortal, superseded
from provisioner.embedded.server.endpoints import MAX_LETTERS, MAX_PAGE, READ, WRITE
from provisioner.errors import Locked, PortalError
from provisioner.model import Billing, Company, PortalTerms, State, User, email_key
from provisioner.planning.codec import writer
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
    address_of,
)
from provisioner.portal import Access, Call, Capabilities, Receipt, Snapshot, Verdict, read_only
from provisioner.portals.http import (
    Credential,
    HttpResponse,
    Json,
    NoResponse,
    Request,
    ResponseTooLarge,
    invalid_response,
)
from provisioner.portals.oauth import (
    ClientCredentials,
    GivenToken,
    lacking,
    missing,
    not_taken,
    open_http_client,
)
from provisioner.portals.rest.paths import endpoints_for
from provisioner.portals.rest.responses import (
    PortalInfo,
    Problem,
    Users,
    companies_of,
    read_about,
    read_holders,
    read_lease,
    read_links,
    read_page,
    read_problem,
    read_receipt,
)

BATCH = 1_000
"""Steps taken at once; of these, as many as ``parallelism`` says are under way."""

MOST_ROUNDS = 100
"""Looks at a portal that changes under our eyes."""

_TAIL = re.compile(rb'"next":\s*(null|[0-9]{1,18}),\s*"counter":\s*[0-9]{1,18}\s*\}\s*\Z')
"""The end of a page, by which the next one is asked for before this one is read."""


@dataclass(slots=True)
class _Known:
    """What one reading has found so far; in its next round only what was changed is read again."""

    companies: dict[str, Company] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    since: int = 0
    """All changes up to this count are in it."""
    of: tuple[str, date] | None = None
    """Which portal, on which day."""
    reading: Users = field(default_factory=Users)


class RestPortal(LeasedPortal):
    """The portal behind a service; opened without ``writing`` it never sends a verb that writes."""

    def __init__(self, access: Access) -> None:
        """Raises :class:`PortalError`; nothing is sent yet."""
        super().__init__(access.operator)
        if not access.secret:
            raise missing()
        self._table = endpoints_for(access.paths)
        self._last: tuple[Snapshot, date] | None = None
        self._writing = access.writing
        self._parallelism = max(1, access.parallelism)
        self._web = open_http_client(access, access.url)
        self._credential: Credential
        if access.client_id:
            scopes = (READ, WRITE) if access.writing else (READ,)
            path = self._table["token"].path
            self._credential = ClientCredentials(self._web, path, access.client_id, access.secret, scopes)
        else:
            self._credential = GivenToken(access.secret)

    def close(self) -> None:
        """Let go of the connections."""
        self._web.close()

    def capabilities(self) -> Capabilities:
        """See :meth:`~provisioner.portal.Portal.capabilities`."""
        return Capabilities(batch=BATCH)

    # --- reading ---

    def snapshot(self) -> Snapshot:
        """See :meth:`~provisioner.portal.Portal.snapshot`.

        Rows are only ever added or changed, and the portal counts its changes: what was changed since the
        pages were read is read again, until all of it is of one instant. What an earlier reading found is
        good as long as the stamp is the same, and on that day; else everything is read. For a portal
        restored from a backup counts on from an older number, and by that alone is not known from the one
        that was read.
        """
        about = None
        if self._last is not None:
            about, (last, day) = self._web.run(self._about()), self._last
            if (about.portal, about.stamp, about.today) == (last.portal, last.stamp, day):
                return replace(last, terms=about.terms, operator=about.operator)
            self._last = None
        with _no_garbage_collection():
            snapshot, day = self._read(about)
        self._last = snapshot, day
        return snapshot

    def _read(self, told: PortalInfo | None) -> tuple[Snapshot, date]:
        """Everything, and the day on which it was so; ``told`` as below."""
        known = _Known()
        for _ in range(MOST_ROUNDS):
            about, counters = self._read_on(known, told)
            told = None
            if counters == {about.counter}:
                return self._snapshot(known, about), about.today
            if not counters:
                known = _Known()
        raise PortalError(
            f"{self._web.server} changes faster than it can be read.",
            "Try again when less is going on there.",
        )

    def _read_on(self, known: _Known, told: PortalInfo | None) -> tuple[PortalInfo, set[int]]:
        """What was changed since everything known was read, and where the counter stood at each page.

        At none where what is known is of no use any more. ``told`` is what the portal has just said of
        itself, if it was asked.
        """
        asked = self._web.start(self._about()) if told is None else None
        pages = self._pages("companies", known.since), self._pages("users", known.since)
        about = asked.result() if asked else told
        assert about is not None
        counters = {about.counter}
        if known.since and ((about.portal, about.today) != known.of or about.counter < known.since):
            # another portal, an older copy of it, or another day, on which applications end by themselves
            for unread in pages:
                unread.close()
            return about, set()
        for rows, counter in pages[0]:
            counters.add(counter)
            known.companies.update((found.number, found) for found in companies_of(rows, self._web.server))
        for rows, counter in pages[1]:
            counters.add(counter)
            known.reading.read(rows, known.users, self._web.server)
        known.of, known.since = (about.portal, about.today), min(counters)
        return about, counters

    def _snapshot(self, known: _Known, about: PortalInfo) -> Snapshot:
        companies, users = known.companies, known.users
        by_email = {email_key(user.email): user for user in users.values()}
        if len(by_email) < len(users):
            raise invalid_response(self._web.server, "two of its users have one e-mail address")
        if not all(map(companies.keys().__ge__, {user.companies for user in users.values()})):
            raise invalid_response(self._web.server, "one of its users has a company that it does not list")
        return Snapshot(about.portal, State(companies, by_email), about.terms, about.stamp, about.operator)

    async def _about(self) -> PortalInfo:
        about = read_about(await self._answer("portal"))
        scope = WRITE if self._writing else READ
        if scope not in about.scopes:
            raise lacking(self._web.server, scope)
        return about

    def _pages(self, name: str, since: int) -> Generator[tuple[list[Any], int]]:
        """The rows of each page and its counter; the first page is asked for at once."""
        return self._following(name, since, self._web.start(self._page(name, 0, MAX_PAGE, since)))

    def _following(self, name: str, since: int, coming: Coming) -> Generator[tuple[list[Any], int]]:
        after = 0
        while True:
            reply, limit = coming.result()
            tail = _TAIL.search(reply.content, max(0, len(reply.content) - 200))
            cursor = (None if tail[1] == b"null" else int(tail[1])) if tail else read_page(reply)[1]
            if cursor is not None:
                if cursor <= after:
                    raise invalid_response(self._web.server, f"its list of {name} leads back to where it was")
                after = cursor
                # while this one is read
                coming = self._web.start(self._page(name, after, limit, since))
            try:
                rows, told, counter = read_page(reply)
                if told != cursor:
                    raise invalid_response(self._web.server, f"its list of {name} goes on in two places")
                yield rows, counter
            except BaseException:
                coming.cancel()
                raise
            if cursor is None:
                return

    async def _page(self, name: str, after: int, limit: int, since: int) -> tuple[HttpResponse, int]:
        """One page, and how many rows a page may have: fewer than asked for where rows are long."""
        while True:
            query = f"?after={after}&limit={limit}" + (f"&since={since}" if since else "")
            try:
                return await self._answer(name, query=query), limit
            except ResponseTooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 8)

    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        """See :meth:`~provisioner.portal.Portal.receipts`: as many at once as was allowed."""
        asked = [partial(self._looked_up, key, ledger) for key in keys]
        found = self._web.run(self._web.gather_limited(asked, self._parallelism))
        return {receipt.key: receipt for receipt in found if receipt is not None}

    async def _looked_up(self, key: str, ledger: str) -> Receipt | None:
        query = _query(ledger=ledger) if ledger else ""
        reply = await self._answer("receipt", key=key, query=query, taking=(200, 404))
        if reply.status == 200:
            return read_receipt(reply, key)
        if read_problem(reply).code == "not-on-portal":
            return None
        raise self._unexpected(reply, "receipt")

    def users(self, ids: Collection[str]) -> dict[str, User]:
        """See :meth:`~provisioner.portal.Portal.users`."""
        # the service has no query by id: one reading of everything costs less than a request a user
        return {user.id: user for user in self.snapshot().state.users.values() if user.id in ids}

    # --- writing ---

    def work(self, jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        """Send the calls, at most ``parallelism`` at once."""
        self._require_writing()
        return self._web.run(
            self._web.gather_limited([partial(self._do, job) for job in jobs], self._parallelism)
        )

    async def _do(self, job: AuthorisedCall) -> Receipt:
        call = job.call
        if not call.id and address_of(call.step).kind == "user" and not isinstance(call.step, CreateUser):
            # who was never read has no address there
            told = f"{address_of(call.step)} is not on this portal."
            return Receipt(call.key, Verdict.CONFLICT, problem=told, code="not-on-portal")
        request = self._step(job)
        try:
            reply = await self._ask(request)
            if reply.status >= 500:
                raise NoResponse(
                    f"{self._web.server} failed inside (HTTP {reply.status}).",
                    "Run the same command again; what was done is found.",
                    unknown=True,
                )
        except NoResponse as problem:
            # it may have been done, and the answer is what was lost
            found = None
            if problem.unknown and call.key:
                with suppress(PortalError):
                    found = await self._looked_up(call.key, job.ledger)
            if found is None:
                raise
            return found
        return self._verdict(reply, call)

    def _step(self, job: AuthorisedCall) -> Request:
        call = job.call
        name, blanks, said = _asking(call)
        headers = {}
        if call.key:
            headers["Idempotency-Key"] = call.key
        if not isinstance(call.step, CreateCompany | CreateUser):
            # no resource has version 0, so a lower one is as wrong as that
            headers["If-Match"] = f'"{max(0, call.version)}"'
        if job.ledger:
            headers |= _lease(job.ledger, job.fence)
        return replace(self._request(name, said, headers=headers, **blanks), repeatable=bool(call.key))

    def _verdict(self, reply: HttpResponse, call: Call) -> Receipt:
        """What an answer to a step means."""
        if reply.status in (200, 201):
            receipt = read_receipt(reply, call.key)
            if call.id and receipt.id != call.id:
                raise invalid_response(reply.server, "it is the receipt of another user's step")
            return receipt
        problem = read_problem(reply)
        if reply.status == 423:
            raise superseded()
        if reply.status in (409, 412) or (reply.status == 404 and problem.code == "not-on-portal"):
            verdict = Verdict.CONFLICT
        elif reply.status in (400, 413, 422, 428) or (reply.status == 403 and problem.rule):
            verdict = Verdict.FAILED
        else:
            raise self._unexpected(reply, _asking(call)[0])
        told = self._told(problem, reply)
        if call.id:
            told = told.replace(f"user:{call.id}", str(address_of(call.step)))
        return Receipt(call.key, verdict, problem=told, code=_CODES.get(problem.code, problem.code))

    def take_lease(self, ledger: str, owner: str, holder: str, fence: int, seconds: int) -> Lease:
        """See :class:`~provisioner.embedded.host.PortalHost`."""
        self._require_writing()
        said = {"owner": owner, "holder": holder, "fence": fence, "seconds": seconds}
        reply = self._web.run(self._answer("take_lease", said, ledger=ledger, taking=(200, 423)))
        if reply.status == 423:
            raise Locked(
                self._told(read_problem(reply), reply),
                "Wait for it (--lock-timeout 60), or plan and apply with a ledger of your own.",
            )
        return read_lease(reply, holder)

    def drop_lease(self, ledger: str, holder: str) -> None:
        """See :class:`~provisioner.embedded.host.PortalHost`."""
        self._require_writing()
        query = _query(holder=holder)
        self._web.run(self._answer("drop_lease", ledger=ledger, query=query, taking=(200, 204)))

    def claim_letters(
        self, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        """See :class:`~provisioner.embedded.host.PortalHost`."""
        self._require_writing()
        asked: list[Json] = [{"letter": key, "runs": list(known)} for key, known in letters.items()]
        holders: dict[str, str] = {}
        for at in range(0, len(asked), MAX_LETTERS):
            said = {"run": run, "letters": asked[at : at + MAX_LETTERS]}
            answer = self._answer("claim_letters", said, headers=_lease(ledger, fence), taking=(200, 423))
            reply = self._web.run(answer)
            if reply.status == 423:
                raise superseded()
            holders |= read_holders(reply)
        return {key: holders.get(key, "") for key in letters}

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """See :meth:`~provisioner.portal.Portal.activation_links`; none where nothing may be made."""
        links = dict.fromkeys(user_ids, "")
        if not self._writing:
            return links
        ids = list(links)
        for at in range(0, len(ids), MAX_LETTERS):
            some = ids[at : at + MAX_LETTERS]
            links |= read_links(self._web.run(self._answer("invitations", {"users": some})), some)
        return links

    def configure(self, terms: PortalTerms, public_url: str) -> None:
        """Bring the portal's catalogue, domains, staff and public address in line with the firm's."""
        self._require_writing()
        said = {**writer(PortalTerms)(terms), "public_url": public_url}
        self._web.run(self._answer("set_terms", said, taking=(200, 204)))

    # --- requests and refusals ---

    def _require_writing(self) -> None:
        if not self._writing:
            raise read_only()

    async def _answer(
        self,
        name: str,
        said: Json = None,
        *,
        taking: Collection[int] = (200,),
        query: str = "",
        headers: Mapping[str, str] | None = None,
        **blanks: str,
    ) -> HttpResponse:
        """What an endpoint answers. Raises :class:`PortalError` for a status that is not among ``taking``."""
        reply = await self._ask(self._request(name, said, query=query, headers=headers, **blanks))
        if reply.status not in taking:
            raise self._unexpected(reply, name)
        return reply

    async def _ask(self, request: Request) -> HttpResponse:
        return await self._web.ask(request, self._credential)

    def _request(
        self,
        name: str,
        said: Json = None,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        **blanks: str,
    ) -> Request:
        """The request called ``name``, with the blanks of its path filled in."""
        method, path = self._table[name]
        for blank, words in blanks.items():
            path = path.replace(f"{{{blank}}}", quote(words, safe=""))
        given = dict(headers or {})
        content = b""
        if said is not None:
            given["Content-Type"] = "application/json"
            content = json.dumps(said, ensure_ascii=False).encode()
        return Request(method, path + query, given, content)

    def _told(self, problem: Problem, reply: HttpResponse) -> str:
        """The portal's own sentence, with the rule in front as everywhere."""
        detail = self._web.quoted(problem.detail) or f"the portal gives no reason (HTTP {reply.status})"
        named = not problem.rule or detail.startswith(f"{problem.rule}:")
        return detail if named else f"{self._web.quoted(problem.rule)}: {detail}"

    def _unexpected(self, reply: HttpResponse, name: str) -> PortalError:
        """An answer with which nothing can be done; what it was about is said by the endpoint's name."""
        problem, server = read_problem(reply), self._web.server
        said = self._web.quoted(problem.detail) or "no reason given"
        if reply.status == 401:
            return not_taken(server, said, given=isinstance(self._credential, GivenToken))
        if reply.status == 403:
            return PortalError(
                f"{server} does not allow this client {name.replace('_', ' ')}: {said}",
                "Use a client with the scope or the role that this needs.",
            )
        if reply.status in (404, 405) and problem.code != "not-on-portal":
            method, path = self._table[name]
            return PortalError(
                f"{server} has nothing at {method} {path}.", "Check portal: url: and portal: paths:"
            )
        return PortalError(
            f"{server} answers {name.replace('_', ' ')} with HTTP {reply.status}: {said}",
            "Look at the portal's own log, then try again.",
        )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """What is read is kept, so the collector would walk it again and again for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


Coming = Future[tuple[HttpResponse, int]]

_CODES = {"forbidden": "no-right"}
"""Codes of receipts that problems call otherwise."""


def _lease(ledger: str, fence: int) -> dict[str, str]:
    return {"Lease": ledger, "Fencing-Token": str(fence)}


def _query(**words: str) -> str:
    return "?" + "&".join(f"{name}={quote(said, safe='')}" for name, said in words.items())


def _asking(call: Call) -> tuple[str, dict[str, str], Json]:
    """The endpoint of a step, what fills its path, and what it says."""
    step = call.step
    user = {"id": call.id}
    match step:
        case CreateCompany():
            return "create_company", {}, {"number": step.company, "name": step.name, "siren": step.siren}
        case EditCompany():
            return "edit_company", {"number": step.company}, {"name": step.name, "siren": step.siren}
        case SetBilling():
            return "set_billing", {"number": step.company}, writer(Billing)(step.billing)
        case CreateUser():
            profile = writer(User)(step.profile)
            return (
                "create_user",
                {},
                {name: profile[name] for name in profile if name not in ("id", "version")},
            )
        case EditProfile():
            return "edit_profile", user, _fields(step, "email", "first_name", "last_name", "phone")
        case SetType():
            return "set_type", user, {"type": str(step.type)}
        case SetBilledCompany():
            return "set_billed_company", user, {"billed": step.billed, "type": str(step.type)}
        case EditCompanies():
            return "edit_companies", user, _fields(step, "add", "remove")
        case EditApps():
            return "edit_apps", user, _fields(step, "production", "grant", "end", "remove", "ends")
        case ValidateUser():
            return "validate_user", user, None
        case CloseUser():
            return "close_user", user, None
        case ReopenUser():
            return "reopen_user", user, None
    assert_never(step)


def _fields(step: Step, *names: str) -> Json:
    kind: Any = type(step)
    written = writer(kind)(step)
    return {name: written[name] for name in names}
