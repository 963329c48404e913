"""``provisioner export``: the portal as it is, as a workspace."""

from __future__ import annotations

from pathlib import Path

from provisioner.diagnostics import count_of
from provisioner.model import Clock
from provisioner.operations.export import export_portal
from provisioner.operations.open import utc_now
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.workspace.settings import load_workspace


def export(folder: Path, destination: Path, console: Console, *, clock: Clock = utc_now) -> int:
    """Write the portal into ``destination``, as a workspace whose plan is empty."""
    state, files = export_portal(load_workspace(folder), destination, clock)
    where = printable(str(destination))
    console.answer(
        f"{count_of(len(files), 'file')} with {count_of(len(state.users), 'user')} "
        f"written to {where}. To compare: provisioner -C {where} plan"
    )
    return 0
