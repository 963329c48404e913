"""A few companies and people, and short functions that create others."""

from __future__ import annotations

from datetime import UTC, date, datetime

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
    email_key,
)
from provisioner.planning.steps import Step, address_of, after

TODAY = date(2026, 11, 24)
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TERMS = PortalTerms(
    offers=frozenset({"Essentiel", "Confort"}),
    apps=frozenset({"Documents", "Scan", "Achats", "Image"}),
    email_domains=frozenset({"durand-associes.fr"}),
    staff=frozenset({"helene@example.com"}),
)
ESSENTIEL = Billing(BillingMode.CLIENT, "Essentiel")
PUBLIC_URL = "https://example.com/activation"


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
    """Return a user whose first name is ``name``. By default, e-mail and id are also derived from it."""
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
