r"""Text from outside, made safe to show: the one door between strangers' words and any output of ours.

Escape codes, control, bidirectional and zero-width characters are written out (``\x1b``, ``\u202e``),
and so is what a CI system would obey in a log line (``::set-env``, ``##[command]``).
"""

from __future__ import annotations

import json
import re
import unicodedata

from provisioner.manifest.fields import is_hidden

# at "::" GitHub listens, at "##[" and "##vso[" Azure and older runners, anywhere in a line
_COMMANDS = re.compile(r":(?=:[A-Za-z])|#(?=#(?:\[|vso\[))")


def printable(text: str) -> str:
    """The text on one line, with nothing hidden in it and nothing in it that acts."""
    if not text.isprintable() or not _is_latin(text):
        text = "".join(map(_shown, text))
    if "::" in text or "##" in text:
        text = _COMMANDS.sub(lambda found: _escape(found[0]), text)
    return text


def _is_latin(text: str) -> bool:
    """Nothing beyond Latin letters with their accents: one column each, and none hidden that is printable."""
    return text.isascii() or max(text) < "\u0250"


def printable_lines(text: str) -> str:
    """The same for a text of several lines, each by itself."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(value: object) -> str:
    """The value as JSON that says the same, in which nothing is hidden and nothing acts."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return escape_json(text)


def escape_json(text: str) -> str:
    """The same JSON, with escapes for what is hidden or acts; such characters stand in its strings alone."""
    if not text.isascii() or "\x7f" in text:
        text = "".join(_in_json(c) if c != "\n" and is_hidden(c) else c for c in text)
    return text.replace("::", ":\\u003a").replace("##", "#\\u0023")


def _in_json(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _shown(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return " "
    return _escape(character) if is_hidden(character) else character


def _escape(character: str) -> str:
    point = ord(character)
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


def columns(text: str) -> int:
    """How many columns a terminal gives this text: wide characters two, combining marks none."""
    if _is_latin(text):
        return len(text)
    return sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
