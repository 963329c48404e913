"""The drivers on which the contract suite runs.

To add a driver, add its factory and its features to ``DRIVERS``. The factory is
``def name(folder: Path) -> AbstractContextManager[World]``. It yields a world with an empty portal. The terms
of the portal are ``people.TERMS``, and its activation links begin with ``PUBLIC_URL``. After the test, the
factory stops everything that it started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

import pytest
from people import ESSENTIEL, NOW, TERMS
from shell_support import Clerk, copy_sample

from provisioner.model import Company, Operator, State, User, email_key
from provisioner.planning.steps import CloseUser, CompanyStep, CreateCompany, CreateUser, SetBilling, Step
from provisioner.portal import Call, Portal, Receipt, Verdict
from provisioner.storage.sqlite import SqliteDatabase

PUBLIC_URL = "https://example.com/activation"

RULES = "rules"
"""The feature: the portal itself enforces R1 to R5, R13, R14 and the catalogue. A refusal contains the code
of the broken rule."""
RIGHTS = "rights"
"""The feature: the rights depend on the operator for which the driver was opened (R7, R8)."""
MONTHS = "months"
"""The feature: ``World.set_clock`` sets the portal's own clock, on which R9, R15 and leases depend."""
VERSIONS = "versions"
"""The feature: a call with an outdated version is a conflict. Versions are numbered 1, 2, 3."""
RECEIPTS = "receipts"
"""The feature: a call that repeats the idempotency key of an applied call gets the receipt of that call."""
CLAIMS = "claims"
LEASES = "leases"
LINKS = "links"
"""The feature: the portal creates activation links, and ``World.others.consume`` uses a link."""
OTHERS = "others"
"""The feature: ``World.others`` makes changes as the clients and users of the portal do."""
WHOLE = "whole"
"""The feature: the portal can store every state, and ``project`` changes nothing."""

EVERYTHING = frozenset({RULES, RIGHTS, MONTHS, VERSIONS, RECEIPTS, CLAIMS, LEASES, LINKS, OTHERS, WHOLE})

SCIM = frozenset({RULES, RIGHTS, RECEIPTS, WHOLE})
"""The features of a SCIM server with provisioner's schemas. The server itself ends no application and no
billing after a month."""


class Others(Protocol):
    """The changes that clients and users make. ``SqlPortal`` and ``MemoryPortal`` provide these methods."""

    def client_creates_user(self, administrator_id: str, profile: User) -> Receipt: ...

    def user_changes_profile(
        self, user_id: str, *, email: str | None = None, phone: str | None = None
    ) -> Receipt: ...

    def client_requests_app(self, user_id: str, app: str) -> Receipt: ...

    def consume(self, link: str) -> bool: ...


@dataclass(slots=True)
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
    _opened: list[Portal] = field(default_factory=list)

    def portal(self, operator: Operator = Operator.PARTNER) -> Portal:
        """Open the portal for ``operator``. The portal stays open until the test ends."""
        portal = self.open(operator)
        self._opened.append(portal)
        return portal

    def close(self) -> None:
        """Close all portals that :meth:`portal` opened."""
        for portal in self._opened:
            portal.close()


@dataclass(frozen=True, slots=True)
class Driver:
    """A kind of portal: the factory of its worlds, and the features that it has (``can``)."""

    factory: str
    """The name of the factory as ``module:function``. The module is imported on first use."""
    can: frozenset[str]

    @contextmanager
    def world(self, folder: Path) -> Iterator[World]:
        """Yield a world with an empty portal."""
        module, _, name = self.factory.partition(":")
        make: Callable[[Path], AbstractContextManager[World]] = getattr(import_module(module), name)
        with make(folder) as world:
            try:
                yield world
            finally:
                world.close()


DRIVERS: Mapping[str, Driver] = {
    "memory": Driver("contract_support:memory", EVERYTHING),
    "sqlite": Driver("contract_support:sqlite", EVERYTHING),
    "postgresql": Driver("contract_support:postgresql", EVERYTHING),
    "http": Driver("http_worlds:http", EVERYTHING),
    "scim": Driver("scim_support:scim", SCIM),
    "scim without etag": Driver("scim_support:scim_without_etag", SCIM),
    "scim without filter": Driver("scim_support:scim_without_filter", SCIM),
    "scim without bulk": Driver("scim_support:scim_without_bulk", SCIM),
    "scim without patch": Driver("scim_support:scim_without_patch", SCIM),
}


def drivers(*needs: str) -> list[str]:
    """Return the names of the drivers that have all features in ``needs``, to parametrize a test."""
    return [name for name, driver in DRIVERS.items() if driver.can >= set(needs)]


class Hands:
    """A clock that stands still until a test sets it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def set(self, now: datetime) -> None:
        """Set the time of the clock."""
        self.now = now


@contextmanager
def memory(folder: Path) -> Iterator[World]:
    """Yield a world with a portal in memory."""
    from reference_portal import MemoryPortal

    hands = Hands()
    first = MemoryPortal(Operator.PARTNER, TERMS, PUBLIC_URL, hands)
    yield World(first.another, first, hands.set)


@contextmanager
def sqlite(folder: Path) -> Iterator[World]:
    """Yield a world with the embedded portal in an SQLite file."""
    from provisioner.embedded.portal import SqlPortal

    hands = Hands()

    def opened(operator: Operator) -> SqlPortal:
        return SqlPortal(SqliteDatabase(folder / "portal.db"), operator, TERMS, PUBLIC_URL, hands)

    others = opened(Operator.PARTNER)
    try:
        yield World(opened, others, hands.set, folder)
    finally:
        others.close()


@contextmanager
def postgresql(folder: Path) -> Iterator[World]:
    """Yield a world with the embedded portal in its own PostgreSQL schema."""
    from postgres_support import the_server

    from provisioner.embedded.portal import SqlPortal
    from provisioner.storage.postgres import PostgresDatabase

    hands, database = Hands(), the_server().place()

    def opened(operator: Operator) -> SqlPortal:
        return SqlPortal(database, operator, TERMS, PUBLIC_URL, hands)

    others = opened(Operator.PARTNER)
    # leases run by the server's clock, which stands still as well
    with patch.object(PostgresDatabase, "shared_time", lambda *_: hands().timestamp()):
        try:
            yield World(opened, others, hands.set)
        finally:
            others.close()


def story(world: World, folder: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """Run the samples on this portal with the program's own commands. Return the output of each command.

    The onboarding sample is planned and applied. Then an account is closed by hand. Then the sample of the
    next month is planned, applied, and planned again.
    """
    for module in ("pipeline", "session"):
        opened = import_module(f"provisioner.operations.{module}")
        patch.setattr(opened, "open_portal_for", lambda *words, **options: world.open(Operator.PARTNER))
    for name in ("onboarding", "next-month"):
        copy_sample(folder / name, name)
    first, second = (Clerk(folder / name, NOW) for name in ("onboarding", "next-month"))
    said = [first.plan(), first.apply()]
    require(Desk(world.portal()).do(CloseUser("ines.caron@boulangerie-martin.fr")))
    said += [second.plan(), second.apply(), second.plan()]
    assert [found.code for found in said] == [2, 0, 2, 0, 0], said
    return [found.out for found in said]


class Desk:
    """Shortcuts for tests on a portal. The part of an e-mail address before the @ names an account."""

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
