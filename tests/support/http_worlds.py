"""Portals over HTTP for the contract suite. They all share one real service process."""

from __future__ import annotations

import atexit
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from service_support import Served, prepare

from provisioner.embedded.portal import SqlPortal
from provisioner.model import Operator
from provisioner.portal import Access
from provisioner.portals.rest.driver import RestPortal
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import NOW, PUBLIC_URL, TERMS
from provisioner.testing.world import SettableClock, World


@cache
def the_service() -> Served:
    """Return the service process that all portals of this test process share."""
    memory = Path("/dev/shm")
    folder = TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="provisioner-")
    served = prepare(Path(folder.name), now=NOW, public_url=PUBLIC_URL)
    served.start()

    def end() -> None:
        served.kill()
        folder.cleanup()

    atexit.register(end)
    return served


def empty(path: Path) -> None:
    """Delete all rows of a portal except API clients, terms and facts. Its id and stamp get new values."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        for (name,) in names:
            if name not in ("api_client", "fact", "term") and not name.startswith("sqlite_"):
                connection.execute(f"DELETE FROM {name}")
        for fact in ("id", "stamp"):
            connection.execute("UPDATE fact SET value = ? WHERE name = ?", (os.urandom(16).hex(), fact))
        connection.execute("COMMIT")


def access(served: Served, role: str = "administrator", **more: object) -> Access:
    """Return what a driver needs to reach the service in one role. ``more`` replaces some of the values."""
    words: dict[str, object] = {
        "url": served.url, "root": served.folder, "operator": Operator.COLLABORATOR, "terms": TERMS,
        "public_url": "", "clock": lambda: NOW, "writing": True, "client_id": served.clients[role].id,
        "secret": served.clients[role].secret, **more,
    }  # fmt: skip
    return Access(**words)  # type: ignore[arg-type]


@contextmanager
def http(folder: Path) -> Iterator[World]:
    """Yield a world with an empty portal behind the shared service."""
    served, hands = the_service(), SettableClock()
    path = served.folder / "portal.db"
    empty(path)
    served.set_clock(NOW)
    others = SqlPortal(SqliteDatabase(path), Operator.PARTNER, TERMS, PUBLIC_URL, hands)
    # another test may have left those of another firm
    others.configure(TERMS, PUBLIC_URL)

    def set_clock(now: object) -> None:
        hands.set(now)  # type: ignore[arg-type]
        served.set_clock(now)  # type: ignore[arg-type]

    try:
        yield World(
            # one after the other, as the portal in memory does them
            lambda operator: RestPortal(access(served, str(operator), parallelism=1)),
            others,
            set_clock,
            served.folder,
            lambda: RestPortal(access(served, writing=False)),
        )
    finally:
        others.close()
