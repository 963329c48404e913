"""The table of the service's operations. The routes, checks and the OpenAPI document are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from provisioner.embedded.server import schemas
from provisioner.embedded.server.endpoints import (
    COMPANY_STEPS,
    ENDPOINTS,
    MAX_PAGE,
    READ,
    STEP_NAMES,
    WRITE,
)
from provisioner.embedded.server.schemas import LARGEST, LEDGER, NO_CONTROL
from provisioner.model import Operator
from provisioner.planning.steps import SetType

SCOPES: dict[str, str] = {
    READ: "Read everything: what a plan needs.",
    WRITE: "Do steps, claim letters, make activation links, hold leases.",
}

EVERYBODY = frozenset(Operator)
MAY_VALIDATE = frozenset(role for role in Operator if role.may_validate)
ADMINISTRATORS = frozenset({Operator.ADMINISTRATOR})


@dataclass(frozen=True)
class Parameter:
    """A parameter of an operation, in the path, the query or a header."""

    name: str
    place: Literal["path", "query", "header"]
    words: str
    pattern: str = ""
    """The regular expression of a string value; empty for an integer value from ``least`` to ``most``."""
    least: int = 0
    most: int = LARGEST
    required: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the value."""
        if self.pattern:
            return {"type": "string", "pattern": self.pattern}
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


def _text(name: str, place: Literal["path", "query"], words: str, pattern: str, required: bool) -> Parameter:
    return Parameter(name, place, words, pattern, required=required)


NUMBER = _text("number", "path", "The dossier number.", r"^[^\x00-\x1f\x7f-\x9f/]{1,100}$", True)
ID = _text("id", "path", "The user's id on this portal.", r"^[^\x00-\x1f\x7f-\x9f/]{1,200}$", True)
KEY = _text("key", "path", "An earlier step's Idempotency-Key.", "^[!-.0-~]{1,255}$", True)
LEDGER_PATH = _text("ledger", "path", "The ledger's id.", LEDGER, True)
LEDGER_QUERY = _text("ledger", "query", "The ledger that asks.", LEDGER, False)
HOLDER = _text("holder", "query", "Who let go: the word given when the lease was taken.", NO_CONTROL, True)
AFTER = Parameter("after", "query", "`next` of the page before.")
LIMIT = Parameter("limit", "query", "Entries on the page; 1,000 unless said.", least=1, most=MAX_PAGE)
SINCE = Parameter("since", "query", "Only what was changed after the counter stood here.")
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "Once the step is done, the same request with the same key gets that answer again, for ever. What was "
    "refused is not kept, and is tried anew.",
    "^[!-.0-~]{1,255}$",
)
IF_MATCH = Parameter(
    "If-Match",
    "header",
    'The version that is changed, `"3"`.',
    '^"[0-9]{1,15}"$',
    required=True,
)
LEASE = Parameter("Lease", "header", "The ledger that this is done for.", LEDGER)
FENCING_TOKEN = Parameter("Fencing-Token", "header", "The number of its lease.")
MUST_LEASE = Parameter("Lease", "header", LEASE.words, LEDGER, required=True)
MUST_FENCE = Parameter("Fencing-Token", "header", FENCING_TOKEN.words, required=True)


@dataclass(frozen=True)
class Operation:
    """An operation of the service; ``name`` is its key in ``ENDPOINTS`` and ``HANDLERS``."""

    name: str
    summary: str
    gives: Mapping[int, type[BaseModel] | None]
    """The model of each successful response's body, by status; None if the body has no model."""
    words: str = ""
    takes: type[BaseModel] | None = None
    access: str = ""
    """The scope that the access token must have; empty if the operation needs no token."""
    roles: frozenset[Operator] = EVERYBODY
    """The roles that may request this operation; the application refuses all other roles."""
    validates: bool = False
    """True if the operation needs the right to validate (R7, R8). The portal checks this right."""
    parameters: tuple[Parameter, ...] = ()
    refuses: tuple[int, ...] = field(default=())
    """The error statuses of this operation, in addition to the statuses that every operation has."""
    etag: bool = False

    @property
    def method(self) -> str:
        """The HTTP method."""
        return ENDPOINTS[self.name].method

    @property
    def path(self) -> str:
        """The path template, with path parameters in braces."""
        return ENDPOINTS[self.name].path

    @property
    def statuses(self) -> frozenset[int]:
        """All HTTP statuses that a response of this operation can have."""
        refused = {400, 404, 405, 408, 413, 429, 503, *self.refuses}
        if self.access:
            refused |= {401, 403}
            if self.takes is not None:
                refused |= {415, 422}
        return frozenset(refused | self.gives.keys())


CREATES = (IDEMPOTENCY_KEY, LEASE, FENCING_TOKEN)
CHANGES = (IF_MATCH, *CREATES)
APPLIED = {200: schemas.ReceiptBody}
STEP: tuple[int, ...] = (409, 412, 422, 423, 428)


def _create(name: str, summary: str, takes: type[BaseModel], words: str) -> Operation:
    return Operation(
        name, summary, {201: schemas.ReceiptBody, 200: schemas.ReceiptBody}, words, takes, WRITE,
        parameters=CREATES, refuses=(409, 422, 423, 428), etag=True,
    )  # fmt: skip


