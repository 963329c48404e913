"""The models of bodies, for validation and for the schemas of the OpenAPI document."""

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
"""The largest number of earlier runs that a claim of one letter names."""

LARGEST = 2**53 - 1
"""The largest integer that every JSON reader returns exactly."""

NO_CONTROL = r"^[^\x00-\x1f\x7f-\x9f]+$"
LEDGER = r"^[A-Za-z0-9._-]{1,100}$"


class Body(BaseModel):
    """Nothing but what is described, of exactly its type."""

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
    """Refuses a list with two equal values, or with two objects that have the same ``key``."""

    def check(values: list[Any]) -> list[Any]:
        if len({getattr(value, key) if key else value for value in values}) < len(values):
            raise ValueError(f"names {words} twice")
        return values

    return AfterValidator(check)


# the manifest's validators: an exported portal must be accepted as a manifest (law 9)
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
# a user's own e-mail and phone are sent back unchanged when only their name is corrected
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
    """Mode and offer (R6)."""

    mode: Literal["client", "firm"]
    offer: Name


class GrantBody(Body):
    """One application of a user; ``ends`` is the last day of one that is ending."""

    app: App
    state: Literal["requested", "active", "ending"]
    ends: Day | None = None

    @model_validator(mode="after")
    def _ends_when_ending(self) -> Self:
        if (self.state == "ending") != (self.ends is not None):
            raise ValueError("has an end exactly while it is ending")
        return self


class CompanyBody(Body):
    """A company as it stands."""

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
    """A company's new name and SIREN."""

    name: Name
    siren: Siren | None = None


class UserBody(Body):
    """A user as they stand."""

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
    """A user to be created, with everything that the wizard asks for."""

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
    """New name, e-mail and phone."""

    email: KeptEmail
    first_name: Name
    last_name: Name
    phone: KeptPhone | None = None


class BilledCompanyEdit(Body):
    """Another billed company, and the user's type there (R2, R4)."""

    billed: Number
    type: UserType


class CompaniesEdit(Body):
    """Dossiers given and withdrawn, at once (R12)."""

    add: Numbers = Field(default_factory=list)
    remove: Numbers = Field(default_factory=list)


class AppsEdit(Body):
    """The production family and the other applications (R3, R9, R10)."""

    production: Production | None = None
    grant: Apps = Field(default_factory=list)
    end: Apps = Field(default_factory=list, description="They leave on the day `ends`.")
    remove: Apps = Field(default_factory=list, description="They leave at once.")
    ends: Day | None = Field(default=None, description="The last day of the month, in Paris (R9, A12).")


class Nothing(Body):
    """An empty object, or no body at all."""


def step_body(kind: type[Step]) -> type[Body]:
    """The model of a body with the fields of a step, except its company or user."""
    members: dict[str, Any] = {
        name: (_member(hint), ...)
        for name, hint in record_fields(kind).items()
        if name not in ("company", "user")
    }
    return create_model(f"{kind.__name__}Body", __base__=Body, __doc__=kind.__doc__, **members)


def _member(hint: Any) -> Any:
    """The type of a body's member for a field of a step."""
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return Literal[tuple(str(choice) for choice in hint)]
    parts = get_args(hint)
    if NoneType in parts:
        return _member(next(part for part in parts if part is not NoneType)) | None
    return Apps if get_origin(hint) is tuple else {str: Name, date: Day}[hint]


class ReceiptBody(Body):
    """How a step ended."""

    verdict: Literal["applied", "already"]
    id: str = Field(description="The user's; empty for companies.")
    version: Whole


class StoredReceiptBody(ReceiptBody):
    """What an earlier step with this key was answered."""

    key: str


