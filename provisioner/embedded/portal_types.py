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
    """A call with the operator who makes the call, and with the lease of the caller's ledger."""

    call: Call
    operator: Operator
    """The operator whose rights the rules R7 and R8 check."""
    ledger: str = ""
    """The ledger for which the call is made; "" if no lease is checked."""
    fence: int = 0
    """The fencing number of the caller's lease for this ledger."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease of a ledger on a portal. The lease identifies the latest run of that ledger."""

    ledger: str
    owner: str
    """The run's name, for messages to users."""
    fence: int
    """The fencing number that the run sends with its writes. The number never decreases."""
    expires: datetime
    """The time when the lease ends. Until then, another run needs a higher number to get the lease."""
    holder: str = ""
    """The random id with which the run renews the lease; "" after the release of the lease."""


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """One page of the list of companies or users, in the order of their creation."""

    items: tuple[R, ...]
    next: int | None
    """The value of the parameter ``after`` in the request for the next page; None on the last page."""
    counter: int
    """The value of the portal's change counter at the time of this page."""


@dataclass(frozen=True, slots=True)
class PortalInfo:
    """The identity and settings of a portal, and the rights of the client that asks for this information."""

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
    """The scopes of the API client's access token; empty for a driver that does not use HTTP."""
    terms: PortalTerms
    public_url: str
