"""The normal form of each kind of value, as annotations for the fields of :mod:`provisioner.manifest.models`.

To add a kind: write its function in ``fields`` or ``urls``, and annotate a type with :func:`_text` here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import AfterValidator, StringConstraints, WithJsonSchema

from provisioner.limits import MAX_EMAIL_BYTES
from provisioner.manifest import fields, urls
from provisioner.manifest.fields import InvalidField


def _text(code: str, normal: Callable[[str], str], *, recurring: bool = False, **json_schema: Any) -> Any:
    """A text that ``normal`` normalizes; ``code`` is the diagnostic's if it raises :class:`InvalidField`."""

    def normalized(text: str) -> str:
        try:
            return normal(text)
        except InvalidField as problem:
            problem.code = code
            raise

    # first names and surnames recur: a look-up takes a fifth of the time of a check
    validator = lru_cache(maxsize=16_384)(normalized) if recurring else normalized
    return Annotated[str, AfterValidator(validator), WithJsonSchema({"type": "string"} | json_schema)]


def _whole_number(least: int, most: int) -> Any:
    """A whole number between two bounds, inclusive; it arrives as text."""

    def number(digits: str) -> int:
        if digits.isascii() and digits.isdigit() and len(digits) < 10 and least <= int(digits) <= most:
            return int(digits)
        raise InvalidField(f"it must be a whole number from {least} to {most}")

    bounds = {"minimum": least, "maximum": most}
    json_schema = {"type": ["integer", "string"], "pattern": "^[0-9]+$"} | bounds
    return Annotated[str, AfterValidator(number), WithJsonSchema(json_schema)]


if TYPE_CHECKING:
    Email: TypeAlias = str
    Name: TypeAlias = str
    Phone: TypeAlias = str
    Siren: TypeAlias = str
    OtherApp: TypeAlias = str
    MailDomain: TypeAlias = str
    Mailbox: TypeAlias = str
    DatabaseUrl: TypeAlias = str
    PortalUrl: TypeAlias = str
    ProxyUrl: TypeAlias = str
    TransportUrl: TypeAlias = str
    WebAddress: TypeAlias = str
    Connections: TypeAlias = int
    Seconds: TypeAlias = int
    Closures: TypeAlias = int
    Percent: TypeAlias = int
else:
    Email = _text("email", fields.email, pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", maxLength=MAX_EMAIL_BYTES)
    Name = _text("name", fields.name, recurring=True, minLength=1, maxLength=fields.MAX_NAME)
    Phone = _text("phone", fields.phone, pattern=r"^\+?[0-9 ().\-/]+$", maxLength=fields.MAX_PHONE)
    Siren = _text("siren", fields.siren, pattern="^[0-9]{3} ?[0-9]{3} ?[0-9]{3}$")
    OtherApp = _text("R3", fields.other_app, minLength=1)
    MailDomain = _text("email", urls.domain, minLength=1)
    Mailbox = _text("email", urls.mailbox)
    DatabaseUrl = _text("wrong-value", urls.database)
    PortalUrl = _text("wrong-value", urls.portal)
    ProxyUrl = _text("wrong-value", urls.proxy)
    TransportUrl = _text("wrong-value", urls.transport)
    WebAddress = _text("wrong-value", urls.web_address, pattern="^https?://")
    Connections = _whole_number(1, 32)
    Seconds = _whole_number(1, 3600)
    Closures = _whole_number(0, 1_000_000)
    Percent = _whole_number(0, 100)

Dossier = Annotated[str, StringConstraints(pattern=fields.DOSSIER_PATTERN)]
Variable = Annotated[str, StringConstraints(pattern=urls.VARIABLE_PATTERN)]
"""The name of an environment variable."""
