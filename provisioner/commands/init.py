"""``provisioner init``: create a workspace, which is a folder with settings and manifests."""

from __future__ import annotations

import os
from pathlib import Path

from provisioner.errors import UsageError
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.workspace.files import WORKSPACE_FILE, make_folder, resource_folder, write_private


def init(folder: Path, console: Console, *, target: Path | None = None) -> int:
    """Write an example workspace to ``target`` (``folder`` if None), which must not be a workspace yet."""
    folder = target or folder
    file = folder / WORKSPACE_FILE
    if os.path.lexists(file):
        raise UsageError(f"{file} exists already.", "Go on with: provisioner validate")
    source = resource_folder("templates") / "workspace"
    for path in sorted(source.rglob("*.yaml")):
        destination = folder / path.relative_to(source)
        make_folder(destination.parent)
        write_private(destination, path.read_bytes())
    where = printable(str(folder))
    console.answer(f"A workspace in {where}: edit {WORKSPACE_FILE} and clients/, then run provisioner plan.")
    return 0
