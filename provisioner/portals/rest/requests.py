"""The request of each step: endpoint, path parameters and body."""

from __future__ import annotations

import re
from typing import Any, NamedTuple, assert_never

from provisioner.model import Billing, User
from provisioner.planning.codec import canonical, writer
from provisioner.planning.steps import (
    STEPS,
    CloseUser,
    CreateCompany,
    CreateUser,
    EditApps,
    EditCompanies,
    EditCompany,
    EditProfile,
    ReopenUser,
    SetBilledCompany,
    SetBilling,
    SetType,
    ValidateUser,
)
from provisioner.portal import Call


class TermsRequest(NamedTuple):
    """The body that sets a portal's terms and the base of its activation links."""

    offers: frozenset[str]
    apps: frozenset[str]
    email_domains: frozenset[str]
    staff: frozenset[str]
    public_url: str


_ENDPOINTS = {kind: re.sub(r"\B[A-Z]", r"_\g<0>", name).lower() for name, kind in STEPS.items()}
"""The endpoint of each kind of step: ``set_billing`` for :class:`SetBilling`."""


def step_request(call: Call) -> tuple[str, dict[str, str], str]:
    """The endpoint of a step, its path parameters and the JSON text of its body, empty if it has none."""
    step = call.step
    name, user = _ENDPOINTS[type(step)], {"id": call.id}
    match step:
        case CreateCompany():
            body = canonical({"number": step.company, "name": step.name, "siren": step.siren})
            return name, {}, body
        case EditCompany():
            return name, {"number": step.company}, writer(EditCompany, without=("company",))(step)
        case SetBilling():
            return name, {"number": step.company}, writer(Billing)(step.billing)
        case CreateUser():
            return name, {}, writer(User, without=("id", "version"))(step.profile)
        case ValidateUser() | CloseUser() | ReopenUser():
            return name, user, ""
        case EditProfile() | SetType() | SetBilledCompany() | EditCompanies() | EditApps():
            kind: Any = type(step)
            return name, user, writer(kind, without=("user",))(step)
    assert_never(step)
