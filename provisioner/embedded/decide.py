"""Computes the result of a call, which is a step with an idempotency key. The functions do no I/O.

:func:`decide` checks a call: is its lease the latest, was the call applied before, does the resource still
have the version that the caller read, and may the operator make the change today? The result is a receipt
or the changed resource, which :class:`~provisioner.rules.StateIndex` then checks against the rules.

    call ─▶ latest lease? ─▶ applied before? ─▶ same version? ─▶ allowed today? ─▶ changed ─▶ the rules
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from provisioner.diagnostics import Diagnostic
from provisioner.embedded.portal_types import AuthorisedCall, Lease
from provisioner.errors import Locked
from provisioner.model import (
    Address,
    AppState,
    Company,
    Grant,
    Operator,
    Resource,
    Status,
    User,
    UserType,
    company_address,
    email_key,
    month_end,
    user_address,
)
from provisioner.planning.codec import canonical, writer
from provisioner.planning.steps import (
    CloseUser,
    CreateCompany,
    CreateUser,
    EditApps,
    IllegalStep,
    ReopenUser,
    Step,
    ValidateUser,
    address_of,
    after,
)
from provisioner.portal import Call, Receipt, Verdict


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """The data that a portal stores under the idempotency key of a call that was applied."""

    id: str
    version: int
    ledger: str
    """The ledger for which the call was applied, or "" if the call had no ledger."""
    asked: str | None = None
    """The :func:`fingerprint` of the call. None if the portal does not store it, or if it was not read."""


def decide(
    job: AuthorisedCall, lease: int | None, stored: StoredReceipt | None, found: Resource | None, today: date
) -> Receipt | Resource:
    """Return the changed resource, or a receipt if the call is refused or its effect already exists.

    ``lease`` is the fencing number of the latest lease of the call's ledger, ``stored`` the receipt stored
    under the call's key. ``found`` is the resource to change or, for a creation, an existing resource with
    the same e-mail or number. Each of the three is None if there is none.
    """
    call = job.call
    if job.ledger and lease != job.fence:
        problem = "Another run has taken this one's place."
        return Receipt(call.key, Verdict.FENCED, problem=problem, code="fenced")
    if stored is not None:
        if stored.asked is not None and stored.asked != fingerprint(call):
            return _reused(call)
        if not _is_for_another_account(job, stored, found):
            return repeated(call.key, stored, job.ledger)
    step = call.step
    if isinstance(step, CreateUser | CreateCompany):
        if found is not None:
            try:
                return _exists(call, step, found)
            except IllegalStep as problem:
                return refused(call.key, [problem.diagnostic])
    elif found is None:
        return _conflict(call, "not-on-portal", f"{address_of(step)} is not on this portal.")
    elif found.version != call.version:
        return _moved(call, step, found)
    refusal = _without_right(call, job.operator) or _past_month(call, today) or _not_asked_for(call)
    if refusal is not None:
        return refusal
    try:
        return after(found, step)
    except IllegalStep as problem:
        return refused(call.key, [problem.diagnostic])


def fingerprint(call: Call) -> str:
    """Return a hash of a call's step and version. Calls that differ only in their key have the same hash.
    Instead of the step's ``user``, which differs between ledgers, the hash covers the id of an existing user.
    """
    step = call.step
    if isinstance(step, CreateUser):
        step = replace(step, profile=replace(step.profile, id="", version=0))
    new = isinstance(step, CreateUser | CreateCompany)
    named = "" if new else canonical([call.id, max(0, call.version)])
    asked = writer(Step, without=("user",))(step)
    return hashlib.sha256(f"{named} {asked}".encode()).hexdigest()


def repeated(key: str, stored: StoredReceipt, ledger: str) -> Receipt:
    """Return the receipt of a call that was applied before. The verdict is *applied* if the call was applied
    for ``ledger``, and *already* if it was applied for another ledger.
    """
    verdict = Verdict.APPLIED if stored.ledger == ledger else Verdict.ALREADY
    return Receipt(key, verdict, stored.id, stored.version)


def next_version(before: Resource | None, wanted: Resource, new_id: str) -> tuple[Address, Resource]:
    """Return the address of the changed resource ``wanted``, and ``wanted`` with the next version number. The
    address of a user contains the user's id. A new user (``before`` is None) gets the id ``new_id``.
    """
    version = (before.version if before else 0) + 1
    if isinstance(wanted, Company):
        return company_address(wanted.number), replace(wanted, version=version)
    id_ = before.id if isinstance(before, User) else new_id
    return user_address(id_), replace(wanted, version=version, id=id_)


def refused(key: str, violations: Sequence[Diagnostic]) -> Receipt:
    """Return the receipt of a call that would violate rules. The receipt names the first violation."""
    code = violations[0].code
    return Receipt(key, Verdict.FAILED, problem=f"{code}: {violations[0].detail}", code=code)


def applied(key: str, resource: Resource) -> Receipt:
    """Return the receipt of a call that was applied and resulted in this resource."""
    return Receipt(key, Verdict.APPLIED, getattr(resource, "id", ""), resource.version)


def billing_transfer(before: User | None, user: User) -> tuple[str, str]:
    """Return the companies to which a user is billed before and after a change (R15). A company is "" if the
    account does not exist or is closed at that time.
    """
    was = before.billed if before is not None and before.is_open else ""
    return was, user.billed if user.is_open else ""


# --- changes that clients make themselves ---


def created_by_client(administrator: User | None, profile: User) -> CreateUser | Receipt:
    """Return the step with which a client's ``administrator`` creates ``profile``. Return a refusal if
    ``administrator`` is not an active administrator (R11).
    """
    if administrator is None or not administrator.is_administrator or administrator.status != Status.ACTIVE:
        return _no("R11", "R11: only an active administrator of a client creates users.")
    user = replace(
        profile,
        billed=administrator.billed,
        companies=frozenset({administrator.billed}),
        type=UserType.STANDARD,
        status=Status.TO_VALIDATE,
    )
    return CreateUser(email_key(user.email), user)


def with_contact(user: User | None, email: str | None, phone: str | None) -> User | Receipt:
    """Return the user with new contact data, or a refusal if the user has no open account. If ``email`` or
    ``phone`` is None, the old value is kept. If ``phone`` is "", the phone is deleted.
    """
    if user is None or not user.is_open:
        return _no("no-account", "There is no open account with this id.")
    return replace(
        user,
        email=user.email if email is None else email,
        phone=user.phone if phone is None else (phone or None),
    )


def with_requested_app(user: User | None, app: str) -> User | Receipt:
    """Return the user with a request for ``app`` (R10), or a refusal if the user has no open account. A user
    who already has or has requested ``app`` is returned unchanged.
    """
    if user is None or not user.is_open:
        return _no("no-account", "There is no open account with this id.")
    if any(grant.app == app for grant in user.apps):
        return user
    return replace(user, apps=user.apps | {Grant(app, AppState.REQUESTED)})


# --- leases ---


def acquire_lease(
    known: Lease | None, ledger: str, owner: str, holder: str, fence: int, now: datetime, seconds: int
) -> Lease:
    """Return the new lease of a ledger; ``LeasedPortal.take_lease`` explains the rules and the parameters.
    ``known`` is the ledger's previous lease, or None. Raises :class:`Locked` if another run holds that lease.
    """
    # round to whole seconds, which every portal can store
    now = now.astimezone(UTC).replace(microsecond=0)
    expires = now + timedelta(seconds=seconds)
    if known is None or (known.holder != holder and known.fence < fence):
        return Lease(ledger, owner, fence, expires, holder)
    if known.holder == holder:
        return Lease(ledger, owner, max(known.fence, fence), expires, holder)
    if known.holder and known.expires > now:
        raise Locked(
            f"This portal is held by {known.owner}, who works with the same ledger or with a copy of it.",
            "Wait for it (--lock-timeout 60), or plan and apply with a ledger of your own.",
        )
    return Lease(ledger, owner, known.fence + 1, expires, holder)


def released(lease: Lease, now: datetime) -> Lease:
    """Return the lease without a holder and with ``now`` as its end. Its fencing number stays the same."""
    return replace(lease, holder="", expires=now.astimezone(UTC).replace(microsecond=0))


# --- details ---


def _no(code: str, problem: str) -> Receipt:
    return Receipt("", Verdict.FAILED, problem=problem, code=code)


def _reused(call: Call) -> Receipt:
    problem = f"This key was given before, with something else than this step of {address_of(call.step)}."
    return Receipt(call.key, Verdict.FAILED, problem=problem, code="key-reused")


def _is_for_another_account(job: AuthorisedCall, stored: StoredReceipt, found: Resource | None) -> bool:
    """Return True if another ledger used this call's key to create a user, and that user is not ``found``."""
    if not isinstance(job.call.step, CreateUser) or stored.ledger == job.ledger:
        return False
    return not isinstance(found, User) or found.id != stored.id


