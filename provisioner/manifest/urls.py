"""The functions that validate the URLs, mail domains, senders and variable names in provisioner.yaml.

Each function returns the normalized text or raises :class:`~provisioner.manifest.fields.InvalidField`.
A URL that contains a secret is refused, and the error does not show the secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from provisioner.manifest.fields import InvalidField, email, is_hidden, name

_OUTSIDE = r"[a-z][a-z0-9+\-]+://\S+"
"""A URL of a driver from another package. Any scheme is accepted, because that package may not be installed
where manifests are only validated (in CI). A scheme has no dot, so no host name is taken for a scheme."""
PORTAL_PATTERN = rf"^(sqlite:///.+|{_OUTSIDE})$"
TRANSPORT_PATTERN = rf"^(maildir:.+|{_OUTSIDE})$"
VARIABLE_PATTERN = "^[A-Z_][A-Z0-9_]{0,63}$"
"""The pattern of a variable name. Lower case is refused, because such a text is more likely a password."""

_MAILBOX = re.compile(r"(?:(?P<name>[^<>@\"]*|\"[^<>@\"\\]*\")\s*<(?P<inside>[^<>]*)>|(?P<bare>[^<>]*))")
_SERVER = re.compile(
    r"((?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.)*[A-Za-z0-9][A-Za-z0-9-]{0,62}|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?"
)
_POSTGRESQL = re.compile(
    r"//(?:[A-Za-z0-9_.-]+@)?(?P<server>[^/@?]*)/[A-Za-z0-9_.-]+(?:\?schema=[a-z_][a-z0-9_]{0,62})?"
)
_MISWRITTEN = re.compile(r"([A-Za-z+]+):?(//.+)")
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")
_NO_SECRETS = "Secrets are named, never written: use username: with password_env: or password_file:."
_SCHEMES = ("maildir", "smtp", "smtps")
_TRANSPORTS = "maildir:outbox, smtp://mail.example.com:587 or smtps://mail.example.com:465"


def variable(text: str) -> str:
    """Return ``text`` if it can name an environment variable: it must match :data:`VARIABLE_PATTERN`."""
    if re.fullmatch(VARIABLE_PATTERN, text) is None:
        raise InvalidField(
            "it is to be the name of an environment variable, in capitals, and not the secret itself",
            "Write, for example: password_env: SMTP_PASSWORD",
        )
    return text


def domain(text: str) -> str:
    """Return a mail domain, such as ``example.fr``, in lower-case ASCII."""
    if "@" in text:
        raise InvalidField("a domain is what follows the @", f'Write "{text.rpartition("@")[2]}".')
    try:
        return email(f"x@{text}").removeprefix("x@")
    except InvalidField as problem:
        raise InvalidField("it is not a mail domain", "Write it such as example.fr.") from problem


def mailbox(text: str) -> str:
    """Return a mail sender: ``Name <address>`` or only an address. Line breaks in the name are refused."""
    found = _MAILBOX.fullmatch(text)
    if found is None:
        raise InvalidField(
            "it is neither an address nor Name <address>", "Write: Cabinet Durand <acces@example.fr>"
        )
    if found["bare"] is not None:
        return email(found["bare"])
    address = email(found["inside"])
    shown = found["name"].strip().strip('"').strip()
    return f"{name(shown)} <{address}>" if shown else address


def database(text: str) -> str:
    """Return the URL of a database: ``sqlite:///RELATIVE``, ``sqlite:////ABSOLUTE`` or ``postgresql://…``."""
    return _checked_url(text, _DATABASES)


def portal(text: str) -> str:
    """Return the URL of a portal: a database URL, ``https://…`` (portal service) or ``scim+https://…``.

    A URL with another scheme is for a driver from another package, which checks the rest of the URL itself.
    """
    if text.partition(":")[0] not in _PORTALS and _is_outside(text):
        _refuse_password(text, "Name it: secret_env: or secret_file: beside url.")
        return text
    return _checked_url(text, _PORTALS)


def proxy(text: str) -> str:
    """Return the URL of an HTTP proxy, ``http://HOST:PORT``; it must not contain credentials."""
    scheme, colon, rest = text.partition("://")
    if "@" in rest:
        raise InvalidField("it contains a user name or a password", "Use a proxy that asks for none.")
    if not colon or scheme not in ("http", "https") or not _is_server(rest.removesuffix("/")):
        raise InvalidField("it does not name a proxy and its port", "Write http://proxy.example.com:3128")
    return text.removesuffix("/")


def _checked_url(text: str, kinds: Mapping[str, Callable[[str, str], str]]) -> str:
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in kinds:
        # the message does not repeat the rest of the URL, which may contain a password
        remedy = (
            "Write sqlite:///FILE for a file beside provisioner.yaml, sqlite:////FILE for an absolute path."
        )
        meant = _repaired(text, kinds, lambda url: _checked_url(url, kinds))
        raise InvalidField(f"the kinds supported are: {', '.join(kinds)}", meant or remedy)
    return kinds[scheme](text, rest)


