"""Portals and their drivers, by the scheme of their url."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from provisioner.errors import PortalError
from provisioner.model import Operator, Terms
from provisioner.portals.base import Portal
from provisioner.portals.sql import ReadOnlyPortal, SqlPortal

Clock = Callable[[], datetime]


def _open_sqlite(
    rest: str, *, root: Path, operator: Operator, terms: Terms, public_url: str, writing: bool, clock: Clock
) -> Portal:
    path = root / rest.removeprefix("/")
    if writing:
        return SqlPortal(path, operator, terms, public_url, clock)
    return ReadOnlyPortal(path, terms, clock)


PORTALS: dict[str, Callable[..., Portal]] = {
    "sqlite": _open_sqlite,
}
"""``sqlite:///portal.db`` lies in the workspace, ``sqlite:////srv/portal.db`` at an absolute path."""


def open_portal(
    url: str, *, root: Path, operator: Operator, terms: Terms, public_url: str, writing: bool, clock: Clock
) -> Portal:
    """The portal behind a url. Opened without ``writing`` it makes and changes no file.

    ``terms`` and ``public_url`` are those of a portal that this opening creates. Raises :class:`PortalError`.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in PORTALS:
        raise PortalError(
            f"No driver for the portal {url}.", f"portal: url: begins with one of: {', '.join(PORTALS)}"
        )
    return PORTALS[scheme](
        rest,
        root=root,
        operator=operator,
        terms=terms,
        public_url=public_url,
        writing=writing,
        clock=clock,
    )
