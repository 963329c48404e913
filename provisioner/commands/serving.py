"""Which portal is served, and its database: what ``serve`` and ``client`` share."""

from __future__ import annotations

import os
import re
from pathlib import Path

from provisioner.commands.secrets import secret_of
from provisioner.errors import PortalError, UsageError, WorkspaceError
from provisioner.files import find_workspace
from provisioner.manifest.fields import Refused
from provisioner.manifest.places import database
from provisioner.model import Clock, Operator, Terms
from provisioner.portals.base import Access
from provisioner.workspace import Workspace, load_workspace

SERVED = ("sqlite", "postgresql")
"""Schemes of portals that are ours to serve."""

USUAL_SECRET = "PROVISIONER_PORTAL_SECRET"
"""Where the password of the database's server is, unless the workspace says otherwise."""


def place_of(folder: Path, url: str | None, *, clock: Clock, public_url: str | None = None) -> Access:
    """The portal at ``url``, or that of the workspace here; terms are the workspace's, where there is one.

    Raises :class:`UsageError` where neither says which, or where it is a portal of somebody else's.
    """
    workspace = _workspace(folder)
    if url is None:
        if workspace is None:
            raise UsageError(
                "Which portal? There is no workspace here that names one.",
                "For example: --url sqlite:///portal.db",
            )
        url = workspace.portal.url
    _require_servable(url)
    root = workspace.root if workspace is not None else folder
    return Access(
        url=url,
        root=root,
        operator=Operator.ADMINISTRATOR,
        terms=workspace.terms if workspace is not None else Terms(),
        public_url=public_url or (workspace.public_url if workspace is not None else ""),
        clock=clock,
        writing=True,
        secret=_password(workspace, url),
    )


def _require_servable(url: str) -> None:
    """Repeats nothing of it but its kind: there may be a password in it. Raises :class:`UsageError`."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SERVED:
        kind = f"{scheme}://…" if separator and re.fullmatch("[a-z+]{1,20}", scheme) else "That"
        raise UsageError(
            f"{kind} is not a portal that can be served from here.",
            "Name its database: --url sqlite:///portal.db, or --url postgresql://USER@HOST/DATABASE",
        )
    try:
        database(url)
    except Refused as refused:
        secret = f"Leave it out of the url, and set {USUAL_SECRET}."
        raise UsageError(
            f"The url of the portal's database cannot be used: {refused.reason}.",
            secret if "password" in refused.reason else refused.remedy,
        ) from None


def _workspace(folder: Path) -> Workspace | None:
    try:
        find_workspace(folder)
    except WorkspaceError:
        if not folder.is_dir():
            raise
        return None
    return load_workspace(folder)


def _password(workspace: Workspace | None, url: str) -> str:
    if workspace is not None and workspace.portal.url == url:
        place = workspace.portal
        return secret_of(
            workspace.root, place.secret_env, place.secret_file,
            what="the portal's secret", error=PortalError, usual=USUAL_SECRET,
        )  # fmt: skip
    return os.environ.get(USUAL_SECRET, "")
