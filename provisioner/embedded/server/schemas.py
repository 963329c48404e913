"""The models of request and response bodies, for validation and for the schemas of the OpenAPI document."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from types import NoneType
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, create_model, model_validator

from provisioner.embedded.server.endpoints import MAX_LETTERS
from provisioner.limits import MAX_EMAIL_BYTES
from provisioner.manifest import fields, urls
from provisioner.planning.codec import record_fields
from provisioner.planning.steps import Step

MAX_RUNS = 100
"""The maximum number of runs in one :class:`LetterClaim`."""

LARGEST = 2**53 - 1
"""The largest integer that every JSON parser reads without loss of precision."""

NO_CONTROL = r"^[^\x00-\x1f\x7f-\x9f]+$"
LEDGER = r"^[A-Za-z0-9._-]{1,100}$"


class Body(BaseModel):
    """The base of the models: unknown members are refused, and values are not converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _day(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError("is no day of the calendar") from None
    return text


def _page(text: str) -> str:
    return urls.web_address(text) if text else text


def _kept(text: str) -> str:
    if len(text.encode()) > MAX_EMAIL_BYTES:
        raise ValueError("is longer than 254 bytes")
    hidden = next((character for character in text if fields.is_hidden(character)), None)
    if hidden is not None:
        raise ValueError(f"contains {fields.described(hidden)}")
    return text


def _distinct(words: str, key: str = "") -> AfterValidator:
    def check(values: list[Any]) -> list[Any]:
        if len({getattr(value, key) if key else value for value in values}) < len(values):
            raise ValueError(f"names {words} twice")
        return values

    return AfterValidator(check)


# these types use the validators of the manifest, because an exported portal must be a valid manifest (law 9)
Name = Annotated[
    str,
    Field(min_length=1, max_length=fields.MAX_NAME, pattern=NO_CONTROL),
    AfterValidator(fields.name),
]
_Address = Annotated[
    str,
    Field(
        min_length=3,
        max_length=MAX_EMAIL_BYTES,
        pattern=r"^[^\x00-\x20\x7f-\x9f@]+@[^\x00-\x20\x7f-\x9f@]+$",
        description="The log-in, as letters travel to it.",
    ),
]
Email = Annotated[_Address, AfterValidator(fields.email)]
# less strict than Email and Phone: an edit of only a name sends back the e-mail and phone the user has chosen
KeptEmail = Annotated[_Address, AfterValidator(_kept)]
KeptPhone = Annotated[
    str, Field(pattern=r"^\+[1-9][0-9]{4,14}$", max_length=16, description="In the form of E.164 (A16).")
]
Phone = Annotated[KeptPhone, AfterValidator(fields.phone)]
Number = Annotated[
    str, Field(pattern=fields.DOSSIER_PATTERN, max_length=20, description="The dossier number (R13).")
]
Siren = Annotated[
    str,
    Field(pattern="^[0-9]{9}$", max_length=9, description="Nine digits whose check digit holds (A13)."),
    AfterValidator(fields.siren),
]
Day = Annotated[
    str,
    Field(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$", json_schema_extra={"format": "date"}),
    AfterValidator(_day),
]
App = Name
OtherApp = Annotated[App, AfterValidator(fields.other_app)]
Domain = Annotated[str, Field(min_length=1, max_length=253, pattern=NO_CONTROL), AfterValidator(urls.domain)]
Apps = Annotated[
    list[App], Field(max_length=500, json_schema_extra={"uniqueItems": True}), _distinct("something")
]
Numbers = Annotated[
    list[Number], Field(max_length=20_000, json_schema_extra={"uniqueItems": True}), _distinct("something")
]
Whole = Annotated[int, Field(ge=0, le=LARGEST)]
Identifier = Annotated[str, Field(pattern=NO_CONTROL, max_length=200, min_length=1)]
UserType = Literal["administrator", "standard"]
Production = Literal["full", "consultation"]
Status = Literal["to_validate", "active", "closed"]
Role = Literal["administrator", "partner", "customer_manager", "collaborator"]


class BillingBody(Body):
    """The billing mode and the offer of a company (R6)."""

    mode: Literal["client", "firm"]
    offer: Name


class GrantBody(Body):
    """An application of a user. ``ends`` is the last day of use if the state is ``ending``; else null."""

    app: App
    state: Literal["requested", "active", "ending"]
    ends: Day | None = None

    @model_validator(mode="after")
    def _ends_when_ending(self) -> Self:
        if (self.state == "ending") != (self.ends is not None):
            raise ValueError("has an end exactly while it is ending")
        return self


class CompanyBody(Body):
    """A company on the portal. Each edit of the company increases `version`."""

    number: str
    name: str
    siren: str | None
    billing: BillingBody | None
    billing_ends: str | None = Field(json_schema_extra={"format": "date"}, description="R15.")
    version: Whole


class NewCompany(Body):
    """A company to be created."""

    number: Number
    name: Name
    siren: Siren | None = None


class CompanyEdit(Body):
    """The new name and SIREN of a company."""

    name: Name
    siren: Siren | None = None


class UserBody(Body):
    """A user on the portal. Each edit of the user increases `version`."""

    id: str
    email: str
    first_name: str
    last_name: str
    phone: str | None
    type: UserType
    billed: str = Field(description="The billed company (R4).")
    companies: list[str] = Field(description="Folder access, the billed company included (R5).")
    production: Production
    apps: list[GrantBody]
    status: Status
    version: Whole


class NewUser(Body):
    """A user to be created, with all fields of the portal's creation wizard."""

    email: Email
    first_name: Name
    last_name: Name
    phone: Phone | None = None
    type: UserType
    billed: Number
    companies: Numbers
    production: Production
    apps: Annotated[list[GrantBody], Field(max_length=500), _distinct("an application", "app")]
    status: Literal["to_validate", "active"] = Field(
        description="active: created immediately (R7); to_validate: created for later."
    )


class ProfileEdit(Body):
    """The new name, e-mail and phone of a user."""

    email: KeptEmail
    first_name: Name
    last_name: Name
    phone: KeptPhone | None = None


class BilledCompanyEdit(Body):
    """The company to which a user is billed after the change, and the user's new type (R2, R4)."""

    billed: Number
    type: UserType


class CompaniesEdit(Body):
    """The companies to which a user gets access (`add`) and loses access (`remove`), in one step (R12)."""

    add: Numbers = Field(default_factory=list)
    remove: Numbers = Field(default_factory=list)


class AppsEdit(Body):
    """The new family of a user's production applications, and changes to other applications (R3, R9, R10)."""

    production: Production | None = None
    grant: Apps = Field(default_factory=list)
    end: Apps = Field(default_factory=list, description="They leave on the day `ends`.")
    remove: Apps = Field(default_factory=list, description="They leave at once.")
    ends: Day | None = Field(default=None, description="The last day of the month, in Paris (R9, A12).")


class Nothing(Body):
    """The request body of an operation that takes no data: an empty object, or no body."""


def step_body(kind: type[Step]) -> type[Body]:
    """Return the model of the request body for a step of the class ``kind``: all fields of the step except
    ``company`` and ``user``, which the path of the request contains.
    """
    members: dict[str, Any] = {
        name: (_member(hint), ...)
        for name, hint in record_fields(kind).items()
        if name not in ("company", "user")
    }
    return create_model(f"{kind.__name__}Body", __base__=Body, __doc__=kind.__doc__, **members)


def _member(hint: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return Literal[tuple(str(choice) for choice in hint)]
    parts = get_args(hint)
    if NoneType in parts:
        return _member(next(part for part in parts if part is not NoneType)) | None
    return Apps if get_origin(hint) is tuple else {str: Name, date: Day}[hint]


class ReceiptBody(Body):
    """The receipt of a step: its verdict, and the resulting version of the company or user."""

    verdict: Literal["applied", "already"]
    id: str = Field(description="The user's; empty for companies.")
    version: Whole


class StoredReceiptBody(ReceiptBody):
    """The receipt of an earlier step, with its idempotency key."""

    key: str


class TermsBody(Body):
    """The terms of a firm (A9): its catalogue, its mail domains (R14) and its own staff (R1)."""

    # report only the first fault of each list, because to validate ten thousand bad addresses takes a second
    offers: Annotated[list[Name], Field(max_length=1_000), FailFast()]
    apps: Annotated[list[OtherApp], Field(max_length=1_000), FailFast()]
    email_domains: Annotated[list[Domain], Field(max_length=1_000), FailFast()]
    staff: Annotated[list[Email], Field(max_length=10_000), FailFast()]


class NewTerms(TermsBody):
    """The new terms of the firm, and the base URL of its activation links."""

    public_url: Annotated[
        str, Field(pattern="^(https?://[!-~]+)?$", max_length=500), AfterValidator(_page)
    ] = Field(description="Empty for none; http:// for this very machine only.")


class PortalBody(Body):
    """The identity and the settings of the portal, and the role and scopes of the API client."""

    portal: str = Field(description="Its identity for life.")
    stamp: str = Field(description="Another word after each change of the content.")
    counter: Whole = Field(description="How many writes have changed something so far.")
    today: str = Field(json_schema_extra={"format": "date"}, description="In Paris (A12).")
    operator: Role
    scopes: list[str]
    terms: TermsBody
    public_url: str


class CompanyPage(Body):
    """One page of the companies, in the order in which the companies were created."""

    items: list[CompanyBody]
    next: Whole | None = Field(description="What to ask for `after` this page; null after the last.")
    counter: Whole = Field(description="The change counter as this page was read.")


class UserPage(Body):
    """One page of the users, in the order in which the users were created."""

    items: list[UserBody]
    next: Whole | None = Field(description="What to ask for `after` this page; null after the last.")
    counter: Whole = Field(description="The change counter as this page was read.")


class LetterClaim(Body):
    """A request to claim one letter, with the earlier runs of the ledger that may have claimed the letter."""

    letter: Identifier
    runs: Annotated[list[Identifier], Field(max_length=MAX_RUNS)]


class Letters(Body):
    """The letters that a run claims before it sends them."""

    run: Identifier = Field(
        description="As whom it claims them: no two runs share this, not even of copies of one ledger. "
        "The word sent says that the letters are gone."
    )
    letters: Annotated[list[LetterClaim], Field(max_length=MAX_LETTERS), _distinct("a letter", "letter")]


class LetterHolders(Body):
    """For each letter, the run that has claimed it; "" if that run belongs to another ledger."""

    holders: dict[str, str]


class Invited(Body):
    """The users for whom activation links are requested."""

    users: Annotated[list[Identifier], Field(max_length=MAX_LETTERS)]


class Links(Body):
    """Activation links, by user id. A link is empty if the user needs no link or must not get one."""

    links: dict[str, str]


class NewLease(Body):
    """A run's request for the lease of its ledger. Only one run can hold the lease at a time."""

    owner: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
    holder: Identifier
    fence: Whole = Field(
        description="The ledger's own growing number of the run; at most 1,000,000 above the one before."
    )
    seconds: Annotated[int, Field(ge=1, le=86_400)]


class LeaseBody(Body):
    """The latest lease of a ledger."""

    ledger: str
    owner: str
    fence: Whole = Field(description="The number that this run's writes carry; may be higher than asked for.")
    expires: str = Field(json_schema_extra={"format": "date-time"})


class Token(Body):
    """An access token (RFC 6749, 5.1)."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: Whole
    scope: str


class TokenRequest(Body):
    """A form-encoded request for an access token (RFC 6749, 4.4); unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    grant_type: Literal["client_credentials"]
    scope: str = Field(default="", description="portal.read, portal.write or both, separated by a space.")
    client_id: str = Field(default="", description="Where HTTP Basic is not used.")
    client_secret: str = ""


class TokenError(Body):
    """The reason why a request for a token is refused (RFC 6749, 5.2)."""

    error: Literal[
        "invalid_request", "invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope"
    ]
    error_description: str


class Health(Body):
    """The state of the service."""

    status: Literal["ok"]


class ProblemBody(BaseModel):
    """The reason why a request is refused: problem details (RFC 9457)."""

    model_config = ConfigDict(strict=True, json_schema_extra={"additionalProperties": True})

    type: str = Field(pattern="^urn:provisioner:problem:", description="Of which kind it is.")
    title: str
    status: int
    detail: str
    rule: str | None = Field(default=None, description="The number of the rule that refuses: R2.")
    pointer: str | None = Field(default=None, description="Where in the body (RFC 6901).")
