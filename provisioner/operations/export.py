"""Export: the portal as it is, written as a workspace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from provisioner.errors import UsageError
from provisioner.manifest.export import export_workspace
from provisioner.model import Clock, State
from provisioner.operations.open import read_snapshot, utc_now
from provisioner.workspace.files import is_taken, make_folder, write_private
from provisioner.workspace.settings import Workspace


def export_portal(
    workspace: Workspace, destination: Path, clock: Clock = utc_now
) -> tuple[State, Mapping[str, str]]:
    """Write the portal into ``destination``, as a workspace whose plan is empty.

    Returns the state that was read and the files by name. Raises :class:`UsageError` unless the folder is
    empty or missing.
    """
    if is_taken(destination):
        raise UsageError(f"{destination} is not an empty folder.", "Name a folder that does not exist yet.")
    snapshot = read_snapshot(workspace, clock)
    files = export_workspace(
        snapshot.state,
        snapshot.terms,
        firm_name=workspace.firm.name,
        language=workspace.firm.language,
        portal_url=_absolute_url(workspace.portal.url, workspace.root),
        operator=str(workspace.portal.operator),
        public_url=workspace.portal.public_url,
        access=_access(workspace),
        mail_from=workspace.mail.sender,
    )
    for name, text in sorted(files.items()):
        path = destination / name
        make_folder(path.parent)
        write_private(path, text.encode())
    return snapshot.state, files


def _absolute_url(url: str, root: Path) -> str:
    """The url of the portal, valid from any folder."""
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite":
        return url
    return f"{scheme}:///{(root / path).resolve()}"


def _access(workspace: Workspace) -> dict[str, str | Mapping[str, str]]:
    """The portal's settings besides its url, with absolute files."""
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
