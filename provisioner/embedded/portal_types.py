"""The types that the embedded portal, its HTTP service and the service's driver exchange."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Generic, TypeVar

from provisioner.model import Operator, PortalTerms
from provisioner.portal import Call

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class AuthorisedCall:
    """A call, with the operator and the lease under which it is made."""

    call: Call
    operator: Operator
    """The operator whose rights the rules R7 and R8 check."""
    ledger: str = ""
    """The ledger for which the call is made. If it is "", no lease is checked."""
    fence: int = 0
    """The fencing number of the caller's lease for this ledger."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease of a ledger on a portal; it identifies the latest run of that ledger."""

    ledger: str
    owner: str
    """The name of the run that messages show to users."""
    fence: int
    """The fencing number that the run sends with its writes; it never decreases."""
    expires: datetime
    """The time until which a run without a higher number is refused. A release sets this time to now."""
    holder: str = ""
    """The random id of the run, with which it can renew the lease; "" after the release."""


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """One page of the list of companies or users, in the order of their creation."""

    items: tuple[R, ...]
    next: int | None
    """The value of ``after`` for the next page; None after the last one."""
    counter: int
    """The value of the portal's change counter at the time of this page."""


@dataclass(frozen=True, slots=True)
class PortalInfo:
    """The identity and settings of a portal, and the rights of the client that reads them."""

    portal: str
    """The permanent id of the portal."""
    stamp: str
    """A random value that is replaced at each change of the portal's content."""
    counter: int
    """The number of writes that have changed the portal's content so far."""
    today: date
    """The current date in Paris (A12)."""
    operator: Operator
    """The operator whose rights the client has."""
    scopes: frozenset[str]
    """The scopes of the API client's access token; empty for a driver in this process."""
    terms: PortalTerms
    public_url: str
