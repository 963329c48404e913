"""Exports a portal's state as a workspace: provisioner.yaml and one manifest per company.

A plan of the exported workspace has no changes. Even empty lists ``apps`` and ``companies`` are written,
because a plan ignores lists that are not declared. Ending and requested applications are omitted, because
manifests cannot declare them. Closed accounts get ``status: closed``. Accounts that await validation get
``activation: later``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from provisioner.manifest import fields
from provisioner.model import AppState, Company, PortalTerms, State, Status, User, email_key

_MAX_SLUG = 40
# a text that begins with a letter and in which no character has a special meaning in YAML
_PLAIN = re.compile(r"[^\W\d_](?:[\w '&+@./()-]*[\w'&+@./()-])?")
_WORDS_OF_YAML = frozenset({"y", "yes", "n", "no", "on", "off", "true", "false", "null"})


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
) -> dict[str, str]:
    """Return the files of a workspace that declares this state: a mapping from relative path to text.

    The order of the files is stable. The catalogue contains the offers and applications of both ``terms`` and
    ``state``. ``access`` has further keys for the section ``portal:``; keys with an empty value are omitted.
    The URLs must not contain a secret, because they are written unchanged.
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
        'ledger: {url: "sqlite:///ledger.db"}',
        "",
        "mail:",
        '  transport: "maildir:outbox"',
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
        yield path, _text(_manifest(company, sorted(billed.get(number, []), key=_sort_key)))


def _sort_key(user: User) -> tuple[str, str, str]:
    """Return the key that sorts users by name. Names rarely change, so diffs between exports are small."""
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
    """Yield the line ``key: shown``, or a comment if the normalizer ``form`` refuses or changes ``value``."""
    try:
        accepted = form(value) == value
    except fields.InvalidField:
        accepted = False
    if accepted:
        yield f"{indent}{key}: {quoted(shown)}"
    else:
        yield f"{indent}# {key}: the portal has {quoted(value)}, which is not in the form of a {key}"


def _spaced(phone: str) -> str:
    """Return a French number with spaces, such as ``+33 6 12 34 56 78``, and any other number unchanged."""
    if re.fullmatch(r"\+33[1-9][0-9]{8}", phone) is None:
        return phone
    return " ".join([phone[:3], phone[3], *(phone[at : at + 2] for at in range(4, 12, 2))])


def _offers_in_use(state: State) -> frozenset[str]:
    return frozenset(company.billing.offer for company in state.companies.values() if company.billing)


def _apps_in_use(state: State) -> frozenset[str]:
    return frozenset(grant.app for user in state.users.values() for grant in user.apps)


def _free_path(company: Company, taken: set[str]) -> str:
    # a path such as clients/004217-boulangerie-martin.yaml; case alone never distinguishes two paths
    number = re.sub(r"[^0-9A-Za-z._-]", "_", company.number).strip("._-")
    stem = "-".join(filter(None, (number, _slug(company.name)))) or "company"
    name, count = stem, 1
    while name.casefold() in taken:
        count += 1
        name = f"{stem}-{count}"
    taken.add(name.casefold())
    return f"clients/{name}.yaml"


def _slug(name: str) -> str:
    ascii_ = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_.lower())[:_MAX_SLUG].strip("-")


def _setting(entry: str | Mapping[str, str]) -> str:
    if isinstance(entry, str):
        return quoted(entry)
    return "{" + ", ".join(f"{quoted(name)}: {quoted(text)}" for name, text in entry.items()) + "}"


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


# --- YAML ---


def scalar(text: str) -> str:
    """Return a YAML scalar for the text, with quotes only where YAML 1.1 or 1.2 needs them."""
    if _PLAIN.fullmatch(text) is not None and text.casefold() not in _WORDS_OF_YAML and text.isprintable():
        return text
    return quoted(text)


def quoted(text: str) -> str:
    """Return the text in double quotes. Invisible characters become escape sequences."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain) + '"'


def flow(texts: Iterable[str], form: Callable[[str], str] = scalar) -> str:
    """Return a sorted YAML list on one line, such as ``[Documents, Scan]``; ``form`` formats each text."""
    return f"[{', '.join(form(text) for text in sorted(texts))}]"
