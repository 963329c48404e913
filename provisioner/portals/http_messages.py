"""Requests and responses of :mod:`provisioner.portals.http`, and the errors that have no usable response."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from provisioner.errors import PortalError
from provisioner.planning.codec import parse_json

Json = Any
"""The result of ``json.loads``: None, bool, int, float, str, list or dict."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request."""

    method: str
    path: str
    """The quoted path and query, relative to the server's address."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    repeatable: bool = True
    """True if it may be sent again after an unknown outcome: a read, or a write with a key."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One complete HTTP response."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name; the last one of repeated headers."""
    content: bytes
    server: str
    """The server's address, for messages."""

    def json(self) -> Json:
        """The decoded body. Raises :class:`PortalError` if it is not JSON."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise invalid_response(
                self.server, f"it is {kind[:40] or 'of no kind'} instead of application/json"
            )
        try:
            found = parse_json(self.content.decode("utf-8"))
            if b"\\ud" in self.content or b"\\uD" in self.content:
                # json.loads accepts half a surrogate pair, which no file or terminal can encode
                json.dumps(found, ensure_ascii=False).encode()
        except ValueError:
            raise invalid_response(self.server, "it is not JSON") from None
        return found

    def retry_after(self) -> float | None:
        """Seconds to wait, from a number or a date; None if the header is missing or malformed."""
        text = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,9}", text):
            return float(text)
        from email.utils import parsedate_to_datetime

        try:
            when = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())


class NoResponse(PortalError):
    """No usable response after all attempts; ``outcome_unknown``: the request may have taken effect."""

    def __init__(self, sentence: str, remedy: str = "", *, outcome_unknown: bool) -> None:
        super().__init__(sentence, remedy)
        self.outcome_unknown = outcome_unknown


class ResponseTooLarge(PortalError):
    """A response longer than the limit; the caller may request less."""


def invalid_response(server: str, what: str) -> PortalError:
    """The error for a response that does not fit the protocol."""
    return PortalError(
        f"{server} gave a reply that cannot be used: {what}.",
        "Check portal: url: in provisioner.yaml, and whether a proxy or another service answers there.",
    )
