"""The content of the manifests as plain values: normalized, with profiles and defaults merged in."""

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
    """These applications as active grants. Users with the same applications share one set."""
    return frozenset(Grant(app, AppState.ACTIVE) for app in apps)


class Activation(StrEnum):
    """*Immédiatement* or *Ultérieurement*, the wizard's step 6."""

    IMMEDIATE = "immediate"
    LATER = "later"


class DeclaredCompany(NamedTuple):
    """A company as its manifest declares it."""

    number: str
    name: str
    siren: str | None
    """None: unmanaged."""
    billing: Billing | None
    """None: unmanaged."""
    positions: Positions
    """The positions in the manifest."""

    @property
    def source(self) -> Source:
        """The position of the number."""
        return self.positions.source("company", "number")


class DeclaredUser(NamedTuple):
    """One client user as declared by a manifest."""

    email: str
    previous_key: str | None
    """``email_key`` of the former address (``previous_email``)."""
    first_name: str
    last_name: str
    phone: str | None
    """E.164, or None for no phone; read only when ``phone_declared``."""
    phone_declared: bool
    type: UserType
    production: Production
    billed: str
    companies: frozenset[str] | None
    """Includes the billed company. None: unmanaged, except that the billed company is added."""
    apps: tuple[str, ...] | None
    """In the order of the manifest; None: unmanaged."""
    immediate_removal: bool
    activation: Activation
    welcome: bool
    language: str
    closed: bool
    """``status: closed`` is declared."""
    positions: Positions
    at: int
    """The index among the users of the manifest."""

    @property
    def source(self) -> Source:
        """The position of the e-mail."""
        return self.positions.source("users", self.at, "email")


class CompanyReference(NamedTuple):
    """A dossier number in the ``companies`` of a user or a profile."""

    number: str
    email: str
    positions: Positions
    path: tuple[str | int, ...]

    @property
    def source(self) -> Source:
        """The position of the reference."""
        return self.positions.source(*self.path)


@dataclass(frozen=True, slots=True)
class Declared:
    """Everything that the manifests declare: companies by dossier number, users by ``email_key``."""

    companies: Mapping[str, DeclaredCompany] = field(default_factory=dict)
    users: Mapping[str, DeclaredUser] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256 of the data of each file, for the precondition of a saved plan."""
    repeated_companies: tuple[DeclaredCompany, ...] = ()
    """Companies whose dossier number is declared by an earlier file (R13)."""
    repeated_users: tuple[DeclaredUser, ...] = ()
    """Users whose e-mail is declared by an earlier user (R1, R4)."""
    undeclared: tuple[CompanyReference, ...] = ()
    """References to dossiers that no manifest declares."""
    incomplete: frozenset[str] = frozenset()
    """Numbers of the dossiers that have an unreadable user."""
    unread: bool = False
    """True if the dossier number of a file is unreadable: the file may declare any number."""

    def source_of(self, address: Address) -> Source | None:
        """The position of a resource's declaration."""
        declared = (self.companies if address.kind == "company" else self.users).get(address.key)
        return declared.source if declared is not None else None

    def state(self) -> State:
        """The declarations as a state, for the rules. Unmanaged fields are empty.

        A second declaration of an e-mail is kept under a key of its own.
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
