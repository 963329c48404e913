"""The SCIM 2.0 driver (RFC 7643, RFC 7644): companies are Groups, and access to them is membership.

A SCIM server enforces none of the portal's rules but that a ``userName`` belongs to one account. So the
rules are asked here before each write. What a server has, is used; without it, less is done, and said:

    ETag         a write takes place only if its resource is as it was read just before; else *unguarded*
    filter       single things are looked up; without, the last whole reading is used, or a new one
    PATCH        only what changes is sent; without, the whole resource, with what we do not know (PUT)
    our schemas  receipts, steps under way, status, endings, SIREN, billing; without, these are left out

A user's dossiers stand in resources of their own: nothing guards them together with him. They are read
again before each write, and each membership is written by itself, so that nobody else's edit is lost; but
one that is made in that very moment is not noticed.

A step of several writes is announced on its user with the first one (``pending``), and that is taken back
with the last one, which leaves the receipt. Who reads a step that was cut off sees the user as it leaves
him; who writes there next finishes it.

    create    ▸ inactive, announced  ▸ join          ▸ active, receipt
    dossiers  ▸ announced            ▸ leave, join   ▸ receipt
    move      ▸ announced, demoted   ▸ join          ▸ billed, promoted, receipt

A server may say yes and keep something else: what comes back is compared with what was written. A new
account or company that lacks some of it is taken away again, before anybody logs in there.

A server is passive: it ends no application with its last day, and no billing. An ending whose day has
passed is read as it stands there, so that a plan takes it away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from provisioner.diagnostics import Diagnostic, warning
from provisioner.embedded.decide import StoredReceipt, applied, billing_transfer, decide, refused, repeated
from provisioner.embedded.host import AuthorisedCall
from provisioner.errors import PortalError
from provisioner.model import (
    Company,
    State,
    Status,
    User,
    UserType,
    company_address,
    email_key,
    month_end,
    paris_date,
    user_address,
)
from provisioner.planning.steps import (
    CloseUser,
    CompanyStep,
    CreateUser,
    EditApps,
    SetBilledCompany,
    SetType,
    address_of,
)
from provisioner.portal import Access, Call, Capabilities, Receipt, Snapshot, Verdict, read_only
from provisioner.portals.http import NoResponse
from provisioner.portals.oauth import open_http_client
from provisioner.portals.scim.client import ScimClient, ScimError
from provisioner.portals.scim.directory import Directory
from provisioner.portals.scim.mapping import AttributeMap
from provisioner.portals.scim.path import CORE, Resource
from provisioner.portals.scim.pending import Pending, pending_of
from provisioner.portals.scim.projection import (
    SENT,
    differing,
    project,
    unsaved_company_fields,
    unsaved_user_fields,
)

TRIES = 5
"""How often a write is begun again that met another one, or whose answer was lost."""

W = TypeVar("W")


def open_scim(access: Access) -> ScimPortal:
    """The SCIM server behind ``scim+https://HOST/PATH``. Raises :class:`PortalError`."""
    if access.client_id:
        raise PortalError(
            "A SCIM server is opened with a bearer token alone; no OAuth server is asked for one.",
            "Remove client_id and PROVISIONER_PORTAL_CLIENT, and give the token as the secret.",
        )
    address = access.url.removeprefix("scim+")
    parts = urlsplit(address)
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise PortalError(f"{access.url} is no address of a SCIM server.", "Write scim+https://HOST/PATH.")
    return ScimPortal(access, ScimClient(open_http_client(access, address), access.secret))


def identity(url: str) -> str:
    """A portal's lasting identity: a SCIM server has none of its own, so its address stands for it."""
    parts = urlsplit(url)
    port = parts.port or (80 if parts.scheme == "scim+http" else 443)
    words = f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}{parts.path.rstrip('/')}"
    return hashlib.sha256(words.encode()).hexdigest()[:32]


