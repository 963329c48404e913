"""The interface of the embedded portal to a driver in this process, or to the HTTP service."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Generic, Protocol, TypeVar

from provisioner.model import Company, Operator, PortalTerms, User
from provisioner.portal import Call, Receipt, Snapshot

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
class About:
    """The portal's identity and settings, at one instant."""

    portal: str
    stamp: str
    counter: int
    """How many writes have changed something so far."""
    today: date
    """In Paris (A12)."""
    terms: PortalTerms
    public_url: str


@dataclass(frozen=True, slots=True)
class PortalInfo:
    """What a portal says of itself to one client."""

    portal: str
    """Its identity for life."""
    stamp: str
    """A new value after each change of the content."""
    counter: int
    today: date
    operator: Operator
    """Whose rights the client has."""
    scopes: frozenset[str]
    terms: PortalTerms
    public_url: str


class LeaseHost(Protocol):
    """What a driver needs of a portal to write under a lease. Every method may be called from any thread."""

    def work(self, jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        """Do these calls in one transaction; a refused one does not affect the others.

        A call under a lease that is not the latest gets the verdict *fenced*.
        """
        ...

    def take_lease(self, ledger: str, owner: str, holder: str, fence: int, seconds: int) -> Lease:
        """Give this holder the ledger's lease, with the number ``fence`` or a higher one.

        The current holder keeps the lease and its number, for ``seconds`` more. Another holder with a
        *higher* number takes it at once; one with an equal or lower number takes it after its end, with the
        next number.
        Raises :class:`Locked` before that.
        """
        ...

    def drop_lease(self, ledger: str, holder: str) -> None:
        """End the lease if this holder has it. Its number stays, so that later ones are higher."""
        ...

    def claim_letters(
        self, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        """``Portal.claim`` under this lease. Raises :class:`LockLost` if it is not the latest."""
        ...


class PortalHost(LeaseHost, Protocol):
    """A portal that several clients use. Every method may be called from any thread: calls take turns."""

    def about(self) -> About:
        """The portal's identity and settings."""
        ...

    def snapshot(self) -> Snapshot:
        """:meth:`~provisioner.portal.Portal.snapshot`."""
        ...

    def page_of_companies(self, after: int = 0, limit: int = 1_000, since: int = 0) -> Page[Company]:
        """At most ``limit`` companies after this place that changed after the counter stood at ``since``."""
        ...

    def page_of_users(self, after: int = 0, limit: int = 1_000, since: int = 0) -> Page[User]:
        """The same for users."""
        ...

    def company(self, number: str) -> Company | None:
        """The company with this number."""
        ...

    def user(self, user_id: str) -> User | None:
        """The user with this id."""
        ...

    def receipt(self, key: str, ledger: str) -> Receipt | None:
        """:meth:`~provisioner.portal.Portal.receipts` for one key."""
        ...

    def lease(self, ledger: str) -> Lease | None:
        """The latest lease of a ledger, also after its end; None if there was none."""
        ...

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """:meth:`~provisioner.portal.Portal.activation_links`."""
        ...

    def invited(self, link: str) -> User | None:
        """The user who can set a password with this activation link or token; None if it does not work."""
        ...

    def consume(self, link: str) -> bool:
        """Use an activation link, once. False for a link that is used, expired, revoked or invented."""
        ...

    def configure(self, terms: PortalTerms, public_url: str) -> None:
        """Set the portal's catalogue, domains, staff and public address."""
        ...

    def client_creates_user(self, administrator_id: str, profile: User) -> Receipt:
        """R11: a client administrator creates a user, billed to their own company, to be validated."""
        ...

    def user_changes_profile(
        self, user_id: str, *, email: str | None = None, phone: str | None = None
    ) -> Receipt:
        """*Mon compte*: a user changes their own e-mail or phone ("" for none, None to keep it)."""
        ...

    def client_requests_app(self, user_id: str, app: str) -> Receipt:
        """The Store: an application the client asks for waits for the firm (R10)."""
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...
