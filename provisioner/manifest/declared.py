"""The content of the manifests as normalized values, in which profiles and defaults are already merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from provisioner.diagnostics import Source
from provisioner.model import (
    Address,
    AppState,
    Billing,
    Company,
    Grant,
    Production,
    State,
    Status,
    User,
    UserType,
)

if TYPE_CHECKING:
    from provisioner.yaml_source.document import Positions


@lru_cache(maxsize=4096)
def active_grants(apps: tuple[str, ...]) -> frozenset[Grant]:
    """Return the applications as active grants. The cache returns the same set for all equal lists."""
    return frozenset(Grant(app, AppState.ACTIVE) for app in apps)


class Activation(StrEnum):
    """When the account is activated: in step 6 of the wizard, *Immédiatement* or *Ultérieurement*."""

    IMMEDIATE = "immediate"
    LATER = "later"


class DeclaredCompany(NamedTuple):
    """A company that a manifest declares."""

    number: str
    name: str
    siren: str | None
    """The SIREN, or None if the manifest leaves the SIREN unmanaged."""
    billing: Billing | None
    """The billing mode and the offer, or None if the manifest leaves the billing unmanaged."""
    positions: Positions
    """The positions of the keys and values of the manifest."""

    @property
    def source(self) -> Source:
        """The position of the company's number in the manifest."""
        return self.positions.source("company", "number")


class DeclaredUser(NamedTuple):
    """A client user that a manifest declares."""

    email: str
    previous_key: str | None
    """The ``email_key`` of ``previous_email``, or None if the manifest gives no ``previous_email``."""
    first_name: str
    last_name: str
    phone: str | None
    """The phone number in E.164, or None for no phone. Ignore this value if ``phone_declared`` is false."""
    phone_declared: bool
    type: UserType
    production: Production
    billed: str
    companies: frozenset[str] | None
    """All dossier numbers of the user, also the billed one, or None if the companies are unmanaged."""
    apps: tuple[str, ...] | None
    """The applications in the order of the manifest, or None if the manifest leaves them unmanaged."""
    immediate_removal: bool
    activation: Activation
    welcome: bool
    language: str
    closed: bool
    """True if the manifest declares ``status: closed``."""
    positions: Positions
    at: int
    """The user's index in the ``users:`` list of the manifest."""

    @property
    def source(self) -> Source:
        """The position of the user's e-mail in the manifest."""
        return self.positions.source("users", self.at, "email")


class CompanyReference(NamedTuple):
    """A dossier number in the ``companies:`` list of a user, a profile or ``defaults:``.

    ``email`` is the e-mail of the user or, for an inherited list, of the first user who inherits the list.
    """

    number: str
    email: str
    positions: Positions
    path: tuple[str | int, ...]

    @property
    def source(self) -> Source:
        """The position of the dossier number in its file."""
        return self.positions.source(*self.path)


@dataclass(frozen=True, slots=True)
class Declared:
    """Everything that the manifests declare: companies by dossier number, users by ``email_key``."""

    companies: Mapping[str, DeclaredCompany] = field(default_factory=dict)
    users: Mapping[str, DeclaredUser] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256 of each file's data, by file. A saved plan is applied only if all digests are unchanged."""
    repeated_companies: tuple[DeclaredCompany, ...] = ()
    """The companies whose dossier number an earlier file already declares (R13)."""
    repeated_users: tuple[DeclaredUser, ...] = ()
    """The users whose e-mail an earlier entry already declares (R1, R4)."""
    undeclared: tuple[CompanyReference, ...] = ()
    """The references to dossiers that no manifest declares."""
    incomplete: frozenset[str] = frozenset()
    """The dossier numbers of the manifests in which at least one user is invalid."""
    unread: bool = False
    """True if at least one manifest is so invalid that its dossier number is unknown."""

    def source_of(self, address: Address) -> Source | None:
        """Return the position of a resource's declaration, or None if no manifest declares the resource."""
        declared = (self.companies if address.kind == "company" else self.users).get(address.key)
        return declared.source if declared is not None else None

    def state(self) -> State:
        """Return the declarations as a state, so that the rules can check them. Unmanaged fields are empty.

        A user whose e-mail is already declared gets a different key, and so does not replace the first user.
        """
        users = {key: _account(user) for key, user in self.users.items()}
        users |= {f"{user.email}#{n}": _account(user) for n, user in enumerate(self.repeated_users)}
        companies = self.companies.items()
        return State(
            {number: Company(number, it.name, it.siren, it.billing) for number, it in companies}, users
        )


def _account(user: DeclaredUser) -> User:
    return User(
        user.email, user.first_name, user.last_name, user.phone, user.type, user.billed,
        user.companies or frozenset({user.billed}), user.production, active_grants(user.apps or ()),
        Status.CLOSED if user.closed else Status.ACTIVE,
    )  # fmt: skip
