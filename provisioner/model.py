"""The domain model: companies, users, and the state that contains them.

The current and the desired state are both of class :class:`State`, so their resources can be compared with
``!=``. All classes are immutable.
"""

from __future__ import annotations

import unicodedata
from calendar import monthrange
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

Clock = Callable[[], datetime]
"""A function that returns the current time, with a time zone."""


class Address(NamedTuple):
    """The identifier of one resource (``kind:key``), used in plans, errors, ``--target`` and history."""

    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.key}"


def company_address(number: str) -> Address:
    """Return the address of the company with this dossier number."""
    return Address("company", number)


def user_address(key: str) -> Address:
    """Return the address of a user. ``key`` is the :func:`email_key` of the e-mail in the manifests."""
    return Address("user", key)


class UserType(StrEnum):
    """The type of a user (in the portal's wizard: *Administrateur* or *Utilisateur standard*)."""

    ADMINISTRATOR = "administrator"
    STANDARD = "standard"


class Production(StrEnum):
    """The family of a user's production applications. A user has all three of exactly one family (R3)."""

    FULL = "full"
    CONSULTATION = "consultation"


PRODUCTION_APPS: dict[Production, tuple[str, str, str]] = {
    Production.FULL: ("Production Compta", "Production Fiscalité", "Production Paie"),
    Production.CONSULTATION: (
        "Production Compta (Consultation)",
        "Production Fiscalité (Consultation)",
        "Production Paie (Consultation)",
    ),
}


class Status(StrEnum):
    """The status of a user's account. An account can be closed, but never deleted."""

    TO_VALIDATE = "to_validate"
    ACTIVE = "active"
    CLOSED = "closed"


class AppState(StrEnum):
    """The state of an application that a user has or has requested."""

    REQUESTED = "requested"
    ACTIVE = "active"
    ENDING = "ending"


class BillingMode(StrEnum):
    """The party that is billed: the client or the firm (R6). provisioner does not set the payment method."""

    CLIENT = "client"
    FIRM = "firm"


class Operator(StrEnum):
    """The role of the person who runs ``apply``.

    Every role except *collaborator* may validate users (R7) and reopen accounts (R8).
    """

    ADMINISTRATOR = "administrator"
    PARTNER = "partner"
    CUSTOMER_MANAGER = "customer_manager"
    COLLABORATOR = "collaborator"

    @property
    def may_validate(self) -> bool:
        """True if the operator has the right to validate and to reopen users."""
        return self is not Operator.COLLABORATOR


class Billing(NamedTuple):
    """The billing mode and the offer of a company."""

    mode: BillingMode
    offer: str


class Grant(NamedTuple):
    """One application of one user. ``ends`` is the last day of use, set only if the state is *ending*."""

    app: str
    state: AppState
    ends: date | None = None


@dataclass(frozen=True, slots=True)
class Company:
    """A client company (*dossier*).

    ``billing_ends`` is the last day of billing if the company has lost its last open user (R15), otherwise
    None. Only the portal sets this value; a plan never changes it.
    """

    number: str
    name: str
    siren: str | None = None
    billing: Billing | None = None
    billing_ends: date | None = field(default=None, compare=False)
    version: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class User:
    """A client user. The portal assigns ``id`` and ``version``, which comparisons of users ignore."""

    email: str
    first_name: str
    last_name: str
    phone: str | None
    type: UserType
    billed: str
    companies: frozenset[str]
    production: Production
    apps: frozenset[Grant]
    status: Status
    id: str = field(default="", compare=False)
    version: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """The first and the last name, separated by a space."""
        return f"{self.first_name} {self.last_name}"

    @property
    def is_open(self) -> bool:
        """True if the account is active or awaits validation. R2 and R15 count both kinds of accounts."""
        return self.status is not Status.CLOSED

    @property
    def is_administrator(self) -> bool:
        """True if the user is an administrator, who sees every document of their companies."""
        return self.type is UserType.ADMINISTRATOR


Resource = Company | User


@dataclass(frozen=True, slots=True)
class State:
    """All companies, by dossier number, and all users, by key. The two mappings must not be modified."""

    companies: Mapping[str, Company] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)

    def get(self, address: Address) -> Resource | None:
        """Return the resource with this address, or None if the state does not contain it."""
        return self.companies.get(address.key) if address.kind == "company" else self.users.get(address.key)


@dataclass(frozen=True, slots=True)
class PortalTerms:
    """The data of one firm that the rules need: catalogue (A9), mail domains (R14) and staff (R1).

    ``offers`` and ``apps`` are the catalogue. ``staff`` holds the :func:`email_key` of each staff member's
    e-mail, and ``email_domains`` holds the firm's domains in lower case.
    """

    offers: frozenset[str] = frozenset()
    apps: frozenset[str] = frozenset()
    email_domains: frozenset[str] = frozenset()
    staff: frozenset[str] = frozenset()


class Managed(NamedTuple):
    """The ledger's record of a managed user.

    ``email`` and ``phone`` are the values that provisioner last applied. A value is None if provisioner never
    applied it; "" means no phone. A different value on the portal means that the user changed the value.
    ``created`` is true if provisioner created the account, and false if it adopted an existing account.
    """

    id: str
    email: str | None
    phone: str | None
    created: bool


class NoticeKind(StrEnum):
    """The kind of fact that a notice reports, such as a change that the user made."""

    ADOPTED = "adopted"
    UNMANAGED = "unmanaged"
    LEFT = "left_the_manifests"
    DRIFT = "changed_by_the_user"
    AWAITS_VALIDATION = "awaits_validation"
    AWAITS_REOPENING = "awaits_reopening"
    REQUESTED_APP = "application_requested"
    ENDING = "application_ending"
    BILLING_STOPS = "billing_stops"
    NO_WELCOME = "no_welcome"
    LETTER_OWED = "letter_owed"
    LETTER_UNKNOWN = "letter_unknown"
    LETTER_FAILED = "letter_failed"
    INTERRUPTED = "interrupted_run"


class Notice(NamedTuple):
    """A fact that the plan reports to the reviewer and leaves unchanged. ``on`` is the date of the fact."""

    kind: NoticeKind
    address: Address
    detail: str
    on: date | None = None


class Welcome(NamedTuple):
    """The settings of the welcome letter that a user receives if the plan activates the account."""

    language: str


@lru_cache(maxsize=4096)
def _domain_key(domain: str) -> str:
    if domain.isascii() and "xn--" not in domain:
        return domain
    import idna

    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        return domain


def email_key(email: str) -> str:
    """Return the e-mail address normalised for comparison (R1, A4): NFKC, case folded, domain in ASCII."""
    if email.isascii() and "xn--" not in email:
        return email.lower()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email).casefold())
    local, at, domain = folded.rpartition("@")
    return f"{local}{at}{_domain_key(domain)}"


PARIS = ZoneInfo("Europe/Paris")


def paris_date(now: datetime) -> date:
    """Return the date in Paris at the time ``now``, which must have a time zone (A12)."""
    return now.astimezone(PARIS).date()


def month_end(day: date) -> date:
    """Return the last day of the month of ``day`` (R9, R15)."""
    return day.replace(day=monthrange(day.year, day.month)[1])
