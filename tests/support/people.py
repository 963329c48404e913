"""A few companies and people, and short functions that create others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import cache

from provisioner.diagnostics import Diagnostic
from provisioner.manifest.declared import Activation, Declared, DeclaredCompany, DeclaredUser
from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Company,
    Grant,
    PortalTerms,
    Production,
    State,
    Status,
    User,
    UserType,
    company_address,
    email_key,
    user_address,
)
from provisioner.planning.steps import Step, address_of, after
from provisioner.rules import StateIndex
from provisioner.yaml_source.document import Positions
from provisioner.yaml_source.source_text import SourceText

TODAY = date(2026, 11, 24)
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TERMS = PortalTerms(
    offers=frozenset({"Essentiel", "Confort"}),
    apps=frozenset({"Documents", "Scan", "Achats", "Image"}),
    email_domains=frozenset({"durand-associes.fr"}),
    staff=frozenset({"helene@example.com"}),
)
ESSENTIEL = Billing(BillingMode.CLIENT, "Essentiel")


def company(number: str, **fields: object) -> Company:
    """Return a company. By default it is billed for the offer Essentiel."""
    words: dict[str, object] = {"name": f"Company {number}", "billing": ESSENTIEL, **fields}
    return Company(number, **words)  # type: ignore[arg-type]


def user(
    name: str,
    billed: str = "1",
    type: str = "administrator",
    *,
    companies: tuple[str, ...] = (),
    production: str = "full",
    apps: tuple[str, ...] = (),
    grants: tuple[Grant, ...] = (),
    status: str = "active",
    phone: str | None = None,
    email: str = "",
    id: str = "",
    version: int = 0,
) -> User:
    """Return a user whose e-mail and first name are derived from ``name``."""
    return User(
        email=email or f"{name}@example.fr",
        first_name=name.capitalize(),
        last_name="Martin",
        phone=phone,
        type=UserType(type),
        billed=billed,
        companies=frozenset({billed, *companies}),
        production=Production(production),
        apps=frozenset({*(Grant(app, AppState.ACTIVE) for app in apps), *grants}),
        status=Status(status),
        id=id or name,
        version=version,
    )


def state(*resources: Company | User) -> State:
    """Return a state of these companies and users, and of each other company that a user needs."""
    users = [resource for resource in resources if isinstance(resource, User)]
    companies = {resource.number: resource for resource in resources if isinstance(resource, Company)}
    for someone in users:
        for number in someone.companies:
            companies.setdefault(number, company(number))
    return State(companies, {email_key(someone.email): someone for someone in users})


def state_after(state: State, step: Step) -> State:
    """Return the state after one step."""
    address = address_of(step)
    resource = after(state.get(address), step)
    if isinstance(resource, Company):
        return State({**state.companies, address.key: resource}, state.users)
    return State(state.companies, {**state.users, address.key: resource})


def declared(*users: DeclaredUser, companies: tuple[DeclaredCompany, ...] = ()) -> Declared:
    """Return the declarations of these users and companies.

    Each other company that a user is billed to is added.
    """
    numbers = {someone.billed for someone in users} - {c.number for c in companies}
    known = [*companies, *(declared_company(number) for number in sorted(numbers))]
    return Declared(
        {c.number: c for c in known}, {email_key(someone.email): someone for someone in users}, {}
    )


@cache
def _manifest(number: str) -> Positions:
    """Return the positions in a manifest with the company number in line 2 and the first user in line 5."""
    text = f'company:\n  number: "{number}"\n  name: X\nusers:\n  - email: x@example.fr\n'
    return Positions(SourceText(f"clients/{number}.yaml", text))


def declared_company(number: str, name: str = "", billing: Billing | None = ESSENTIEL) -> DeclaredCompany:
    """Return the declaration of a company."""
    return DeclaredCompany(
        number,
        name or f"Company {number}",
        None,
        billing,
        _manifest(number),
    )


def declared_user(
    name: str,
    billed: str = "1",
    type: str = "administrator",
    *,
    email: str = "",
    previous: str | None = None,
    phone: str | None = None,
    phone_declared: bool = False,
    production: str = "full",
    companies: tuple[str, ...] | None = None,
    apps: tuple[str, ...] | None = None,
    immediate_removal: bool = False,
    activation: str = "immediate",
    welcome: bool = True,
    closed: bool = False,
) -> DeclaredUser:
    """Return the declaration of a user. Its e-mail and names are derived from ``name`` as in :func:`user`."""
    return DeclaredUser(
        email=email or f"{name}@example.fr",
        previous_key=previous,
        first_name=name.capitalize(),
        last_name="Martin",
        phone=phone,
        phone_declared=phone_declared,
        type=UserType(type),
        production=Production(production),
        billed=billed,
        companies=None if companies is None else frozenset({billed, *companies}),
        apps=apps,
        immediate_removal=immediate_removal,
        activation=Activation(activation),
        welcome=welcome,
        language="fr",
        closed=closed,
        positions=_manifest(billed),
        at=0,
    )


def all_violations(index: StateIndex) -> Iterator[Diagnostic]:
    """Yield every violation of the rules R1 to R6 and R14 in a whole state."""
    for number, company in list(index.companies.items()):
        yield from index.put(company_address(number), company)
        yield from index.missing_administrator(number)
    for key, user in list(index.users.items()):
        yield from index.put(user_address(key), user)
