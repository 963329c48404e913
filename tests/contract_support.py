"""The drivers that the contract suite is run on.

A new driver is a line in ``DRIVERS``: its factory, and its features. The factory is
``def name(folder: Path) -> AbstractContextManager[World]``. It gives an empty portal under ``people.TERMS``
whose links begin with ``PUBLIC_URL``, and stops everything it started when it is left.
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
from provisioner.planning.steps import CloseUser, CreateCompany, CreateUser, EditCompany, SetBilling, Step
from provisioner.portal import Call, Portal, Receipt, Verdict
from provisioner.storage.sqlite import SqliteDatabase

PUBLIC_URL = "https://example.com/activation"

RULES = "rules"
"""It enforces R1 to R5, R13, R14 and the catalogue itself, and a refusal carries the rule's code."""
RIGHTS = "rights"
"""The rights depend on the operator the driver was opened for (R7, R8)."""
MONTHS = "months"
"""``World.set_clock`` moves the portal's own clock (R9, R15, leases)."""
VERSIONS = "versions"
"""A changed version is a conflict; versions are counted 1, 2, 3."""
RECEIPTS = "receipts"
"""A call with a key that was applied gets the same receipt again."""
CLAIMS = "claims"
LEASES = "leases"
LINKS = "links"
"""Activation links, which ``World.others`` can use."""
OTHERS = "others"
"""``World.others`` writes as the portal's other writers do."""
WHOLE = "whole"
"""It can hold every state: ``project`` changes nothing."""

EVERYTHING = frozenset({RULES, RIGHTS, MONTHS, VERSIONS, RECEIPTS, CLAIMS, LEASES, LINKS, OTHERS, WHOLE})

SCIM = frozenset({RULES, RIGHTS, RECEIPTS, WHOLE})
"""A SCIM server with provisioner's schemas. It is passive: nothing ends with the month by itself."""


class Others(Protocol):
    """The portal's other writers; ``SqlPortal`` and ``MemoryPortal`` provide them."""

    def client_creates_user(self, administrator_id: str, profile: User) -> Receipt: ...

    def user_changes_profile(
        self, user_id: str, *, email: str | None = None, phone: str | None = None
    ) -> Receipt: ...

    def client_requests_app(self, user_id: str, app: str) -> Receipt: ...

    def consume(self, link: str) -> bool: ...


@dataclass(slots=True)
class World:
    """One portal, and the ways to open it."""

    open: Callable[[Operator], Portal]
    """Opens the same portal once more, for another run or operator. The suite closes it."""
    others: Others | None = None
    set_clock: Callable[[datetime], None] | None = None
    """Sets the portal's clock, which stands at ``people.NOW``; without effect if it cannot be set."""
    files: Path | None = None
    """The folder of the portal's files, if it has any: no activation link may be stored there."""
    _opened: list[Portal] = field(default_factory=list)

    def portal(self, operator: Operator = Operator.PARTNER) -> Portal:
        """Open the portal for this operator until the test ends."""
        portal = self.open(operator)
        self._opened.append(portal)
        return portal

    def close(self) -> None:
        """Close all that was opened."""
        for portal in self._opened:
            portal.close()


@dataclass(frozen=True, slots=True)
class Driver:
    """A kind of portal."""

    factory: str
    """``module:function``, imported on first use."""
    can: frozenset[str]

    @contextmanager
    def world(self, folder: Path) -> Iterator[World]:
        """An empty portal."""
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
    """The drivers with all of these features: what a promise is parametrized with."""
    return [name for name, driver in DRIVERS.items() if driver.can >= set(needs)]


class Hands:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def set(self, now: datetime) -> None:
        """Set the time."""
        self.now = now


@contextmanager
def memory(folder: Path) -> Iterator[World]:
    """The portal in memory."""
    from reference_portal import MemoryPortal

    hands = Hands()
    first = MemoryPortal(Operator.PARTNER, TERMS, PUBLIC_URL, hands)
    yield World(first.another, first, hands.set)


@contextmanager
def sqlite(folder: Path) -> Iterator[World]:
    """The embedded portal in a file."""
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
    """The embedded portal in its own PostgreSQL schema."""
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
    """Run the samples on this portal with the program's own commands; returns the texts of the plans.

    The onboarding is planned and applied, an account is closed by hand, the next month is planned, applied
    and planned again.
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
    """A portal, with accounts named by the part of their e-mail before the @."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal

    @property
    def state(self) -> State:
        """The portal's state."""
        return self.portal.snapshot().state

    def find(self, name: str) -> User:
        """The account with this e-mail, or this part before the @."""
        return self.state.users[name if "@" in name else f"{name}@example.fr"]

    def call(self, step: Step, key: str = "") -> Call:
        """The call for a step on the resource's current version."""
        if isinstance(step, CreateCompany | CreateUser):
            return Call(key, step)
        state = self.state
        if isinstance(step, EditCompany | SetBilling):
            company = state.companies.get(step.company)
            return Call(key, step, "", company.version if company else 0)
        someone = state.users[step.user]
        return Call(key, step, someone.id, someone.version)

    def do(self, step: Step, key: str = "") -> Receipt:
        """The receipt of one step."""
        return self.portal.execute([self.call(step, key)])[0]

    def company(self, wanted: Company) -> None:
        """Create a company, with its billing."""
        require(self.do(CreateCompany(wanted.number, wanted.name, wanted.siren)))
        if wanted.billing is not None:
            require(self.do(SetBilling(wanted.number, wanted.billing)))

    def create(self, someone: User, key: str = "") -> Receipt:
        """Create a user, with the companies it needs."""
        for number in sorted(someone.companies - self.state.companies.keys()):
            self.company(Company(number, f"Company {number}", billing=ESSENTIEL))
        return self.do(CreateUser(email_key(someone.email), someone), key)


def require(receipt: Receipt) -> None:
    """Assert that the step was applied."""
    assert receipt.verdict is Verdict.APPLIED, receipt
