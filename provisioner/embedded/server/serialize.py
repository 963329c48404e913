"""Values of the portal as they travel: JSON straight from their fields, 50,000 users at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from json.encoder import encode_basestring as quoted
from typing import Any

from provisioner.model import Company, Grant, User

MOST_SETS = 50_000
"""Different sets of companies or applications whose text is remembered."""


def company_text(company: Company) -> str:
    """A company as JSON; :class:`~provisioner.embedded.server.schemas.CompanyBody` describes it."""
    billing = company.billing
    return json.dumps(
        {
            "number": company.number,
            "name": company.name,
            "siren": company.siren,
            "billing": {"mode": billing.mode, "offer": billing.offer} if billing else None,
            "billing_ends": company.billing_ends.isoformat() if company.billing_ends else None,
            "version": company.version,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


_companies: dict[frozenset[str], str] = {}
_apps: dict[frozenset[Grant], str] = {}


def user_text(user: User) -> str:
    """A user as JSON; :class:`~provisioner.embedded.server.schemas.UserBody` describes it."""
    companies = _companies.get(user.companies)
    if companies is None:
        companies = _remember(_companies, user.companies, sorted(user.companies))
    apps = _apps.get(user.apps)
    if apps is None:
        grants = [
            {"app": app, "state": state, "ends": ends.isoformat() if ends else None}
            for app, state, ends in sorted(user.apps, key=lambda grant: grant.app)
        ]
        apps = _remember(_apps, user.apps, grants)
    phone = "null" if user.phone is None else quoted(user.phone)
    return (
        f'{{"id":{quoted(user.id)},"email":{quoted(user.email)},"first_name":{quoted(user.first_name)},'
        f'"last_name":{quoted(user.last_name)},"phone":{phone},"type":"{user.type.value}",'
        f'"billed":{quoted(user.billed)},"companies":{companies},"production":"{user.production.value}",'
        f'"apps":{apps},"status":"{user.status.value}","version":{user.version}}}'
    )


def _remember(texts: dict[Any, str], key: Any, items: list[Any]) -> str:
    text = json.dumps(items, ensure_ascii=False, separators=(",", ":"))
    if len(texts) >= MOST_SETS:
        texts.clear()
    texts[key] = text
    return text


def page_text(items: Iterable[str], next: int | None, counter: int) -> bytes:
    """A page of such texts."""
    return (
        f'{{"items":[{",".join(items)}],"next":{"null" if next is None else next},"counter":{counter}}}'
    ).encode()
