"""What a portal's service answers, as values: each type is checked, for fifty thousand users at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from operator import itemgetter
from typing import Any, TypeVar

from provisioner.embedded.host import Lease
from provisioner.embedded.server.endpoints import URN
from provisioner.errors import PortalError
from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Company,
    Grant,
    Operator,
    PortalTerms,
    Production,
    Status,
    User,
    UserType,
)
from provisioner.portal import Receipt, Verdict
from provisioner.portals.http_messages import (
    HttpResponse,
    Json,
    invalid_response,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PortalInfo:
    """What the portal says of itself, and of us."""

    portal: str
    stamp: str
    counter: int
    today: date
    operator: Operator
    scopes: frozenset[str]
    terms: PortalTerms


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal (RFC 9457); ``code`` is "" if the portal gives no known one."""

    code: str
    detail: str
    rule: str


class UnexpectedValue(Exception):
    """An answer that no portal gives; the text says what is odd."""


def read_about(reply: HttpResponse) -> PortalInfo:
    """Of ``GET /v1/portal``. Raises :class:`PortalError`."""
    said = _object(reply)
    try:
        portal, stamp, counter, today, operator, scopes, terms = _about(said)
        return PortalInfo(
            _text(portal),
            _text(stamp),
            _whole(counter),
            date.fromisoformat(today),
            Operator(_text(operator)),
            _texts(scopes),
            PortalTerms(*map(_texts, _terms(terms))),
        )
    except (KeyError, TypeError, ValueError, UnexpectedValue) as problem:
        raise invalid_response(reply.server, f"it does not describe a portal ({_named(problem)})") from None


_ABOUT = ("portal", "stamp", "counter", "today", "operator", "scopes", "terms")
_TERMS = ("offers", "apps", "email_domains", "staff")
_about, _terms = itemgetter(*_ABOUT), itemgetter(*_TERMS)


def read_page(reply: HttpResponse) -> tuple[list[Any], int | None, int]:
    """The rows of a page, the next one's cursor, and the change counter. Raises :class:`PortalError`."""
    said = _object(reply)
    try:
        rows, following, counter = said["items"], said["next"], _whole(said["counter"])
        if type(rows) is not list:
            raise UnexpectedValue("items")
        return rows, None if following is None else _whole(following), counter
    except (KeyError, UnexpectedValue) as problem:
        raise invalid_response(reply.server, f"it is no page of a list ({_named(problem)})") from None


def companies_of(rows: Iterable[Any], server: str) -> Iterator[Company]:
    """The companies of a page. Raises :class:`PortalError`."""
    for row in rows:
        try:
            number, name, siren, billing, ends, version = _company(row)
            yield Company(
                _text(number),
                _text(name),
                None if siren is None else _text(siren),
                None if billing is None else Billing(BillingMode(billing["mode"]), _text(billing["offer"])),
                None if ends is None else date.fromisoformat(ends),
                _whole(version),
            )
        except (KeyError, TypeError, ValueError, UnexpectedValue) as problem:
            raise invalid_response(server, f"one of its companies is none ({_named(problem)})") from None


_COMPANY = ("number", "name", "siren", "billing", "billing_ends", "version")
_company = itemgetter(*_COMPANY)


class Users:
    """Reads users; people have few different sets of companies and applications, so each is made once."""

    def __init__(self) -> None:
        self._companies: dict[tuple[str, ...], frozenset[str]] = {}
        self._apps: dict[tuple[tuple[str, str, str | None], ...], frozenset[Grant]] = {}

    def read(self, rows: Iterable[Any], users: dict[str, User], server: str) -> None:
        """Put the users of a page among the others, by their ids. Raises :class:`PortalError`."""
        known, held = self._companies, self._apps
        types, productions, statuses = _TYPES, _PRODUCTIONS, _STATUSES
        for row in rows:
            try:
                (
                    id_,
                    email,
                    first,
                    last,
                    phone,
                    type_,
                    billed,
                    numbers,
                    production,
                    grants,
                    status,
                    version,
                ) = _user(row)
                # joining takes texts alone, and is the fastest way to ask
                "".join(
                    (id_, email, first, last, billed)
                    if phone is None
                    else (id_, email, first, last, billed, phone)
                )
                if type(version) is not int or version < 0 or not id_:
                    raise UnexpectedValue("a value of another type")
                key = tuple(numbers)
                companies = known.get(key)
                if companies is None:
                    companies = known[key] = _texts(numbers)
                words = tuple(map(_grant, grants))
                apps = held.get(words)
                if apps is None:
                    apps = held[words] = _grants(grants)
                users[id_] = User(
                    email, first, last, phone, types[type_], billed, companies, productions[production], apps,
                    statuses[status], id_, version,
                )  # fmt: skip
            except (KeyError, TypeError, ValueError, UnexpectedValue) as problem:
                raise invalid_response(server, f"one of its users is none ({_named(problem)})") from None


