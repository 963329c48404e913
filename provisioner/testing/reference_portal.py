"""A whole portal in memory: it applies steps, checks the rules and returns verdicts, and does nothing else.

Tests compare the other portals with this one. Nothing is stored on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from threading import RLock

from typing_extensions import override

from provisioner.embedded.activation_links import Invitation, hash_of, invite
from provisioner.embedded.decide import (
    StoredReceipt,
    acquire_lease,
    applied,
    billing_transfer,
    created_by_client,
    decide,
    fingerprint,
    next_version,
    refused,
    released,
    repeated,
    with_contact,
    with_requested_app,
)
from provisioner.embedded.leased import LeasedPortal, superseded
from provisioner.embedded.portal_types import AuthorisedCall, Lease, Page, PortalInfo, R
from provisioner.model import (
    Address,
    Clock,
    Company,
    Grant,
    Operator,
    PortalTerms,
    Resource,
    State,
    Status,
    User,
    company_address,
    email_key,
    month_end,
    paris_date,
    user_address,
)
from provisioner.planning.steps import CompanyStep, CreateUser
from provisioner.portal import Call, Capabilities, Receipt, Snapshot, Verdict
from provisioner.rules import StateIndex

BATCH = 1_000
"""The maximum number of calls in one batch."""


@dataclass(slots=True)
class _Content:
    """The content of the portal. All objects that have the portal open share it."""

    index: StateIndex
    """The companies by number and the users by portal id, both in the order of their creation."""
    terms: PortalTerms
    public_url: str
    id: str = field(default_factory=lambda: os.urandom(16).hex())
    secret: bytes = field(default_factory=lambda: os.urandom(32))
    stamp: str = field(default_factory=lambda: os.urandom(16).hex())
    counter: int = 0
    has_changed: bool = False
    """True if something has changed since the counter was last raised."""
    changed: dict[Address, int] = field(default_factory=dict)
    """The value of the counter at the last change of each resource."""
    by_email: dict[str, str] = field(default_factory=dict)
    grants: dict[str, frozenset[Grant]] = field(default_factory=dict)
    """The applications of each user. An expired one stays until a step changes the user's applications."""
    receipts: dict[str, StoredReceipt] = field(default_factory=dict)
    invitations: dict[str, tuple[Invitation, bool]] = field(default_factory=dict)
    """For each user id: the invitation, and True if the link of the invitation was used."""
    leases: dict[str, tuple[Lease, int]] = field(default_factory=dict)
    """For each ledger: its lease, and the duration of the lease in seconds."""
    claims: dict[str, tuple[str, str]] = field(default_factory=dict)
    """For each letter: the ledger and the run that have claimed the letter."""
    lock: RLock = field(default_factory=RLock)


