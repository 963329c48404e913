"""Declarations of the companies and people of ``provisioner.testing.people``, and the rules on a state."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from provisioner.diagnostics import Diagnostic
from provisioner.manifest.declared import Activation, Declared, DeclaredCompany, DeclaredUser
from provisioner.model import (
    Billing,
    Production,
    UserType,
    company_address,
    email_key,
    user_address,
)
from provisioner.rules import StateIndex
from provisioner.testing.people import ESSENTIEL
from provisioner.yaml_source.document import Positions
from provisioner.yaml_source.source_text import SourceText


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
