"""Companies, users, and the state that holds them.

The current and the desired state are both a :class:`State`, so that a difference is ``!=``. Every value is
frozen.
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
"""Returns the current time, with its time zone."""


class Address(NamedTuple):
    """The name of one resource, used in plans, errors, ``--target`` and history."""

    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.key}"


def company_address(number: str) -> Address:
    """The address of a company, by its dossier number."""
    return Address("company", number)


def user_address(key: str) -> Address:
    """The address of a user, by :func:`email_key` of the e-mail the manifests declare."""
    return Address("user", key)


class UserType(StrEnum):
    """What the wizard calls *Administrateur* and *Utilisateur standard*."""

    ADMINISTRATOR = "administrator"
    STANDARD = "standard"


class Production(StrEnum):
    """The family of the three production applications, which is never mixed or partial (R3)."""

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
    """The state of a user's account; closing is the only removal."""

    TO_VALIDATE = "to_validate"
    ACTIVE = "active"
    CLOSED = "closed"


class AppState(StrEnum):
    """The state of a user's application; an application that the user does not have is not listed."""

    REQUESTED = "requested"
    ACTIVE = "active"
    ENDING = "ending"


class BillingMode(StrEnum):
    """Who is billed, the client or the firm (R6); the payment method is not provisioned."""

    CLIENT = "client"
    FIRM = "firm"


class Operator(StrEnum):
    """The role of the person who applies; all but a collaborator may validate (R7) and reopen (R8)."""

    ADMINISTRATOR = "administrator"
    PARTNER = "partner"
    CUSTOMER_MANAGER = "customer_manager"
    COLLABORATOR = "collaborator"

    @property
    def may_validate(self) -> bool:
        """True if the operator has the right to validate and to reopen users."""
        return self is not Operator.COLLABORATOR


class Billing(NamedTuple):
    """Billing mode and offer of a company."""

    mode: BillingMode
    offer: str


class Grant(NamedTuple):
    """One application of one user; ``ends`` is its last day, set while its state is *ending*."""

    app: str
    state: AppState
    ends: date | None = None


@dataclass(frozen=True, slots=True)
class Company:
    """A dossier. The portal sets ``billing_ends`` (R15), which is never planned."""

    number: str
    name: str
    siren: str | None = None
    billing: Billing | None = None
    billing_ends: date | None = field(default=None, compare=False)
    version: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class User:
    """A client user. ``id`` and ``version`` are the portal's and are not compared."""

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
        """First and last name."""
        return f"{self.first_name} {self.last_name}"

    @property
    def is_open(self) -> bool:
        """True unless the account is closed; an open account counts for R2 and R15 before it can log in."""
        return self.status is not Status.CLOSED

    @property
    def is_administrator(self) -> bool:
        """True if the user sees every document of their companies, bank and payroll included."""
        return self.type is UserType.ADMINISTRATOR


Resource = Company | User


@dataclass(frozen=True, slots=True)
class State:
    """Companies by dossier number, users by key. Treat the two mappings as read-only."""

    companies: Mapping[str, Company] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)

    def get(self, address: Address) -> Resource | None:
        """The resource at an address, or None."""
        return self.companies.get(address.key) if address.kind == "company" else self.users.get(address.key)


@dataclass(frozen=True, slots=True)
class PortalTerms:
    """What differs between firms: the catalogue (A9), the mail domains (R14) and the staff (R1).

    ``staff`` holds :func:`email_key` values, ``email_domains`` lower-case domains.
    """

    offers: frozenset[str] = frozenset()
    apps: frozenset[str] = frozenset()
    email_domains: frozenset[str] = frozenset()
    staff: frozenset[str] = frozenset()


class Managed(NamedTuple):
    """The ledger's record of a managed user.

    ``email`` and ``phone`` are the values that provisioner last applied (None: it never applied one; "": no
    phone), so that a user's own change is recognised. ``created`` is true if provisioner created the account,
    and false if it adopted it.
    """

    id: str
    email: str | None
    phone: str | None
    created: bool


class NoticeKind(StrEnum):
    """The kinds of facts that a plan reports and does not change."""

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
    """A fact about the portal that a reviewer should know and that the plan does not change."""

    kind: NoticeKind
    address: Address
    detail: str
    on: date | None = None


class Welcome(NamedTuple):
    """The welcome letter that a user gets if this plan activates the account."""

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
    """The key of an e-mail address (R1, A4): NFKC, case folded, the domain in its ASCII form."""
    if email.isascii() and "xn--" not in email:
        return email.lower()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email).casefold())
    local, at, domain = folded.rpartition("@")
    return f"{local}{at}{_domain_key(domain)}"


PARIS = ZoneInfo("Europe/Paris")


def paris_date(now: datetime) -> date:
    """The calendar day in Paris (A12) of a time with a time zone."""
    return now.astimezone(PARIS).date()


def month_end(day: date) -> date:
    """The last day of the month (R9, R15)."""
    return day.replace(day=monthrange(day.year, day.month)[1])
