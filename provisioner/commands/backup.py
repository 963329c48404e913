"""``provisioner backup``: copy the ledger and the portal. Runs may use both during the copy."""

from __future__ import annotations

from pathlib import Path

from provisioner.model import Clock
from provisioner.operations.backup import back_up
from provisioner.operations.open import utc_now
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.workspace.settings import load_workspace


def backup(folder: Path, destination: Path, console: Console, *, clock: Clock = utc_now) -> int:
    """Copy the ledger, and the portal if it is a file, into the new folder ``destination``."""
    workspace = load_workspace(folder)
    made = back_up(workspace, destination, clock)
    console.answer(f"Backed up into {printable(str(destination))}: {', '.join(made.files)}.")
    for note in made.notes:
        console.say(printable(note))
    return 0
