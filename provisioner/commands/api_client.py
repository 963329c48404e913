"""``provisioner api-client``: manage the API clients, which are the programs that may use the service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from provisioner.embedded.server.api_clients import ApiClients
from provisioner.embedded.server.endpoints import READ, WRITE
from provisioner.errors import UsageError
from provisioner.manifest import fields
from provisioner.model import Clock, Operator
from provisioner.operations.open import utc_now
from provisioner.operations.served import file_to_create, open_served, served_access
from provisioner.render.sanitize import escape_json, printable, printable_json
from provisioner.terminal.console import Console


def add(
    folder: Path,
    name: str,
    role: str,
    console: Console,
    *,
    url: str | None,
    read_only: bool,
    as_json: bool,
    clock: Clock = utc_now,
) -> int:
    """Add an API client, and print its id and its secret. The secret cannot be shown again."""
    try:
        plain = fields.name(name)
    except fields.InvalidField as refused:
        raise UsageError(
            f"{name!r} is no name for a client: {refused.reason}.",
            f"For example: provisioner api-client add pipeline --role {role}",
        ) from refused
    scopes = frozenset({READ} if read_only else {READ, WRITE})
    access = served_access(folder, url, clock=clock)
    missing = file_to_create(access)
    with closing(open_served(access)) as portal:
        client, secret = ApiClients(portal).add(plain, Operator(role), scopes, clock())
    if missing is not None:
        console.say(f"There was no portal there, so this made a new portal: {printable(str(missing))}")
    if as_json:
        words = {"id": client.id, "secret": secret, "name": plain, "role": role, "scopes": sorted(scopes)}
        console.answer(escape_json(json.dumps(words, ensure_ascii=False)))
        return 0
    console.answer(f"export PROVISIONER_PORTAL_CLIENT={client.id}")
    console.answer(f"export PROVISIONER_PORTAL_SECRET={secret}")
    console.say("The secret is shown this once; only a digest of it is kept.")
    return 0


def everyone(
    folder: Path, console: Console, *, url: str | None, as_json: bool, clock: Clock = utc_now
) -> int:
    """Print the API clients, each with its role, rights and state."""
    with _clients(folder, url, clock) as clients:
        found = clients.all()
    if as_json:
        words = [
            {
                "id": client.id,
                "name": client.name,
                "role": str(client.role),
                "scopes": sorted(client.scopes),
                "created": client.created,
                "disabled": client.disabled,
            }
            for client in found
        ]
        console.answer(printable_json(words))
        return 0
    for client in found:
        may = "reads and writes" if WRITE in client.scopes else "reads"
        state = f"disabled {client.disabled[:10]}" if client.disabled else f"since {client.created[:10]}"
        console.answer(f"{client.id}  {client.role:<17} {may:<17} {state:<20} {printable(client.name)}")
    if not found:
        advice = "To make one: provisioner api-client add NAME --role ROLE"
        console.answer(f"No client may log in yet. {console.in_folder(advice)}")
    return 0


def disable(folder: Path, name: str, console: Console, *, url: str | None, clock: Clock = utc_now) -> int:
    """Disable the API client whose name or id is ``name``."""
    with _clients(folder, url, clock) as clients:
        clients.disable(name, clock())
    console.answer(f"{printable(name)} can no longer log in, and its tokens are void.")
    return 0


@contextmanager
def _clients(folder: Path, url: str | None, clock: Clock) -> Iterator[ApiClients]:
    """Yield the API clients of the portal. If no portal exists, raise an error and do not create a portal."""
    with closing(open_served(replace(served_access(folder, url, clock=clock), making=False))) as portal:
        yield ApiClients(portal)