class ScimPortal:
    """One SCIM server, opened by one operator."""

    def __init__(self, access: Access, client: ScimClient) -> None:
        self._access = access
        self._client = client
        self._ledger = ""
        self._known: Directory | None = None

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    # --- what it is ---

    def capabilities(self) -> Capabilities:
        """See :meth:`~provisioner.portal.Portal.capabilities`."""
        return Capabilities(
            receipts=self._places.journal,
            activation_links=False,
            versions=self._client.features.etag and self._holdings.has_versions(),
            claims=False,
            leases=False,
        )

    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        """See :meth:`~provisioner.portal.Portal.project`."""
        fit, problems = project(desired, self._places)
        cut_off = sum(self._places.pending(user) is not None for user in self._holdings.users())
        if cut_off:
            problems = [*problems, _cut_off(cut_off)]
        return fit, problems if self._places.journal else [*problems, _no_receipts()]

    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        """Remembers the ledger; there are no leases."""
        self._require_writing()
        self._ledger = ledger
        return fence

    def release(self) -> None:
        """Nothing is held."""

    def claim(self, run: str, letters: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        """All of them are this run's; there are no claims."""
        self._require_writing()
        return dict.fromkeys(letters, run)

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """None: SCIM knows nothing of log-ins."""
        return dict.fromkeys(user_ids, "")

    # --- reading ---

    def snapshot(self) -> Snapshot:
        """Everything; first the users and then the groups, for SCIM knows no one instant."""
        self._holdings.read_everything()
        state = self._holdings.state
        users = {email_key(user.email): user for user in state.users.values()}
        return Snapshot(identity(self._access.url), State(state.companies, users), self._access.terms)

    def users(self, ids: Collection[str]) -> dict[str, User]:
        """See :meth:`~provisioner.portal.Portal.users`."""
        return {user.id: user for user in self.snapshot().state.users.values() if user.id in ids}

    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        """See :meth:`~provisioner.portal.Portal.receipts`; what was cut off is finished first."""
        self._holdings.read_everything()
        found = {key: self._receipt(key, ledger) for key in keys if key}
        return {key: receipt for key, receipt in found.items() if receipt is not None}

    def _receipt(self, key: str, ledger: str) -> Receipt | None:
        found = list(self._all_given(key))
        # two ledgers may have created an account each, if the first one goes by another e-mail since
        given = next((given for given in found if given.ledger == ledger), next(iter(found), None))
        return None if given is None else repeated(key, given, ledger)

    def _all_given(self, key: str) -> Iterator[StoredReceipt]:
        for user in self._holdings.users():
            given = self._holdings.user_given(user, key)
            pending = self._places.pending(user)
            if pending is not None and pending.key == key:
                given = self._given_at_last(user, pending)
            if given is not None:
                yield given
        for group in self._holdings.groups():
            given = self._holdings.group_given(group, key)
            if given is not None:
                yield given

    def _given_at_last(self, user: Resource, pending: Pending) -> StoredReceipt | None:
        """What is kept of a step that was cut off, once it is finished; None where it is taken back."""
        done = user
        if self._access.writing:
            try:
                done = self._finish(user, pending)
            except ScimError as problem:
                left = self._holdings.user(user["id"])
                if left is not None and self._places.pending(left) == pending:
                    raise _halfway(user, problem) from problem
                return self._holdings.user_given(left, pending.key) if left is not None else None
        return StoredReceipt(user["id"], self._holdings.user_version(done), pending.ledger)

    # --- writing ---

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """See :meth:`~provisioner.portal.Portal.execute`; one after the other."""
        self._require_writing()
        self._holdings.read_once()
        return [self._answer(call) for call in calls]

    def _answer(self, call: Call) -> Receipt:
        """What becomes of a call; begun again where others write in between, or an answer is lost."""
        lost: NoResponse | ScimError | None = None
        for _ in range(TRIES):
            try:
                receipt = self._try(call, again=lost is not None)
            except NoResponse as problem:
                if not problem.unknown:
                    raise
                lost = problem
            except _Moved:
                pass
            except ScimError as problem:
                if not problem.broken:
                    return _not_taken(call, problem)
                lost = problem
            else:
                if receipt.verdict is Verdict.ALREADY and lost is not None and not self._places.journal:
                    # it was we who wrote it, and the server keeps nothing to tell that by
                    return replace(receipt, verdict=Verdict.APPLIED)
                return receipt
        if isinstance(lost, ScimError):
            # the last try may have taken effect all the same
            given = self._given(call) if self._places.journal else None
            return _not_taken(call, lost) if given is None else repeated(call.key, given, self._ledger)
        if lost is not None:
            raise lost
        problem_ = f"{address_of(call.step)} is being changed by somebody else all the time."
        return Receipt(call.key, Verdict.CONFLICT, problem=problem_, code="version-moved")

    def _try(self, call: Call, *, again: bool) -> Receipt:
        job = AuthorisedCall(call, self._access.operator)
        step = call.step
        try:
            if isinstance(step, CompanyStep):
                return self._company(job, step.company, again=again)
            if isinstance(step, CreateUser):
                return self._new_user(job, step, again=again)
            return self._user(job)
        except ScimError as problem:
            if problem.moved:
                raise _Moved from problem
            raise

    def _given(self, call: Call) -> StoredReceipt | None:
        """What the server keeps of a call, read now."""
        step, holdings = call.step, self._holdings
        if isinstance(step, CompanyStep):
            group = holdings.group(step.company, anew=True)
            return holdings.group_given(group, call.key) if group else None
        if isinstance(step, CreateUser):
            user = holdings.user_called(step.profile.email, anew=True)
        else:
            user = holdings.user(call.id)
        return holdings.user_given(user, call.key) if user else None

    def _company(self, job: AuthorisedCall, number: str, *, again: bool) -> Receipt:
        call, places, holdings = job.call, self._places, self._holdings
        group = holdings.group(number, anew=again)
        given = holdings.group_given(group, call.key) if group else None
        wanted = self._judged(job, given, holdings.as_company(group) if group else None)
        if isinstance(wanted, Receipt):
            return wanted
        assert isinstance(wanted, Company)
        if faults := holdings.faults(company_address(number), wanted):
            return refused(call.key, faults)
        written = places.with_company(group or _new("Group"), wanted)
        written = places.with_receipt(
            "company_receipts", written, call.key, self._ledger, holdings.group_version
        )
        endpoint, new = self._client.features.groups, group is None
        if group is None:
            group = self._new_group(number, written)
        else:
            if not self._client.features.patch:
                holdings.require_members()
            group = self._client.update(endpoint, group, written)
        if lost := unsaved_company_fields(holdings.as_company(group), wanted, places):
            if new:
                self._client.delete(endpoint, group)
            return _not_kept(call.key, lost)
        holdings.keep_group(group)
        return Receipt(call.key, Verdict.APPLIED, "", holdings.group_version(group))

    def _new_group(self, number: str, written: Resource) -> Resource:
        endpoint = self._client.features.groups
        group = self._created(endpoint, written)
        if not self._places.numbers_unique:
            # the server takes a number twice (R13): of two that were fast, the older one stays
            first = next(iter(self._holdings.groups_numbered(number, anew=True)), group)
            if first["id"] != group["id"]:
                self._client.delete(endpoint, group)
                raise _Moved
        return group

    def _new_user(self, job: AuthorisedCall, step: CreateUser, *, again: bool) -> Receipt:
        call, places, holdings = job.call, self._places, self._holdings
        resource = holdings.user_called(step.profile.email, anew=again)
        if resource is not None:
            return self._existing_user(job, step, resource, again=again)
        wanted = self._judged(job, None, None)
        if isinstance(wanted, Receipt):
            return wanted
        assert isinstance(wanted, User)
        holdings.group_ids(wanted.companies)
        if _leans_on_an_administrator(None, wanted):
            holdings.read_administrator(wanted.billed)
        if faults := holdings.faults(user_address(""), wanted):
            return refused(call.key, faults)
        pending = pending_of(call, self._ledger, None, wanted)
        waiting = replace(wanted, status=Status.TO_VALIDATE)
        written = places.with_user(_new("User"), None, waiting)
        if places.journal:
            written = places.with_pending(written, pending)
        elif call.key:
            # the one thing that every server keeps for us: by whom, and for which call, he was created
            written["externalId"] = f"{self._ledger}:{call.key}"
        resource = self._created(self._client.features.users, written)
        if lost := self._lost(resource, wanted, SENT):
            self._client.delete(self._client.features.users, resource)
            return _not_kept(call.key, lost)
        holdings.moved(resource["id"], (), holdings.companies_of(resource["id"]))
        holdings.keep_user(resource)
        return self._done(call.key, self._finish(resource, pending), None, wanted)

    def _existing_user(
        self, job: AuthorisedCall, step: CreateUser, resource: Resource, *, again: bool
    ) -> Receipt:
        call = job.call
        resource = self._finished(resource)
        given = self._holdings.user_given(resource, call.key)
        if given is not None and again and not self._places.journal:
            # made by this very call, whose answer was lost: what is left of it
            pending = pending_of(call, self._ledger, None, step.profile)
            return self._done(call.key, self._finish(resource, pending), None, step.profile)
        found = self._holdings.as_user(resource)
        if given is None and found is None:
            problem = f"R1: {step.profile.email} belongs to an account that is no client access."
            return Receipt(call.key, Verdict.CONFLICT, problem=problem, code="exists")
        outcome = self._judged(job, given, found)
        assert isinstance(outcome, Receipt)
        return outcome

    def _user(self, job: AuthorisedCall) -> Receipt:
        call, places, holdings = job.call, self._places, self._holdings
        resource = holdings.user(call.id)
        if resource is not None:
            resource = self._finished(resource)
        found = holdings.as_user(resource) if resource else None
        given = holdings.user_given(resource, call.key) if resource and found else None
        if found is not None and _takes_an_administrator(call, found):
            holdings.read_people(found.billed)
        wanted = self._judged(job, given, found)
        if isinstance(wanted, Receipt):
            return wanted
        assert isinstance(wanted, User)
        assert found is not None
        assert resource is not None
        if isinstance(call.step, EditApps) and call.step.end and not places.holds("endings"):
            problem = "R9: this server does not hold the day on which an application ends."
            return Receipt(call.key, Verdict.FAILED, problem=problem, code="R9")
        if joined := wanted.companies - found.companies:
            holdings.group_ids(joined)
        if _leans_on_an_administrator(found, wanted):
            holdings.read_administrator(wanted.billed, but=found.id)
        if faults := holdings.faults(user_address(found.id), wanted):
            return refused(call.key, faults)
        if wanted.companies != found.companies:
            return self._moved_user(call, resource, found, wanted)
        written = places.with_user(resource, found, wanted)
        written = holdings.with_receipt(written, call.key, self._ledger)
        resource = self._client.update(self._client.features.users, resource, written)
        return self._done(call.key, resource, found, wanted)

    def _moved_user(self, call: Call, resource: Resource, found: User, wanted: User) -> Receipt:
        """A step that gives or takes dossiers."""
        places, pending = self._places, pending_of(call, self._ledger, found, wanted)
        # whom he is billed to is written down before he has companies to choose from; and whoever becomes a
        # standard user is one before he sees the other dossier, billed there already, for a company that he
        # alone administers must not keep him as its standard user (R2)
        narrowed = found
        if pending.type is UserType.STANDARD:
            narrowed = replace(found, type=wanted.type, billed=wanted.billed)
        announced = places.with_user(resource, found, narrowed)
        if places.journal:
            announced = places.with_pending(announced, pending)
        resource = self._client.update(self._client.features.users, resource, announced)
        self._holdings.keep_user(resource)
        return self._done(call.key, self._finish(resource, pending), found, wanted)

    # --- steps of several writes ---

    def _finished(self, resource: Resource) -> Resource:
        """The user once a step that was cut off is finished, whosever it was."""
        pending = self._places.pending(resource)
        return resource if pending is None else self._finish(resource, pending)

    def _finish(self, resource: Resource, pending: Pending) -> Resource:
        """Do what is left of a step; each part of it may be done already."""
        id_, holdings = str(resource["id"]), self._holdings
        try:
            for number in pending.remove:
                self._membership(id_, number, belongs=False)
            for number in pending.add:
                self._membership(id_, number, belongs=True)
            resource = self._insist(lambda: self._last_write(id_, pending))
        except ScimError as problem:
            # not to be done: what is there now is shown as it is, and planned from
            try:
                self._insist(lambda: self._withdrawn(id_, pending))
            except (ScimError, NoResponse):
                if self._places.journal and pending.ledger == self._ledger:
                    # our own step is then neither done nor undone: unsettled, it is finished by the next run
                    raise _halfway(resource, problem) from problem
                raise problem from None
            raise
        holdings.keep_user(resource)
        return resource

    def _membership(self, id_: str, number: str, *, belongs: bool) -> None:
        holdings, endpoint = self._holdings, self._client.features.groups
        write = self._client.join if belongs else self._client.leave
        group = holdings.group_ids([number]).get(number)
        if group is not None:
            try:
                self._insist(partial(write, endpoint, group, id_))
            except ScimError as problem:
                if problem.status != 404:
                    raise
                holdings.forget_group(number)
                group = None
        if group is None and belongs:
            raise ScimError(404, f"There is no company {number} any more.")
        holdings.moved(id_, *(((number,), ()) if belongs else ((), (number,))))

    def _withdrawn(self, id_: str, pending: Pending) -> None:
        """Take the announcement of a step back; whom it was creating is taken away again.

        An account without its companies would break R5 in every later plan, and have no welcome.
        """
        users, holdings = self._client.features.users, self._holdings
        resource = holdings.user(id_)
        if resource is None or not self._is_under_way(resource, pending):
            return
        if pending.created and resource.get("active") is False:
            for number in pending.add:
                # a broken server may have made him a member all the same
                holdings.group(number, anew=False)
            for number in sorted(holdings.companies_of(id_) & set(pending.add)):
                self._membership(id_, number, belongs=False)
            self._client.delete(users, resource)
            holdings.forget_user(id_)
        elif self._places.journal:
            bare = self._places.with_pending(resource, None)
            holdings.keep_user(self._client.update(users, resource, bare))

    def _is_under_way(self, resource: Resource, pending: Pending) -> bool:
        if self._places.journal:
            return self._places.pending(resource) == pending
        return bool(pending.key) and resource.get("externalId") == f"{pending.ledger}:{pending.key}"

    def _last_write(self, id_: str, pending: Pending) -> Resource:
        places, users = self._places, self._client.features.users
        resource = self._client.read(users, id_)
        if resource is None:
            raise ScimError(404, "The user is gone.")
        if places.journal and places.pending(resource) != pending:
            # somebody else has ended this step, and may be in the middle of another one
            if pending.key and self._holdings.user_given(resource, pending.key) is None:
                raise ScimError(409, "Somebody else took the step back.", moved=True)
            return resource
        bare = places.with_pending(resource, None)
        found = self._holdings.as_user(bare)
        if found is None:
            raise ScimError(409, "The user is no client access any more.")
        wanted = pending.done(found, Status.TO_VALIDATE if places.holds("status") else Status.CLOSED)
        written = places.with_user(bare, found, wanted)
        written = self._holdings.with_receipt(written, pending.key, pending.ledger)
        return self._client.update(users, resource, written)

    def _insist(self, write: Callable[[], W]) -> W:
        """A write that may be done over: somebody else wrote in between, or the answer was lost."""
        for left in reversed(range(TRIES)):
            try:
                return write()
            except ScimError as problem:
                if not (problem.moved or problem.broken) or not left:
                    raise
            except NoResponse as problem:
                if not problem.unknown or not left:
                    raise
        raise AssertionError

    def _created(self, endpoint: str, written: Resource) -> Resource:
        try:
            return self._client.create(endpoint, written)
        except ScimError as problem:
            if problem.status != 409:
                raise
            # somebody was faster, or we were and did not hear of it: what is there now is judged next
            self._holdings.read_everything()
            raise _Moved from problem

    # --- details ---

    @property
    def _holdings(self) -> Directory:
        if self._known is None:
            features, access = self._client.features, self._access
            places = AttributeMap(access.scim, features.schemas, access.terms.apps)
            self._known = Directory(self._client, places, access.terms)
        return self._known

    @property
    def _places(self) -> AttributeMap:
        return self._holdings.places

    def _judged(
        self, job: AuthorisedCall, given: StoredReceipt | None, found: Company | User | None
    ) -> Receipt | Company | User:
        if given is not None:
            return repeated(job.call.key, given, self._ledger)
        return decide(job, None, None, found, self._today())

    def _done(self, key: str, resource: Resource, before: User | None, wanted: User) -> Receipt:
        self._holdings.keep_user(resource)
        user = self._holdings.as_user(resource)
        changed = {"status"} if before is None else differing(before, wanted)
        lost = self._lost(resource, wanted, changed)
        if lost or user is None:
            return _not_kept(key, lost)
        self._mark_billing(*billing_transfer(before, user))
        return applied(key, user)

    def _lost(self, resource: Resource, wanted: User, names: Collection[str]) -> list[str]:
        places = self._places
        return unsaved_user_fields(
            self._holdings.as_user(places.with_pending(resource, None)), wanted, names, places
        )

    def _mark_billing(self, left: str, joined: str) -> None:
        """R15, for whoever bills; the user's own write is done, so that a mark that fails is let be.

        No plan asks for this mark: one that was refused or cut off is not made up for.
        """
        if left == joined or not self._places.holds("billing_ends"):
            return
        for number, ends in ((left, month_end(self._today())), (joined, None)):
            if number and (ends is None or not self._holdings.is_billed(number)):
                with suppress(ScimError, NoResponse):
                    self._insist(partial(self._mark, number, ends))

    def _mark(self, number: str, ends: date | None) -> None:
        group = self._holdings.group(number, anew=False)
        if group is not None:
            marked = self._places.with_billing_ends(group, ends)
            self._holdings.keep_group(self._client.update(self._client.features.groups, group, marked))

    def _today(self) -> date:
        return paris_date(self._access.clock())

    def _require_writing(self) -> None:
        if not self._access.writing:
            raise read_only()


class _Moved(Exception):
    """The resource is not as it was read: read it again."""


def _new(kind: str) -> Resource:
    return {"schemas": [f"{CORE}{kind}"]}


def _takes_an_administrator(call: Call, user: User) -> bool:
    return user.is_administrator and isinstance(call.step, CloseUser | SetType | SetBilledCompany)


def _leans_on_an_administrator(before: User | None, wanted: User) -> bool:
    """Whether he comes to a company that has to have an administrator for him (R2)."""
    if wanted.is_administrator or not wanted.is_open:
        return False
    return before is None or not before.is_open or before.is_administrator or before.billed != wanted.billed


def _not_taken(call: Call, problem: ScimError) -> Receipt:
    """The server itself says no."""
    if problem.status == 409:
        words = f"The server has that already, on another account or company: {problem.detail}"
        return Receipt(call.key, Verdict.CONFLICT, problem=words, code="exists")
    return Receipt(call.key, Verdict.FAILED, problem=f"The server refuses: {problem.detail}")


def _not_kept(key: str, lost: Sequence[str]) -> Receipt:
    """The server said yes, and the next plan would want the same again."""
    problem = (
        f"The server accepts, but does not keep: {', '.join(lost)}. "
        "Say where it keeps that, portal: {scim: {…: ATTRIBUTE}}, or have it keep it there."
    )
    return Receipt(key, Verdict.FAILED, problem=problem, code="portal-cannot-hold")


def _halfway(user: Resource, problem: ScimError) -> PortalError:
    """A step that the server takes neither to its end nor back."""
    return PortalError(
        f"A step on {user.get('userName')} was cut off in the middle: the server refuses the rest of it "
        f"({problem.detail}), and to take it back.",
        "Once the server takes it, run the same command again: it is finished first.",
    )


def _no_receipts() -> Diagnostic:
    return warning(
        "unguarded",
        "This server does not keep which writes are ours: a run that is killed in the middle of a step "
        "may leave it half done, and owe no welcome to whoever it was validating.",
        "Have it load schemas/scim-user.schema.json; or plan again after such a run, and look.",
    )


def _cut_off(count: int) -> Diagnostic:
    whom = "1 user is" if count == 1 else f"{count} users are"
    return warning(
        "cut-off",
        f"{whom} in the middle of a step, which is under way or was cut off; the plan shows how it ends.",
        "If no run is at work, the next apply with the ledger of the last one finishes it.",
    )
