"""Empty portals of the built-in drivers, for the contract of portal drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from provisioner.embedded.read_only import ReadOnlyPortal
from provisioner.model import Operator
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import PUBLIC_URL, TERMS
from provisioner.testing.reference_portal import MemoryPortal
from provisioner.testing.world import SettableClock, World

MakeWorld = Callable[[Path], AbstractContextManager[World]]


@contextmanager
def memory(folder: Path) -> Iterator[World]:
    """Yield a world with a portal in memory."""
    hands = SettableClock()
    first = MemoryPortal(Operator.PARTNER, TERMS, PUBLIC_URL, hands)
    yield World(first.another, first, hands.set)


@contextmanager
def sqlite(folder: Path) -> Iterator[World]:
    """Yield a world with the embedded portal in an SQLite file."""
    from provisioner.embedded.portal import SqlPortal

    hands, database = SettableClock(), SqliteDatabase(folder / "portal.db")

    def opened(operator: Operator) -> SqlPortal:
        return SqlPortal(database, operator, TERMS, PUBLIC_URL, hands)

    others = opened(Operator.PARTNER)
    try:
        yield World(opened, others, hands.set, folder, partial(ReadOnlyPortal, database, TERMS, hands))
    finally:
        others.close()


@contextmanager
def postgresql(folder: Path) -> Iterator[World]:
    """Yield a world with the embedded portal in its own PostgreSQL schema."""
    from postgres_support import the_server

    from provisioner.embedded.portal import SqlPortal
    from provisioner.storage.postgres import PostgresDatabase

    hands, database = SettableClock(), the_server().place()

    def opened(operator: Operator) -> SqlPortal:
        return SqlPortal(database, operator, TERMS, PUBLIC_URL, hands)

    others = opened(Operator.PARTNER)
    # leases run by the server's clock, which stands still as well
    with patch.object(PostgresDatabase, "shared_time", lambda *_: hands().timestamp()):
        try:
            yield World(opened, others, hands.set, read=partial(ReadOnlyPortal, database, TERMS, hands))
        finally:
            others.close()


def parameters(worlds: Iterable[str]) -> list[Any]:
    """Return the names of worlds as parameters of a test. PostgreSQL is marked as external."""
    return [pytest.param(name, marks=[pytest.mark.external] * (name == "postgresql")) for name in worlds]


HOSTS: dict[str, MakeWorld] = {"memory": memory, "sqlite": sqlite, "postgresql": postgresql}
"""The portals that :class:`~provisioner.embedded.leased.LeasedPortal` is the base of, by name."""
