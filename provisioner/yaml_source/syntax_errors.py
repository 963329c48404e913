"""What a YAML parser complains of, said so that the person who wrote the line can mend it."""

from __future__ import annotations

import re
from typing import NamedTuple


class Explanation(NamedTuple):
    """What is wrong, what mends it, and the offset in the text where to look."""

    sentence: str
    remedy: str
    offset: int


class _Saying(NamedTuple):
    said: str
    """A pattern over the words of libyaml and of PyYAML's own parser."""
    sentence: str
    remedy: str
    opened: bool = False
    """Look where the thing was opened rather than where its end was missed."""


_TAB = _Saying("", "A tab stands where only spaces may indent.", "Replace the tab by spaces.")
_NO_START = _Saying(
    "", "A value cannot begin with {character}.", "Put the whole value between double quotes."
)
_SECOND_COLON = _Saying("", "A second colon in one line.", "Put a value that contains ': ' between quotes.")
_CONTINUED = _Saying(
    "",
    "This line is indented as if it went on with the one above it, yet has a colon of its own.",
    "Give the line above its colon and a space after it, or align this line with its neighbours.",
)
_AFTER_VALUE = _Saying(
    "",
    "More text follows where a value has already ended.",
    "Put the whole value between double quotes; within single quotes, write an apostrophe twice: ''.",
)
_MISALIGNED = _Saying(
    "", "This line is aligned with nothing above it.", "Align it with the lines that it belongs to."
)

_SAYINGS = (
    _Saying(
        r"could not find expected ':'",
        "This line should be a key and a value, and has no colon followed by a space.",
        "Write key: value, with a space after the colon.",
        opened=True,
    ),
    _Saying(
        r"unexpected end of stream|unexpected document (indicator|separator)",
        "The quote opened here is never closed.",
        "Close it with the same kind of quote.",
        opened=True,
    ),
    _Saying(
        r"expected ',' or '\]'",
        "The list opened here with [ is not closed, or lacks a comma: line {line}, column {column}.",
        "Put commas between the items and close the list with ].",
        opened=True,
    ),
    _Saying(
        r"expected ',' or '}'",
        "The mapping opened here with { is not closed, or lacks a comma: line {line}, column {column}.",
        "Put commas between the entries and close the mapping with }.",
        opened=True,
    ),
    _Saying(
        r"expected '-' indicator|(sequence|block sequence) entries are not allowed",
        "This line does not go on with the list above it.",
        "Begin each item with a dash and a space, and align the dashes.",
    ),
    _Saying(
        r"expected node content|expected the node content",
        "A value is missing here.",
        "Write the value, or put it between double quotes.",
    ),
    _Saying(
        r"expected alphabetic or numeric character",
        "A value that begins with & or * is taken for an anchor or an alias.",
        "Put the whole value between double quotes.",
        opened=True,
    ),
    _Saying(
        r"unknown escape|expected hexdecimal|expected escape sequence|invalid Unicode character",
        "Between double quotes a backslash begins an escape, and this is none.",
        "Use single quotes, or write the backslash twice.",
    ),
    _Saying(
        r"comment or line break|comment or a line break",
        "After | or > the text begins on the next line.",
        "Put a value that begins with | or > between double quotes.",
    ),
    _Saying(r"undefined tag handle|tag", "A value that begins with ! is taken for a tag.", "Quote it."),
    _Saying(
        r"directive|incompatible YAML|document start|<document start>",
        "A line that begins with % is taken for a directive.",
        "Remove the line.",
    ),
)


def explain_syntax_error(said: str, text: str, index: int, opened: int) -> Explanation:
    """The parser's words ``said`` at ``index`` in plain terms; ``opened`` is where the construct began."""
    saying = _by_text(said, text, index) or next((s for s in _SAYINGS if re.search(s.said, said)), None)
    if saying is None:
        return Explanation(f"This cannot be read as YAML: {said}.", "Correct this line.", index)
    before = text[:index]
    sentence = saying.sentence.replace("{character}", text[index : index + 1])
    sentence = sentence.replace("{line}", str(before.count("\n") + 1))
    sentence = sentence.replace("{column}", str(index - before.rfind("\n")))
    return Explanation(sentence, saying.remedy, opened if saying.opened else index)


def _by_text(said: str, text: str, index: int) -> _Saying | None:
    """Some words of the parser have several causes; the text tells which."""
    before = text[text.rfind("\n", 0, index) + 1 : index]
    if "\t" in (text[index : index + 1], *before.strip(" ")) and not before.strip():
        return _TAB
    if "a tab character" in said:
        return _TAB
    if "cannot start any token" in said:
        return _NO_START
    if "mapping values are not allowed" in said:
        return _SECOND_COLON if re.search(r":\s", before) else _CONTINUED
    if re.search("expected key|expected <block end>", said):
        return _AFTER_VALUE if before.strip(" -") else _MISALIGNED
    return None
