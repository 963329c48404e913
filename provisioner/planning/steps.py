"""The steps (operations on a portal), named after the actions in the portal's user interface.

``after(resource, step)`` returns the resource in its state after the step. ``steps_between`` is the inverse:
it yields the steps that lead from one state of a resource to another, each with its phase.

A plan has these phases. Each phase is applied exactly once, in this order:

    companies   companies are created or corrected, and their billing is set
    profiles    names, e-mails and phones change
    arrive      new administrators get their access
    move        the billed company of users changes
    narrow      accounts close, administrators become standard users, dossiers and applications are withdrawn
    widen       standard users are created, dossiers and applications are given

Because closings come before new access, a user who leaves loses access even if a later step fails. No company
lacks an administrator between two steps (R2). A closed account is changed first and then reopened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import TypeVar, assert_never, get_args

from provisioner.diagnostics import Diagnostic, error
from provisioner.model import (
    Address,
    AppState,
    Billing,
    Company,
    Grant,
    Production,
    Resource,
    Status,
    User,
    UserType,
    company_address,
    user_address,
)


class Phase(StrEnum):
    """The phase of a plan to which a step belongs. Phases are applied in the order of the members."""

    COMPANIES = "companies"
    PROFILES = "profiles"
    ARRIVE = "arrive"
    MOVE = "move"
    NARROW = "narrow"
    WIDEN = "widen"


PHASES: tuple[Phase, ...] = tuple(Phase)


@dataclass(frozen=True, slots=True)
class CreateCompany:
    """Create a company (*Administration › Entreprises › +*)."""

    company: str
    name: str
    siren: str | None = None


@dataclass(frozen=True, slots=True)
class EditCompany:
    """Change the name or the SIREN of a company."""

    company: str
    name: str
    siren: str | None = None


@dataclass(frozen=True, slots=True)
class SetBilling:
    """Set the billing mode and the offer of a company (step 1 of the portal's wizard; R6)."""

    company: str
    billing: Billing


@dataclass(frozen=True, slots=True)
class CreateUser:
    """Create a user with all the attributes in ``profile`` (all steps of the portal's wizard)."""

    user: str
    profile: User


@dataclass(frozen=True, slots=True)
class ReopenUser:
    """Reopen a closed account (*Ouvrir ce compte utilisateur*); requires the right to validate users (R8)."""

    user: str


@dataclass(frozen=True, slots=True)
class ValidateUser:
    """Validate a user whose account awaits validation (R7)."""

    user: str


@dataclass(frozen=True, slots=True)
class CloseUser:
    """Close an account (*Fermer ce compte d'utilisateur*); an account cannot be deleted."""

    user: str


@dataclass(frozen=True, slots=True)
class EditProfile:
    """Replace the name, e-mail and phone of a user (*Informations*)."""

    user: str
    email: str
    first_name: str
    last_name: str
    phone: str | None


@dataclass(frozen=True, slots=True)
class SetType:
    """Make a user an administrator or a standard user."""

    user: str
    type: UserType


@dataclass(frozen=True, slots=True)
class SetBilledCompany:
    """Bill a user to another company, and set the user's type (R2, R4).

    The new company is added to the user's companies (R5). The old company remains among the user's companies
    until a later step removes it.
    """

    user: str
    billed: str
    type: UserType


@dataclass(frozen=True, slots=True)
class EditCompanies:
    """Give and withdraw access to dossiers, with immediate effect (*Accès à l'entreprise*, R12)."""

    user: str
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EditApps:
    """Change the production family and the other applications of a user (*Applications*).

    ``production`` switches all three production applications together (R3). The applications in ``end`` end
    on ``ends``, the last day of the month (R9). The applications in ``remove`` are removed immediately (*ne
    pas attendre la fin du mois*). The applications in ``grant`` are activated; they can include applications
    that the client requested (R10) or that were due to end.
    """

    user: str
    production: Production | None = None
    grant: tuple[str, ...] = ()
    end: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    ends: date | None = None


CompanyStep = CreateCompany | EditCompany | SetBilling
UserStep = (
    CreateUser
    | ReopenUser
    | ValidateUser
    | CloseUser
    | EditProfile
    | SetType
    | SetBilledCompany
    | EditCompanies
    | EditApps
)
Step = CompanyStep | UserStep

STEPS: dict[str, type[Step]] = {kind.__name__: kind for kind in get_args(Step)}


R = TypeVar("R", Company, User)


class IllegalStep(Exception):
    """The error for a step that the current state of its resource forbids; ``diagnostic`` names the rule."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.detail)
        self.diagnostic = diagnostic


def address_of(step: Step) -> Address:
    """Return the address of the resource that the step changes."""
    if isinstance(step, CompanyStep):
        return company_address(step.company)
    return user_address(step.user)


def after(resource: Resource | None, step: Step) -> Resource:
    """Return ``resource`` as it is after the step. Raises :class:`IllegalStep` if the step is impossible."""
    if isinstance(step, CompanyStep):
        return _company_after(resource if isinstance(resource, Company) else None, step)
    return _user_after(resource if isinstance(resource, User) else None, step)


def _company_after(company: Company | None, step: CompanyStep) -> Company:
    if isinstance(step, CreateCompany):
        if company is not None:
            raise IllegalStep(
                error("R13", f"Dossier number {step.company} already belongs to {company.name}.")
            )
        return Company(step.company, step.name, step.siren)
    before = _present(company, step)
    match step:
        case EditCompany():
            return replace(before, name=step.name, siren=step.siren)
        case SetBilling():
            return replace(before, billing=step.billing)
    assert_never(step)


def _user_after(user: User | None, step: UserStep) -> User:
    if isinstance(step, CreateUser):
        if user is not None:
            raise IllegalStep(error("R1", f"{step.profile.email} already belongs to {user.name}."))
        _require(step.profile.is_open, "R7", f"{step.profile.email} cannot be created closed.")
        return step.profile
    before = _present(user, step)
    match step:
        case ReopenUser():
            _require(not before.is_open, "R8", f"{before.email} is not closed, so cannot be reopened.")
            return replace(before, status=Status.ACTIVE)
        case ValidateUser():
            _require(
                before.status is Status.TO_VALIDATE, "R7", f"{before.email} is not waiting for validation."
            )
            return replace(before, status=Status.ACTIVE)
        case CloseUser():
            _require(before.is_open, "R8", f"{before.email} is closed already.")
            return replace(before, status=Status.CLOSED)
        case EditProfile():
            return replace(
                before,
                email=step.email,
                first_name=step.first_name,
                last_name=step.last_name,
                phone=step.phone,
            )
        case SetType():
            return replace(before, type=step.type)
        case SetBilledCompany():
            companies = before.companies | {step.billed}
            return replace(before, billed=step.billed, type=step.type, companies=companies)
        case EditCompanies():
            return replace(before, companies=(before.companies | set(step.add)) - set(step.remove))
        case EditApps():
            return _apps_after(before, step)
    assert_never(step)


def _apps_after(user: User, step: EditApps) -> User:
    held = {grant.app: grant for grant in user.apps}
    for app in step.remove:
        held.pop(app, None)
    for app in step.end:
        if app in held and held[app].state is AppState.ACTIVE:
            held[app] = Grant(app, AppState.ENDING, step.ends)
    for app in step.grant:
        held[app] = Grant(app, AppState.ACTIVE)
    return replace(user, apps=frozenset(held.values()), production=step.production or user.production)


def _present(resource: R | None, step: Step) -> R:
    if resource is None:
        address = address_of(step)
        code = "unknown-company" if address.kind == "company" else "R1"
        raise IllegalStep(error(code, f"{address} does not exist on this portal."))
    return resource


def _require(condition: bool, rule: str, sentence: str) -> None:
    if not condition:
        raise IllegalStep(error(rule, sentence))


Phased = tuple[Phase, Step]


def steps_between(address: Address, before: Resource | None, desired: Resource) -> Iterator[Phased]:
    """Yield (phase, step) for each step that leads from ``before`` to ``desired``, in order."""
    if isinstance(desired, Company):
        yield from _company_steps(before if isinstance(before, Company) else None, desired)
    else:
        yield from _user_steps(address.key, before if isinstance(before, User) else None, desired)


def _company_steps(before: Company | None, desired: Company) -> Iterator[Phased]:
    if before is None:
        yield Phase.COMPANIES, CreateCompany(desired.number, desired.name, desired.siren)
    elif (before.name, before.siren) != (desired.name, desired.siren):
        yield Phase.COMPANIES, EditCompany(desired.number, desired.name, desired.siren)
    if desired.billing is not None and (before is None or before.billing != desired.billing):
        yield Phase.COMPANIES, SetBilling(desired.number, desired.billing)


def _user_steps(key: str, before: User | None, desired: User) -> Iterator[Phased]:
    arrival = Phase.ARRIVE if desired.is_administrator else Phase.WIDEN
    if before is None:
        yield arrival, CreateUser(key, desired)
    elif before.is_open and not desired.is_open:
        yield Phase.NARROW, CloseUser(key)
    elif not before.is_open and desired.is_open:
        for _, step in _edits(key, before, desired):
            yield arrival, step
        yield arrival, ReopenUser(key)
    else:
        edits = list(_edits(key, before, desired))
        validated = before.status is Status.TO_VALIDATE and desired.status is Status.ACTIVE
        if validated and arrival is Phase.ARRIVE:
            # withdraw access before the validation, because the user can log in only after the validation
            if not any(phase is Phase.MOVE for phase, _ in edits):
                edits = [(Phase.ARRIVE if phase is Phase.NARROW else phase, step) for phase, step in edits]
            yield from (edit for edit in edits if edit[0] in (Phase.PROFILES, Phase.ARRIVE))
            yield Phase.ARRIVE, ValidateUser(key)
            yield from (edit for edit in edits if edit[0] not in (Phase.PROFILES, Phase.ARRIVE))
        else:
            yield from edits
            if validated:
                yield Phase.WIDEN, ValidateUser(key)


def _edits(key: str, before: User, desired: User) -> Iterator[Phased]:
    profile = (before.email, before.first_name, before.last_name, before.phone)
    wanted = (desired.email, desired.first_name, desired.last_name, desired.phone)
    if profile != wanted:
        yield Phase.PROFILES, EditProfile(key, *wanted)
    companies = before.companies
    if before.billed != desired.billed:
        yield Phase.MOVE, SetBilledCompany(key, desired.billed, desired.type)
        companies = companies | {desired.billed}
    elif before.type is not desired.type:
        yield Phase.ARRIVE if desired.is_administrator else Phase.NARROW, SetType(key, desired.type)
    if withdrawn := companies - desired.companies:
        yield Phase.NARROW, EditCompanies(key, remove=tuple(sorted(withdrawn)))
    yield from _app_edits(key, before, desired)
    if added := desired.companies - companies:
        yield Phase.WIDEN, EditCompanies(key, add=tuple(sorted(added)))


def _app_edits(key: str, before: User, desired: User) -> Iterator[Phased]:
    was = {grant.app: grant for grant in before.apps}
    wanted = {grant.app: grant for grant in desired.apps}
    switched = desired.production if desired.production is not before.production else None
    grant = tuple(sorted(a for a, g in wanted.items() if g.state is AppState.ACTIVE and was.get(a) != g))
    ending = sorted((a, g.ends) for a, g in wanted.items() if g.state is AppState.ENDING and was.get(a) != g)
    removed = tuple(sorted(set(was) - set(wanted)))
    narrows = switched is Production.CONSULTATION
    if ending or removed or narrows:
        yield (
            Phase.NARROW,
            EditApps(
                key,
                production=switched if narrows else None,
                end=tuple(app for app, _ in ending),
                remove=removed,
                ends=ending[0][1] if ending else None,
            ),
        )
    if grant or (switched and not narrows):
        yield Phase.WIDEN, EditApps(key, production=None if narrows else switched, grant=grant)
