"""``provisioner export``: write the present state of the portal as a workspace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from provisioner.diagnostics import count_of
from provisioner.manifest.export import export_workspace
from provisioner.model import Clock
from provisioner.operations.open import read_snapshot, utc_now
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.workspace.files import make_folder, require_free, write_private
from provisioner.workspace.settings import Workspace, load_workspace, path_of


def export(folder: Path, destination: Path, console: Console, *, clock: Clock = utc_now) -> int:
    """Write the state of the portal into ``destination``, as a workspace whose plan is empty.

    Raises :class:`UsageError` if ``destination`` exists and is not an empty folder.
    """
    workspace = load_workspace(folder)
    require_free(destination)
    snapshot = read_snapshot(workspace, clock)
    files = export_workspace(
        snapshot.state,
        snapshot.terms,
        firm_name=workspace.settings.firm.name,
        language=workspace.settings.firm.language,
        portal_url=_absolute_url(workspace),
        operator=str(workspace.settings.portal.operator),
        public_url=workspace.settings.portal.public_url,
        access=_access(workspace),
        mail_from=workspace.settings.mail.sender,
    )
    for name, text in sorted(files.items()):
        path = destination / name
        make_folder(path.parent)
        write_private(path, text.encode())
    where = printable(str(destination))
    console.answer(
        f"{count_of(len(files), 'file')} with {count_of(len(snapshot.state.users), 'user')} "
        f"written to {where}. To compare: provisioner -C {where} plan"
    )
    return 0


def _absolute_url(workspace: Workspace) -> str:
    url = workspace.settings.portal.url
    return f"sqlite:///{path_of(url, workspace.root).resolve()}" if url.startswith("sqlite:") else url


def _access(workspace: Workspace) -> dict[str, str | Mapping[str, str]]:
    """Return the settings for access to the portal, except its URL; paths of files are made absolute."""
    portal = workspace.settings.portal

    def absolute(file: str) -> str:
        return str((workspace.root / file).resolve()) if file else ""

    return {
        "client_id": portal.client_id,
        "secret_env": portal.secret_env,
        "secret_file": absolute(portal.secret_file),
        "ca_file": absolute(portal.ca_file),
        "proxy": portal.proxy,
        "paths": portal.paths,
        "scim": portal.scim,
    }
