"""``provisioner simulate``: an embedded portal, changed as its other writers change it."""

from __future__ import annotations

from pathlib import Path

from provisioner.errors import Partial, PortalError, UsageError
from provisioner.manifest.fields import InvalidField, phone
from provisioner.model import Clock
from provisioner.operations import simulate
from provisioner.operations.open import utc_now
from provisioner.portal import Receipt, Verdict
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.workspace.settings import load_workspace


def staff(folder: Path, verb: str, email: str, console: Console, *, clock: Clock = utc_now) -> int:
    """The staff closes, reopens or validates a user by hand."""
    receipt = simulate.staff_acts(load_workspace(folder), verb, email, clock)
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
    """A client administrator creates a user, who then awaits validation (R11)."""
    receipt = simulate.client_creates(
        load_workspace(folder), administrator, email, first_name, last_name, clock
    )
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
    """A user changes their own e-mail or phone (*Mon compte*)."""
    try:
        number = phone(new_phone) if new_phone else new_phone
    except InvalidField as refused:
        raise UsageError(f"{new_phone} is no phone number: {refused.reason}.", refused.remedy) from refused
    receipt = simulate.user_changes(load_workspace(folder), email, new_email, number, clock)
    return _conclude(receipt, f"{email} changed their own profile", console)


def requests_app(folder: Path, email: str, app: str, console: Console, *, clock: Clock = utc_now) -> int:
    """A user asks for an application in the Store (R10)."""
    receipt = simulate.requests_app(load_workspace(folder), email, app, clock)
    return _conclude(receipt, f"{email} asks for {app}", console)


def activate(folder: Path, link: str, console: Console, *, clock: Clock = utc_now) -> int:
    """The reader of a welcome e-mail follows its link."""
    if not simulate.activate(load_workspace(folder), link, clock):
        raise UsageError("This link is used, expired, replaced by a newer one, or not of this portal.")
    console.answer("Activated.")
    return 0


def _conclude(receipt: Receipt, action: str, console: Console) -> int:
    if receipt.verdict in (Verdict.APPLIED, Verdict.ALREADY):
        console.answer(f"Done: {printable(action)}.")
        return 0
    console.say(f"Refused: {printable(receipt.problem)}")
    return Partial.exit_code if receipt.verdict is Verdict.CONFLICT else PortalError.exit_code
