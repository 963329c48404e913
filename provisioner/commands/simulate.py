"""``provisioner simulate``: change an embedded portal in the role of the firm's staff or a client user.

These commands are for demonstrations and tests. They are not for provisioning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from provisioner.embedded.portal import SqlPortal
from provisioner.errors import Partial, PortalError, UsageError
from provisioner.manifest.fields import InvalidField, phone
from provisioner.model import Clock, Status, User, email_key
from provisioner.operations.open import open_portal_for, utc_now
from provisioner.planning.steps import CloseUser, ReopenUser, Step, ValidateUser
from provisioner.portal import DONE, Call, Portal, Receipt, Verdict
from provisioner.render.sanitize import printable
from provisioner.storage.registry import DATABASES
from provisioner.terminal.console import Console
from provisioner.workspace.settings import load_workspace

STAFF_STEPS: dict[str, Callable[[str], Step]] = {
    "close": CloseUser,
    "reopen": ReopenUser,
    "validate": ValidateUser,
}


def staff(folder: Path, verb: str, email: str, console: Console, *, clock: Clock = utc_now) -> int:
    """Change a user's status in the role of the firm's staff. ``verb`` is a key of :data:`STAFF_STEPS`."""
    with _embedded_portal(folder, clock) as portal:
        user = _user(portal, email)
        step = STAFF_STEPS[verb](email_key(email))
        (receipt,) = portal.execute([Call("", step, user.id, user.version)])
    return _conclude(receipt, f"{verb}: {email}", console)


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
    """Create a user on behalf of the client user ``administrator``; the firm must validate the user (R11)."""
    with _embedded_portal(folder, clock) as portal:
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
    return _conclude(receipt, f"{email}, created by {administrator}, awaits validation", console)


def user_changes(
    folder: Path,
    email: str,
    console: Console,
    *,
    new_email: str | None = None,
    new_phone: str | None = None,
    clock: Clock = utc_now,
) -> int:
    """Change the e-mail and phone of a user, as in *Mon compte*. None keeps a value, "" deletes the phone.

    Raises :class:`UsageError` if both are None, because there is nothing to change.
    """
    if new_email is None and new_phone is None:
        raise UsageError("Say what the user changes.", "Add --email E-MAIL, --phone PHONE, or both.")
    try:
        number = phone(new_phone) if new_phone else new_phone
    except InvalidField as refused:
        raise UsageError(f"{new_phone} is no phone number: {refused.reason}.", refused.remedy) from refused
    with _embedded_portal(folder, clock) as portal:
        receipt = portal.user_changes_profile(_user(portal, email).id, email=new_email, phone=number)
    return _conclude(receipt, f"{email} changed their own profile", console)


def requests_app(folder: Path, email: str, app: str, console: Console, *, clock: Clock = utc_now) -> int:
    """Request an application in the Store as the user with this e-mail (R10)."""
    with _embedded_portal(folder, clock) as portal:
        receipt = portal.client_requests_app(_user(portal, email).id, app)
    return _conclude(receipt, f"{email} asks for {app}", console)


def activate(folder: Path, link: str, console: Console, *, clock: Clock = utc_now) -> int:
    """Activate an account with its activation link, in the role of the recipient of the welcome e-mail."""
    with _embedded_portal(folder, clock) as portal:
        activated = portal.consume(link)
    if not activated:
        raise UsageError("This link is used, expired, replaced by a newer one, or not of this portal.")
    console.answer("Activated.")
    return 0


@contextmanager
def _embedded_portal(folder: Path, clock: Clock) -> Iterator[SqlPortal]:
    """Open and yield the workspace's portal. Raises :class:`UsageError` if the portal is not embedded.

    Raises :class:`PortalError` if there is no portal yet, because only a run of apply makes one.
    """
    workspace = load_workspace(folder)
    # checked by the URL, because a portal of another kind may be out of reach or ask for a secret
    if workspace.settings.portal.url.partition(":")[0] not in DATABASES:
        raise UsageError(
            "simulate works on an embedded portal alone.",
            "Use a workspace whose portal is a database: sqlite:///… or postgresql://…",
        )
    with closing(open_portal_for(workspace, writing=True, making=False, clock=clock)) as portal:
        assert isinstance(portal, SqlPortal)
        yield portal


def _user(portal: Portal, email: str) -> User:
    user = portal.snapshot().state.users.get(email_key(email))
    if user is None:
        raise PortalError(f"No account of this portal has the e-mail {email}.", "provisioner portal users")
    return user


def _conclude(receipt: Receipt, action: str, console: Console) -> int:
    if receipt.verdict in DONE:
        console.answer(f"Done: {printable(action)}.")
        return 0
    console.say(f"Refused: {printable(receipt.problem)}")
    return Partial.exit_code if receipt.verdict is Verdict.CONFLICT else PortalError.exit_code
