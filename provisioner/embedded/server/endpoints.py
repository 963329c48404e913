"""The endpoints of the portal's service by name, and the constants shared by service and driver.

A firm whose portal differs maps a path by its name (``portal: {paths: {user: /api/people/{id}}}``).
"""

from __future__ import annotations

import re
from typing import NamedTuple, get_args

from provisioner.planning.steps import STEPS, CompanyStep, Step


class Endpoint(NamedTuple):
    """The method and path of an operation; parameters of the path are in braces."""

    method: str
    path: str


ENDPOINTS: dict[str, Endpoint] = {
    "token": Endpoint("POST", "/oauth/token"),
    "portal": Endpoint("GET", "/v1/portal"),
    "set_terms": Endpoint("PUT", "/v1/portal/terms"),
    "companies": Endpoint("GET", "/v1/companies"),
    "create_company": Endpoint("POST", "/v1/companies"),
    "company": Endpoint("GET", "/v1/companies/{number}"),
    "edit_company": Endpoint("PUT", "/v1/companies/{number}"),
    "set_billing": Endpoint("PUT", "/v1/companies/{number}/billing"),
    "users": Endpoint("GET", "/v1/users"),
    "create_user": Endpoint("POST", "/v1/users"),
    "user": Endpoint("GET", "/v1/users/{id}"),
    "edit_profile": Endpoint("PUT", "/v1/users/{id}/profile"),
    "set_type": Endpoint("PUT", "/v1/users/{id}/type"),
    "set_billed_company": Endpoint("PUT", "/v1/users/{id}/billed-company"),
    "edit_companies": Endpoint("POST", "/v1/users/{id}/companies"),
    "edit_apps": Endpoint("POST", "/v1/users/{id}/applications"),
    "validate_user": Endpoint("POST", "/v1/users/{id}/validation"),
    "close_user": Endpoint("POST", "/v1/users/{id}/closing"),
    "reopen_user": Endpoint("POST", "/v1/users/{id}/reopening"),
    "receipt": Endpoint("GET", "/v1/receipts/{key}"),
    "claim_letters": Endpoint("POST", "/v1/letter-claims"),
    "invitations": Endpoint("POST", "/v1/invitations"),
    "lease": Endpoint("GET", "/v1/leases/{ledger}"),
    "take_lease": Endpoint("PUT", "/v1/leases/{ledger}"),
    "drop_lease": Endpoint("DELETE", "/v1/leases/{ledger}"),
    "healthz": Endpoint("GET", "/healthz"),
    "readyz": Endpoint("GET", "/readyz"),
    "openapi": Endpoint("GET", "/openapi.json"),
}
"""The endpoints by operation. An operation that does a step has its name in snake case."""

COMPANY_STEPS: tuple[type[Step], ...] = get_args(CompanyStep)

STEP_NAMES: dict[type[Step], str] = {
    kind: re.sub(r"\B[A-Z]", r"_\g<0>", name).lower() for name, kind in STEPS.items()
}
"""The operation of each kind of step: ``set_billing`` for :class:`SetBilling`."""

for _kind, _name in STEP_NAMES.items():
    _resource = "/v1/companies/{number}" if _kind in COMPANY_STEPS else "/v1/users/{id}"
    ENDPOINTS.setdefault(_name, Endpoint("POST", f"{_resource}/{_name.replace('_', '-')}"))

READ, WRITE = "portal.read", "portal.write"
"""The scopes of a token."""

URN = "urn:provisioner:problem:"
"""The beginning of the type of a problem (RFC 9457); the code of the problem follows."""

MAX_PAGE = 5_000
"""The largest number of companies or users on one page."""

MAX_LETTERS = 1_000
"""The largest number of letters, or of users to invite, in one request."""
