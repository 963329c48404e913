r"""Text from outside, made safe to show: the one door between strangers' words and any output of ours.

Escape codes, control, bidirectional and zero-width characters are written out (``\x1b``, ``\u202e``),
and so is what a CI system would obey in a log line (``::set-env``, ``##[command]``).
"""

from __future__ import annotations

import re
import unicodedata

from provisioner.manifest.fields import is_hidden

# at "::" GitHub listens, at "##[" and "##vso[" Azure and older runners, anywhere in a line
_COMMANDS = re.compile(r":(?=:[A-Za-z])|#(?=#(?:\[|vso\[))")


def visible(text: str) -> str:
    """The text on one line, with nothing hidden in it and nothing in it that acts."""
    if not text.isprintable() or not _is_latin(text):
        text = "".join(map(_shown, text))
    if "::" in text or "##" in text:
        text = _COMMANDS.sub(lambda found: _escape(found[0]), text)
    return text


def _is_latin(text: str) -> bool:
    """Nothing beyond Latin letters with their accents: one column each, and none hidden that is printable."""
    return text.isascii() or max(text) < "\u0250"


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
