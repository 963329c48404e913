"""The driver for a portal service: provisioner's own service, or another service with the same HTTP API.

The service checks all rules, as the embedded portal does. This driver sends requests and translates the
responses into verdicts. The request of a step contains its idempotency key and the version that the step
starts from. Therefore the driver can repeat the request if the response is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import partial
from typing import TypeVar
from urllib.parse import quote, urlencode

from typing_extensions import override

from provisioner.embedded.leased import LeasedPortal, superseded
from provisioner.embedded.portal_types import AuthorisedCall, Lease, Page, PortalInfo
from provisioner.embedded.server.endpoints import MAX_LETTERS, MAX_PAGE, READ, WRITE
from provisioner.errors import Locked, PortalError
from provisioner.model import Company, PortalTerms, State, User, email_key
from provisioner.planning.codec import canonical, writer
from provisioner.planning.steps import CreateCompany, CreateUser, address_of
from provisioner.portal import Access, Call, Capabilities, Receipt, Snapshot, Verdict, read_only
from provisioner.portals.http import Credential
from provisioner.portals.http_messages import (
    HttpResponse,
    Json,
    NoResponse,
    Request,
    ResponseTooLarge,
    invalid_response,
)
from provisioner.portals.oauth import (
    BearerToken,
    ClientCredentials,
    missing_scope,
    no_secret,
    open_http_client,
    rejected_token,
)
from provisioner.portals.rest.paths import endpoints_for
from provisioner.portals.rest.requests import TermsRequest, step_request
from provisioner.portals.rest.responses import (
    ProblemDetails,
    read_about,
    read_companies,
    read_holders,
    read_lease,
    read_links,
    read_problem,
    read_receipt,
    read_users,
)

R = TypeVar("R", Company, User)

BATCH = 1_000
"""The maximum number of calls per ``execute``. At most ``parallelism`` of them are sent at the same time."""

MAX_READINGS = 100
"""The maximum number of attempts to read a portal whose content changes during the reading."""


class RestPortal(LeasedPortal):
    """A portal accessed through its HTTP service. Without ``access.writing``, no request changes it."""

    def __init__(self, access: Access) -> None:
        """Prepare the HTTP client and the credential. Nothing is sent. Raises :class:`PortalError`."""
        super().__init__(access.operator)
        if not access.secret:
            raise no_secret()
        self._endpoints = endpoints_for(access.paths)
        self._last_snapshot: tuple[Snapshot, date] | None = None
        self._writing = access.writing
        self._parallelism = max(1, access.parallelism)
        self._http = open_http_client(access, access.url)
        self._credential: Credential
        if access.client_id:
            scopes = (READ, WRITE) if access.writing else (READ,)
            path = self._endpoints["token"].path
            self._credential = ClientCredentials(self._http, path, access.client_id, access.secret, scopes)
        else:
            self._credential = BearerToken(access.secret)

    @override
    def close(self) -> None:
        self._http.close()

    @override
    def capabilities(self) -> Capabilities:
        return Capabilities(batch=BATCH)

    # --- reading ---

    @override
    def snapshot(self) -> Snapshot:
        """Return the complete content of the portal, as it was at one instant.

        The last snapshot is returned again while the portal's id, stamp and date are unchanged. The change
        counter is not compared, because a portal restored from a backup repeats earlier values.
        """
        if self._last_snapshot is not None:
            about, (last, day) = self._http.run(self._about()), self._last_snapshot
            if (about.portal, about.stamp, about.today) == (last.portal, last.stamp, day):
                return replace(last, terms=about.terms, operator=about.operator)
        self._last_snapshot = self._read()
        return self._last_snapshot[0]

    def _read(self) -> tuple[Snapshot, date]:
        """Read the complete content of the portal and return it with the portal's date.

        The portal never deletes rows, and counts its changes. Each page contains the counter. Rows that have
        changed after a page was read are read again, until all pages have the same counter.
        """
        companies: dict[str, Company] = {}
        users: dict[str, User] = {}
        since, source = 0, None
        for _ in range(MAX_READINGS):
            about, some_companies, some_users = self._http.run(self._read_since(since))
            if since and ((about.portal, about.today) != source or about.counter < since):
                # start again: another portal, an older copy, or another day (applications may have ended)
                companies, users, since = {}, {}, 0
                continue
            companies.update((company.number, company) for page in some_companies for company in page.items)
            users.update((user.id, user) for page in some_users for user in page.items)
            counters = {about.counter}
            counters.update(page.counter for page in some_companies)
            counters.update(page.counter for page in some_users)
            if len(counters) == 1:
                return self._snapshot(companies, users, about), about.today
            since, source = min(counters), (about.portal, about.today)
        raise PortalError(
            f"{self._http.server} changes faster than it can be read.",
            "Try again when less is going on there.",
        )

    async def _read_since(self, since: int) -> tuple[PortalInfo, list[Page[Company]], list[Page[User]]]:
        return await asyncio.gather(
            self._about(),
            self._pages("companies", since, read_companies),
            self._pages("users", since, read_users),
        )

    def _snapshot(self, companies: dict[str, Company], users: dict[str, User], about: PortalInfo) -> Snapshot:
        by_email = {email_key(user.email): user for user in users.values()}
        if len(by_email) < len(users):
            raise invalid_response(self._http.server, "two of its users have one e-mail address")
        if not all(map(companies.keys().__ge__, {user.companies for user in users.values()})):
            raise invalid_response(self._http.server, "one of its users has a company that it does not list")
        return Snapshot(about.portal, State(companies, by_email), about.terms, about.stamp, about.operator)

    async def _about(self) -> PortalInfo:
        about = read_about(await self._answer("portal"))
        scope = WRITE if self._writing else READ
        if scope not in about.scopes:
            raise missing_scope(self._http.server, scope)
        return about

    async def _pages(self, name: str, since: int, read: Callable[[HttpResponse], Page[R]]) -> list[Page[R]]:
        pages: list[Page[R]] = []
        after, limit = 0, MAX_PAGE
        while True:
            query = f"?after={after}&limit={limit}" + (f"&since={since}" if since else "")
            try:
                page = read(await self._answer(name, query=query))
            except ResponseTooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            pages.append(page)
            if page.next is None:
                return pages
            if page.next <= after:
                raise invalid_response(self._http.server, f"its list of {name} leads back to where it was")
            after = page.next

    @override
    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        asked = [partial(self._stored_receipt, key, ledger) for key in keys]
        found = self._http.run(self._http.gather_limited(asked, self._parallelism))
        return {receipt.key: receipt for receipt in found if receipt is not None}

    async def _stored_receipt(self, key: str, ledger: str) -> Receipt | None:
        query = f"?{urlencode({'ledger': ledger})}" if ledger else ""
        reply = await self._answer("receipt", key=key, query=query, statuses=(200, 404))
        if reply.status == 200:
            return read_receipt(reply, key, kept=True)
        if read_problem(reply).code == "not-on-portal":
            return None
        raise self._unexpected(reply, "receipt")

    @override
    def users(self, ids: Collection[str]) -> dict[str, User]:
        # the service has no query by several ids, and one complete read costs less than one request per user
        return {user.id: user for user in self.snapshot().state.users.values() if user.id in ids}

    # --- writing ---

    @override
    def work(self, jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        self._require_writing()
        return self._http.run(
            self._http.gather_limited([partial(self._do, job) for job in jobs], self._parallelism)
        )

    async def _do(self, job: AuthorisedCall) -> Receipt:
        call = job.call
        if not call.id and address_of(call.step).kind == "user" and not isinstance(call.step, CreateUser):
            # a user without an id was never read from the portal
            sentence = f"{address_of(call.step)} is not on this portal."
            return Receipt(call.key, Verdict.CONFLICT, problem=sentence, code="not-on-portal")
        request = self._step(job)
        try:
            reply = await self._ask(request)
            if reply.status >= 500:
                raise NoResponse(
                    f"{self._http.server} failed inside (HTTP {reply.status}).",
                    "Run the same command again; what was done is found.",
                    outcome_unknown=True,
                )
        except NoResponse as problem:
            # the portal may have applied the step, so look for its receipt
            found = None
            if problem.outcome_unknown and call.key:
                with suppress(PortalError):
                    found = await self._stored_receipt(call.key, job.ledger)
            if found is None:
                raise
            return found
        return self._verdict(reply, call)

    def _step(self, job: AuthorisedCall) -> Request:
        call = job.call
        name, blanks, said = step_request(call)
        headers = {}
        if call.key:
            headers["Idempotency-Key"] = call.key
        if not isinstance(call.step, CreateCompany | CreateUser):
            # version 0 matches no resource
            headers["If-Match"] = f'"{max(0, call.version)}"'
        if job.ledger:
            headers |= _lease(job.ledger, job.fence)
        return replace(self._request(name, said, headers=headers, **blanks), repeatable=bool(call.key))

    def _verdict(self, reply: HttpResponse, call: Call) -> Receipt:
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
            raise self._unexpected(reply, step_request(call)[0])
        sentence = self._sentence(problem, reply)
        if call.id:
            sentence = sentence.replace(f"user:{call.id}", str(address_of(call.step)))
        return Receipt(call.key, verdict, problem=sentence, code=_CODES.get(problem.code, problem.code))

    @override
    def take_lease(self, ledger: str, owner: str, holder: str, fence: int, seconds: int) -> Lease:
        self._require_writing()
        said = canonical({"owner": owner, "holder": holder, "fence": fence, "seconds": seconds})
        reply = self._http.run(self._answer("take_lease", said, ledger=ledger, statuses=(200, 423)))
        if reply.status == 423:
            raise Locked(
                self._sentence(read_problem(reply), reply),
                "Wait for it (--lock-timeout 60), or plan and apply with a ledger of your own.",
            )
        return read_lease(reply, holder)

    @override
    def drop_lease(self, ledger: str, holder: str) -> None:
        self._require_writing()
        query = f"?{urlencode({'holder': holder})}"
        self._http.run(self._answer("drop_lease", ledger=ledger, query=query, statuses=(200, 204)))

    @override
    def claim_letters(
        self, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        self._require_writing()
        asked: list[Json] = [{"letter": key, "runs": list(known)} for key, known in letters.items()]
        holders: dict[str, str] = {}
        for at in range(0, len(asked), MAX_LETTERS):
            said = canonical({"run": run, "letters": asked[at : at + MAX_LETTERS]})
            answer = self._answer("claim_letters", said, headers=_lease(ledger, fence), statuses=(200, 423))
            reply = self._http.run(answer)
            if reply.status == 423:
                raise superseded()
            holders |= read_holders(reply)
        return {key: holders.get(key, "") for key in letters}

    @override
    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        links = dict.fromkeys(user_ids, "")
        if not self._writing:
            return links
        ids = list(links)
        for at in range(0, len(ids), MAX_LETTERS):
            some = ids[at : at + MAX_LETTERS]
            said = canonical({"users": some})
            links |= read_links(self._http.run(self._answer("invitations", said)), some)
        return links

    def configure(self, terms: PortalTerms, public_url: str) -> None:
        """Set the portal's terms (catalogue, mail domains, staff) and the base URL of activation links."""
        self._require_writing()
        row = TermsRequest(terms.offers, terms.apps, terms.email_domains, terms.staff, public_url)
        said = writer(TermsRequest)(row)
        self._http.run(self._answer("set_terms", said, statuses=(200, 204)))

    # --- requests and refusals ---

    def _require_writing(self) -> None:
        if not self._writing:
            raise read_only()

    async def _answer(
        self,
        name: str,
        said: str = "",
        *,
        statuses: Collection[int] = (200,),
        query: str = "",
        headers: Mapping[str, str] | None = None,
        **blanks: str,
    ) -> HttpResponse:
        reply = await self._ask(self._request(name, said, query=query, headers=headers, **blanks))
        if reply.status not in statuses:
            raise self._unexpected(reply, name)
        return reply

    async def _ask(self, request: Request) -> HttpResponse:
        return await self._http.request(request, self._credential)

    def _request(
        self,
        name: str,
        said: str = "",
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        **blanks: str,
    ) -> Request:
        method, path = self._endpoints[name]
        for blank, words in blanks.items():
            path = path.replace(f"{{{blank}}}", quote(words, safe=""))
        given = dict(headers or {})
        if said:
            given["Content-Type"] = "application/json"
        return Request(method, path + query, given, said.encode())

    def _sentence(self, problem: ProblemDetails, reply: HttpResponse) -> str:
        detail = self._http.redacted(problem.detail) or f"the portal gives no reason (HTTP {reply.status})"
        named = not problem.rule or detail.startswith(f"{problem.rule}:")
        return detail if named else f"{self._http.redacted(problem.rule)}: {detail}"

    def _unexpected(self, reply: HttpResponse, name: str) -> PortalError:
        problem, server = read_problem(reply), self._http.server
        said = self._http.redacted(problem.detail) or "no reason given"
        if reply.status == 401:
            return rejected_token(server, said, given=isinstance(self._credential, BearerToken))
        if reply.status == 403:
            return PortalError(
                f"{server} does not allow this client {name.replace('_', ' ')}: {said}",
                "Use a client with the scope or the role that this needs.",
            )
        if reply.status in (404, 405) and problem.code != "not-on-portal":
            method, path = self._endpoints[name]
            return PortalError(
                f"{server} has nothing at {method} {path}.", "Check portal: url: and portal: paths:"
            )
        return PortalError(
            f"{server} answers {name.replace('_', ' ')} with HTTP {reply.status}: {said}",
            "Look at the portal's own log, then try again.",
        )


_CODES = {"forbidden": "no-right"}


def _lease(ledger: str, fence: int) -> dict[str, str]:
    return {"Lease": ledger, "Fencing-Token": str(fence)}
