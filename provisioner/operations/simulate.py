"""The other writers of a portal, played on an embedded one: the firm's staff, client administrators, users.

They let a demonstration or a test change a portal as other people do. None of them is a way to provision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from provisioner.embedded.portal import SqlPortal
from provisioner.errors import PortalError, UsageError
from provisioner.model import Clock, Status, User, email_key
from provisioner.operations.open import open_portal_for
from provisioner.planning.steps import CloseUser, ReopenUser, Step, ValidateUser
from provisioner.portal import Call, Portal, Receipt
from provisioner.workspace.settings import Workspace

STAFF_STEPS: dict[str, Callable[[str], Step]] = {
    "close": CloseUser,
    "reopen": ReopenUser,
    "validate": ValidateUser,
}

ELSEWHERE = "Use a workspace whose portal is a database: sqlite:///… or postgresql://…"
"""The remedy on any other portal."""


def staff_acts(workspace: Workspace, verb: str, email: str, clock: Clock) -> Receipt:
    """The staff closes, reopens or validates a user by hand; ``verb`` is a key of :data:`STAFF_STEPS`."""
    with _embedded(workspace, clock) as portal:
        user = _user(portal, email)
        step = STAFF_STEPS[verb](email_key(email))
        (receipt,) = portal.execute([Call("", step, user.id, user.version)])
    return receipt


def client_creates(
    workspace: Workspace, administrator: str, email: str, first_name: str, last_name: str, clock: Clock
) -> Receipt:
    """A client administrator creates a user like themselves, who then awaits validation (R11)."""
    with _embedded(workspace, clock) as portal:
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
        return portal.client_creates_user(creator.id, profile)


def user_changes(
    workspace: Workspace, email: str, new_email: str | None, new_phone: str | None, clock: Clock
) -> Receipt:
    """A user changes their own e-mail or phone (*Mon compte*); None leaves a field, "" empties the phone."""
    with _embedded(workspace, clock) as portal:
        return portal.user_changes_profile(_user(portal, email).id, email=new_email, phone=new_phone)


def requests_app(workspace: Workspace, email: str, app: str, clock: Clock) -> Receipt:
    """A user asks for an application in the Store (R10)."""
    with _embedded(workspace, clock) as portal:
        return portal.client_requests_app(_user(portal, email).id, app)


def activate(workspace: Workspace, link: str, clock: Clock) -> bool:
    """The reader of a welcome e-mail follows its link; False if the link is not valid any more."""
    with _embedded(workspace, clock, "Open the link in a browser.") as portal:
        return portal.consume(link)


@contextmanager
def _embedded(workspace: Workspace, clock: Clock, remedy: str = ELSEWHERE) -> Iterator[SqlPortal]:
    portal = open_portal_for(workspace, writing=True, clock=clock)
    try:
        if not isinstance(portal, SqlPortal):
            raise UsageError("simulate works on an embedded portal alone.", remedy)
        yield portal
    finally:
        portal.close()


def _user(portal: Portal, email: str) -> User:
    user = portal.snapshot().state.users.get(email_key(email))
    if user is None:
        raise PortalError(f"Nobody has the e-mail {email} on this portal.", "provisioner portal users")
    return user
