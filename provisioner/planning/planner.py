"""``make_plan``: two states in, one plan out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field
from datetime import date

from provisioner.diagnostics import Diagnostic, Source
from provisioner.model import (
    Address,
    Managed,
    Notice,
    NoticeKind,
    PortalTerms,
    State,
    User,
    Welcome,
    company_address,
    month_end,
    user_address,
    value,
)
from provisioner.planning.diff import changes_between, letters_for
from provisioner.planning.guard import guard
from provisioner.planning.order import order_steps
from provisioner.planning.plan import Adoption, Change, Limits, Plan
from provisioner.progress import ProgressCallback, ignore_progress


@value
class Wanted:
    """What planning is asked beside the two states."""

    portal: str
    terms: PortalTerms
    firm: str
    today: date
    limits: Limits = field(default_factory=Limits)
    welcomes: Mapping[str, Welcome] = field(default_factory=dict)
    reasons: Mapping[Address, str] = field(default_factory=dict)
    records: Mapping[str, tuple[Managed, bool]] = field(default_factory=dict)
    notices: Iterable[Notice] = ()
    diagnostics: Iterable[Diagnostic] = ()
    managed: int = 0
    declared: int = 0


def _nowhere(_: Address) -> Source | None:
    return None


def make_plan(
    current: State,
    desired: State,
    wanted: Wanted,
    source_of: Callable[[Address], Source | None] = _nowhere,
    tell: ProgressCallback = ignore_progress,
) -> Plan:
    """The changes from current to desired, their steps in order, the letters earned, and what to know."""
    changes = tuple(changes_between(current, desired, wanted.reasons, source_of))
    steps, faults = order_steps(changes, current, wanted.terms, tell) if changes else ((), ())
    limits = tuple(guard(changes, wanted.limits, managed=wanted.managed, declared=wanted.declared))
    return Plan(
        portal=wanted.portal,
        changes=changes,
        steps=steps,
        letters=tuple(letters_for(changes, desired, wanted.welcomes, wanted.firm)),
        adoptions=tuple(_adoptions(wanted.records)),
        limits=wanted.limits,
        notices=(*wanted.notices, *_billing_that_stops(changes, current, desired, wanted.today)),
        diagnostics=(*wanted.diagnostics, *faults, *limits),
        companies=_names(changes, desired),
    )


def select(
    current: State, desired: State, targets: Collection[Address], excludes: Collection[Address]
) -> State:
    """The desired state, narrowed to the targets (all when empty) without the excludes.

    A company stands for itself and the users billed to it; a user brings along the companies
    he needs that do not exist yet.
    """
    if not targets and not excludes:
        return desired
    kept = {key for key in desired.users if chosen(user_address(key), desired, targets, excludes)}
    users = dict(current.users) | {key: desired.users[key] for key in desired.users if key in kept}
    needed = {number for key in kept for number in desired.users[key].companies}
    companies = dict(current.companies)
    for number, company in desired.companies.items():
        wanted = chosen(company_address(number), desired, targets, excludes)
        if wanted or (number in needed and number not in current.companies):
            companies[number] = company
    return State(companies, users)


def chosen(
    address: Address, desired: State, targets: Collection[Address], excludes: Collection[Address]
) -> bool:
    """Whether a resource is among the targets (all when empty) and not among the excludes."""
    user = desired.users.get(address.key) if address.kind == "user" else None
    names = {address, company_address(user.billed)} if user else {address}
    return (not targets or not names.isdisjoint(targets)) and names.isdisjoint(excludes)


def _adoptions(records: Mapping[str, tuple[Managed, bool]]) -> Iterable[Adoption]:
    for key in sorted(records):
        record, known = records[key]
        yield Adoption(Address("user", key), record.id, record.email, record.phone, record.created, known)


def _billing_that_stops(
    changes: tuple[Change, ...], current: State, desired: State, today: date
) -> Iterable[Notice]:
    """R15: a company that loses its last open user is billed until the end of the month."""
    left = {
        change.before.billed
        for change in changes
        if isinstance(change.before, User) and change.before.is_open
    }
    if not left:
        return
    kept = {user.billed for user in desired.users.values() if user.is_open}
    for number in sorted(left - kept):
        company = desired.companies.get(number) or current.companies.get(number)
        name = f" ({company.name})" if company else ""
        yield Notice(
            NoticeKind.BILLING_STOPS,
            company_address(number),
            f"Billing of company {number}{name} stops: nobody is billed to it any more (R15).",
            month_end(today),
        )


def _names(changes: tuple[Change, ...], desired: State) -> dict[str, str]:
    """The names of the companies that these changes mention."""
    numbers: set[str] = set()
    for change in changes:
        for resource in (change.before, change.after):
            if isinstance(resource, User):
                numbers |= resource.companies | {resource.billed}
            elif resource is not None:
                numbers.add(resource.number)
    return {
        number: desired.companies[number].name for number in sorted(numbers) if number in desired.companies
    }
