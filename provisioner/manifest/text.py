"""The text of a file before it is read as YAML: bytes to characters, and where a character stands."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from itertools import accumulate

from provisioner.diagnostics import Diagnostic, Source, error
from provisioner.limits import MAX_FILE_BYTES

# controls, bidirectional marks, line separators that editors do not count, half characters, non-characters
HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufeff\ufffe\uffff]"
)
"""Characters that do not show, or that rearrange what shows."""

# no hidden character has only these bytes in UTF-8; dropping them is much faster than the pattern
_PLAIN_BYTES = bytes({*b"\t\n\r", *range(0x20, 0x7F), *range(0x80, 0x100)} - {0xC2, 0xD8, 0xE2, 0xED, 0xEF})


class Page:
    """A named text, in which offsets become lines and columns."""

    __slots__ = ("_lines", "file", "text")

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self._lines: list[int] = []

    def at(self, index: int) -> Source:
        """Line and column of a character; the text may hold no :data:`HIDDEN` one."""
        if not self._lines:
            lines = self.text.splitlines(keepends=True)
            self._lines = list(accumulate(map(len, lines), initial=0))
            if lines and not lines[-1].endswith(("\n", "\r")):
                self._lines.pop()  # no line begins where the text ends
        line = bisect_right(self._lines, index)
        return Source(self.file, line, index - self._lines[line - 1] + 1)


def decode(file: str, content: bytes | str) -> str | Diagnostic:
    """The text of a file, without the byte-order mark that may begin it; or why it has none."""
    encoded = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    if len(encoded) > MAX_FILE_BYTES:
        detail = f"The file is larger than {MAX_FILE_BYTES:,} bytes."
        return error("yaml-limit", detail, "Split it into several files.", Source(file, 1, 1))
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:2]:
        return _not_utf8(file, "", 'The file is in UTF-16 or UTF-32 ("Unicode" on Windows), not in UTF-8.')
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as problem:
        before = content[: problem.start].decode("utf-8").removeprefix("\ufeff")
        return _not_utf8(file, before, f"The byte 0x{content[problem.start]:02X} here is not UTF-8.")


def _not_utf8(file: str, before: str, detail: str) -> Diagnostic:
    place = Page(file, HIDDEN.sub("\ufffd", before)).at(len(before))
    return error("file-encoding", detail, "Save the file as UTF-8 in your editor.", place)


def shows(text: str) -> bool:
    """True if the text holds no :data:`HIDDEN` character."""
    rest = text.encode("utf-8", "surrogatepass").translate(None, _PLAIN_BYTES)
    return not rest or HIDDEN.search(text) is None


def in_words(character: str) -> str:
    """``U+202E (RIGHT-TO-LEFT OVERRIDE)``"""
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'a control character')})"
