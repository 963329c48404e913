"""A portal's state, written as a workspace: provisioner.yaml and one manifest a company.

Planning what is written here changes nothing. What an account may see is written out, down to the
empty list, so that a later difference shows; what the manifests cannot say (an ending application, a
requested one) is left out, which leaves it as it is. Closed accounts are written as closed, and
those to be validated as ``activation: later``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from provisioner.manifest import fields
from provisioner.model import AppState, Company, PortalTerms, State, Status, User, email_key

_MAX_SLUG = 40
# begins with a letter and holds nothing that YAML reads, alone or beside a space
_PLAIN = re.compile(r"[^\W\d_](?:[\w '&+@./()-]*[\w'&+@./()-])?")
_WORDS_OF_YAML = frozenset({"y", "yes", "n", "no", "on", "off", "true", "false", "null"})
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def export_workspace(
    state: State,
    terms: PortalTerms,
    *,
    firm_name: str,
    portal_url: str,
    mail_from: str,
    language: str = "fr",
    operator: str = "partner",
    public_url: str = "",
    access: Mapping[str, str | Mapping[str, str]] = MappingProxyType({}),
    ledger_url: str = "sqlite:///ledger.db",
    transport: str = "maildir:outbox",
) -> dict[str, str]:
    """The files of a workspace that declares this state: relative path to text, in stable order.

    The catalogue has the portal's terms and whatever is in use beside them. ``access`` is whatever else
    reaching the portal takes, under the keys of provisioner.yaml; what is empty is left out. The urls are
    written as they come, so they must name no secret.
    """
    settings = [
        "# Written by provisioner export: the portal as it was, so that planning it changes nothing.",
        "version: 1",
        "",
        "firm:",
        f"  name: {scalar(firm_name)}",
        f"  language: {scalar(language)}",
        f"  email_domains: {flow(terms.email_domains)}",
        f"  staff: {flow(terms.staff)}",
        "",
        "manifests: [clients/]",
        "",
        "catalogue:",
        f"  offers: {flow(terms.offers | _offers_in_use(state))}",
        f"  apps: {flow(terms.apps | _apps_in_use(state))}",
        "",
        "portal:",
        f"  url: {quoted(portal_url)}",
        f"  operator: {scalar(operator)}",
        *([f"  public_url: {quoted(public_url)}"] if public_url else []),
        *(f"  {key}: {_setting(entry)}" for key, entry in access.items() if entry),
        "",
        f"ledger: {{url: {quoted(ledger_url)}}}",
        "",
        "mail:",
        f"  transport: {quoted(transport)}",
        f"  from: {quoted(mail_from)}",
        "  welcome: ours",
        "",
        "safety: {absent: report}",
    ]
    return {"provisioner.yaml": _text(settings)} | dict(_manifests(state))


def _manifests(state: State) -> Iterator[tuple[str, str]]:
    billed: dict[str, list[User]] = {}
    for user in state.users.values():
        billed.setdefault(user.billed, []).append(user)
    taken: set[str] = set()
    for number in sorted(state.companies.keys() | billed.keys()):
        company = state.companies.get(number) or Company(number, number)
        path = _free_path(company, taken)
        yield path, _text(_manifest(company, sorted(billed.get(number, []), key=_place)))


def _place(user: User) -> tuple[str, str, str]:
    """The sort key of a user in a file. Names hardly change, so neither do the lines around them."""
    return user.last_name.casefold(), user.first_name.casefold(), email_key(user.email)


def _manifest(company: Company, users: Sequence[User]) -> Iterator[str]:
    yield "company:"
    yield f"  number: {quoted(company.number)}"
    yield f"  name: {scalar(company.name)}"
    if company.siren is not None:
        yield from _checked("  ", "siren", company.siren, fields.siren, company.siren)
    if company.billing is not None:
        billing = f"{{mode: {company.billing.mode}, offer: {scalar(company.billing.offer)}}}"
        if any(user.is_open for user in users):
            yield f"billing: {billing}"
        else:
            yield f"# billing: {billing}, which the portal keeps while nobody is billed to this company"
    for position, user in enumerate(users):
        yield "" if position else "users:"
        yield from _user(user)


def _user(user: User) -> Iterator[str]:
    yield f"  - email: {scalar(user.email)}"
    yield f"    first_name: {scalar(user.first_name)}"
    yield f"    last_name: {scalar(user.last_name)}"
    if user.phone is not None:
        yield from _checked("    ", "phone", user.phone, fields.phone, _spaced(user.phone))
    yield f"    type: {user.type}"
    yield f"    production: {user.production}"
    yield f"    apps: {flow(grant.app for grant in user.apps if grant.state is AppState.ACTIVE)}"
    yield f"    companies: {flow(user.companies - {user.billed}, quoted)}"
    if user.status is Status.TO_VALIDATE:
        yield "    activation: later"
    elif user.status is Status.CLOSED:
        yield "    status: closed"


def _checked(indent: str, key: str, value: str, form: Callable[[str], str], shown: str) -> Iterator[str]:
    """A field that may be left out, left out where a manifest could not give this very value back."""
    try:
        accepted = form(value) == value
    except fields.InvalidField:
        accepted = False
    if accepted:
        yield f"{indent}{key}: {quoted(shown)}"
    else:
        yield f"{indent}# {key}: the portal has {quoted(value)}, which is not in the form of a {key}"


def _spaced(phone: str) -> str:
    """A French number as people write it: ``+33 6 12 34 56 78``."""
    if re.fullmatch(r"\+33[1-9][0-9]{8}", phone) is None:
        return phone
    return " ".join([phone[:3], phone[3], *(phone[at : at + 2] for at in range(4, 12, 2))])


def _offers_in_use(state: State) -> frozenset[str]:
    return frozenset(company.billing.offer for company in state.companies.values() if company.billing)


def _apps_in_use(state: State) -> frozenset[str]:
    return frozenset(grant.app for user in state.users.values() for grant in user.apps)


def _free_path(company: Company, taken: set[str]) -> str:
    """``clients/004217-boulangerie-martin.yaml``, made unique where file names ignore case."""
    number = re.sub(r"[^0-9A-Za-z._-]", "_", company.number).strip("._-")
    stem = "-".join(filter(None, (number, _slug(company.name)))) or "company"
    name, count = stem, 1
    while name.casefold() in taken:
        count += 1
        name = f"{stem}-{count}"
    taken.add(name.casefold())
    return f"clients/{name}.yaml"


def _slug(name: str) -> str:
    """The name in small ASCII letters, digits and dashes."""
    ascii_ = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_.lower())[:_MAX_SLUG].strip("-")


def _setting(entry: str | Mapping[str, str]) -> str:
    if isinstance(entry, str):
        return quoted(entry)
    return "{" + ", ".join(f"{quoted(name)}: {quoted(text)}" for name, text in entry.items()) + "}"


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


# --- YAML, as much of it as is written here ---


def scalar(text: str) -> str:
    """A text as YAML 1.1 and 1.2 both read it back: bare where that is safe, else in quotes."""
    if _PLAIN.fullmatch(text) is not None and text.casefold() not in _WORDS_OF_YAML and text.isprintable():
        return text
    return quoted(text)


def quoted(text: str) -> str:
    """A text within double quotes; what would not show is written as an escape."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def flow(texts: Iterable[str], form: Callable[[str], str] = scalar) -> str:
    """A list on one line, sorted: ``[Documents, Scan]``."""
    return f"[{', '.join(form(text) for text in sorted(texts))}]"


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    point = ord(character)
    if point <= 0xFF:
        return f"\\x{point:02X}"
    return f"\\u{point:04X}" if point <= 0xFFFF else f"\\U{point:08X}"
