"""``provisioner portal``: what the portal's other writers do.

The firm's staff, client administrators and the users themselves change a portal too; these
commands let a demonstration or a test be each of them. None of them is a way to provision. What staff does
is done on a portal behind its service too; what clients do, on the embedded one alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol, runtime_checkable

from provisioner.embedded.portal import SqlPortal
from provisioner.errors import Partial, PortalError, UsageError
from provisioner.manifest.fields import InvalidField
from provisioner.manifest.fields import phone as e164
from provisioner.model import Clock, PortalTerms, Status, User, email_key
from provisioner.operations.open import open_portal_for, read_snapshot, utc_now
from provisioner.planning.steps import CloseUser, ReopenUser, Step, ValidateUser
from provisioner.portal import Call, Portal, Receipt, Verdict
from provisioner.render.sanitize import printable, printable_json
from provisioner.terminal.console import Console
from provisioner.workspace.settings import load_workspace

STAFF_STEPS: dict[str, Callable[[str], Step]] = {
    "close": CloseUser,
    "reopen": ReopenUser,
    "validate": ValidateUser,
}

ELSEWHERE = "Use a workspace whose portal is a database: sqlite:///… or postgresql://…"
"""The remedy where what clients do cannot be played."""


@runtime_checkable
class Configurable(Protocol):
    """A portal whose terms its administrator sets from here."""

    def configure(self, terms: PortalTerms, public_url: str) -> None:
        """Bring catalogue, domains, staff and public address in line with the firm's."""
        ...


def configure(folder: Path, console: Console, *, clock: Clock = utc_now) -> int:
    """Bring the portal's catalogue, domains and staff in line with provisioner.yaml."""
    workspace = load_workspace(folder)
    with closing(open_portal_for(workspace, writing=True, clock=clock)) as portal:
        if not isinstance(portal, Configurable):
            raise UsageError("This portal's catalogue, domains and staff are not set from here.")
        portal.configure(workspace.terms, workspace.public_url)
    console.answer("The portal's catalogue, firm domains and staff are now those of provisioner.yaml.")
    return 0


def users(folder: Path, console: Console, *, as_json: bool = False, clock: Clock = utc_now) -> int:
    """Who is on the portal now."""
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


def staff(folder: Path, verb: str, email: str, console: Console, *, clock: Clock = utc_now) -> int:
    """A member of the firm closes, reopens or validates a user by hand."""
    with closing(open_portal_for(load_workspace(folder), writing=True, clock=clock)) as portal:
        user = _user(portal, email)
        step = STAFF_STEPS[verb](email_key(email))
        (receipt,) = portal.execute([Call("", step, user.id, user.version)])
    return _told(receipt, f"{verb}: {email}", console)


def client_creates(
    folder: Path,
    administrator: str,
    email: str,
    first_name: str,
    last_name: str,
    console: Console,
    *,
    clock: Clock = utc_now,
) -> int:
    """A client administrator creates a user, who then awaits validation (R11)."""
    with closing(_embedded(folder, clock)) as portal:
        creator = _user(portal, administrator)
        profile = User(
            email=email,
            first_name=first_name,
            last_name=last_name,
            phone=None,
            type=creator.type,
            billed=creator.billed,
            companies=creator.companies,
            production=creator.production,
            apps=frozenset(),
            status=Status.TO_VALIDATE,
        )
        receipt = portal.client_creates_user(creator.id, profile)
    return _told(receipt, f"{email}, created by {administrator}, awaits validation", console)


def user_changes(
    folder: Path,
    email: str,
    console: Console,
    *,
    new_email: str | None = None,
    new_phone: str | None = None,
    clock: Clock = utc_now,
) -> int:
    """A user changes his own e-mail or phone (*Mon compte*)."""
    try:
        number = e164(new_phone) if new_phone else new_phone
    except InvalidField as refused:
        raise UsageError(f"{new_phone} is no phone number: {refused.reason}.", refused.remedy) from refused
    with closing(_embedded(folder, clock)) as portal:
        receipt = portal.user_changes_profile(_user(portal, email).id, email=new_email, phone=number)
    return _told(receipt, f"{email} changed his own profile", console)


def requests_app(folder: Path, email: str, app: str, console: Console, *, clock: Clock = utc_now) -> int:
    """A client asks for an application in the Store (R10)."""
    with closing(_embedded(folder, clock)) as portal:
        receipt = portal.client_requests_app(_user(portal, email).id, app)
    return _told(receipt, f"{email} asks for {app}", console)


def activate(folder: Path, link: str, console: Console, *, clock: Clock = utc_now) -> int:
    """The reader of a welcome e-mail follows its link."""
    with closing(_embedded(folder, clock, "Open the link in a browser.")) as portal:
        used = portal.consume(link)
    if not used:
        raise UsageError("This link is used, expired, replaced by a newer one, or not of this portal.")
    console.answer("Activated.")
    return 0


def _embedded(folder: Path, clock: Clock, otherwise: str = ELSEWHERE) -> SqlPortal:
    portal = open_portal_for(load_workspace(folder), writing=True, clock=clock)
    if not isinstance(portal, SqlPortal):
        portal.close()
        raise UsageError("What clients do is played on the embedded portal alone.", otherwise)
    return portal


def _user(portal: Portal, email: str) -> User:
    user = portal.snapshot().state.users.get(email_key(email))
    if user is None:
        raise PortalError(f"Nobody has the e-mail {email} on this portal.", "provisioner portal users")
    return user


def _told(receipt: Receipt, what: str, console: Console) -> int:
    if receipt.verdict in (Verdict.APPLIED, Verdict.ALREADY):
        console.answer(f"Done: {printable(what)}.")
        return 0
    console.say(f"Refused: {printable(receipt.problem)}")
    return Partial.exit_code if receipt.verdict is Verdict.CONFLICT else PortalError.exit_code
