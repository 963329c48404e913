"""The normal form of each kind of text, as a step of validation.

Only pydantic's core is imported here: models (schema.py) and their compiled form (compiled.py) share these.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError, core_schema

from provisioner.limits import MAX_EMAIL_BYTES
from provisioner.manifest import fields, urls

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


class Record:
    """What a model of schema.py gives, without the model: its fields as attributes."""

    __pydantic_fields_set__: set[str]
    # where pydantic-core puts what it read
    __slots__ = ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__")

    @property
    def model_fields_set(self) -> set[str]:
        """The fields that were written, as a model says it."""
        return self.__pydantic_fields_set__


class Normalizer:
    """A text with a normal form: the function that makes it, and the code under which it refuses."""

    def __init__(
        self, code: str, normal: Callable[[str], str], *, recurring: bool = False, **json_schema: Any
    ) -> None:
        self._code = code
        self._normal = normal
        self._json_schema = json_schema
        # first names and surnames come back again and again: a look-up costs a fifth of a check
        self.validate: Callable[[str], Any] = (
            lru_cache(maxsize=16_384)(self._in_form) if recurring else self._in_form
        )

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.validate, core_schema.str_schema())

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string"} | self._json_schema

    def _in_form(self, text: str) -> str:
        try:
            return self._normal(text)
        except fields.InvalidField as problem:
            raise _refusal(self._code, problem.reason, problem.remedy) from None


class IntRange:
    """A whole number between two bounds, which arrives as its digits."""

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self.validate: Callable[[str], Any] = self._number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.validate, core_schema.str_schema())

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        bounds = {"minimum": self._least, "maximum": self._most}
        return {"type": ["integer", "string"], "pattern": "^[0-9]+$"} | bounds

    def _number(self, digits: str) -> int:
        if digits.isascii() and digits.isdigit() and len(digits) < 10:
            number = int(digits)
            if self._least <= number <= self._most:
                return number
        raise _refusal("wrong-value", f"it must be a whole number from {self._least} to {self._most}")


def _refusal(code: str, reason: str, remedy: str = "") -> PydanticCustomError:
    return PydanticCustomError("refused", "{reason}", {"code": code, "reason": reason, "remedy": remedy})


EMAIL = Normalizer("email", fields.email, pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", maxLength=MAX_EMAIL_BYTES)
NAME = Normalizer("name", fields.name, recurring=True, minLength=1, maxLength=fields.MAX_NAME)
PHONE = Normalizer("phone", fields.phone, pattern=r"^\+?[0-9 ().\-/]+$", maxLength=fields.MAX_PHONE)
SIREN = Normalizer("siren", fields.siren, pattern="^[0-9]{3} ?[0-9]{3} ?[0-9]{3}$")
OTHER_APP = Normalizer("R3", fields.other_app, minLength=1)
DOMAIN = Normalizer("email", urls.domain, minLength=1)
MAILBOX = Normalizer("email", urls.mailbox)
DATABASE = Normalizer("wrong-value", urls.database)
PORTAL = Normalizer("wrong-value", urls.portal)
PROXY = Normalizer("wrong-value", urls.proxy)
TRANSPORT = Normalizer("wrong-value", urls.transport)
WEB_ADDRESS = Normalizer("wrong-value", urls.web_address, pattern="^https?://")
CONNECTIONS = IntRange(1, 32)
SECONDS = IntRange(1, 3600)
CLOSURES = IntRange(0, 1_000_000)
PERCENT = IntRange(0, 100)

FORMS: dict[str, Normalizer | IntRange] = {
    name: form for name, form in globals().items() if isinstance(form, Normalizer | IntRange)
}
"""By the names they have in this module."""