def _change(
    name: str,
    summary: str,
    takes: type[BaseModel],
    of: Parameter,
    words: str = "",
    *,
    validates: bool = False,
) -> Operation:
    return Operation(
        name, summary, APPLIED, words, takes, WRITE,
        parameters=(of, *CHANGES), refuses=STEP, validates=validates, etag=True,
    )  # fmt: skip


_ROUTES: tuple[Operation, ...] = (
    Operation(
        "token", "An access token for client credentials", {200: schemas.Token},
        "OAuth 2.0 (RFC 6749, 4.4). Credentials by HTTP Basic or in the form, never both. "
        "Problems of the request itself are told as RFC 6749, 5.2 has it.",
        schemas.TokenRequest, refuses=(401,),
    ),
    Operation(
        "portal", "The portal, and who asks", {200: schemas.PortalBody}, access=READ,
    ),
    Operation(
        "set_terms", "Set catalogue, mail domains, staff and public address", {204: None},
        takes=schemas.NewTerms, access=WRITE, roles=ADMINISTRATORS,
    ),
    Operation(
        "companies", "Companies, page by page", {200: schemas.CompanyPage}, access=READ,
        words="Remember the counter of the first page; when all pages are read, ask since that counter, "
        "until nothing is new: that is the portal at one instant, for nothing is ever deleted.",
        parameters=(AFTER, LIMIT, SINCE),
    ),
    _create("create_company", "Create a company", schemas.NewCompany, "*Administration › Entreprises › +*"),
    Operation(
        "company", "A company", {200: schemas.CompanyBody}, access=READ,
        parameters=(NUMBER,), etag=True,
    ),
    _change("edit_company", "Set a company's name and SIREN", schemas.CompanyEdit, NUMBER),
    _change("set_billing", "Set billing mode and offer", schemas.BillingBody, NUMBER, "R6."),
    Operation(
        "users", "Users, page by page", {200: schemas.UserPage}, access=READ,
        words="See the list of companies.", parameters=(AFTER, LIMIT, SINCE),
    ),
    _create(
        "create_user", "Create a user", schemas.NewUser,
        "The whole wizard. To create them active needs the right to validate (R7).",
    ),
    Operation(
        "user", "A user", {200: schemas.UserBody}, access=READ,
        parameters=(ID,), etag=True,
    ),
    _change("edit_profile", "Set name, e-mail and phone", schemas.ProfileEdit, ID, "R1, R14."),
    _change("set_type", "Make administrator or standard", schemas.step_body(SetType), ID, "R2."),
    _change("set_billed_company", "Bill to another company", schemas.BilledCompanyEdit, ID, "R2, R4, R5."),
    _change("edit_companies", "Give and withdraw dossiers", schemas.CompaniesEdit, ID, "R5, R12."),
    _change("edit_apps", "Give, end and remove applications", schemas.AppsEdit, ID, "R3, R9, R10."),
    _change("validate_user", "Validate a user who waits", schemas.Nothing, ID, "R7.", validates=True),
    _change("close_user", "Close an account", schemas.Nothing, ID, "*Fermer ce compte*: nothing is deleted."),
    _change("reopen_user", "Reopen an account", schemas.Nothing, ID, "R8.", validates=True),
    Operation(
        "receipt", "What an earlier step was answered", {200: schemas.StoredReceiptBody}, access=READ,
        words="*applied* to the ledger that it was done for, *already* to any other.",
        parameters=(KEY, LEDGER_QUERY),
    ),
    Operation(
        "claim_letters", "Claim letters", {200: schemas.LetterHolders}, access=WRITE,
        words="The first ledger that asks for a letter has it, for ever. Within that ledger it passes to "
        "this run from the runs named with it; any other run is one of a copy of the ledger, and keeps it.",
        takes=schemas.Letters,
        parameters=(MUST_LEASE, MUST_FENCE), refuses=(423,),
    ),
    Operation(
        "invitations", "Make activation links", {200: schemas.Links}, access=WRITE,
        words="The same until they expire or are used; empty for who needs none or may have none.",
        takes=schemas.Invited,
    ),
    Operation(
        "lease", "Who holds the portal for a ledger", {200: schemas.LeaseBody}, access=READ,
        parameters=(LEDGER_PATH,),
    ),
    Operation(
        "take_lease", "Hold the portal for a ledger", {200: schemas.LeaseBody}, access=WRITE,
        words="A higher number takes the place of a run that is dead or stopped, whose writes are refused "
        "from then on. Each write prolongs the lease.",
        takes=schemas.NewLease, parameters=(LEDGER_PATH,), refuses=(423,),
    ),
    Operation(
        "drop_lease", "Let go", {204: None}, access=WRITE, parameters=(LEDGER_PATH, HOLDER),
    ),
    Operation("healthz", "The process lives", {200: schemas.Health}),
    Operation("readyz", "The database answers", {200: schemas.Health}),
    Operation("openapi", "This document", {200: None}),
)  # fmt: skip

ROUTES: tuple[Operation, ...] = (
    *_ROUTES,
    *(
        _change(
            name,
            str(kind.__doc__).partition("\n")[0],
            schemas.step_body(kind),
            NUMBER if kind in COMPANY_STEPS else ID,
        )
        for kind, name in STEP_NAMES.items()
        if all(entry.name != name for entry in _ROUTES)
    ),
)
"""All operations: those in ``_ROUTES``, and one for each step class that has no operation there."""

BY_NAME: dict[str, Operation] = {entry.name: entry for entry in ROUTES}
