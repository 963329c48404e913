"""Converts the validation errors of pydantic into diagnostics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from provisioner.diagnostics import Diagnostic, error
from provisioner.manifest.fields import InvalidField
from provisioner.spelling import did_you_mean, unaccented
from provisioner.yaml_source.document import Document

Path = tuple[Any, ...]
"""The path of a value: the mapping keys and list indexes from the root of the document to the value."""

Fault = Mapping[str, Any]
"""A validation error of pydantic: ``loc`` is the path, ``type`` the kind of error, ``ctx`` its details."""

_MOST_GUESSES = 100
"""The maximum number of problems per file that get a "Did you mean …?", because its search is slow."""

_IN_FRENCH = {
    # keys
    "adresse": "email", "courriel": "email", "mail": "email", "prenom": "first_name", "nom": "last_name",
    "telephone": "phone", "tel": "phone", "mobile": "phone", "role": "type", "langue": "language",
    "statut": "status", "profil": "profile", "dossiers": "companies", "entreprises": "companies",
    "entreprise": "company", "dossier": "company", "numero": "number", "facturation": "billing",
    "offre": "offer", "utilisateurs": "users", "applications": "apps", "portail": "portal",
    "cabinet": "firm",
    # values
    "administrateur": "administrator", "administratrice": "administrator", "utilisateur standard": "standard",
    "immediatement": "immediate", "ulterieurement": "later", "fin de mois": "month_end", "ferme": "closed",
    "ouvert": "open", "francais": "fr", "anglais": "en", "associe": "partner",
    "charge de clientele": "customer_manager", "collaborateur": "collaborator",
}  # fmt: skip
"""A mapping from the portal's French words, without accents, to the keys and values of the manifests."""


def faults_of(invalid: ValidationError) -> Sequence[Fault]:
    """Return the validation errors of a document, in the order of the model's fields."""
    return invalid.errors(include_url=False, include_input=False)


def explain(model: type[BaseModel], document: Document, faults: Sequence[Fault]) -> list[Diagnostic]:
    """Return one diagnostic for each of ``faults`` (validation errors of ``document``), in the same order."""
    return [_diagnostic(model, document, fault, at < _MOST_GUESSES) for at, fault in enumerate(faults)]


def value_at(data: Any, path: Sequence[Any]) -> Any:
    """Return the value at a path, or None if the path does not exist."""
    for part in path:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


_KINDS = {
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
}


def _diagnostic(model: type[BaseModel], document: Document, fault: Fault, guess: bool) -> Diagnostic:
    path, kind = fault["loc"], fault["type"]
    if kind == "extra_forbidden":
        return _unknown_key(model, document, path, guess)
    if kind == "missing":
        holder = _holder_name(document, path[:-1])
        return error(
            "missing-key",
            f"{holder} has no {path[-1]}.",
            f"Add the key {path[-1]}.",
            document.positions.source(*path[:-1]),
        )
    value = value_at(document.data, path)
    if kind == "value_error":
        refusal: InvalidField = fault["ctx"]["error"]
        code, reason, remedy = refusal.code, refusal.reason, refusal.remedy
    elif kind in ("enum", "literal_error"):
        code, reason, remedy = _not_among(path, value, fault["ctx"]["expected"], guess)
    else:
        code, reason, remedy = "wrong-value", f"it must be {_KINDS[kind]}", _type_remedy(value, kind)
    return error(
        code,
        f"{_name(path)}{_quoted(path, value)} is not accepted: {reason}.",
        remedy,
        document.positions.source(*path),
    )


def _not_among(path: Path, value: Any, expected: str, guess: bool) -> tuple[str, str, str]:
    # expected is pydantic's list of the accepted values, such as "'client' or 'firm'"
    allowed = re.findall(r"'([^']*)'", expected)
    hint = _hint(value, allowed) if guess and isinstance(value, str) else ""
    code = "R6" if path == ("billing", "mode") else "wrong-value"
    if len(allowed) == 1:
        return code, f"it must be {allowed[0]}", ""
    choices = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
    return code, f"it must be {choices}", hint.strip()


def _type_remedy(value: Any, kind: str) -> str:
    if isinstance(value, bool):
        return f'Put it within quotes: "{str(value).lower()}".' if kind == "string_type" else ""
    if value is None:
        return (
            "Write [] for none, or leave the key out."
            if kind == "tuple_type"
            else "Fill it in, or leave the key out."
        )
    if kind == "tuple_type" and isinstance(value, str):
        return f"Put it within brackets: [{value}]."
    return "Write true or false, without quotes." if kind == "bool_type" else ""


def _unknown_key(model: type[BaseModel], document: Document, path: Path, guess: bool) -> Diagnostic:
    key = str(path[-1])
    keys = _keys_at(model, path[:-1])
    hint = _hint(key, keys) if guess else ""
    where = _holder_name(document, path[:-1])
    return error(
        "unknown-key",
        f"{where} has the key {_short(key)}, which means nothing here.{hint}",
        f"The keys here are: {', '.join(keys)}.",
        document.positions.key_source(*path),
    )


def _hint(word: str, candidates: Sequence[str]) -> str:
    english = _IN_FRENCH.get(unaccented(word), "") if len(word) < 40 else ""
    return f' Did you mean "{english}"?' if english in candidates else did_you_mean(word, candidates)


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """Return the keys that are allowed in the mapping at a path, as they are spelt in the file."""
    for part in path:
        inside = next((f for name, f in model.model_fields.items() if (f.alias or name) == part), None)
        found = _model_within(inside.annotation) if inside is not None else None
        model = found or model
    # the fields of the class come before inherited fields: a user's e-mail before the language
    own = model.__annotations__
    names = sorted(model.model_fields, key=lambda name: name not in own)
    return [model.model_fields[name].alias or name for name in names]


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_within, get_args(annotation))), None)


def _holder_name(document: Document, path: Path) -> str:
    """Return a name, for messages, of the mapping at a path: an e-mail, "User 2", a key or "The file"."""
    if len(path) == 2 and path[0] == "users":
        email = value_at(document.data, (*path, "email"))
        return email if isinstance(email, str) and len(email) < 100 else f"User {int(path[1]) + 1}"
    return _name(path) if path else "The file"


def _name(path: Path) -> str:
    """Return a path as text without ``users[N]``, such as ``phone``, ``apps[1]`` or ``mail.from``."""
    if not path:
        return "The file"
    parts = path[2:] if path[0] == "users" and len(path) > 2 else path
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")


def _quoted(path: Path, value: Any) -> str:
    """Return the value as text for a message; "" if its section of the file could contain a secret."""
    if path[:1] in (("mail",), ("portal",), ("ledger",)):
        return ""
    if value is None:
        return " (empty)"
    if isinstance(value, list | dict):
        return " (a list)" if isinstance(value, list) else " (a mapping)"
    return f" {_short(value) if isinstance(value, str) else str(value).lower()}"


def _short(text: str) -> str:
    return f'"{text[:60]}…"' if len(text) > 61 else f'"{text}"'
