"""``provisioner init``, ``export`` and ``schema``: the files that people begin with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from provisioner.errors import UsageError
from provisioner.manifest.export import export_workspace
from provisioner.model import Clock
from provisioner.operations.open import read_snapshot, utc_now
from provisioner.render.describe import count_of
from provisioner.terminal.console import Console
from provisioner.workspace.files import WORKSPACE_FILE, is_taken, make_folder, resource_folder, write_private
from provisioner.workspace.settings import Workspace, load_workspace

SCHEMAS = ("client", "provisioner")


def init(folder: Path, console: Console) -> int:
    """A first workspace: provisioner.yaml and one example client; never overwrites."""
    target = folder / WORKSPACE_FILE
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already.", "Go on with: provisioner validate")
    source = resource_folder("templates") / "workspace"
    for path in sorted(source.rglob("*.yaml")):
        _write(folder / path.relative_to(source), path.read_bytes())
    console.answer(f"A workspace in {folder}: edit {WORKSPACE_FILE} and clients/, then run provisioner plan.")
    return 0


def export(folder: Path, destination: Path, console: Console, *, clock: Clock = utc_now) -> int:
    """The portal as it is, written as a workspace whose plan is empty."""
    workspace = load_workspace(folder)
    if is_taken(destination):
        raise UsageError(f"{destination} is not an empty folder.", "Name a folder that does not exist yet.")
    snapshot = read_snapshot(workspace, clock)
    files = export_workspace(
        snapshot.state,
        snapshot.terms,
        firm_name=workspace.firm.name,
        language=workspace.firm.language,
        portal_url=_from_anywhere(workspace.portal.url, workspace.root),
        operator=str(workspace.operator),
        public_url=workspace.public_url,
        access=_access(workspace),
        mail_from=workspace.mail.sender,
    )
    for name, text in sorted(files.items()):
        _write(destination / name, text.encode())
    console.answer(
        f"{count_of(len(files), 'file')} with {count_of(len(snapshot.state.users), 'user')} "
        f"written to {destination}. To compare: provisioner -C {destination} plan"
    )
    return 0


def schema(kind: str, console: Console) -> int:
    """The JSON Schema of a kind of file, for editors."""
    text = (resource_folder("schemas") / f"{kind}.schema.json").read_text(encoding="utf-8")
    console.answer(json.dumps(json.loads(text), ensure_ascii=False, indent=2))
    return 0


def _from_anywhere(url: str, root: Path) -> str:
    """The portal's url as it reads from any folder."""
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite":
        return url
    return f"{scheme}:///{(root / path).resolve()}"


def _access(workspace: Workspace) -> dict[str, str | Mapping[str, str]]:
    """What reaching the portal takes besides its url, as it reads from any folder."""
    place = workspace.portal

    def absolute(file: str) -> str:
        return str((workspace.root / file).resolve()) if file else ""

    return {
        "client_id": place.client_id,
        "secret_env": place.secret_env,
        "secret_file": absolute(place.secret_file),
        "ca_file": absolute(place.ca_file),
        "proxy": place.proxy,
        "paths": place.paths,
        "scim": place.scim,
    }


def _write(path: Path, content: bytes) -> None:
    make_folder(path.parent)
    write_private(path, content)