_TYPES = {member.value: member for member in UserType}
_PRODUCTIONS = {member.value: member for member in Production}
_STATUSES = {member.value: member for member in Status}

_USER = (
    "id", "email", "first_name", "last_name", "phone", "type", "billed", "companies", "production", "apps",
    "status", "version",
)  # fmt: skip
_GRANT = ("app", "state", "ends")
_user, _grant = itemgetter(*_USER), itemgetter(*_GRANT)


def read_receipt(reply: HttpResponse, key: str) -> Receipt:
    """Of a step that was done, or looked up. Raises :class:`PortalError`."""
    said = _object(reply)
    try:
        verdict, id_, version = Verdict(_text(said["verdict"])), _text(said["id"]), _whole(said["version"])
        if verdict not in (Verdict.APPLIED, Verdict.ALREADY):
            raise UnexpectedValue("verdict")
        return Receipt(key, verdict, id_, version)
    except (KeyError, ValueError, UnexpectedValue) as problem:
        raise invalid_response(reply.server, f"it is no receipt of a step ({_named(problem)})") from None


def read_problem(reply: HttpResponse) -> Problem:
    """Why the portal refuses, as far as it says so; never raises."""
    try:
        said = _object(reply)
    except PortalError:
        said = {}
    code, detail, rule = (said.get(name) for name in ("type", "detail", "rule"))
    return Problem(
        code.removeprefix(URN) if isinstance(code, str) and code.startswith(URN) else "",
        detail if isinstance(detail, str) else "",
        rule if isinstance(rule, str) else "",
    )


def read_holders(reply: HttpResponse) -> dict[str, str]:
    """Which run has each letter, "" for one of another ledger. Raises :class:`PortalError`."""
    holders = _object(reply).get("holders")
    if not isinstance(holders, dict):
        raise invalid_response(reply.server, "it does not say who has the letters")
    try:
        return {key: _text(run) for key, run in holders.items()}
    except UnexpectedValue:
        raise invalid_response(reply.server, "one of its letters is held by no run") from None


def read_lease(reply: HttpResponse, holder: str) -> Lease:
    """The lease that this holder was given. Raises :class:`PortalError`."""
    said = _object(reply)
    try:
        ledger, owner, expires = map(_text, (said["ledger"], said["owner"], said["expires"]))
        return Lease(ledger, owner, _whole(said["fence"]), datetime.fromisoformat(expires), holder)
    except (KeyError, ValueError, UnexpectedValue) as problem:
        raise invalid_response(reply.server, f"it is no lease ({_named(problem)})") from None


def read_links(reply: HttpResponse, ids: Iterable[str]) -> dict[str, str]:
    """The links of these users, "" for none. Raises :class:`PortalError`."""
    links = _object(reply).get("links")
    if not isinstance(links, dict):
        raise invalid_response(reply.server, "it has no links")
    found = {id_: links.get(id_, "") for id_ in ids}
    for link in found.values():
        if not isinstance(link, str) or (link and not _is_link(link)):
            raise invalid_response(reply.server, "one of its links is none")
    return found


def _is_link(text: str) -> bool:
    return (
        text.startswith(("https://", "http://")) and text.isascii() and text.isprintable() and " " not in text
    )


def _object(reply: HttpResponse) -> dict[str, Json]:
    said = reply.json()
    if not isinstance(said, dict):
        raise invalid_response(reply.server, "it is no JSON object")
    return said


def _text(said: Json) -> str:
    if type(said) is not str:
        raise UnexpectedValue("not a text")
    return said


def _whole(said: Json) -> int:
    if type(said) is not int or not 0 <= said < 2**63:
        raise UnexpectedValue("not a whole number")
    return said


def _texts(said: Json) -> frozenset[str]:
    if type(said) is not list:
        raise UnexpectedValue("not a list")
    return frozenset(map(_text, said))


def _grants(said: list[Any]) -> frozenset[Grant]:
    return frozenset(
        Grant(_text(app), AppState(state), None if ends is None else date.fromisoformat(ends))
        for app, state, ends in map(_grant, said)
    )


def _named(problem: Exception) -> str:
    if isinstance(problem, KeyError):
        # the key is a name of ours, or a word where another one belongs, which is not repeated
        name = problem.args[0]
        return f"{name} is missing" if name in _NAMES else "a word that is not known"
    return str(problem) if isinstance(problem, UnexpectedValue) else "a value of another kind"


_NAMES = {*_ABOUT, *_TERMS, *_COMPANY, *_USER, *_GRANT, "mode", "offer", "items", "next", "verdict"}
