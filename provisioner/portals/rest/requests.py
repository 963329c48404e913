"""The translation of each step into an HTTP request: endpoint, path parameters and body."""

from __future__ import annotations

from typing import Any, NamedTuple

from provisioner.embedded.server.endpoints import STEP_NAMES
from provisioner.model import Billing, User
from provisioner.planning.codec import canonical, writer
from provisioner.planning.steps import CompanyStep, CreateCompany, CreateUser, SetBilling
from provisioner.portal import Call


class TermsRequest(NamedTuple):
    """The body of the request that sets a portal's terms and the base URL of its activation links."""

    offers: frozenset[str]
    apps: frozenset[str]
    email_domains: frozenset[str]
    staff: frozenset[str]
    public_url: str


def step_request(call: Call) -> tuple[str, dict[str, str], str]:
    """Return the request for the step of ``call`` as a tuple: endpoint name, path parameters, JSON body. The
    path parameters are a mapping from name to value. The body is "" if the step needs no body.
    """
    step = call.step
    name = STEP_NAMES[type(step)]
    match step:
        case CreateCompany():
            body = canonical({"number": step.company, "name": step.name, "siren": step.siren})
            return name, {}, body
        case SetBilling():
            return name, {"number": step.company}, writer(Billing)(step.billing)
        case CreateUser():
            return name, {}, writer(User, without=("id", "version"))(step.profile)
    kind: Any = type(step)
    if isinstance(step, CompanyStep):
        return name, {"number": step.company}, writer(kind, without=("company",))(step)
    body = writer(kind, without=("user",))(step)
    return name, {"id": call.id}, "" if body == "{}" else body
