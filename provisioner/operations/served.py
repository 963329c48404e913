"""The functions that open the embedded portal for ``serve`` and ``api-client``, also without a workspace."""

from __future__ import annotations

import os
import re
from pathlib import Path

from provisioner.embedded.portal import SqlPortal
from provisioner.errors import UsageError, WorkspaceError
from provisioner.manifest.fields import InvalidField
from provisioner.manifest.urls import database
from provisioner.model import Clock, Operator, PortalTerms
from provisioner.operations.open import PORTAL_SECRET, portal_secret
from provisioner.portal import Access
from provisioner.portals.registry import open_portal
from provisioner.storage.registry import DATABASES
from provisioner.workspace.files import find_workspace
from provisioner.workspace.settings import Workspace, load_workspace, path_of


def served_access(folder: Path, url: str | None, *, clock: Clock, public_url: str | None = None) -> Access:
    """Return the parameters for opening the portal at ``url``, or the workspace's portal if ``url`` is None.

    If ``folder`` is in a workspace, the workspace sets the portal's terms and the default of ``public_url``.
    Raises :class:`UsageError` if the portal is not embedded, or if ``url`` is None and there is no workspace.
    Raises :class:`PortalError` if the portal's password cannot be read.
    """
    workspace = _workspace_in(folder)
    if url is None:
        if workspace is None:
            raise UsageError(
                "Which portal? There is no workspace here that names one.",
                "For example: --url sqlite:///portal.db",
            )
        url = workspace.settings.portal.url
    _require_servable(url)
    root = workspace.root if workspace is not None else folder
    return Access(
        url=url,
        root=root,
        operator=Operator.ADMINISTRATOR,
        terms=workspace.settings.terms if workspace is not None else PortalTerms(),
        public_url=public_url or (workspace.settings.portal.public_url if workspace is not None else ""),
        clock=clock,
        writing=True,
        secret=_password(workspace, url),
    )


def file_to_create(access: Access) -> Path | None:
    """Return the database file that :func:`open_served` will create, or None if no file will be created."""
    if not access.url.startswith("sqlite:"):
        return None
    path = path_of(access.url, access.root)
    return None if path.exists() else path.resolve()


def open_served(access: Access) -> SqlPortal:
    """Open the embedded portal that ``access`` describes. Raises :class:`PortalError` if that fails."""
    portal = open_portal(access)
    assert isinstance(portal, SqlPortal)
    return portal


def _require_servable(url: str) -> None:
    # the error message does not contain the URL, because the URL may contain a password
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in DATABASES:
        kind = f"{scheme}://…" if separator and re.fullmatch("[a-z+]{1,20}", scheme) else "That"
        raise UsageError(
            f"{kind} is not a portal that can be served from here.",
            "Name its database: --url sqlite:///portal.db, or --url postgresql://USER@HOST/DATABASE",
        )
    try:
        database(url)
    except InvalidField as refused:
        secret = f"Leave it out of the url, and set {PORTAL_SECRET}."
        raise UsageError(
            f"The url of the portal's database cannot be used: {refused.reason}.",
            secret if "password" in refused.reason else refused.remedy,
        ) from None


def _workspace_in(folder: Path) -> Workspace | None:
    try:
        find_workspace(folder)
    except WorkspaceError:
        if not folder.is_dir():
            raise
        return None
    return load_workspace(folder)


def _password(workspace: Workspace | None, url: str) -> str:
    if workspace is not None and workspace.settings.portal.url == url:
        return portal_secret(workspace)
    return os.environ.get(PORTAL_SECRET, "")
