"""The endpoints of the portal's HTTP service, and the constants that the service and its driver share.

A firm whose portal uses other paths configures them by operation: ``portal: {paths: {user: /people/{id}}}``.
"""

from __future__ import annotations

import re
from typing import NamedTuple, get_args

from provisioner.planning.steps import STEPS, CompanyStep, Step


class Endpoint(NamedTuple):
    """The HTTP method and the path template of an operation; path parameters are in braces."""

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
"""The endpoints by operation name. An operation that applies a step has the step's name in snake case."""

COMPANY_STEPS: tuple[type[Step], ...] = get_args(CompanyStep)

STEP_NAMES: dict[type[Step], str] = {
    kind: re.sub(r"\B[A-Z]", r"_\g<0>", name).lower() for name, kind in STEPS.items()
}
"""The operation name of each step class, for example ``set_billing`` for :class:`SetBilling`."""

for _kind, _name in STEP_NAMES.items():
    _resource = "/v1/companies/{number}" if _kind in COMPANY_STEPS else "/v1/users/{id}"
    ENDPOINTS.setdefault(_name, Endpoint("POST", f"{_resource}/{_name.replace('_', '-')}"))

READ, WRITE = "portal.read", "portal.write"
"""The scopes that an access token can have."""

URN = "urn:provisioner:problem:"
"""The prefix of the member ``type`` of a problem (RFC 9457); the code of the problem follows it."""

MAX_PAGE = 5_000
"""The maximum number of companies or users on one page."""

MAX_LETTERS = 1_000
"""The maximum number of letters to claim, or of users to invite, in one request."""