class MemoryPortal(LeasedPortal):
    """The portal in memory, as one operator has opened it.

    A new object has a new, empty portal. :meth:`another` opens the same portal for another operator.
    """

    def __init__(
        self,
        operator: Operator,
        terms: PortalTerms,
        public_url: str,
        clock: Clock,
        *,
        new_id: Callable[[], str] = lambda: os.urandom(16).hex(),
    ) -> None:
        super().__init__(operator)
        self._clock = clock
        self._new_id = new_id
        self._content = _Content(StateIndex(State(), terms), terms, public_url)

    def another(self, operator: Operator) -> MemoryPortal:
        """Return the same portal, opened by another operator."""
        opened = MemoryPortal(operator, PortalTerms(), "", self._clock, new_id=self._new_id)
        opened._content = self._content
        return opened

    @override
    def close(self) -> None:
        pass

    @override
    def capabilities(self) -> Capabilities:
        return Capabilities(batch=BATCH)

    def about(self) -> PortalInfo:
        content = self._content
        with content.lock:
            return PortalInfo(
                content.id, content.stamp, content.counter, self._today(), self._operator, frozenset(),
                content.terms, content.public_url,
            )  # fmt: skip

    @override
    def snapshot(self) -> Snapshot:
        content = self._content
        with content.lock:
            users = {email_key(user.email): user for user in self._users()}
            state = State(dict(content.index.companies), users)
            return Snapshot(content.id, state, content.terms, content.stamp)

    @override
    def users(self, ids: Collection[str]) -> dict[str, User]:
        return {user.id: user for user in self.snapshot().state.users.values() if user.id in ids}

    def page_of_companies(self, after: int = 0, limit: int = BATCH, since: int = 0) -> Page[Company]:
        with self._content.lock:
            companies = self._content.index.companies.values()
            return self._page(companies, lambda found: company_address(found.number), after, limit, since)

    def page_of_users(self, after: int = 0, limit: int = BATCH, since: int = 0) -> Page[User]:
        with self._content.lock:
            return self._page(self._users(), lambda found: user_address(found.id), after, limit, since)

    def company(self, number: str) -> Company | None:
        with self._content.lock:
            return self._content.index.companies.get(number)

    def user(self, user_id: str) -> User | None:
        with self._content.lock:
            user = self._content.index.users.get(user_id)
            return None if user is None else self._seen(user)

    @override
    def work(self, jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        with self._content.lock:
            receipts = [self._answer(job) for job in jobs]
            self._raise_counter()
            return receipts

    @override
    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        given = self._content.receipts
        return {key: repeated(key, given[key], ledger) for key in keys if key in given}

    def lease(self, ledger: str) -> Lease | None:
        held = self._content.leases.get(ledger)
        return held[0] if held else None

    @override
    def take_lease(self, ledger: str, owner: str, holder: str, fence: int, seconds: int) -> Lease:
        with self._content.lock:
            lease = acquire_lease(self.lease(ledger), ledger, owner, holder, fence, self._clock(), seconds)
            self._content.leases[ledger] = (lease, seconds)
            return lease

    @override
    def drop_lease(self, ledger: str, holder: str) -> None:
        with self._content.lock:
            known = self.lease(ledger)
            if known is not None and known.holder == holder:
                self._content.leases[ledger] = (released(known, self._clock()), 0)

    @override
    def claim_letters(
        self, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        with self._content.lock:
            if ledger and self._fence_of(ledger) != fence:
                raise superseded()
            self._renew(ledger)
            claims, ours = self._content.claims, {}
            for key, known in letters.items():
                holder, has = claims.setdefault(key, (ledger, run))
                if holder == ledger and has in known:
                    claims[key], has = (ledger, run), run
                ours[key] = has if holder == ledger else ""
            return ours

    @override
    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        content, now = self._content, int(self._clock().timestamp())
        links = dict.fromkeys(user_ids, "")
        with content.lock:
            base = content.public_url.rstrip("/")
            for user_id in links if base else ():
                user = content.index.users.get(user_id)
                known, used = content.invitations.get(user_id, (Invitation(user_id), False))
                if user is None or user.status is not Status.ACTIVE or used:
                    continue
                token, kept = invite(known, content.secret, now)
                content.invitations[user_id] = (kept, False)
                links[user_id] = f"{base}/{token}"
        return links

    def invited(self, link: str) -> User | None:
        hashed, now = hash_of(link), int(self._clock().timestamp())
        with self._content.lock:
            for known, used in self._content.invitations.values():
                if known.hashed == hashed and not used and known.expires > now:
                    user = self.user(known.user_id)
                    return user if user is not None and user.status is Status.ACTIVE else None
        return None

    def consume(self, link: str) -> bool:
        with self._content.lock:
            user = self.invited(link)
            if user is None:
                return False
            known, _ = self._content.invitations[user.id]
            self._content.invitations[user.id] = (known, True)
            return True

    def configure(self, terms: PortalTerms, public_url: str) -> None:
        content = self._content
        with content.lock:
            if (terms, public_url) == (content.terms, content.public_url):
                return
            content.terms, content.public_url = terms, public_url
            content.index = StateIndex(content.index.state, terms)
            content.has_changed = True
            self._raise_counter()

    def client_creates_user(self, administrator_id: str, profile: User) -> Receipt:
        with self._content.lock:
            step = created_by_client(self.user(administrator_id), profile)
            if isinstance(step, Receipt):
                return step
            (receipt,) = self.work([AuthorisedCall(Call("", step), self._operator)])
            return receipt

    def user_changes_profile(
        self, user_id: str, *, email: str | None = None, phone: str | None = None
    ) -> Receipt:
        return self._edit(user_id, lambda user: with_contact(user, email, phone))

    def client_requests_app(self, user_id: str, app: str) -> Receipt:
        return self._edit(user_id, lambda user: with_requested_app(user, app))

    def _edit(self, user_id: str, edit: Callable[[User | None], User | Receipt]) -> Receipt:
        with self._content.lock:
            user = self.user(user_id)
            wanted = edit(user)
            receipt = wanted if isinstance(wanted, Receipt) else self._put("", user, wanted)
            self._raise_counter()
            return receipt

    def _answer(self, job: AuthorisedCall) -> Receipt:
        call = job.call
        given = self._content.receipts.get(call.key) if call.key else None
        wanted = decide(job, self._fence_of(job.ledger), given, self._found(call), self._today())
        if isinstance(wanted, Receipt):
            receipt = wanted
        else:
            receipt = self._put(call.key, self._found(call), wanted)
            if call.key and receipt.verdict is Verdict.APPLIED:
                asked = fingerprint(call)
                self._content.receipts[call.key] = StoredReceipt(
                    receipt.id, receipt.version, job.ledger, asked
                )
        if receipt.verdict is not Verdict.FENCED:
            self._renew(job.ledger)
        return receipt

    def _found(self, call: Call) -> Resource | None:
        """Return the resource that the call changes or, for a creation, one with its number or e-mail."""
        step = call.step
        if isinstance(step, CompanyStep):
            return self._content.index.companies.get(step.company)
        if isinstance(step, CreateUser):
            return self.user(self._content.by_email.get(email_key(step.profile.email), ""))
        return self.user(call.id)

    def _put(self, key: str, before: Resource | None, wanted: Resource) -> Receipt:
        """Store ``wanted`` in place of ``before``, unless a rule forbids it, and return the receipt."""
        content = self._content
        address, wanted = next_version(before, wanted, self._new_id())
        stored = content.index.get(address)
        violations = content.index.put(address, wanted)
        if violations:
            content.index.put(address, stored)
            return refused(key, violations)
        content.changed[address] = content.counter + 1
        if isinstance(wanted, User):
            was = before if isinstance(before, User) else None
            self._register(was, wanted)
        content.has_changed = True
        return applied(key, wanted)

    def _register(self, was: User | None, user: User) -> None:
        content = self._content
        if was is not None:
            content.by_email.pop(email_key(was.email), None)
        content.by_email[email_key(user.email)] = user.id
        if was is None or was.apps != user.apps:
            content.grants[user.id] = user.apps
        left, joined = billing_transfer(was, user)
        if left != joined:
            self._set_billing_end(joined, None)
            if content.index.billed_counts(left)[0] == 0:
                self._set_billing_end(left, month_end(self._today()))

    def _set_billing_end(self, number: str, ends: date | None) -> None:
        """Set the day on which the billing of a company ends (R15). None means that the billing continues."""
        company = self._content.index.companies.get(number)
        if company is not None and company.billing_ends != ends:
            self._content.index.put(company_address(number), replace(company, billing_ends=ends))
            self._content.changed[company_address(number)] = self._content.counter + 1

    def _raise_counter(self) -> None:
        """If something has changed, raise the counter and draw a new stamp."""
        content = self._content
        if content.has_changed:
            content.has_changed = False
            content.counter += 1
            content.stamp = os.urandom(16).hex()

    def _fence_of(self, ledger: str) -> int | None:
        lease = self.lease(ledger)
        return None if lease is None else lease.fence

    def _renew(self, ledger: str) -> None:
        held = self._content.leases.get(ledger)
        if held is not None and held[0].holder:
            lease, seconds = held
            self._content.leases[ledger] = (
                acquire_lease(lease, ledger, lease.owner, lease.holder, lease.fence, self._clock(), seconds),
                seconds,
            )

    def _users(self) -> list[User]:
        return [self._seen(user) for user in self._content.index.users.values()]

    def _seen(self, user: User) -> User:
        return _without_expired_grants(replace(user, apps=self._content.grants[user.id]), self._today())

    def _today(self) -> date:
        return paris_date(self._clock())

    def _page(
        self, found: Iterable[R], address_of: Callable[[R], Address], after: int, limit: int, since: int
    ) -> Page[R]:
        changed = self._content.changed
        rows = [
            (number, item)
            for number, item in enumerate(found, start=1)
            if number > after and changed[address_of(item)] > since
        ]
        some = rows[:limit]
        items = tuple(item for _, item in some)
        return Page(items, some[-1][0] if len(rows) > limit else None, self._content.counter)


def _without_expired_grants(user: User, today: date) -> User:
    """Return the user without the applications whose last day has passed."""
    over = {grant for grant in user.apps if grant.ends is not None and grant.ends < today}
    return replace(user, apps=user.apps - over) if over else user
