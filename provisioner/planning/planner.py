"""The planner: ``make_plan`` makes a plan from a resolution, and ``select`` restricts a resolution."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
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
)
from provisioner.planning.diff import changes_between, letters_for
from provisioner.planning.guard import guard
from provisioner.planning.order import order_steps
from provisioner.planning.plan import Adoption, Change, Limits, Plan
from provisioner.progress import ProgressCallback, ignore_progress


@dataclass(frozen=True, slots=True)
class Resolution:
    """The input of a plan: the current and the desired state. A user has the same key in both states."""

    current: State
    desired: State
    welcomes: Mapping[str, Welcome] = field(default_factory=dict)
    """The welcome letters, by user key. A letter is sent only if this plan activates the account."""
    reasons: Mapping[Address, str] = field(default_factory=dict)
    """The reasons for changes, by address. Only the closing of an account has a reason."""
    records: Mapping[str, tuple[Managed, bool]] = field(default_factory=dict)
    """The records to write to the ledger, by user key. The bool is True if the ledger has one already."""
    notices: tuple[Notice, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    managed: int = 0
    """The number of users in the ledger."""
    declared: int = 0
    """The number of users in the manifests."""
    source_of: Callable[[Address], Source | None] = lambda _: None
    """A function that returns the position of a resource's declaration; None if no manifest has one."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The settings and the current date that are used to make a plan."""

    firm: str
    """The firm's name, for the text of the letters."""
    today: date
    limits: Limits = field(default_factory=Limits)


def make_plan(
    resolution: Resolution,
    portal: str,
    terms: PortalTerms,
    options: PlanOptions,
    progress: ProgressCallback = ignore_progress,
) -> Plan:
    """Return the plan that leads from the current state to the desired state.

    ``portal`` is the portal's identity; ``terms`` holds the firm's catalogue, e-mail domains and staff.
    """
    current, desired = resolution.current, resolution.desired
    changes = tuple(changes_between(current, desired, resolution.reasons, resolution.source_of))
    steps, problems = order_steps(changes, current, terms, progress) if changes else ((), ())
    exceeded = guard(changes, options.limits, managed=resolution.managed, declared=resolution.declared)
    return Plan(
        portal=portal,
        changes=changes,
        steps=steps,
        letters=tuple(letters_for(changes, desired, resolution.welcomes, options.firm)),
        adoptions=tuple(_adoptions(resolution.records)),
        limits=options.limits,
        notices=(*resolution.notices, *_billing_that_stops(changes, current, desired, options.today)),
        diagnostics=(*resolution.diagnostics, *problems, *exceeded),
        companies=_names(changes, desired),
    )


def select(resolution: Resolution, targets: Collection[Address], excludes: Collection[Address]) -> Resolution:
    """Return a resolution that changes only ``targets`` (if empty: everything), and nothing in ``excludes``.

    The address of a company stands for the company and the users billed to it. If a selected user has access
    to a company that does not exist yet, that company is selected as well.
    """
    if not targets and not excludes:
        return resolution
    current, desired = resolution.current, resolution.desired

    def is_selected(address: Address) -> bool:
        user = desired.users.get(address.key) if address.kind == "user" else None
        names = {address, company_address(user.billed)} if user else {address}
        return (not targets or not names.isdisjoint(targets)) and names.isdisjoint(excludes)

    kept = {key: user for key, user in desired.users.items() if is_selected(user_address(key))}
    needed = {number for user in kept.values() for number in user.companies}
    companies = dict(current.companies)
    for number, company in desired.companies.items():
        if is_selected(company_address(number)) or (number in needed and number not in companies):
            companies[number] = company
    return replace(
        resolution,
        desired=State(companies, {**current.users, **kept}),
        records={key: r for key, r in resolution.records.items() if is_selected(user_address(key))},
    )


def _adoptions(records: Mapping[str, tuple[Managed, bool]]) -> Iterable[Adoption]:
    for key in sorted(records):
        record, known = records[key]
        yield Adoption(Address("user", key), record.id, record.email, record.phone, record.created, known)


def _billing_that_stops(
    changes: tuple[Change, ...], current: State, desired: State, today: date
) -> Iterable[Notice]:
    """Yield a notice for each company that loses its last open user: its billing stops at month end (R15)."""
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