def _conflict(call: Call, code: str, problem: str) -> Receipt:
    return Receipt(call.key, Verdict.CONFLICT, problem=problem, code=code)


def _already(call: Call, found: Resource) -> Receipt:
    return Receipt(call.key, Verdict.ALREADY, getattr(found, "id", ""), found.version)


def _exists(call: Call, step: CreateUser | CreateCompany, found: Resource) -> Receipt:
    """Answer a creation: *already* if ``found`` equals the new resource, otherwise *conflict* (R1, R13)."""
    if found == after(None, step):
        return _already(call, found)
    if isinstance(found, User):
        problem = f"R1: {found.email} already belongs to another account, {found.name}."
    else:
        problem = f"R13: dossier number {found.number} already belongs to {found.name}."
    return _conflict(call, "exists", problem)


def _moved(call: Call, step: Step, found: Resource) -> Receipt:
    """Answer a call whose version is outdated: *already* if its step changes nothing, else *conflict*."""
    try:
        same = after(found, step) == found
    except IllegalStep:
        status = found.status if isinstance(found, User) else None
        same = (isinstance(step, ReopenUser | ValidateUser) and status is Status.ACTIVE) or (
            isinstance(step, CloseUser) and status is Status.CLOSED
        )
    if same:
        return _already(call, found)
    return _conflict(call, "version-moved", f"{address_of(step)} was changed by somebody else meanwhile.")


