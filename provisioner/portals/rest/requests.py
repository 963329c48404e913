"""The request of each step: endpoint, path parameters and body."""

from __future__ import annotations

from typing import Any, assert_never

from provisioner.model import Billing, User
from provisioner.planning.codec import writer
from provisioner.planning.steps import (
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
    Step,
    ValidateUser,
)
from provisioner.portal import Call
from provisioner.portals.http_messages import Json


def step_request(call: Call) -> tuple[str, dict[str, str], Json]:
    """The endpoint of a step, its path parameters and its body (None for an empty one)."""
    step = call.step
    user = {"id": call.id}
    match step:
        case CreateCompany():
            return "create_company", {}, {"number": step.company, "name": step.name, "siren": step.siren}
        case EditCompany():
            return "edit_company", {"number": step.company}, {"name": step.name, "siren": step.siren}
        case SetBilling():
            return "set_billing", {"number": step.company}, writer(Billing)(step.billing)
        case CreateUser():
            profile = writer(User)(step.profile)
            return (
                "create_user",
                {},
                {name: profile[name] for name in profile if name not in ("id", "version")},
            )
        case EditProfile():
            return "edit_profile", user, _fields(step, "email", "first_name", "last_name", "phone")
        case SetType():
            return "set_type", user, {"type": str(step.type)}
        case SetBilledCompany():
            return "set_billed_company", user, {"billed": step.billed, "type": str(step.type)}
        case EditCompanies():
            return "edit_companies", user, _fields(step, "add", "remove")
        case EditApps():
            return "edit_apps", user, _fields(step, "production", "grant", "end", "remove", "ends")
        case ValidateUser():
            return "validate_user", user, None
        case CloseUser():
            return "close_user", user, None
        case ReopenUser():
            return "reopen_user", user, None
    assert_never(step)


def _fields(step: Step, *names: str) -> Json:
    kind: Any = type(step)
    written = writer(kind)(step)
    return {name: written[name] for name in names}
