"""The classes of HTTP requests and HTTP responses, and of the errors for unusable responses."""

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
    """The percent-encoded path and query, relative to the client's ``address``."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    repeatable: bool = True
    """True if the request does no harm if it is sent twice: it only reads, or it has an idempotency key."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One complete HTTP response."""

    status: int
    headers: Mapping[str, str]
    """The headers by lower-case name. If a header is repeated, only its last value is kept."""
    content: bytes
    server: str
    """The server's address, for error messages."""

    def json(self) -> Json:
        """Return the decoded JSON body. Raises :class:`PortalError` if the body is not JSON."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise invalid_response(
                self.server, f"it is {kind[:40] or 'of no kind'} instead of application/json"
            )
        try:
            found = parse_json(self.content.decode("utf-8"))
            if b"\\ud" in self.content or b"\\uD" in self.content:
                # json.loads accepts a lone surrogate, which cannot be encoded for a file or terminal
                json.dumps(found, ensure_ascii=False).encode()
        except ValueError:
            raise invalid_response(self.server, "it is not JSON") from None
        return found

    def retry_after(self) -> float | None:
        """Return the delay in seconds that Retry-After requests; None if the header is missing or invalid."""
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


_QUERY_VALUE = re.compile(r"(?<=[?&])(?!(?:startIndex|count|limit)=)([^=&]+)=[^&]*")
"""Matches each query parameter except ``startIndex``, ``count`` and ``limit``: its value may be private."""


def without_query_values(path: str) -> str:
    """Return ``path`` with hidden query values for the trace: ``/Users?filter=…&startIndex=1&count=50``."""
    return _QUERY_VALUE.sub(r"\1=…", path)


class NoResponse(PortalError):
    """The error for a request to which no attempt has got a usable response. ``outcome_unknown`` is True if
    the request may have taken effect nevertheless.
    """

    def __init__(self, sentence: str, remedy: str = "", *, outcome_unknown: bool) -> None:
        super().__init__(sentence, remedy)
        self.outcome_unknown = outcome_unknown


class ResponseTooLarge(PortalError):
    """The error for a response longer than the limit. A list can be read again with fewer rows per page."""


def invalid_response(server: str, what: str) -> PortalError:
    """Return the error for a response that violates the protocol; ``what`` describes the violation."""
    return PortalError(
        f"{server} gave a reply that cannot be used: {what}.",
        "Check portal: url: in provisioner.yaml, and whether a proxy or another service answers there.",
    )
