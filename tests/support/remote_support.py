"""A workspace whose portal is a real service, with a relay between the two.

The relay records and alters the traffic.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import pytest
from boundaries import mailed, workspace
from crash_support import TWO_NEWCOMERS
from http_support import Asked, Server, forwarded, http_server
from http_worlds import empty, the_service
from service_support import Served

from provisioner import limits
from provisioner.embedded.portal import SqlPortal
from provisioner.model import Operator
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.workspace.settings import load_workspace

Spoil = Callable[[int, Asked, Callable[[], bytes]], bytes | Iterable[bytes]]
"""A function that returns the response to the n-th request.

Its third argument is a function that returns the portal's own response.
"""


def faithful(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes:
    """Return the response of the portal unchanged."""
    return answer()


@dataclass
class Firm:
    """A workspace, its portal service, and the relay between the two."""

    folder: Path
    served: Served
    relay: Server
    spoil: Spoil = faithful
    count: int = 0
    lock: Lock = field(default_factory=Lock)

    @property
    def users(self) -> dict[str, tuple[str, int]]:
        """The status and the version of each user, by e-mail."""
        with closing(sqlite3.connect(self.served.folder / "portal.db")) as connection:
            rows = connection.execute("SELECT email, status, version FROM client_user")
            return {email: (status, version) for email, status, version in rows}

    @property
    def counter(self) -> int:
        """The portal's change counter."""
        with closing(sqlite3.connect(self.served.folder / "portal.db")) as connection:
            row = connection.execute("SELECT value FROM fact WHERE name = 'counter'").fetchone()
            return int(row[0])

    @property
    def letters(self) -> Counter[str]:
        """The number of letters by recipient."""
        return mailed(self.folder)

    def spoilt(self, spoil: Spoil) -> None:
        """Alter the next responses with ``spoil``, and count the requests from 1 again."""
        self.count, self.spoil = 0, spoil


def settle_workspace(folder: Path, url: str, *, clients: str = TWO_NEWCOMERS) -> Path:
    """Create the onboarding sample with the manifests that match ``clients``. Its portal is at ``url``."""
    workspace(folder, clients=clients)
    settings = folder / "provisioner.yaml"
    text, changed = re.subn(r'(portal:\n  url: )"[^"]*"', rf'\1"{url}"', settings.read_text())
    assert changed == 1
    settings.write_text(text)
    return folder


@contextmanager
def firm(folder: Path, monkeypatch: pytest.MonkeyPatch, *, role: str = "administrator") -> Iterator[Firm]:
    """Create a workspace on an empty portal, with a relay that alters nothing at first."""
    served = the_service()
    served.set_clock(datetime.now(UTC))
    path = served.folder / "portal.db"
    empty(path)
    client = served.clients[role]
    monkeypatch.setenv("PROVISIONER_PORTAL_CLIENT", client.id)
    monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", client.secret)
    monkeypatch.setattr(limits, "RETRY_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(limits, "RETRY_JITTER_SECONDS", 0.001)

    def answer(asked: Asked) -> bytes | Iterable[bytes]:
        with mine.lock:
            mine.count += 1
            number = mine.count
        return mine.spoil(number, asked, lambda: forwarded(asked, served.port))

    with http_server(answer) as relay:
        mine = Firm(folder, served, relay)
        settle_workspace(folder, relay.url)
        loaded = load_workspace(folder)
        portal = SqlPortal(
            SqliteDatabase(path),
            Operator.ADMINISTRATOR,
            loaded.settings.terms,
            loaded.settings.portal.public_url,
            lambda: datetime.now(UTC),
        )
        portal.configure(loaded.settings.terms, loaded.settings.portal.public_url)
        portal.close()
        yield mine
