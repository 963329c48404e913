"""Strict parsing of request bodies, parameters and headers. A JSON pointer locates an error in a body."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers

from provisioner.embedded.server.problem_details import Problem
from provisioner.embedded.server.routes import Parameter

MAX_BODY = 1024 * 1024
"""The maximum size of a request body in bytes."""

MAX_FAULTS = 1_000
"""If a body has more faults than this number, the response describes none of them."""

Model = TypeVar("Model", bound=BaseModel)


def read_body(content: bytes, model: type[Model]) -> Model:
    """Return the body as an instance of ``model``. Raises :class:`Problem` with status 400 if the body is not
    JSON, and with status 422 if it does not fit ``model``.
    """
    try:
        # parse the body twice, because pydantic accepts duplicate keys and NaN
        json.loads(
            content.decode("utf-8"), object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        raise Problem("malformed", "The body is not JSON.") from None
    try:
        return model.model_validate_json(content)
    except ValidationError as problem:
        raise _problem(problem) from None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        raise Problem("malformed", "The body has a key twice.")


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError


def _problem(problem: ValidationError) -> Problem:
    if problem.error_count() > MAX_FAULTS:
        return Problem("invalid", f"The body has more than {MAX_FAULTS} faults.")
    first, *others = problem.errors(include_url=False, include_context=True, include_input=False)
    if first["type"] == "json_invalid":
        return Problem("malformed", "The body is not JSON.")
    found = Problem("invalid", _sentence(first), pointer=_pointer(first["loc"]))
    if others:
        found.more["others"] = [
            {"pointer": _pointer(other["loc"]), "detail": _sentence(other)} for other in others[:20]
        ]
    return found


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "the body"
    # take the text of the ValueError itself, because pydantic puts "Value error, " in front of it
    message = str(error.get("ctx", {}).get("error", error["msg"]))
    return f"{where}: {message[:1].lower()}{message[1:].rstrip('.')}."


def _pointer(location: tuple[int | str, ...]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def read_parameter(parameter: Parameter, text: str) -> str | int:
    """Parse ``text``, the value of a parameter. Raises :class:`Problem` if the value is not valid."""
    if parameter.pattern:
        if re.fullmatch(parameter.pattern, text) is None:
            raise _invalid_parameter(parameter, "does not look like one")
        return text
    if re.fullmatch("[0-9]{1,16}", text) is None or not parameter.least <= int(text) <= parameter.most:
        raise _invalid_parameter(parameter, f"is a whole number from {parameter.least} to {parameter.most}")
    return int(text)


def _invalid_parameter(parameter: Parameter, words: str) -> Problem:
    if parameter.place == "path":
        return Problem("not-on-portal", f"Nothing on this portal has such a {parameter.name}.")
    return Problem("malformed", f"The {parameter.place} parameter {parameter.name} {words}.")


def read_form(content: bytes, what: str) -> dict[str, str]:
    """Return the fields of a form or query string; ``what`` is its name in error messages. Raises
    :class:`Problem` if ``content`` is malformed or contains a field twice.
    """
    try:
        pairs = parse_qsl(
            content.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(content),
            errors="strict",
            max_num_fields=20,
        )
    except ValueError:
        raise Problem("malformed", f"The {what} is malformed.") from None
    values = dict(pairs)
    if len(values) < len(pairs):
        raise Problem("malformed", f"The {what} has a parameter twice.")
    return values


_UNREPEATED = (
    "authorization",
    "content-type",
    "if-match",
    "idempotency-key",
    "lease",
    "fencing-token",
    "content-length",
    "host",
)


def require_single_headers(headers: Headers) -> None:
    """Raise :class:`Problem` if a header that the service reads occurs more than once."""
    for name in _UNREPEATED:
        if len(headers.getlist(name)) > 1:
            raise Problem("malformed", f"The header {name} comes twice.")
    if "content-length" in headers and "transfer-encoding" in headers:
        # a proxy could use the other header to find the end of the body: request smuggling (RFC 9112, 11.2)
        sentence = "Content-Length and Transfer-Encoding exclude each other."
        raise Problem("malformed", sentence, headers={"Connection": "close"})
