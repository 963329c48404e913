"""A portal as whoever hosts it for several clients needs it: the HTTP service, and the tests.

:class:`~provisioner.embedded.portal.SqlPortal` and :class:`~provisioner.portals.memory.MemoryPortal` are both
such hosts, and answer alike. Every method may be called from any thread: calls take turns.
"""

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
    """One call on behalf of a client."""

    call: Call
    operator: Operator
    """Whose rights decide R7 and R8."""
    ledger: str = ""
    """The ledger that gets the receipt; empty: none, and nothing is fenced."""
    fence: int = 0
    """The number of the lease that this ledger holds."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Which run of a ledger is the latest."""

    ledger: str
    owner: str
    """In words, for people."""
    fence: int
    """What the run's writes have to carry; never goes back."""
    expires: datetime
    """Until when another run with this number or a lower one is refused; past once it was let go."""
    holder: str = ""
    """By which the run is known when it asks again; empty once it was let go."""


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Some companies or users, in the order of their creation."""

    items: tuple[R, ...]
    next: int | None
    """What to ask for ``after`` this; None when there is no more."""
    counter: int
    """The portal's change counter as this page was read."""


@dataclass(frozen=True, slots=True)
class About:
    """What a portal says of itself, at one instant."""

    portal: str
    stamp: str
    counter: int
    """How many writes have changed something so far."""
    today: date
    """In Paris (A12)."""
    terms: PortalTerms
    public_url: str


class PortalHost(Protocol):
    """A portal that is served to several clients."""

    def about(self) -> About:
        """Its identity, its terms, its day and its counter."""
        ...

    def snapshot(self) -> Snapshot:
        """See :meth:`~provisioner.portal.Portal.snapshot`."""
        ...

    def page_of_companies(self, after: int = 0, limit: int = 1_000, since: int = 0) -> Page[Company]:
        """At most ``limit`` companies that were changed after the counter stood at ``since``."""
        ...

    def page_of_users(self, after: int = 0, limit: int = 1_000, since: int = 0) -> Page[User]:
        """Likewise users."""
        ...

    def company(self, number: str) -> Company | None:
        """The company as it stands."""
        ...

    def user(self, user_id: str) -> User | None:
        """The user as he stands."""
        ...

    def work(self, jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        """One transaction for all; a refused job leaves its neighbours alone. *fenced* is a verdict here."""
        ...

    def receipt(self, key: str, ledger: str) -> Receipt | None:
        """See :meth:`~provisioner.portal.Portal.receipts`, of one."""
        ...

    def lease(self, ledger: str) -> Lease | None:
        """The latest lease of a ledger, also when it has ended; None for one that never held any."""
        ...

    def take_lease(self, ledger: str, owner: str, holder: str, fence: int, seconds: int) -> Lease:
        """The lease that is now this holder's, with the number that he got: ``fence``, or a higher one.

        The holder who has it keeps it and its number, for ``seconds`` more. From another one a *higher*
        number takes it at once, an equal or lower one once it has ended, and then gets the next number.
        Raises :class:`Locked` while it has not.
        """
        ...

    def drop_lease(self, ledger: str, holder: str) -> None:
        """End it; nothing if it is not this holder's. Its number stays, so that later ones are higher."""
        ...

    def claim_letters(
        self, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        """See :meth:`~provisioner.portal.Portal.claim`. Raises :class:`LockLost` when it is fenced."""
        ...

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """See :meth:`~provisioner.portal.Portal.activation_links`."""
        ...

    def invited(self, link: str) -> User | None:
        """Whom this activation link (or its last part) lets set a password, if it still works."""
        ...

    def consume(self, link: str) -> bool:
        """Use an activation link, once. False for a link that is used, expired, revoked or invented."""
        ...

    def configure(self, terms: PortalTerms, public_url: str) -> None:
        """Bring the portal's catalogue, domains, staff and public address in line with the firm's."""
        ...

    def client_creates_user(self, administrator_id: str, profile: User) -> Receipt:
        """R11: a client administrator creates a user, billed to his own company, to be validated."""
        ...

    def user_changes_profile(
        self, user_id: str, *, email: str | None = None, phone: str | None = None
    ) -> Receipt:
        """*Mon compte*: a user changes his own e-mail or phone ("" for none)."""
        ...

    def client_requests_app(self, user_id: str, app: str) -> Receipt:
        """The Store: an application the client asks for waits for the firm (R10)."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
