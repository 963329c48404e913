"""What the promises need: an empty portal to test, the features of its driver, and shortcuts for steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from provisioner.model import Company, Operator, State, User, email_key
from provisioner.planning.steps import CompanyStep, CreateCompany, CreateUser, SetBilling, Step
from provisioner.portal import Access, Call, Portal, Receipt, Verdict
from provisioner.portals.registry import open_portal
from provisioner.testing.people import ESSENTIEL, NOW, PUBLIC_URL, TERMS, user

F = TypeVar("F", bound=Callable[..., object])

VERSIONS = "versions"
"""The feature: a call with an outdated version is a conflict (:attr:`Capabilities.versions`)."""
COUNTED = "counted"
"""The feature: the versions of a resource are 1, 2, 3 and so on."""
RECEIPTS = "receipts"
"""The feature: a repeated key gets the receipt of its first call (:attr:`Capabilities.receipts`)."""
CLAIMS = "claims"
"""The feature: the portal stores which run sends a letter (:attr:`Capabilities.claims`)."""
LEASES = "leases"
"""The feature: the portal refuses the writes of earlier runs (:attr:`Capabilities.leases`)."""
LINKS = "activation_links"
"""The feature: the portal creates activation links (:attr:`Capabilities.activation_links`)."""
RULES = "rules"
"""The feature: the portal itself enforces R1 to R5, R13, R14 and the catalogue. A refusal contains the code
of the broken rule."""
RIGHTS = "rights"
"""The feature: the rights depend on the operator for which the driver was opened (R7, R8)."""
MONTHS = "months"
"""The feature: ``World.set_clock`` sets the portal's own clock, on which R9, R15 and leases depend."""
OTHERS = "others"
"""The feature: ``World.others`` makes changes as the clients and users of the portal do."""
WHOLE = "whole"
"""The feature: the portal can store every state, and ``project`` changes nothing."""
READING = "reading"
"""The feature: ``World.read`` opens the portal for reading only."""
CREATING = "creating"
"""The feature: ``World.open`` creates the portal. Until then, ``World.read`` finds an empty portal."""

DECLARED = (VERSIONS, RECEIPTS, CLAIMS, LEASES, LINKS)
"""The features that a driver also declares in :meth:`Portal.capabilities`, under the same names."""

EVERYTHING = frozenset({*DECLARED, COUNTED, RULES, RIGHTS, MONTHS, OTHERS, WHOLE, READING, CREATING})


def needs(*features: str) -> Callable[[F], F]:
    """Mark a promise as one that only drivers with all these features make."""

    def marked(promise: F) -> F:
        setattr(promise, "needs", frozenset(features))  # noqa: B010 - mypy knows no such attribute
        return promise

    return marked


