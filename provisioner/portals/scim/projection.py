"""The part of a desired state that a SCIM server can store.

A field for which the server has no attribute is reported once, before the plan. A value that the server
accepts but does not store is reported after the write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from provisioner.diagnostics import Diagnostic, plural, warning
from provisioner.model import AppState, Company, Grant, Production, State, Status, User, email_key
from provisioner.portals.scim.mapping import AttributeMap

_USER_SCHEMA = "schemas/scim-user.schema.json"
_COMPANY_SCHEMA = "schemas/scim-company.schema.json"


def project(desired: State, mapping: AttributeMap) -> tuple[State, Sequence[Diagnostic]]:
    """Return what the server can store of ``desired``, and a warning for each field it cannot store."""
    lost: dict[str, int] = {}
    companies = {number: _company(company, mapping, lost) for number, company in desired.companies.items()}
    users = {}
    for key, user in desired.users.items():
        fit = _user(user, mapping, lost)
        if fit is not None:
            users[key] = fit
    if not lost:
        return desired, ()
    return State(companies, users), list(_warnings(lost))


CREATED_FIELDS = ("email", "first_name", "last_name", "phone", "type", "billed", "production", "apps")
"""The fields that the first write of a new account stores. The last write stores the status."""


def differing(before: User, wanted: User) -> set[str]:
    """Return the names of the fields that differ between two versions of a user, except companies."""
    return {name for name in (*CREATED_FIELDS, "status") if getattr(before, name) != getattr(wanted, name)}


def unsaved_user_fields(
    found: User | None, wanted: User, names: Collection[str], mapping: AttributeMap
) -> list[str]:
    """Return the fields of ``names`` that the server has not stored as written, each as "field (SCIM path)".
    ``found`` is the user as stored, and ``wanted`` the user as written. ``found`` is None if the stored
    resource is not a client user. Then the only field in the result is ``billed``.
    """
    if found is None:
        return [_with_place("billed", mapping)]
    folded = (replace(user, email=email_key(user.email)) for user in (found, wanted))
    lost = differing(*folded) & set(names)
    return [
        _with_place(name, mapping)
        for name in (*CREATED_FIELDS, "status")
        if name in lost and (name in _UNPLACED or mapping.has(name))
    ]


def unsaved_company_fields(found: Company | None, wanted: Company, mapping: AttributeMap) -> list[str]:
    """Return the fields of a company that are not stored, in the form of :func:`unsaved_user_fields`."""
    if found is None:
        return [_with_place("number", mapping)]
    lost = ["displayName"] if found.name != wanted.name else []
    if found.siren != wanted.siren and mapping.has("siren"):
        lost.append(_with_place("siren", mapping))
    if found.billing != wanted.billing and mapping.has("billing_mode") and mapping.has("offer"):
        lost += [_with_place(name, mapping) for name in ("billing_mode", "offer")]
    return lost


_UNPLACED = {"email": "userName", "status": "active"}


def _with_place(name: str, mapping: AttributeMap) -> str:
    return f"{name} ({mapping.path_of(name) if mapping.has(name) else _UNPLACED[name]})"


def _company(company: Company, mapping: AttributeMap, lost: dict[str, int]) -> Company:
    if company.siren is not None and not mapping.has("siren"):
        _count(lost, "siren")
        company = replace(company, siren=None)
    if company.billing is not None and not (mapping.has("billing_mode") and mapping.has("offer")):
        _count(lost, "billing_mode")
        company = replace(company, billing=None)
    return company


def _user(user: User, mapping: AttributeMap, lost: dict[str, int]) -> User | None:
    if user.status is Status.TO_VALIDATE and not mapping.has("status"):
        _count(lost, "status")
        return None
    if user.phone is not None and not mapping.has("phone"):
        _count(lost, "phone")
        user = replace(user, phone=None)
    if user.production is Production.FULL and not mapping.has("production"):
        _count(lost, "production")
        user = replace(user, production=Production.CONSULTATION)
    if user.apps and not mapping.has("apps"):
        _count(lost, "apps")
        user = replace(user, apps=frozenset())
    if not mapping.has("endings") and any(grant.state is AppState.ENDING for grant in user.apps):
        _count(lost, "endings")
        user = replace(user, apps=frozenset(map(_without_end, user.apps)))
    return user


def _without_end(grant: Grant) -> Grant:
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


def _warnings(lost: Mapping[str, int]) -> Iterator[Diagnostic]:
    for name, count in lost.items():
        words, noun, schema = _SENTENCES[name]
        whom = f"{count} {plural(count, noun, 'companies' if noun == 'company' else 'users')}"
        remedy = f"If it does, say where: portal: {{scim: {{{name}: ATTRIBUTE}}}}."
        if name == "endings":
            remedy = "To take them away now, write removal: immediate."
        if schema:
            remedy = f"{remedy[:-1]}; or have it load {schema}."
        yield warning("portal-cannot-hold", f"This server does not hold {words.format(whom)}.", remedy)
