"""The JSON Schema of a plan file, generated from the type annotations that the codec reads."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from provisioner.model import Address
from provisioner.planning.codec import TAGS, record_fields
from provisioner.planning.plan_document import PlanDocument

LEAVES: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    date: {"type": "string", "format": "date", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
    Address: {"type": "string", "pattern": "^(company|user):"},
}


def plan_schema() -> dict[str, Any]:
    """Return the schema of the document that ``plan --json`` prints and ``plan --out`` saves."""
    definitions: dict[str, Any] = {}
    document = _record(PlanDocument, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:provisioner:schema:plan:1",
        "title": "Plan",
        **document,
        "$defs": dict(sorted(definitions.items())),
    }


def _schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in LEAVES:
        return LEAVES[hint]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"type": "string", "enum": [str(word) for word in hint]}
    if origin in (Union, UnionType):
        kinds = [_schema(member, definitions) for member in arguments if member is not NoneType]
        return {"anyOf": [*kinds, *([{"type": "null"}] if NoneType in arguments else [])]}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is frozenset:
        return {"type": "array", "items": _schema(arguments[0], definitions), "uniqueItems": True}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if hint.__name__ not in definitions:
        definitions[hint.__name__] = _record(hint, definitions)
    return {"$ref": f"#/$defs/{hint.__name__}"}


def _record(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with exactly the fields of a record.

    If a field of the record is a tagged union, the schema has one alternative for each member of the union.
    """
    fields = record_fields(hint)
    for name, part in fields.items():
        if TAGS.get(part) == name:
            beside = {other: kind for other, kind in fields.items() if other != name}
            kinds = [
                {
                    "description": _description(kind),
                    **_object(beside | record_fields(kind), definitions, {name: {"const": kind.__name__}}),
                }
                for kind in get_args(part)
            ]
            return {"description": _description(hint), "anyOf": kinds}
    return {"description": _description(hint), **_object(fields, definitions, {})}


def _object(fields: Mapping[str, Any], definitions: dict[str, Any], tags: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {name: _schema(hint, definitions) for name, hint in fields.items()} | tags
    return {
        "type": "object",
        "properties": dict(sorted(properties.items())),
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _description(hint: Any) -> str:
    """Return the first paragraph of a class's docstring without markup."""
    text = " ".join((inspect.getdoc(hint) or "").split("\n\n")[0].split())
    return re.sub(r":\w+:`([^`]*)`", r"\1", text).replace("``", "")