class Others(Protocol):
    """The changes that clients and users make. ``MemoryPortal`` provides these methods."""

    def client_creates_user(self, administrator_id: str, profile: User) -> Receipt: ...

    def user_changes_profile(
        self, user_id: str, *, email: str | None = None, phone: str | None = None
    ) -> Receipt: ...

    def client_requests_app(self, user_id: str, app: str) -> Receipt: ...

    def consume(self, link: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class World:
    """A portal for a test, and the functions to open it and to set its clock."""

    open: Callable[[Operator], Portal]
    """The function that opens the same portal for an operator. The suite closes each opened portal."""
    others: Others | None = None
    set_clock: Callable[[datetime], None] | None = None
    """The function that sets the portal's clock, which starts at ``people.NOW``. None if the portal has no
    such clock."""
    files: Path | None = None
    """The folder of the portal's files, or None if the portal has no folder of its own. A test checks that
    the files contain no activation link."""
    read: Callable[[], Portal] | None = None
    """The function that opens the portal for reading only."""
    _opened: list[Portal] = field(default_factory=list)

    def portal(self, operator: Operator = Operator.PARTNER) -> Portal:
        """Open the portal for ``operator``. The portal stays open until the test ends."""
        return self._kept(self.open(operator))

    def reader(self) -> Portal:
        """Open the portal for reading only. The portal stays open until the test ends."""
        assert self.read is not None
        return self._kept(self.read())

    def _kept(self, portal: Portal) -> Portal:
        self._opened.append(portal)
        return portal

    def close(self) -> None:
        """Close all portals that :meth:`portal` and :meth:`reader` opened."""
        for portal in self._opened:
            portal.close()


class SettableClock:
    """A clock that stands still until a test sets it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def set(self, now: datetime) -> None:
        """Set the time of the clock."""
        self.now = now


class Promises:
    """The base class of the promises: the portal under test, and the fixtures."""

    url: str = ""
    """The URL of a portal that does not exist yet, relative to the temporary folder of each test. The portal
    is created when it is opened for writing. Override :meth:`make_world` for any other portal."""
    features: frozenset[str] = frozenset()
    """The features of the driver. The promises that need other features are not tested."""

    def make_world(self, folder: Path) -> AbstractContextManager[World]:
        """Return a context manager that yields a world with an empty portal, and removes it at the end.

        The terms of the portal are ``people.TERMS``, its clock starts at ``people.NOW``, and its activation
        links begin with ``people.PUBLIC_URL``.
        """
        clock = SettableClock()
        access = partial(Access, self.url, folder, terms=TERMS, public_url=PUBLIC_URL, clock=clock)
        world = World(
            lambda operator: open_portal(access(operator=operator, writing=True)),
            set_clock=clock.set,
            files=folder,
            read=lambda: open_portal(access(operator=Operator.PARTNER, writing=False)),
        )
        return nullcontext(world)

    @contextmanager
    def opened(self, folder: Path) -> Iterator[World]:
        """Yield the world of :meth:`make_world`, and close the portals that were opened in it."""
        with self.make_world(folder) as world:
            try:
                yield world
            finally:
                world.close()

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[World]:
        """Return a world with an empty portal."""
        folder = tmp_path / "world"
        folder.mkdir()
        with self.opened(folder) as world:
            yield world

    @pytest.fixture
    def desk(self, world: World) -> Desk:
        """A desk: company 1 has administrator ann and standard user bob, company 2 has administrator cid."""
        desk = Desk(world.portal())
        for someone in (user("ann"), user("bob", type="standard"), user("cid", "2")):
            require(desk.create(someone))
        return desk


class Desk:
    """Shortcuts for tests on a portal. Tests name an account by the part of its e-mail before the @."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal

    @property
    def state(self) -> State:
        """The current state of the portal."""
        return self.portal.snapshot().state

    def find(self, name: str) -> User:
        """Return the account with the e-mail address ``name``, or with ``name`` before ``@example.fr``."""
        return self.state.users[name if "@" in name else f"{name}@example.fr"]

    def call(self, step: Step, key: str = "") -> Call:
        """Return the call for a step, with the current version of the resource that the step changes."""
        if isinstance(step, CreateCompany | CreateUser):
            return Call(key, step)
        state = self.state
        if isinstance(step, CompanyStep):
            company = state.companies.get(step.company)
            return Call(key, step, "", company.version if company else 0)
        someone = state.users[step.user]
        return Call(key, step, someone.id, someone.version)

    def do(self, step: Step, key: str = "") -> Receipt:
        """Execute one step and return its receipt."""
        return self.portal.execute([self.call(step, key)])[0]

    def company(self, wanted: Company) -> None:
        """Create a company and set its billing, if any."""
        require(self.do(CreateCompany(wanted.number, wanted.name, wanted.siren)))
        if wanted.billing is not None:
            require(self.do(SetBilling(wanted.number, wanted.billing)))

    def create(self, someone: User, key: str = "") -> Receipt:
        """Create a user. The missing companies of the user are created first."""
        for number in sorted(someone.companies - self.state.companies.keys()):
            self.company(Company(number, f"Company {number}", billing=ESSENTIEL))
        return self.do(CreateUser(email_key(someone.email), someone), key)


def require(receipt: Receipt) -> None:
    """Assert that the step was applied."""
    assert receipt.verdict is Verdict.APPLIED, receipt


def verdict(receipt: Receipt) -> tuple[str, str]:
    """Return the verdict and the code of a receipt."""
    return str(receipt.verdict), receipt.code


def same_state(found: State, expected: State) -> None:
    """Assert that two states contain the same companies and the same users, in any order."""
    assert dict(found.companies) == dict(expected.companies)
    assert dict(found.users) == dict(expected.users)
