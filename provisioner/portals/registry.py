"""The table of portal drivers by URL scheme, and the functions that choose a driver for a URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from provisioner.embedded.read_only import ReadOnlyPortal
from provisioner.errors import PortalError, install_hint
from provisioner.portal import Access, Portal
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
    """Within this block, raise :class:`PortalError` if a package of the extra ``http`` is missing."""
    try:
        yield
    except ModuleNotFoundError as problem:
        raise PortalError(
            f"A portal over HTTP needs {(problem.name or '').partition('.')[0]}, which is not installed.",
            install_hint("http"),
        ) from problem


PORTALS: dict[str, Callable[[Access], Portal]] = {
    **dict.fromkeys(DATABASES, _open_embedded),
    "https": _open_service,
    "http": _open_service,
    "scim+https": _open_scim,
    "scim+http": _open_scim,
}
"""A mapping from URL scheme to the function that opens a portal.

The path in ``sqlite:///portal.db`` is relative to the workspace. The path in ``sqlite:////srv/portal.db`` is
absolute."""


def makes_links(url: str) -> bool:
    """Return True if the driver for this URL creates activation links. The portal is not opened."""
    return PORTALS.get(url.partition("://")[0]) is not _open_scim


def open_portal(access: Access) -> Portal:
    """Open the portal at ``access.url`` with the driver for its scheme. Raises :class:`PortalError`."""
    scheme, separator, _ = access.url.partition("://")
    if not separator or scheme not in PORTALS:
        raise PortalError(
            f"No driver for the portal {access.url}.",
            f"portal: url: begins with one of: {', '.join(PORTALS)}",
        )
    return PORTALS[scheme](access)
