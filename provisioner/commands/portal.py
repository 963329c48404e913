"""``provisioner portal``: list the users of a portal, and set its catalogue, domains and staff."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Protocol, runtime_checkable

from provisioner.errors import UsageError
from provisioner.model import Clock, PortalTerms
from provisioner.operations.open import open_portal_for, read_snapshot, utc_now
from provisioner.render.sanitize import printable, printable_json
from provisioner.terminal.console import Console
from provisioner.workspace.settings import load_workspace


@runtime_checkable
class Configurable(Protocol):
    """A portal whose terms (catalogue, firm's mail domains and staff) can be set by this program."""

    def configure(self, terms: PortalTerms, public_url: str) -> None:
        """Set the portal's catalogue, firm domains and staff (``terms``) and its public URL."""
        ...


def configure(folder: Path, console: Console, *, clock: Clock = utc_now) -> int:
    """Set the portal's catalogue, domains and staff to those of provisioner.yaml."""
    workspace = load_workspace(folder)
    with closing(open_portal_for(workspace, writing=True, clock=clock)) as portal:
        if not isinstance(portal, Configurable):
            raise UsageError("This portal's catalogue, domains and staff are not set from here.")
        portal.configure(workspace.settings.terms, workspace.settings.portal.public_url)
    console.answer("The portal's catalogue, firm domains and staff are now those of provisioner.yaml.")
    return 0


def users(folder: Path, console: Console, *, as_json: bool = False, clock: Clock = utc_now) -> int:
    """Print the users of the portal, sorted by billed company and e-mail."""
    state = read_snapshot(load_workspace(folder), clock).state
    everyone = sorted(state.users.values(), key=lambda user: (user.billed, user.email))
    if as_json:
        rows = [
            {
                "email": user.email,
                "name": user.name,
                "type": user.type,
                "status": user.status,
                "billed": user.billed,
                "companies": sorted(user.companies),
                "production": user.production,
                "apps": {grant.app: grant.state for grant in sorted(user.apps, key=lambda g: g.app)},
            }
            for user in everyone
        ]
        console.answer(printable_json(rows))
        return 0
    for user in everyone:
        status = str(user.status).replace("_", " ")
        console.answer(f"{user.billed:<10} {printable(user.email):<44} {user.type:<14} {status}")
    if not everyone:
        console.answer("Nobody is on this portal yet.")
    return 0
