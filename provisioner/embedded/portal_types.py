"""What the embedded portal exchanges with the HTTP service, and the service with its driver."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Generic, TypeVar

from provisioner.model import Operator, PortalTerms
from provisioner.portal import Call

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class AuthorisedCall:
    """One call, with the rights and the lease it is made under."""

    call: Call
    operator: Operator
    """The operator whose rights decide R7 and R8."""
    ledger: str = ""
    """The ledger that gets the receipt; "" for none, and then nothing is fenced."""
    fence: int = 0
    """The number of the lease that this ledger holds."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The latest run of a ledger on this portal."""

    ledger: str
    owner: str
    """The run's name for users."""
    fence: int
    """The number that the run's writes carry; it never decreases."""
    expires: datetime
    """Until when another run with this number or a lower one is refused; in the past once released."""
    holder: str = ""
    """The run's own identity, by which it can renew the lease; "" once released."""


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Consecutive companies or users, in the order of their creation."""

    items: tuple[R, ...]
    next: int | None
    """The value of ``after`` for the next page; None after the last one."""
    counter: int
    """The portal's change counter as this page was read."""


@dataclass(frozen=True, slots=True)
class PortalInfo:
    """The portal's identity and settings, as it reports them to one client."""

    portal: str
    """The portal's lasting identity."""
    stamp: str
    """A new value after each change of the content."""
    counter: int
    """How many writes have changed something so far."""
    today: date
    """The day in Paris (A12)."""
    operator: Operator
    """The operator whose rights the client has."""
    scopes: frozenset[str]
    """What an HTTP client may do; empty for a driver in this process."""
    terms: PortalTerms
    public_url: str
