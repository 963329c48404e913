"""Texts that other readers of YAML would not take for texts, because they lack their quotes.

Ours keeps ``004217`` as it is. An editor sees a number there, and a program that rewrites the file may lose
its zeros.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from provisioner.diagnostics import Diagnostic, warning
from provisioner.yaml_source.document import Data, Document

_COMPANY = ("number", "name", "siren")
_BILLING = ("offer",)
_USER = ("phone", "last_name", "first_name", "profile")
_LISTS_OF_USER = ("companies", "apps")

# numbers, dates and booleans of YAML 1.1 or 1.2
_TYPED = re.compile(
    r"""[-+]?(?: 0b[01_]+ | 0o[0-7]+ | 0x[0-9A-F_]+ | \.inf
               | [0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?
               | (?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)(?:E[-+]?[0-9]+)? )
      | \.nan | [0-9]{4}-[0-9]{1,2}-[0-9]{1,2}
      | y | yes | n | no | on | off""",
    re.VERBOSE | re.IGNORECASE,
)
_BEGINNINGS = frozenset("0123456789+-.yYnNoO")


def missing_quotes(document: Document) -> Iterator[Diagnostic]:
    """A warning for each such text, in a field that holds texts."""
    if document.is_usual:
        return
    for path, text in _typed_texts(document.data):
        if not document.was_quoted(*path):
            key = next(part for part in reversed(path) if isinstance(part, str))
            yield warning(
                "quote-it",
                f"{key}: {text} lacks its quotes. It is read as this very text here, but an editor sees "
                "a number, a date or a yes there.",
                f'Write "{text}", within quotes.',
                document.source(*path),
            )


def _typed_texts(data: Data) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Texts that look like something else, with their paths; of whatever shape the data is."""
    file = _mapping(data)
    for section, keys in (("company", _COMPANY), ("billing", _BILLING)):
        mapping = _mapping(file.get(section))
        for key in keys:
            if (text := mapping.get(key)) is not None and _is_typed(text):
                yield (section, key), text
    for at, entry in enumerate(_list(file.get("users"))):
        user = _mapping(entry)
        for key in _USER:
            if (text := user.get(key)) is not None and _is_typed(text):
                yield ("users", at, key), text
        for key in _LISTS_OF_USER:
            for position, text in enumerate(_list(user.get(key))):
                if _is_typed(text):
                    yield ("users", at, key, position), text


def _is_typed(value: Any) -> bool:
    return (
        isinstance(value, str)
        and value[:1] in _BEGINNINGS
        and " " not in value
        and _TYPED.fullmatch(value) is not None
    )


def _mapping(data: Data) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _list(data: Data) -> list[Any]:
    return data if isinstance(data, list) else []
