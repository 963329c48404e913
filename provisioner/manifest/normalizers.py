"""The value types: annotated types for the fields of :mod:`provisioner.manifest.models`.

To add a type, write its normalizing function in ``fields`` or ``urls`` and annotate a type with it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from provisioner.limits import MAX_EMAIL_BYTES
from provisioner.manifest import fields, urls
from provisioner.manifest.fields import InvalidField


def _normal(code: str, normal: Callable[[str], str]) -> AfterValidator:
    """Return a validator that calls ``normal`` and sets ``code`` on a raised :class:`InvalidField`."""

    def normalized(text: str) -> str:
        try:
            return normal(text)
        except InvalidField as problem:
            problem.code = code
            raise

    return AfterValidator(normalized)


def _text(**json_schema: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string"} | json_schema)


def _number(least: int, most: int) -> BeforeValidator:
    def number(digits: Any) -> int:
        if isinstance(digits, str) and digits.isascii() and digits.isdigit() and len(digits) < 10:
            value = int(digits)
            if least <= value <= most:
                return value
        raise InvalidField(f"it must be a whole number from {least} to {most}")

    return BeforeValidator(number)


def _digits(minimum: int, maximum: int) -> WithJsonSchema:
    bounds = {"minimum": minimum, "maximum": maximum}
    return WithJsonSchema({"type": ["integer", "string"], "pattern": "^[0-9]+$"} | bounds)


Email = Annotated[
    str,
    _normal("email", fields.email),
    _text(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", maxLength=MAX_EMAIL_BYTES),
]
# the same names occur often, and a cache look-up takes a fifth of the time of a check
Name = Annotated[
    str,
    _normal("name", lru_cache(maxsize=16_384)(fields.name)),
    _text(minLength=1, maxLength=fields.MAX_NAME),
]
Phone = Annotated[
    str, _normal("phone", fields.phone), _text(pattern=r"^\+?[0-9 ().\-/]+$", maxLength=fields.MAX_PHONE)
]
Siren = Annotated[str, _normal("siren", fields.siren), _text(pattern="^[0-9]{3} ?[0-9]{3} ?[0-9]{3}$")]
Dossier = Annotated[str, AfterValidator(fields.dossier), _text(pattern=fields.DOSSIER_PATTERN)]
OtherApp = Annotated[str, _normal("R3", fields.other_app), _text(minLength=1)]
MailDomain = Annotated[str, _normal("email", urls.domain), _text(minLength=1)]
Mailbox = Annotated[str, _normal("email", urls.mailbox)]
DatabaseUrl = Annotated[str, AfterValidator(urls.database)]
PortalUrl = Annotated[str, AfterValidator(urls.portal), _text(pattern=urls.PORTAL_PATTERN)]
ProxyUrl = Annotated[str, AfterValidator(urls.proxy)]
TransportUrl = Annotated[str, AfterValidator(urls.transport), _text(pattern=urls.TRANSPORT_PATTERN)]
WebAddress = Annotated[str, AfterValidator(urls.web_address), _text(pattern="^https?://")]
Variable = Annotated[str, AfterValidator(urls.variable), _text(pattern=urls.VARIABLE_PATTERN)]
Connections = Annotated[int, _number(1, 32), _digits(1, 32)]
Seconds = Annotated[int, _number(1, 3600), _digits(1, 3600)]
Closures = Annotated[int, _number(0, 1_000_000), _digits(0, 1_000_000)]
Percent = Annotated[int, _number(0, 100), _digits(0, 100)]
