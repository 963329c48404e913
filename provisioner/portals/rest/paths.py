"""The endpoint table for a portal service whose URL paths differ from the default paths."""

from __future__ import annotations

import re
from collections.abc import Mapping

from provisioner.embedded.server.endpoints import ENDPOINTS, Endpoint
from provisioner.errors import PortalError

_BLANK = re.compile(r"\{([a-z]+)\}")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@%-]|\{[a-z]+\})*)+")


def endpoints_for(paths: Mapping[str, str]) -> dict[str, Endpoint]:
    """Return the endpoint table, in which ``paths`` replaces the paths of the endpoints that it names. Raises
    :class:`PortalError` for an unknown endpoint, a malformed path, and a path with other path parameters.
    """
    table = dict(ENDPOINTS)
    for name, path in paths.items():
        if name not in ENDPOINTS:
            raise PortalError(
                f"portal: paths: has {name!r}, and there is no such endpoint.",
                f"The endpoints are: {', '.join(ENDPOINTS)}.",
            )
        usual = ENDPOINTS[name].path
        if sorted(_BLANK.findall(path)) != sorted(_BLANK.findall(usual)) or not _PATH.fullmatch(path):
            blanks = " and ".join(f"{{{blank}}}" for blank in _BLANK.findall(usual))
            raise PortalError(
                f"portal: paths: {name}: {path!r} is no path"
                + (f" with {blanks} in it, once." if blanks else " without blanks."),
                f"It begins with / and has neither ? nor #, such as {usual}",
            )
        table[name] = ENDPOINTS[name]._replace(path=path)
    return table
