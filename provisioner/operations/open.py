"""Functions that open the portal, locate the ledger and read the manifests of a workspace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

from provisioner.diagnostics import Diagnostic, warning
from provisioner.errors import LedgerError, MailError, PortalError
from provisioner.mail.transport import transport_for
from provisioner.manifest.check import check
from provisioner.manifest.declared import Declared
from provisioner.model import Clock
from provisioner.portal import Access, Portal, Snapshot
from provisioner.portals.registry import driver_for, open_portal
from provisioner.progress import ProgressCallback, ignore_progress
from provisioner.storage.database import Database
from provisioner.storage.registry import DATABASES, database_at
from provisioner.workspace.secrets import secret_of
from provisioner.workspace.settings import Workspace, read_manifests

PARALLELISM = 10
"""The default of ``--parallelism``: the maximum number of concurrent steps."""

PORTAL_SECRET = "PROVISIONER_PORTAL_SECRET"
"""The environment variable that contains the portal's secret if the settings name no variable and no file."""


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def read_declared(
    workspace: Workspace, report: ProgressCallback = ignore_progress
) -> tuple[Declared, list[Diagnostic]]:
    """Return the content of the manifests, and all problems that can be found without the portal."""
    declared, problems = read_manifests(workspace, digests=False, tell=report)
    return declared, [*missing_drivers(workspace), *problems, *check(declared, workspace.settings)]


def missing_drivers(workspace: Workspace) -> Iterator[Diagnostic]:
    """Yield a warning for each URL of provisioner.yaml whose driver comes from a package and cannot be used.

    This is not an error, because only commands that open the portal or send letters need the driver. For
    example, a CI job that validates or plans may run without the mail driver.
    """
    try:
        driver_for(workspace.settings.portal.url)
    except PortalError as problem:
        source = workspace.positions.source("portal", "url")
        yield warning("no-driver", problem.sentence, problem.remedy, source)
    try:
        transport_for(workspace.settings.mail.transport)
    except MailError as problem:
        source = workspace.positions.source("mail", "transport")
        yield warning("no-driver", problem.sentence, problem.remedy, source)


def open_portal_for(
    workspace: Workspace,
    *,
    writing: bool,
    making: bool = True,
    clock: Clock = utc_now,
    parallelism: int = PARALLELISM,
) -> Portal:
    """Open the workspace's portal with the rights of the operator that the settings name.

    ``writing`` and ``making`` are explained in :class:`~provisioner.portal.Access`.
    """
    place = workspace.settings.portal
    return open_portal(
        Access(
            url=place.url,
            root=workspace.root,
            operator=workspace.settings.portal.operator,
            terms=workspace.settings.terms,
            public_url=workspace.settings.portal.public_url,
            clock=clock,
            writing=writing,
            making=making,
            client_id=place.client_id or os.environ.get("PROVISIONER_PORTAL_CLIENT", ""),
            secret=portal_secret(workspace),
            ca_file=place.ca_file,
            proxy=place.proxy,
            paths=place.paths,
            scim=place.scim,
            parallelism=parallelism,
        )
    )


def portal_secret(workspace: Workspace) -> str:
    """Return the portal's client secret, bearer token or database password. Raises :class:`PortalError`."""
    place = workspace.settings.portal
    return secret_of(
        workspace.root,
        place.secret_env,
        place.secret_file,
        what="the portal's secret",
        error=PortalError,
        usual=PORTAL_SECRET,
    )


def ledger_location(workspace: Workspace) -> Database:
    """Return the location of the workspace's ledger database, without opening the database."""
    place = workspace.settings.ledger
    secret = ""
    if not place.url.startswith("sqlite:"):
        secret = secret_of(
            workspace.root,
            place.secret_env,
            place.secret_file,
            what="the ledger's password",
            error=LedgerError,
            usual="PROVISIONER_LEDGER_SECRET",
        )
    return database_at(place.url, workspace.root, secret)


def portal_database(workspace: Workspace) -> Database | None:
    """Return the database of the embedded portal, without opening it; None for a portal on the network."""
    url = workspace.settings.portal.url
    if url.partition(":")[0] not in DATABASES:
        return None
    return database_at(url, workspace.root, portal_secret(workspace))


def read_snapshot(workspace: Workspace, clock: Clock = utc_now) -> Snapshot:
    """Return a snapshot of the workspace's portal, which is opened only for reading."""
    with closing(open_portal_for(workspace, writing=False, clock=clock)) as portal:
        return portal.snapshot()
