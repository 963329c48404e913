"""The table of portal drivers by URL scheme, and the functions that choose a driver for a URL.

Drivers for other schemes come from other packages: see :mod:`provisioner.entry_points`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from provisioner.embedded.read_only import ReadOnlyPortal
from provisioner.entry_points import load_driver
from provisioner.errors import PortalError, install_hint
from provisioner.portal import Access, Portal, PortalDriver
from provisioner.storage.registry import DATABASES, database_at


def _open_embedded(access: Access) -> Portal:
    database = database_at(access.url, access.root, access.secret)
    if access.writing:
        from provisioner.embedded.portal import SqlPortal

        terms = access.terms if access.making else None
        return SqlPortal(database, access.operator, terms, access.public_url, access.clock)
    return ReadOnlyPortal(database, access.terms, access.clock)


def _open_service(access: Access) -> Portal:
    with _http_extra():
        from provisioner.portals.rest.driver import RestPortal

        return RestPortal(access)


def _open_scim(access: Access) -> Portal:
    with _http_extra():
        from provisioner.portals.scim.driver import open_scim

        return open_scim(access)


@contextmanager
def _http_extra() -> Iterator[None]:
    """Raise :class:`PortalError` if the ``with`` block imports a missing package of the extra ``http``."""
    try:
        yield
    except ModuleNotFoundError as problem:
        raise PortalError(
            f"A portal over HTTP needs {(problem.name or '').partition('.')[0]}, which is not installed.",
            install_hint("http"),
        ) from problem


PORTALS: dict[str, PortalDriver] = {
    **dict.fromkeys(DATABASES, PortalDriver(_open_embedded)),
    **dict.fromkeys(("https", "http"), PortalDriver(_open_service)),
    **dict.fromkeys(("scim+https", "scim+http"), PortalDriver(_open_scim, activation_links=False)),
}
"""A mapping from URL scheme to the built-in driver.

A path with three slashes, as in ``sqlite:///portal.db``, is relative to the workspace. A path with four
slashes, as in ``sqlite:////srv/portal.db``, is absolute."""


ENTRY_POINTS = "provisioner.portals"
"""The group of entry points in which other packages declare their drivers."""


def driver_for(url: str) -> PortalDriver:
    """Return the driver for the scheme of ``url``, built in or from another package.

    Raises :class:`PortalError` if there is no such driver. The error does not contain ``url``, because it may
    contain a password.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise PortalError("The URL of the portal has no scheme.", "Write, for example: sqlite:///portal.db")
    return PORTALS.get(scheme) or load_driver(ENTRY_POINTS, scheme, PortalDriver, PORTALS, PortalError)


def open_portal(access: Access) -> Portal:
    """Open the portal at ``access.url`` with the driver for its scheme. Raises :class:`PortalError`."""
    return driver_for(access.url).open(access)
