"""What a SCIM server would give back, were it as desired.

What it has no place for is told before, once a kind; what it does not keep though it says yes, after.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from provisioner.diagnostics import Diagnostic, warning
from provisioner.model import AppState, Company, Grant, Production, State, Status, User, email_key
from provisioner.portals.scim.mapping import AttributeMap

_USER_SCHEMA = "schemas/scim-user.schema.json"
_COMPANY_SCHEMA = "schemas/scim-company.schema.json"


def project(desired: State, places: AttributeMap) -> tuple[State, Sequence[Diagnostic]]:
    """See :meth:`~provisioner.portal.Portal.project`."""
    lost: dict[str, int] = {}
    companies = {number: _company(company, places, lost) for number, company in desired.companies.items()}
    users = {}
    for key, user in desired.users.items():
        fit = _user(user, places, lost)
        if fit is not None:
            users[key] = fit
    if not lost:
        return desired, ()
    return State(companies, users), list(_told(lost))


SENT = ("email", "first_name", "last_name", "phone", "type", "billed", "production", "apps")
"""What a new account is sent with; whether it may be used is sent last."""


def differing(before: User, wanted: User) -> set[str]:
    """What a step changes of a user himself."""
    return {name for name in (*SENT, "status") if getattr(before, name) != getattr(wanted, name)}


def unsaved_user_fields(
    found: User | None, wanted: User, names: Collection[str], places: AttributeMap
) -> list[str]:
    """What of these a server did not keep as written, each with its place; ``found`` is who is there now."""
    if found is None:
        return [_placed("billed", places)]
    folded = (replace(user, email=email_key(user.email)) for user in (found, wanted))
    lost = differing(*folded) & set(names)
    return [
        _placed(name, places)
        for name in (*SENT, "status")
        if name in lost and (name in _UNPLACED or places.holds(name))
    ]


def unsaved_company_fields(found: Company | None, wanted: Company, places: AttributeMap) -> list[str]:
    """Likewise of a company."""
    if found is None:
        return [_placed("number", places)]
    lost = ["displayName"] if found.name != wanted.name else []
    if found.siren != wanted.siren and places.holds("siren"):
        lost.append(_placed("siren", places))
    if found.billing != wanted.billing and places.holds("billing_mode") and places.holds("offer"):
        lost += [_placed(name, places) for name in ("billing_mode", "offer")]
    return lost


_UNPLACED = {"email": "userName", "status": "active"}
"""What every server holds in one place."""


def _placed(name: str, places: AttributeMap) -> str:
    return f"{name} ({places.place(name) if places.holds(name) else _UNPLACED[name]})"


def _company(company: Company, places: AttributeMap, lost: dict[str, int]) -> Company:
    if company.siren is not None and not places.holds("siren"):
        _count(lost, "siren")
        company = replace(company, siren=None)
    if company.billing is not None and not (places.holds("billing_mode") and places.holds("offer")):
        _count(lost, "billing_mode")
        company = replace(company, billing=None)
    return company


def _user(user: User, places: AttributeMap, lost: dict[str, int]) -> User | None:
    if user.status is Status.TO_VALIDATE and not places.holds("status"):
        _count(lost, "status")
        return None
    if user.phone is not None and not places.holds("phone"):
        _count(lost, "phone")
        user = replace(user, phone=None)
    if user.production is Production.FULL and not places.holds("production"):
        _count(lost, "production")
        user = replace(user, production=Production.CONSULTATION)
    if user.apps and not places.holds("apps"):
        _count(lost, "apps")
        user = replace(user, apps=frozenset())
    if not places.holds("endings") and any(grant.state is AppState.ENDING for grant in user.apps):
        _count(lost, "endings")
        user = replace(user, apps=frozenset(map(_lasting, user.apps)))
    return user


def _lasting(grant: Grant) -> Grant:
    return Grant(grant.app, AppState.ACTIVE) if grant.state is AppState.ENDING else grant


def _count(lost: dict[str, int], name: str) -> None:
    lost[name] = lost.get(name, 0) + 1


_SENTENCES: Mapping[str, tuple[str, str, str]] = {
    "siren": ("the SIREN of {}", "company", _COMPANY_SCHEMA),
    "billing_mode": ("the billing mode and offer of {}", "company", _COMPANY_SCHEMA),
    "status": ("that somebody awaits validation, so {} cannot be created for later", "user", _USER_SCHEMA),
    "phone": ("the phone of {}", "user", ""),
    "production": ("the production family of {}", "user", ""),
    "apps": ("the applications of {}", "user", ""),
    "endings": (
        "the day on which an application ends, so those that {} shall lose with the month stay",
        "user",
        _USER_SCHEMA,
    ),
}


def _told(lost: Mapping[str, int]) -> Iterator[Diagnostic]:
    for name, count in lost.items():
        words, noun, schema = _SENTENCES[name]
        plural = "companies" if noun == "company" else "users"
        whom = f"{count} {noun if count == 1 else plural}"
        remedy = f"If it does, say where: portal: {{scim: {{{name}: ATTRIBUTE}}}}."
        if name == "endings":
            remedy = "To take them away now, write removal: immediate."
        if schema:
            remedy = f"{remedy[:-1]}; or have it load {schema}."
        yield warning("portal-cannot-hold", f"This server does not hold {words.format(whom)}.", remedy)