def _without_right(call: Call, operator: Operator) -> Receipt | None:
    """Return a refusal if the step needs the right to validate (R7, R8) and ``operator`` lacks it."""
    if operator.may_validate:
        return None
    step = call.step
    problem = ""
    if isinstance(step, ValidateUser):
        problem = "R7: this operator has no right to validate users."
    elif isinstance(step, ReopenUser):
        problem = "R8: this operator has no right to reopen accounts."
    elif isinstance(step, CreateUser) and step.profile.status is Status.ACTIVE:
        problem = "R7: this operator may only create users who await validation."
    return Receipt(call.key, Verdict.FAILED, problem=problem, code="no-right") if problem else None


def _past_month(call: Call, today: date) -> Receipt | None:
    """Return a *conflict* if the step ends an application on a day other than the end of this month (R9)."""
    step, ends = call.step, month_end(today)
    days: set[date | None] = set()
    if isinstance(step, EditApps) and step.end:
        days = {step.ends}
    elif isinstance(step, CreateUser):
        days = {grant.ends for grant in step.profile.apps if grant.state is AppState.ENDING}
    if days <= {ends}:
        return None
    day = ends.isoformat()
    return _conflict(call, "month-turned", f"R9: the month has turned; an application now ends on {day}.")


def _not_asked_for(call: Call) -> Receipt | None:
    """Return a refusal if a new user would have an application in the state *requested* (R10)."""
    step = call.step
    if isinstance(step, CreateUser) and any(grant.state is AppState.REQUESTED for grant in step.profile.apps):
        problem = "R10: nobody has asked for an application before the user is there."
        return Receipt(call.key, Verdict.FAILED, problem=problem, code="R10")
    return None
