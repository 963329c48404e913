"""``provisioner backup``: copy the ledger and the portal. Runs may use both during the copy."""

from __future__ import annotations

from pathlib import Path

from provisioner.model import Clock
from provisioner.operations.backup import PORTAL_FILE, back_up
from provisioner.operations.open import utc_now
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.workspace.settings import load_workspace


def backup(folder: Path, destination: Path, console: Console, *, clock: Clock = utc_now) -> int:
    """Copy the ledger, and the portal if it is a file, into the new folder ``destination``."""
    workspace = load_workspace(folder)
    names = back_up(workspace, destination, clock)
    console.answer(f"Backed up into {printable(str(destination))}: {', '.join(names)}.")
    if PORTAL_FILE not in names:
        url = printable(workspace.settings.portal.url)
        console.say(f"The portal {url} is not a file here: back it up where it is kept.")
    return 0
