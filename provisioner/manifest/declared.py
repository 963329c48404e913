"""What the manifests declare, as plain values: profiles and defaults merged in, everything normalised.

None means *not declared, so unmanaged* where a field's comment says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from provisioner.diagnostics import Source
from provisioner.model import Address, Billing, Production, UserType


class SourceMap(Protocol):
    """Returns the source of a value, such as :class:`~provisioner.yaml_source.document.Positions`."""

    @property
    def file(self) -> str:
        """The file, as shown to people."""
        ...

    def source(self, *path: str | int) -> Source:
        """Where the value at a path begins."""
        ...


class FixedSource(NamedTuple):
    """Whereabouts of one thing, looked up already."""

    place: Source

    @property
    def file(self) -> str:
        """The file."""
        return self.place.file

    def source(self, *path: str | int) -> Source:
        """The place."""
        return self.place


class Activation(StrEnum):
    """*Immédiatement* or *Ultérieurement*, the wizard's step 6."""

    IMMEDIATE = "immediate"
    LATER = "later"


class DeclaredCompany(NamedTuple):
    """A dossier as its manifest declares it."""

    number: str
    name: str
    siren: str | None
    """None: unmanaged."""
    billing: Billing | None
    """None: unmanaged."""
    places: SourceMap
    """Of the file; most are declared and nothing is said of them, so lines are counted when asked for."""

    @property
    def source(self) -> Source:
        """Where its number is written."""
        return self.places.source("company", "number")


class DeclaredUser(NamedTuple):
    """One client user as his manifest declares him."""

    email: str
    previous_key: str | None
    """``email_key`` of the address he was declared under before (``previous_email``)."""
    first_name: str
    last_name: str
    phone: str | None
    """E.164, or None for no phone; read only when ``phone_declared``."""
    phone_declared: bool
    type: UserType
    production: Production
    billed: str
    companies: frozenset[str] | None
    """With the billed company added; None: unmanaged (but for the billed company)."""
    apps: frozenset[str] | None
    """None: unmanaged."""
    immediate_removal: bool
    activation: Activation
    welcome: bool
    language: str
    closed: bool
    """``status: closed``: this account shall be closed."""
    places: SourceMap
    at: int
    """His position among the file's users."""

    @property
    def source(self) -> Source:
        """Where his e-mail is written."""
        return self.places.source("users", self.at, "email")


class CompanyReference(NamedTuple):
    """A dossier among somebody's ``companies``, and where it is written."""

    number: str
    email: str
    places: SourceMap
    path: tuple[str | int, ...] = ()

    @property
    def source(self) -> Source:
        """Where it is written."""
        return self.places.source(*self.path)


@dataclass(frozen=True, slots=True)
class Conflicts:
    """What the mappings of :class:`Declared` have no place for; the checks report it."""

    users: tuple[DeclaredUser, ...] = ()
    """Declared under an e-mail that is declared already (R1, R4)."""
    companies: tuple[DeclaredCompany, ...] = ()
    """Declared under a dossier number that is declared already (R13)."""
    mentions: tuple[CompanyReference, ...] = ()
    """Dossiers given to users and declared in no manifest."""
    incomplete: frozenset[str] = frozenset()
    """Dossiers some of whose users could not be read: of these it is not known who is missing."""
    unread: bool = False
    """Some file did not even give its dossier number: any number may be declared in it."""


@dataclass(frozen=True, slots=True)
class Declared:
    """Everything the manifests say: companies by dossier number, users by ``email_key``.

    ``digests`` has, for each manifest file, a SHA-256 over its data (not its comments or layout), so
    that a saved plan notices a changed manifest.
    """

    companies: Mapping[str, DeclaredCompany] = field(default_factory=dict)
    users: Mapping[str, DeclaredUser] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    remainder: Conflicts = field(default_factory=Conflicts)

    def source_of(self, address: Address) -> Source | None:
        """Where a resource is declared."""
        declared = (self.companies if address.kind == "company" else self.users).get(address.key)
        return declared.source if declared is not None else None
