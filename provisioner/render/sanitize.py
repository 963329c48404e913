r"""The functions that make text from outside safe to show; all text from outside must pass through them.

They replace control, bidirectional and zero-width characters with escapes (``\x1b``, ``\u202e``). They also
escape the characters that start a CI system's command in a log line (``::set-env``, ``##[command]``).
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache

from provisioner.manifest.fields import is_hidden

# GitHub executes commands after "::", Azure and older runners after "##[" and "##vso[", anywhere in a line
_COMMANDS = re.compile(r":(?=:[A-Za-z])|#(?=#(?:\[|vso\[))")


def printable(text: str) -> str:
    """Return the text on one line, with hidden characters, line breaks and CI commands escaped."""
    if not text.isprintable() or not _is_latin(text):
        text = "".join(map(_printable_character, text))
    if "::" in text or "##" in text:
        text = _COMMANDS.sub(lambda found: _escape(found[0]), text)
    return text


def _is_latin(text: str) -> bool:
    """Return True if all characters are below U+0250, where each printable character is one column wide."""
    return text.isascii() or max(text) < "\u0250"


def printable_lines(text: str) -> str:
    """Return the text with :func:`printable` applied to each line."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(value: object) -> str:
    """Return the value as JSON text, with hidden characters and CI commands escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return escape_json(text)


def escape_json(text: str) -> str:
    """Return the JSON text with hidden characters and CI commands escaped; the JSON value stays the same."""
    if not text.isascii() or "\x7f" in text:
        text = "".join(_in_json(c) if c != "\n" and is_hidden(c) else c for c in text)
    return text.replace("::", ":\\u003a").replace("##", "#\\u0023")


def _in_json(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _printable_character(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return " "
    return _escape(character) if is_hidden(character) else character


def _escape(character: str) -> str:
    point = ord(character)
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


def columns(text: str) -> int:
    """Return the width of the text in terminal columns: a wide character counts 2, a combining mark 0."""
    if _is_latin(text):
        return len(text)
    return sum(map(_columns_of, text))


@lru_cache(maxsize=4096)
def _columns_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
