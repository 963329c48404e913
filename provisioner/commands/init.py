"""``provisioner init``: create a workspace, which is a folder with settings and manifests."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from provisioner.errors import UsageError
from provisioner.render.commands import in_folder
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.workspace.files import WORKSPACE_FILE, make_folder, resource_folder, write_private


def init(folder: Path, console: Console, *, target: Path | None = None) -> int:
    """Write an example workspace to ``target`` (``folder`` if None), which must not be a workspace yet."""
    folder = target or folder
    where = shlex.quote(str(folder)) if folder != Path() else ""
    file = folder / WORKSPACE_FILE
    if os.path.lexists(file):
        raise UsageError(f"{file} exists already.", in_folder("Go on with: provisioner validate", where))
    source = resource_folder("templates") / "workspace"
    for path in sorted(source.rglob("*.yaml")):
        destination = folder / path.relative_to(source)
        make_folder(destination.parent)
        write_private(destination, path.read_bytes())
    answer = f"A workspace in {folder}: edit {WORKSPACE_FILE} and clients/, then run provisioner plan."
    console.answer(printable(in_folder(answer, where)))
    return 0
