"""Problem details (RFC 9457), and the table of their codes, HTTP statuses and titles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from provisioner.embedded.server.endpoints import URN

MEDIA_TYPE = "application/problem+json"

PROBLEMS: dict[str, tuple[int, str]] = {
    "malformed": (400, "The request is malformed"),
    "token": (401, "A valid access token is needed"),
    "scope": (403, "The token's scope does not cover this"),
    "forbidden": (403, "The client's role has no right to this"),
    "not-found": (404, "There is nothing at this address"),
    "not-on-portal": (404, "Not on this portal"),
    "method": (405, "The address does not take this method"),
    "timeout": (408, "The request took too long to arrive"),
    "exists": (409, "It exists already, otherwise than wanted"),
    "month-turned": (409, "The month has turned"),
    "version-moved": (412, "It was changed by somebody else meanwhile"),
    "too-large": (413, "The request is too large"),
    "media-type": (415, "The body is not of the type that is taken here"),
    "invalid": (422, "A value is not as it should be"),
    "key-reused": (422, "The key was given before, with another request"),
    "rule": (422, "A rule of the portal refuses this"),
    "locked": (423, "Another run holds the lease"),
    "fenced": (423, "Another run has taken this one's place"),
    "lease-missing": (428, "Lease and Fencing-Token come together"),
    "version-missing": (428, "The version to be changed is missing"),
    "busy": (429, "Too many requests"),
    "defect": (500, "A defect of this program"),
    "unavailable": (503, "The portal cannot be reached for the moment"),
}
"""The HTTP status and the title of each code. All rules of the portal (R1 …) share the code ``rule``."""


class Problem(Exception):
    """An exception that refuses a request. The application turns the exception into the response."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        rule: str = "",
        pointer: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.rule = rule
        self.pointer = pointer
        self.headers = dict(headers or {})
        self.more = more

    @property
    def status(self) -> int:
        """The HTTP status."""
        return PROBLEMS[self.code][0]

    def body(self) -> bytes:
        """Return the problem details as JSON."""
        status, title = PROBLEMS[self.code]
        shown = self.rule if self.code == "rule" else self.code
        members: dict[str, Any] = {
            "type": f"{URN}{shown}",
            "title": title,
            "status": status,
            "detail": self.detail,
        }
        if self.rule:
            members["rule"] = self.rule
        if self.pointer is not None:
            members["pointer"] = self.pointer
        return json.dumps({**members, **self.more}, ensure_ascii=False).encode()


def unavailable(detail: str) -> Problem:
    """Return the problem (503) for a database that is unreachable or busy."""
    return Problem("unavailable", detail, headers={"Retry-After": "1"})
