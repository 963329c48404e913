"""Decodes the bytes of a file, and converts offsets in its text to lines and columns."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right

from provisioner.diagnostics import Diagnostic, Source, error
from provisioner.limits import MAX_FILE_BYTES

# control characters, bidirectional marks, Unicode line separators, surrogates, non-characters
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
"""The pattern of characters that are invisible or reorder other characters, in a text from :func:`decode`."""

# a text whose UTF-8 bytes are all in this set has no hidden character; this test is faster than the pattern
_PLAIN_BYTES = bytes({*b"\t\n", *range(0x20, 0x7F), *range(0x80, 0x100)} - {0xC2, 0xD8, 0xE2, 0xED, 0xEF})


_SHORT = 8192
"""The maximum length in characters of a text in which counting line feeds is faster than indexing lines."""


class SourceText:
    """The text of a file, in which all line ends are line feeds."""

    __slots__ = ("_lines", "file", "text")

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self._lines: list[int] = []

    def at(self, index: int) -> Source:
        """Return the line and the column of the character at an offset."""
        text = self.text
        if len(text) <= _SHORT:
            return Source(self.file, text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))
        if not self._lines:
            self._lines = [0, *(end.end() for end in re.finditer("\n", text))]
        line = bisect_right(self._lines, index)
        return Source(self.file, line, index - self._lines[line - 1] + 1)


def decode(file: str, content: bytes | str) -> str | Diagnostic:
    """Return the text of a file, or a problem. The text has no byte-order mark. All line ends are LF."""
    encoded = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    if len(encoded) > MAX_FILE_BYTES:
        detail = f"The file is larger than {MAX_FILE_BYTES:,} bytes."
        return error("yaml-limit", detail, "Split it into several files.", Source(file, 1, 1))
    if isinstance(content, str):
        return _normalized(content)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:2]:
        return _not_utf8(file, "", 'The file is in UTF-16 or UTF-32 ("Unicode" on Windows), not in UTF-8.')
    try:
        return _normalized(content.decode("utf-8"))
    except UnicodeDecodeError as problem:
        before = _normalized(content[: problem.start].decode("utf-8"))
        return _not_utf8(file, before, f"The byte 0x{content[problem.start]:02X} here is not UTF-8.")


def _normalized(text: str) -> str:
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _not_utf8(file: str, before: str, detail: str) -> Diagnostic:
    return error(
        "file-encoding",
        detail,
        "Save the file as UTF-8 in your editor.",
        SourceText(file, before).at(len(before)),
    )


def is_visible(text: str) -> bool:
    """Return True if the text contains no :data:`HIDDEN` character."""
    rest = text.encode("utf-8", "surrogatepass").translate(None, _PLAIN_BYTES)
    return not rest or HIDDEN.search(text) is None


def character_name(character: str) -> str:
    """Return the code point and the name of a character, such as ``U+202E (RIGHT-TO-LEFT OVERRIDE)``."""
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'a control character')})"