class TermsBody(Body):
    """What differs by firm (A9): catalogue, mail domains (R14), own staff (R1)."""

    # the first fault of each list is enough: to validate ten thousand bad addresses takes a second
    offers: Annotated[list[Name], Field(max_length=1_000), FailFast()]
    apps: Annotated[list[OtherApp], Field(max_length=1_000), FailFast()]
    email_domains: Annotated[list[Domain], Field(max_length=1_000), FailFast()]
    staff: Annotated[list[Email], Field(max_length=10_000), FailFast()]


class NewTerms(TermsBody):
    """The firm's terms, and the base of its activation links."""

    public_url: Annotated[
        str, Field(pattern="^(https?://[!-~]+)?$", max_length=500), AfterValidator(_page)
    ] = Field(description="Empty for none; http:// for this very machine only.")


class PortalBody(Body):
    """What the portal says of itself, and of the client that asks."""

    portal: str = Field(description="Its identity for life.")
    stamp: str = Field(description="Another word after each change of the content.")
    counter: Whole = Field(description="How many writes have changed something so far.")
    today: str = Field(json_schema_extra={"format": "date"}, description="In Paris (A12).")
    operator: Role
    scopes: list[str]
    terms: TermsBody
    public_url: str


class CompanyPage(Body):
    """Some companies, in the order of their creation."""

    items: list[CompanyBody]
    next: Whole | None = Field(description="What to ask for `after` this page; null after the last.")
    counter: Whole = Field(description="The change counter as this page was read.")


class UserPage(Body):
    """Some users, in the order of their creation."""

    items: list[UserBody]
    next: Whole | None = Field(description="What to ask for `after` this page; null after the last.")
    counter: Whole = Field(description="The change counter as this page was read.")


class LetterClaim(Body):
    """A letter, and the runs of the ledger that may have it so far."""

    letter: Identifier
    runs: Annotated[list[Identifier], Field(max_length=MAX_RUNS)]


class Letters(Body):
    """Letters that a run would send."""

    run: Identifier = Field(
        description="As whom it claims them: no two runs share this, not even of copies of one ledger. "
        "The word sent says that the letters are gone."
    )
    letters: Annotated[list[LetterClaim], Field(max_length=MAX_LETTERS), _distinct("a letter", "letter")]


class LetterHolders(Body):
    """By letter, the run that has it; empty if it is another ledger's."""

    holders: dict[str, str]


class Invited(Body):
    """Users to be invited."""

    users: Annotated[list[Identifier], Field(max_length=MAX_LETTERS)]


class Links(Body):
    """Their activation links; empty for who needs none or may have none."""

    links: dict[str, str]


class NewLease(Body):
    """A run that would hold the portal for its ledger."""

    owner: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
    holder: Identifier
    fence: Whole = Field(
        description="The ledger's own growing number of the run; at most 1,000,000 above the one before."
    )
    seconds: Annotated[int, Field(ge=1, le=86_400)]


class LeaseBody(Body):
    """Which run of a ledger is the latest."""

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
    """Client credentials (RFC 6749, 4.4), form-encoded; fields that are not known are left alone."""

    model_config = ConfigDict(extra="ignore")

    grant_type: Literal["client_credentials"]
    scope: str = Field(default="", description="portal.read, portal.write or both, separated by a space.")
    client_id: str = Field(default="", description="Where HTTP Basic is not used.")
    client_secret: str = ""


class TokenError(Body):
    """Why no token is given (RFC 6749, 5.2)."""

    error: Literal[
        "invalid_request", "invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope"
    ]
    error_description: str


class Health(Body):
    """How the service is."""

    status: Literal["ok"]


class ProblemBody(BaseModel):
    """A refusal (RFC 9457)."""

    model_config = ConfigDict(strict=True, json_schema_extra={"additionalProperties": True})

    type: str = Field(pattern="^urn:provisioner:problem:", description="Of which kind it is.")
    title: str
    status: int
    detail: str
    rule: str | None = Field(default=None, description="The number of the rule that refuses: R2.")
    pointer: str | None = Field(default=None, description="Where in the body (RFC 6901).")
