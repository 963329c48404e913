"""The portal service as a real process on a real socket, with one API client for each role."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from provisioner.embedded.portal import SqlPortal
from provisioner.embedded.server.api_clients import ApiClients
from provisioner.embedded.server.endpoints import READ, WRITE
from provisioner.model import Operator, PortalTerms
from provisioner.portal import Access
from provisioner.portals.registry import open_portal
from provisioner.testing.people import NOW, TERMS

ROOT = Path(__file__).resolve().parents[2]
PUBLIC_URL = "https://portail.example.fr/activer"
START_SECONDS = 30.0


class Credentials(NamedTuple):
    """The id and the secret of an API client."""

    id: str
    secret: str


def claims(run: str, *letters: str) -> dict[str, Any]:
    """Return the request body with which ``run`` claims these letters. The body names no earlier runs."""
    return {"run": run, "letters": [{"letter": letter, "runs": []} for letter in letters]}


@dataclass
class Served:
    """A process of the portal service, and the data that tests need to connect to it."""

    folder: Path
    database: str
    """The url of the portal's database."""
    clients: Mapping[str, Credentials]
    """The credentials of the API clients by role. The client ``reader`` has only the scope to read."""
    options: tuple[str, ...] = ()
    now: Path | None = None
    """The file from which the service reads the time; None for the system clock."""
    certified: bool = False
    program: tuple[str, ...] = ("-m", "provisioner")
    """The arguments of Python that start the service."""
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The address of the service."""
        return f"{'https' if self.certified else 'http'}://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the service wrote on stdout: its access log."""
        return (self.folder / "access.log").read_text(encoding="utf-8")

    @property
    def talk(self) -> str:
        """What the service wrote on stderr."""
        return (self.folder / "talk.txt").read_text(encoding="utf-8")

    def start(self) -> None:
        """Start the service and wait until it listens. A restarted service keeps its port."""
        words = [
            "-C",
            str(self.folder),
            "serve",
            "--url",
            self.database,
            "--port",
            str(self.port),
            *self.options,
        ]
        said = (self.folder / "talk.txt").stat().st_size if (self.folder / "talk.txt").exists() else 0
        with (
            open(self.folder / "access.log", "ab") as log,
            open(self.folder / "talk.txt", "ab") as talk,
        ):
            self.process = subprocess.Popen(
                [sys.executable, *self.program, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=talk,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder),
                     "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/support'}"},
            )  # fmt: skip
        until = time.monotonic() + START_SECONDS
        while True:
            found = re.search(r"listens at \S+:(\d+)\n", self.talk[said:])
            if found is not None:
                self.port = int(found[1])
                return
            assert self.process.poll() is None, self.talk
            assert time.monotonic() < until, self.talk
            time.sleep(0.01)

    def stop(self) -> int:
        """Send SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """Send SIGKILL; returns the exit code."""
        return self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=40)

    def set_clock(self, now: datetime) -> None:
        """Set the clock of the service."""
        assert self.now is not None
        beside = self.now.with_suffix(".new")
        beside.write_text(now.isoformat())
        os.replace(beside, self.now)

    def token(self, role: str = "administrator", scope: str = "") -> str:
        """Request an access token for the API client with this role."""
        answer = httpx2.post(
            f"{self.url}/oauth/token",
            data={"grant_type": "client_credentials", **({"scope": scope} if scope else {})},
            auth=(self.clients[role].id, self.clients[role].secret),
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def api(self, role: str = "administrator", scope: str = "") -> httpx2.Client:
        """Return an HTTP client with an access token of this role; close it after use."""
        return httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token(role, scope)}"}, timeout=30
        )

    def portal(self) -> SqlPortal:
        """Open the portal of the service directly in this process."""
        return opened(self.database, self.folder)


def opened(
    database: str, folder: Path, terms: PortalTerms = TERMS, public_url: str = PUBLIC_URL
) -> SqlPortal:
    """Open an embedded portal for writing. If it is missing, it is created with these terms."""
    portal = open_portal(
        Access(database, folder, Operator.ADMINISTRATOR, terms, public_url, lambda: NOW, writing=True)
    )
    assert isinstance(portal, SqlPortal)
    return portal


def prepare(
    folder: Path,
    *options: str,
    database: str = "sqlite:///portal.db",
    now: datetime | None = None,
    terms: PortalTerms = TERMS,
    public_url: str = PUBLIC_URL,
) -> Served:
    """Create a portal with an API client for each role and one for ``reader``. The service is not started."""
    portal = opened(database, folder, terms, public_url)
    clients = ApiClients(portal)
    credentials: dict[str, Credentials] = {}
    for name in [*map(str, Operator), "reader"]:
        role = Operator.ADMINISTRATOR if name == "reader" else Operator(name)
        scopes = frozenset({READ} if name == "reader" else {READ, WRITE})
        client, secret = clients.add(name, role, scopes, NOW)
        credentials[name] = Credentials(client.id, secret)
    portal.close()
    served = Served(folder, database, credentials, tuple(options))
    if now is not None:
        served.now = folder / "now"
        served.program = ("-m", "clocked_service", str(served.now))
        served.set_clock(now)
    return served


@contextmanager
def serving(folder: Path, *options: str, **more: Any) -> Iterator[Served]:
    """Run a service for this block. The arguments are those of :func:`prepare`."""
    served = prepare(folder, *options, **more)
    served.start()
    try:
        yield served
    finally:
        if served.process is not None and served.process.poll() is None:
            served.stop()
