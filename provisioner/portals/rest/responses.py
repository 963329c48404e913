"""Functions that decode the responses of a portal service. The codec checks the type of each field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from provisioner.embedded.portal_types import Lease, Page, PortalInfo
from provisioner.embedded.server.endpoints import URN
from provisioner.errors import PortalError
from provisioner.model import Company, User
from provisioner.planning.codec import InvalidJson, reader
from provisioner.portal import Receipt, Verdict
from provisioner.portals.http_messages import HttpResponse, invalid_response

LARGEST = 2**63 - 1
"""The maximum value of a portal's counters, cursors and versions."""


_VERSION = attrgetter("version")


class _StepReceipt(NamedTuple):
    id: str
    verdict: Verdict
    version: int


class _KeptReceipt(NamedTuple):
    id: str
    key: str
    verdict: Verdict
    version: int


class _Lease(NamedTuple):
    expires: str
    fence: int
    ledger: str
    owner: str


class _Holders(NamedTuple):
    holders: Mapping[str, str]


class _Links(NamedTuple):
    links: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ProblemDetails:
    """The problem details of a refusal (RFC 9457). A field is "" if the response has no valid value."""

    code: str
    detail: str
    rule: str


def read_about(reply: HttpResponse) -> PortalInfo:
    """Decode the response to ``GET /v1/portal``. Raises :class:`PortalError`."""
    about: PortalInfo = _read(reply, PortalInfo, "it does not describe a portal")
    _require_counts(reply, about.counter)
    return about


def read_companies(reply: HttpResponse) -> Page[Company]:
    """Decode a page of companies. Raises :class:`PortalError`."""
    page: Page[Company] = _read(reply, Page[Company], "it is no page of companies")
    _require_counts(reply, page.counter, page.next or 0, *map(_VERSION, page.items))
    return page


def read_users(reply: HttpResponse) -> Page[User]:
    """Decode a page of users. Raises :class:`PortalError`."""
    page: Page[User] = _read(reply, Page[User], "it is no page of users")
    _require_counts(reply, page.counter, page.next or 0, *map(_VERSION, page.items))
    if not all(map(attrgetter("id"), page.items)):
        raise invalid_response(reply.server, "one of its users has no id")
    return page


def read_receipt(reply: HttpResponse, key: str, *, kept: bool = False) -> Receipt:
    """Decode the receipt of the call with the idempotency key ``key``. Raises :class:`PortalError`. ``kept``
    is True if the receipt was looked up by its key, False if it is the direct response to the step.
    """
    found = _read(reply, _KeptReceipt if kept else _StepReceipt, "it is no receipt of a step")
    _require_counts(reply, found.version)
    if found.verdict not in (Verdict.APPLIED, Verdict.ALREADY):
        raise invalid_response(reply.server, "it is no receipt of a step (verdict)")
    return Receipt(key, found.verdict, found.id, found.version)


def read_problem(reply: HttpResponse) -> ProblemDetails:
    """Decode the problem details in a response. Fields that are missing or invalid become ""."""
    try:
        said = reply.json()
    except PortalError:
        said = None
    members = said if isinstance(said, dict) else {}
    code, detail, rule = (members.get(name) for name in ("type", "detail", "rule"))
    return ProblemDetails(
        code.removeprefix(URN) if isinstance(code, str) and code.startswith(URN) else "",
        detail if isinstance(detail, str) else "",
        rule if isinstance(rule, str) else "",
    )


def read_holders(reply: HttpResponse) -> Mapping[str, str]:
    """Decode the claims of letters: a mapping from letter key to the run that holds the claim. The run is ""
    if the claim belongs to another ledger. Raises :class:`PortalError`.
    """
    found: _Holders = _read(reply, _Holders, "it does not say who has the letters", named=False)
    return found.holders


def read_lease(reply: HttpResponse, holder: str) -> Lease:
    """Decode the lease that the service has granted to ``holder``. Raises :class:`PortalError`."""
    found: _Lease = _read(reply, _Lease, "it is no lease")
    _require_counts(reply, found.fence)
    try:
        expires = datetime.fromisoformat(found.expires)
    except ValueError:
        raise invalid_response(reply.server, "it is no lease (expires)") from None
    return Lease(found.ledger, found.owner, found.fence, expires, holder)


def read_links(reply: HttpResponse, ids: Iterable[str]) -> dict[str, str]:
    """Decode the activation links of the users ``ids``. The result maps each id to a link, or to "" for no
    link. Raises :class:`PortalError`.
    """
    links = _read(reply, _Links, "it has no links, or one of its links is none", named=False).links
    found = {id_: links.get(id_, "") for id_ in ids}
    if not all(not link or _is_link(link) for link in found.values()):
        raise invalid_response(reply.server, "one of its links is none")
    return found


def _is_link(text: str) -> bool:
    return (
        text.startswith(("https://", "http://")) and text.isascii() and text.isprintable() and " " not in text
    )


def _read(reply: HttpResponse, hint: Any, what: str, *, named: bool = True) -> Any:
    said = reply.json()
    if not isinstance(said, dict):
        raise invalid_response(reply.server, "it is no JSON object")
    try:
        return reader(hint)(said)
    except InvalidJson as problem:
        raise invalid_response(reply.server, f"{what} ({problem})" if named else what) from None


def _require_counts(reply: HttpResponse, *numbers: int) -> None:
    if not 0 <= min(numbers) <= max(numbers) <= LARGEST:
        raise invalid_response(reply.server, "one of its numbers counts nothing")
