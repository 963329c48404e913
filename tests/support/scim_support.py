"""scim2-server as a separate process, in several profiles.

One profile has all optional features, one has none, and each of the others lacks one feature. One process per
profile serves all tests. Each test has its own tenant: an empty server at its own path.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from http_support import Asked, http_server, reply
from needs import need_package
from scim_schemas import TABLE

from provisioner.model import Operator, PortalTerms
from provisioner.portal import Access
from provisioner.portals.scim.driver import ScimPortal, open_scim
from provisioner.portals.scim.path import COMPANY, CORE, USER
from provisioner.testing.people import PUBLIC_URL, TERMS
from provisioner.testing.world import SettableClock, World

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "schemas"
TOKEN = "token-of-the-tests"

FEATURES = ("etag", "filter", "bulk", "patch")
PROFILES: Mapping[str, frozenset[str]] = {
    "scim": frozenset(FEATURES),
    **{f"scim without {feature}": frozenset(FEATURES) - {feature} for feature in FEATURES},
    "scim with nothing": frozenset(),
}
"""The features of the server in each profile."""

_tenants = itertools.count(1)


def server_schemas(*, ours: bool = True) -> list[dict[str, Any]]:
    """Return the schemas of RFC 7643 and, if ``ours`` is True, also the schemas of the two extensions."""
    need_package("scim2_server")
    import scim2_server

    (folder,) = scim2_server.__path__
    core = json.loads((Path(folder) / "resources" / "default-schemas.json").read_text())
    return [*core, *(_published("scim-user.schema", "scim-company.schema") if ours else [])]


def published_schemas() -> list[dict[str, Any]]:
    """Return the schemas of RFC 7643 and of both extensions, as they are published."""
    schemas: list[dict[str, Any]] = json.loads((SCHEMAS / "scim-schemas.json").read_text())
    return schemas


def resource_types() -> list[dict[str, Any]]:
    """Return the resource types (RFC 7643, section 6) of a server with both extensions."""
    owners = {USER: ("User", "/Users"), COMPANY: ("Group", "/Groups")}
    return [
        {
            "schemas": [f"{CORE}ResourceType"],
            "id": name,
            "name": name,
            "endpoint": endpoint,
            "description": TABLE[urn][1],
            "schema": f"{CORE}{name}",
            "schemaExtensions": [{"schema": urn, "required": False}],
        }
        for urn, (name, endpoint) in owners.items()
    ]


def _published(*names: str) -> list[dict[str, Any]]:
    return [json.loads((SCHEMAS / f"{name}.json").read_text()) for name in names]


@cache
def server(profile: str, *, ours: bool = True, page: int = 1_000) -> str:
    """Start a server that runs until the tests end; returns its ``HOST:PORT``.

    ``page`` is the maximum number of results in a response. A second call with the same arguments returns the
    same server.
    """
    folder = Path(tempfile.mkdtemp(prefix="scim-"))
    can = PROFILES[profile]
    config: dict[str, Any] = {feature: {"supported": feature in can} for feature in FEATURES}
    config["schemas"] = ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"]
    config["bulk"] |= {"maxOperations": 100, "maxPayloadSize": 1048576}
    config["filter"]["maxResults"] = page
    config |= {"changePassword": {"supported": False}, "sort": {"supported": False}}
    files = {"config": config, "schemas": server_schemas(ours=ours)}
    program = str(Path(__file__).with_name("lasting_scim_server.py"))
    command = [sys.executable, program, "--dynamic-tenants", "--bearer-token", TOKEN]
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    command += ["--service-provider-config", str(folder / "config.json")]
    command += ["--schema", str(folder / "schemas.json")]
    if ours:
        command += ["--resource-type", str(SCHEMAS / "scim-resource-types.json")]
    return _started(command, folder)


def _started(command: list[str], folder: Path) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "stderr").open("wb") as talk:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=talk,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def end() -> None:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    atexit.register(end)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"Serving SCIM"), (folder / "stderr").read_text()
    return f"127.0.0.1:{port}"


def tenant(host: str) -> str:
    """Return the URL of a new, empty tenant of a server."""
    return f"http://{host}/tenant{next(_tenants)}/v2"


def access(
    url: str,
    *,
    operator: Operator = Operator.PARTNER,
    scim: Mapping[str, str] | None = None,
    clock: Any = None,
    writing: bool = True,
    terms: PortalTerms = TERMS,
    **more: Any,
) -> Access:
    """Return the parameters with which the driver opens the server at ``url``."""
    words = {"secret": TOKEN, "root": Path(), "public_url": PUBLIC_URL, **more}
    return Access(
        url=f"scim+{url}",
        operator=operator,
        terms=terms,
        clock=clock or SettableClock(),
        writing=writing,
        scim=scim or {},
        **words,
    )


@contextmanager
def opened(url: str, **words: Any) -> Iterator[ScimPortal]:
    """Open the portal on a server in the ``with`` block. ``words`` are parameters of :func:`access`."""
    portal = open_scim(access(url, **words))
    try:
        yield portal
    finally:
        portal.close()


def ask(url: str, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """Send one request to the server as another client; returns the status and the decoded body."""
    host, _, base = url.removeprefix("http://").partition("/")
    connection = HTTPConnection(host, timeout=20)
    connection.request(
        method,
        f"/{base}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/scim+json", **headers},
    )
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content) if content else None


def everything(url: str, kind: str) -> list[dict[str, Any]]:
    """Return all resources of a kind, such as ``Users``."""
    found: list[dict[str, Any]] = []
    while True:
        _, page = ask(url, "GET", f"/{kind}?startIndex={len(found) + 1}&count=1000")
        found += page.get("Resources", [])
        if len(found) >= page["totalResults"]:
            return found


@contextmanager
def between(url: str, answer: Callable[[Asked, Callable[[], bytes]], Any]) -> Iterator[str]:
    """Run a proxy in front of a server in the ``with`` block. Yield the URL of the proxy.

    ``answer`` gets each request and a function that forwards this request to the server.
    """
    host, _, base = url.removeprefix("http://").partition("/")

    def passed(asked: Asked) -> bytes:
        connection = HTTPConnection(host, timeout=20)
        kept = {"authorization", "content-type", "if-match", "accept"}
        headers = {name: said for name, said in asked.headers.items() if name in kept}
        connection.request(asked.method, asked.path, asked.content or None, headers)
        response = connection.getresponse()
        content = response.read()
        more = f"ETag: {etag}\r\n" if (etag := response.getheader("ETag")) else ""
        connection.close()
        return reply(response.status, content, more, kind="application/scim+json")

    with http_server(lambda asked: answer(asked, lambda: passed(asked))) as proxy:
        yield f"{proxy.url}/{base}"


@contextmanager
def world(profile: str) -> Iterator[World]:
    """Yield a world with an empty portal on a server with this profile."""
    url, hands = tenant(server(profile)), SettableClock()

    def open_(operator: Operator) -> ScimPortal:
        return open_scim(access(url, operator=operator, clock=hands))

    yield World(open_, set_clock=hands.set, read=lambda: open_scim(access(url, clock=hands, writing=False)))
