"""Tables in Markdown of every key of manifests and of provisioner.yaml, generated from the JSON Schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provisioner.manifest.models import Kind, json_schema

Schema = Mapping[str, Any]

SECTIONS: dict[Kind, dict[str, str]] = {
    "client": {
        "A client manifest": "",
        "`company`": "CompanyConfig",
        "`billing`": "BillingConfig",
        "`users`: the keys of one user": "UserConfig",
    },
    "provisioner": {
        "provisioner.yaml": "",
        "`firm`": "Firm",
        "`catalogue`": "Catalogue",
        "`defaults`, and each profile of the catalogue": "Preset",
        "`portal`": "PortalAccess",
        "`ledger`": "LedgerPlace",
        "`mail`": "Mail",
        "`safety`": "Safety",
    },
}
"""The headings of the reference, with the names of the schema definitions that they describe."""


def schema_reference() -> str:
    """Return the reference: one heading and one table for each section of the two kinds of files."""
    return "\n".join(line for kind in SECTIONS for line in _of_kind(kind))


def _of_kind(kind: Kind) -> Iterator[str]:
    schema = json_schema(kind)
    for heading, name in SECTIONS[kind].items():
        section = schema["$defs"][name] if name else schema
        level = "###" if name else "##"
        yield from (f"{level} {heading}", "", section["description"], "")
        yield from ("| key | value | default | meaning |", "|---|---|---|---|")
        required = section.get("required", [])
        for key, field in sorted(section["properties"].items(), key=lambda item: item[0] not in required):
            default = "**required**" if key in required else _default(field)
            yield f"| `{key}` | {_value(field, schema)} | {default} | {_meaning(field, schema)} |"
        yield ""


def _value(field: Schema, schema: Schema) -> str:
    """Return the accepted values of a field in words."""
    if "$ref" in field:
        target = schema["$defs"][field["$ref"].rpartition("/")[2]]
        return "section" if target.get("type") == "object" else _value(target, schema)
    if "enum" in field:
        return ", ".join(dict.fromkeys(f"`{word}`" for word in field["enum"]))
    if "anyOf" in field:
        return " or ".join(_value(choice, schema) for choice in field["anyOf"])
    match field["type"]:
        case "array":
            item = _value(field["items"], schema)
            return "list of texts" if item == "text" else f"list of {item}s"
        case "object":
            inner = _value(field["additionalProperties"], schema)
            return f"mapping from name to {inner}"
        case ["integer", "string"]:
            return f"{field['minimum']} to {field['maximum']}"
        case "boolean":
            return "`true`, `false`"
        case "null":
            return "`null`"
        case _:
            return "text"


def _default(field: Schema) -> str:
    default = field.get("default", "")
    if default in ("", []):
        return ""
    return f"`{', '.join(default)}`" if isinstance(default, list) else f"`{default}`"


def _meaning(field: Schema, schema: Schema) -> str:
    """Return the description of a field, or that of its section, with an example if there is one."""
    described = field if "description" in field else schema["$defs"][field["$ref"].rpartition("/")[2]]
    examples = "".join(f" Example: `{example}`" for example in field.get("examples", ()))
    return " ".join(described["description"].split()).replace("|", "\\|") + examples
