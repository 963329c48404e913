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
    """A call, the operator who makes it, and the lease of the ledger for which it is made."""

    call: Call
    operator: Operator
    """The operator whose rights the rules R7 and R8 check."""
    ledger: str = ""
    """The ledger for which the call is made, or "" if the call is made without a lease."""
    fence: int = 0
    """The fencing number of the lease under which the call is made."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease of a ledger on a portal. The lease identifies the latest run of that ledger."""

    ledger: str
    owner: str
    """The run's name, for messages to users."""
    fence: int
    """The fencing number, which the run sends with its writes. It never decreases within a ledger."""
    expires: datetime
    """The time when the lease ends. Before that time, another run gets the lease only if it asks for a
    fencing number that is higher than ``fence``."""
    holder: str = ""
    """The random id with which the run renews the lease; "" if the run has released the lease."""


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """One page of the list of companies or users, in the order of their creation."""

    items: tuple[R, ...]
    next: int | None
    """The parameter ``after`` for the request of the next page, or None on the last page."""
    counter: int
    """The value of the portal's change counter when the page was read."""


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
    """The operator whose rights are given to the client that asks for this information."""
    scopes: frozenset[str]
    """The scopes of the API client's access token; empty for a driver that does not use HTTP."""
    terms: PortalTerms
    public_url: str
