"""A whole portal in memory: the fold, the rules and the verdicts, and nothing else.

It is what the other portals are compared with. It lasts as long as its object.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from threading import RLock

from provisioner.embedded.activation_links import Invitation, hash_of, invite
from provisioner.embedded.decide import (
    StoredReceipt,
    acquire_lease,
    applied,
    asking_for,
    billing_transfer,
    changed_by_himself,
    created_by_client,
    decide,
    fingerprint,
    next_version,
    refused,
    released,
    repeated,
    without_expired_grants,
)
from provisioner.embedded.host import About, AuthorisedCall, Lease, Page, R
from provisioner.embedded.leased import LeasedPortal, superseded
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
"""Calls that are taken at once."""


@dataclass(slots=True)
class _World:
    """What the portal holds, whoever has it open."""

    census: StateIndex
    """Users by their portal ids; companies and users in the order of their creation."""
    terms: PortalTerms
    public_url: str
    id: str = field(default_factory=lambda: os.urandom(16).hex())
    secret: bytes = field(default_factory=lambda: os.urandom(32))
    stamp: str = field(default_factory=lambda: os.urandom(16).hex())
    counter: int = 0
    moved: bool = False
    """Something was changed since the counter was last put on."""
    changed: dict[Address, int] = field(default_factory=dict)
    """The counter at each resource's last change."""
    by_email: dict[str, str] = field(default_factory=dict)
    grants: dict[str, frozenset[Grant]] = field(default_factory=dict)
    """Each user's applications, with those whose last day has passed until they are written again."""
    given: dict[str, StoredReceipt] = field(default_factory=dict)
    invitations: dict[str, tuple[Invitation, bool]] = field(default_factory=dict)
    """By user, and whether the link was used."""
    leases: dict[str, tuple[Lease, int]] = field(default_factory=dict)
    """With the seconds for which each was asked."""
    claims: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The ledger and the run that have each letter."""
    lock: RLock = field(default_factory=RLock)


class MemoryPortal(LeasedPortal):
    """The portal, opened by one operator. Made anew it is empty; :meth:`another` opens it once more."""

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
        self._world = _World(StateIndex(State(), terms), terms, public_url)

    def another(self, operator: Operator) -> MemoryPortal:
        """The same portal, opened by somebody else."""
        opened = MemoryPortal(operator, PortalTerms(), "", self._clock, new_id=self._new_id)
        opened._world = self._world
        return opened

    def close(self) -> None:
        """Nothing to let go of."""

    def capabilities(self) -> Capabilities:
        """See :meth:`~provisioner.portal.Portal.capabilities`."""
        return Capabilities(batch=BATCH)

    def about(self) -> About:
        """See :class:`~provisioner.embedded.host.PortalHost`, also for all that follows."""
        world = self._world
        with world.lock:
            return About(world.id, world.stamp, world.counter, self._today(), world.terms, world.public_url)

    def snapshot(self) -> Snapshot:
        """See :meth:`~provisioner.portal.Portal.snapshot`."""
        world = self._world
        with world.lock:
            users = {email_key(user.email): user for user in self._users()}
            state = State(dict(world.census.companies), users)
            return Snapshot(world.id, state, world.terms, world.stamp)

    def users(self, ids: Collection[str]) -> dict[str, User]:
        """See :meth:`~provisioner.portal.Portal.users`."""
        return {user.id: user for user in self.snapshot().state.users.values() if user.id in ids}

    def page_of_companies(self, after: int = 0, limit: int = BATCH, since: int = 0) -> Page[Company]:
        """In the order of their creation."""
        with self._world.lock:
            companies = self._world.census.companies.values()
            return self._page(companies, lambda found: company_address(found.number), after, limit, since)

    def page_of_users(self, after: int = 0, limit: int = BATCH, since: int = 0) -> Page[User]:
        """In the order of their creation."""
        with self._world.lock:
            return self._page(self._users(), lambda found: user_address(found.id), after, limit, since)

    def company(self, number: str) -> Company | None:
        """As it stands."""
        with self._world.lock:
            return self._world.census.companies.get(number)

    def user(self, user_id: str) -> User | None:
        """As he stands."""
        with self._world.lock:
            user = self._world.census.users.get(user_id)
            return None if user is None else self._seen(user)

    def work(self, jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        """One after another, in the sight of nobody."""
        with self._world.lock:
            receipts = [self._answer(job) for job in jobs]
            self._count()
            return receipts

    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        """See :meth:`~provisioner.portal.Portal.receipts`."""
        found = {key: self.receipt(key, ledger) for key in keys}
        return {key: receipt for key, receipt in found.items() if receipt is not None}

    def receipt(self, key: str, ledger: str) -> Receipt | None:
        """What an earlier call that was applied is answered to this ledger."""
        given = self._world.given.get(key)
        return None if given is None else repeated(key, given, ledger)

    def lease(self, ledger: str) -> Lease | None:
        """The latest one of this ledger."""
        held = self._world.leases.get(ledger)
        return held[0] if held else None

    def take_lease(self, ledger: str, owner: str, holder: str, fence: int, seconds: int) -> Lease:
        """See :func:`~provisioner.embedded.decide.acquire_lease`."""
        with self._world.lock:
            lease = acquire_lease(self.lease(ledger), ledger, owner, holder, fence, self._clock(), seconds)
            self._world.leases[ledger] = (lease, seconds)
            return lease

    def drop_lease(self, ledger: str, holder: str) -> None:
        """Its number stays."""
        with self._world.lock:
            known = self.lease(ledger)
            if known is not None and known.holder == holder:
                self._world.leases[ledger] = (released(known, self._clock()), 0)

    def claim_letters(
        self, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        """From none to the first ledger that asks, and within it from run to run."""
        with self._world.lock:
            if ledger and self._fence_of(ledger) != fence:
                raise superseded()
            self._prolong(ledger)
            claims, ours = self._world.claims, {}
            for key, known in letters.items():
                holder, has = claims.setdefault(key, (ledger, run))
                if holder == ledger and has in known:
                    claims[key], has = (ledger, run), run
                ours[key] = has if holder == ledger else ""
            return ours

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """Of those of them who are active and have not used theirs."""
        world, now = self._world, int(self._clock().timestamp())
        links = dict.fromkeys(user_ids, "")
        with world.lock:
            base = world.public_url.rstrip("/")
            for user_id in links if base else ():
                user = world.census.users.get(user_id)
                known, used = world.invitations.get(user_id, (Invitation(user_id), False))
                if user is None or user.status is not Status.ACTIVE or used:
                    continue
                token, kept = invite(known, world.secret, now)
                world.invitations[user_id] = (kept, False)
                links[user_id] = f"{base}/{token}"
        return links

    def invited(self, link: str) -> User | None:
        """Whom it lets set a password."""
        hashed, now = hash_of(link), int(self._clock().timestamp())
        with self._world.lock:
            for known, used in self._world.invitations.values():
                if known.hashed == hashed and not used and known.expires > now:
                    user = self.user(known.user_id)
                    return user if user is not None and user.status is Status.ACTIVE else None
        return None

    def consume(self, link: str) -> bool:
        """Use it, once."""
        with self._world.lock:
            user = self.invited(link)
            if user is None:
                return False
            known, _ = self._world.invitations[user.id]
            self._world.invitations[user.id] = (known, True)
            return True

    def configure(self, terms: PortalTerms, public_url: str) -> None:
        """Other terms, from now on."""
        world = self._world
        with world.lock:
            if (terms, public_url) == (world.terms, world.public_url):
                return
            world.terms, world.public_url = terms, public_url
            world.census = StateIndex(world.census.state, terms)
            world.moved = True
            self._count()

    def client_creates_user(self, administrator_id: str, profile: User) -> Receipt:
        """R11."""
        with self._world.lock:
            step = created_by_client(self.user(administrator_id), profile)
            if isinstance(step, Receipt):
                return step
            (receipt,) = self.work([AuthorisedCall(Call("", step), self._operator)])
            return receipt

    def user_changes_profile(
        self, user_id: str, *, email: str | None = None, phone: str | None = None
    ) -> Receipt:
        """*Mon compte*."""
        return self._by_other(user_id, lambda user: changed_by_himself(user, email, phone))

    def client_requests_app(self, user_id: str, app: str) -> Receipt:
        """R10."""
        return self._by_other(user_id, lambda user: asking_for(user, app))

    def _by_other(self, user_id: str, edit: Callable[[User | None], User | Receipt]) -> Receipt:
        with self._world.lock:
            user = self.user(user_id)
            wanted = edit(user)
            receipt = wanted if isinstance(wanted, Receipt) else self._move("", user, wanted)
            self._count()
            return receipt

    def _answer(self, job: AuthorisedCall) -> Receipt:
        call = job.call
        given = self._world.given.get(call.key) if call.key else None
        wanted = decide(job, self._fence_of(job.ledger), given, self._found(call), self._today())
        if isinstance(wanted, Receipt):
            receipt = wanted
        else:
            receipt = self._move(call.key, self._found(call), wanted)
            if call.key and receipt.verdict is Verdict.APPLIED:
                asked = fingerprint(call)
                self._world.given[call.key] = StoredReceipt(receipt.id, receipt.version, job.ledger, asked)
        if receipt.verdict is not Verdict.FENCED:
            self._prolong(job.ledger)
        return receipt

    def _found(self, call: Call) -> Resource | None:
        """What a call is about: what it would create, should that exist already, or what it would change."""
        step = call.step
        if isinstance(step, CompanyStep):
            return self._world.census.companies.get(step.company)
        if isinstance(step, CreateUser):
            return self.user(self._world.by_email.get(email_key(step.profile.email), ""))
        return self.user(call.id)

    def _move(self, key: str, before: Resource | None, wanted: Resource) -> Receipt:
        """Ask the rules; then this is how the resource stands."""
        world = self._world
        address, wanted = next_version(before, wanted, self._new_id())
        stored = world.census.get(address)
        faults = world.census.place(address, wanted)
        if faults:
            world.census.place(address, stored)
            return refused(key, faults)
        world.changed[address] = world.counter + 1
        if isinstance(wanted, User):
            was = before if isinstance(before, User) else None
            self._register(was, wanted)
        world.moved = True
        return applied(key, wanted)

    def _register(self, was: User | None, user: User) -> None:
        world = self._world
        if was is not None:
            world.by_email.pop(email_key(was.email), None)
        world.by_email[email_key(user.email)] = user.id
        if was is None or was.apps != user.apps:
            world.grants[user.id] = user.apps
        left, joined = billing_transfer(was, user)
        if left != joined:
            self._mark(joined, None)
            if world.census.billed_counts(left)[0] == 0:
                self._mark(left, month_end(self._today()))

    def _mark(self, number: str, ends: date | None) -> None:
        """R15: billing of a company stops on this day, or goes on."""
        company = self._world.census.companies.get(number)
        if company is not None and company.billing_ends != ends:
            self._world.census.place(company_address(number), replace(company, billing_ends=ends))
            self._world.changed[company_address(number)] = self._world.counter + 1

    def _count(self) -> None:
        """One more change, if there was any."""
        world = self._world
        if world.moved:
            world.moved = False
            world.counter += 1
            world.stamp = os.urandom(16).hex()

    def _fence_of(self, ledger: str) -> int | None:
        lease = self.lease(ledger)
        return None if lease is None else lease.fence

    def _prolong(self, ledger: str) -> None:
        held = self._world.leases.get(ledger)
        if held is not None and held[0].holder:
            lease, seconds = held
            self._world.leases[ledger] = (
                acquire_lease(lease, ledger, lease.owner, lease.holder, lease.fence, self._clock(), seconds),
                seconds,
            )

    def _users(self) -> list[User]:
        return [self._seen(user) for user in self._world.census.users.values()]

    def _seen(self, user: User) -> User:
        return without_expired_grants(replace(user, apps=self._world.grants[user.id]), self._today())

    def _today(self) -> date:
        return paris_date(self._clock())

    def _page(
        self, found: Iterable[R], address_of: Callable[[R], Address], after: int, limit: int, since: int
    ) -> Page[R]:
        changed = self._world.changed
        rows = [
            (number, item)
            for number, item in enumerate(found, start=1)
            if number > after and changed[address_of(item)] > since
        ]
        some = rows[:limit]
        items = tuple(item for _, item in some)
        return Page(items, some[-1][0] if len(rows) > limit else None, self._world.counter)