def _repaired(text: str, kinds: Collection[str], check: Callable[[str], str]) -> str:
    """Return ``Did you mean "https://x"?`` for a URL in capitals or without its colon; "" for other texts.

    A repaired URL that ``check`` refuses is not suggested, because it may contain a password.
    """
    found = _MISWRITTEN.fullmatch(text)
    if found is None or (scheme := found[1].lower()) not in kinds:
        return ""
    try:
        return f'Did you mean "{check(f"{scheme}:{found[2]}")}"?'
    except InvalidField:
        return ""


def _sqlite(text: str, rest: str) -> str:
    path = rest.removeprefix("///")
    if path == rest:
        raise InvalidField(
            "sqlite: is followed by three slashes and a file, four for an absolute path",
            f"Write sqlite:///{rest.lstrip('/') or 'FILE'}",
        )
    _refuse_odd_path(path, "Write sqlite:/// and a file, such as sqlite:///portal.db.")
    return text


def _postgresql(text: str, rest: str) -> str:
    found = _POSTGRESQL.fullmatch(rest)
    if found is None or not (found["server"] == "" or _is_server(found["server"])):
        if "@" in rest and ":" in rest.rpartition("@")[0]:
            raise InvalidField("it contains a password", "Name it: secret_env: or secret_file: beside url.")
        raise InvalidField(
            "it does not name a server and a database",
            "Write postgresql://USER@HOST/DATABASE, with ?schema=NAME for a schema of your own.",
        )
    return text


def _service(text: str, _: str) -> str:
    prefix = "scim+" if text.startswith("scim+") else ""
    if "@" in text:
        named = "" if prefix else "client_id: and "
        raise InvalidField(
            "it contains a user name or a password",
            f"Name them: {named}secret_env: or secret_file: beside url.",
        )
    return prefix + web_address(text.removeprefix(prefix), "the secret", prefix)


_DATABASES: dict[str, Callable[[str, str], str]] = {"sqlite": _sqlite, "postgresql": _postgresql}
_PORTALS: dict[str, Callable[[str, str], str]] = _DATABASES | dict.fromkeys(
    ("https", "http", "scim+https", "scim+http"), _service
)


def transport(text: str) -> str:
    """Return the URL of a mail transport: ``maildir:FOLDER`` or ``smtp[s]://HOST[:PORT]`` (no password).

    A URL with another scheme is for a driver from another package, which checks the rest of the URL itself.
    """
    scheme, colon, rest = text.partition(":")
    if scheme not in _SCHEMES and _is_outside(text):
        _refuse_password(text, _NO_SECRETS)
        return text
    if not colon or scheme not in _SCHEMES:
        raise InvalidField(
            f"the transports supported are: {', '.join(_SCHEMES)}",
            _repaired(text, _SCHEMES, transport) or f"Write {_TRANSPORTS}.",
        )
    if scheme == "maildir":
        _refuse_odd_path(rest, "Write maildir: and a folder, such as maildir:outbox.")
        return text
    if "@" in rest:
        raise InvalidField("it contains a user name or a password", _NO_SECRETS)
    if not rest.startswith("//") or not _is_server(rest.removeprefix("//").removesuffix("/")):
        raise InvalidField("it does not name a mail server and its port", f"Write {_TRANSPORTS}.")
    return text.removesuffix("/")


def web_address(text: str, what: str = "activation links", prefix: str = "") -> str:
    """Return a web address without the slash at its end. ``http://`` is accepted only for this machine.

    In error messages, ``what`` names the data that must not be sent unencrypted. ``prefix`` (``scim+``) is
    put before the addresses that the messages suggest.
    """
    scheme, colon, rest = text.partition("://")
    server = rest.split("/", 1)[0]
    if "@" in rest:
        raise InvalidField("it contains a user name or a password", "Write the address as users reach it.")
    if not colon or scheme not in ("https", "http") or not _is_server(server):
        raise InvalidField("it is not a web address", f"Write {prefix}https://portal.example.fr")
    if not re.fullmatch(r"[!-~]*", rest) or "?" in rest or "#" in rest:
        raise InvalidField("it has more than a host and a path", "Leave out everything from ? or # on.")
    if scheme == "http" and _SERVER.sub(r"\1", server) not in _THIS_MACHINE:
        raise InvalidField(f"{what} would travel unprotected", f"Write {prefix}https://{rest}")
    return text.rstrip("/")


def _is_outside(text: str) -> bool:
    return re.fullmatch(_OUTSIDE, text) is not None and not any(map(is_hidden, text))


def _refuse_password(text: str, remedy: str) -> None:
    user, at, _ = re.split("[/?#]", text.partition("://")[2], maxsplit=1)[0].rpartition("@")
    if at and ":" in user:
        raise InvalidField("it contains a password", remedy)


def _is_server(text: str) -> bool:
    found = _SERVER.fullmatch(text)
    return found is not None and (found[2] is None or 0 < int(found[2]) < 65536)


def _refuse_odd_path(path: str, remedy: str) -> None:
    if not path.strip() or path.endswith("/") or set(path) & set("?#") or any(map(is_hidden, path)):
        raise InvalidField("it names no file, or one with ?, # or a hidden character", remedy)
    if path == ":memory:":
        raise InvalidField("what is kept in memory is forgotten at once", remedy)
