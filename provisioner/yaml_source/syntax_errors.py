"""Explanations in simple words for YAML syntax errors, each with a remedy."""

from __future__ import annotations

import re
from typing import NamedTuple


class _SyntaxHint(NamedTuple):
    pattern: str
    """A regular expression for the messages of both libyaml and PyYAML's own parser."""
    sentence: str
    remedy: str
    at_opening: bool = False
    """True if the error is shown where the construct begins, instead of where the parser stopped."""


_TAB = _SyntaxHint("", "A tab stands where only spaces may indent.", "Replace the tab by spaces.")
_NO_START = _SyntaxHint(
    "", "A value cannot begin with {character}.", "Put the whole value between double quotes."
)
_SECOND_COLON = _SyntaxHint(
    "", "A second colon in one line.", "Put a value that contains ': ' between quotes."
)
_CONTINUED = _SyntaxHint(
    "",
    "This line is indented as if it went on with the one above it, yet has a colon of its own.",
    "Give the line above its colon and a space after it, or align this line with its neighbours.",
)
_AFTER_VALUE = _SyntaxHint(
    "",
    "More text follows where a value has already ended.",
    "Put the whole value between double quotes; within single quotes, write an apostrophe twice: ''.",
)
_MISALIGNED = _SyntaxHint(
    "", "This line is aligned with nothing above it.", "Align it with the lines that it belongs to."
)

_UNCLOSED = {
    "[": _SyntaxHint("", "The list opened here with [ is not closed.", "Close the list with ]."),
    "{": _SyntaxHint("", "The mapping opened here with { is not closed.", "Close the mapping with }."),
}

_HINTS = (
    _SyntaxHint(
        r"could not find expected ':'",
        "This line should be a key and a value, and has no colon followed by a space.",
        "Write key: value, with a space after the colon.",
        at_opening=True,
    ),
    _SyntaxHint(
        r"unexpected end of stream|unexpected document (indicator|separator)",
        "The quote opened here is never closed.",
        "Close it with the same kind of quote.",
        at_opening=True,
    ),
    _SyntaxHint(
        r"expected ',' or '\]'",
        "The list opened here with [ is not closed, or lacks a comma: line {line}, column {column}.",
        "Put commas between the items and close the list with ].",
        at_opening=True,
    ),
    _SyntaxHint(
        r"expected ',' or '}'",
        "The mapping opened here with { is not closed, or lacks a comma: line {line}, column {column}.",
        "Put commas between the entries and close the mapping with }.",
        at_opening=True,
    ),
    _SyntaxHint(
        r"expected '-' indicator|(sequence|block sequence) entries are not allowed",
        "This line does not go on with the list above it.",
        "Begin each item with a dash and a space, and align the dashes.",
    ),
    _SyntaxHint(
        r"expected node content|expected the node content",
        "A value is missing here.",
        "Write the value, or put it between double quotes.",
    ),
    _SyntaxHint(
        r"expected alphabetic or numeric character",
        "A value that begins with & or * is taken for an anchor or an alias.",
        "Put the whole value between double quotes.",
        at_opening=True,
    ),
    _SyntaxHint(
        r"unknown escape|expected hexdecimal|expected escape sequence|invalid Unicode character",
        "Between double quotes a backslash begins an escape, and this is none.",
        "Use single quotes, or write the backslash twice.",
    ),
    _SyntaxHint(
        r"comment or line break|comment or a line break",
        "After | or > the text begins on the next line.",
        "Put a value that begins with | or > between double quotes.",
    ),
    _SyntaxHint(r"undefined tag handle|tag", "A value that begins with ! is taken for a tag.", "Quote it."),
    _SyntaxHint(
        r"directive|incompatible YAML|document start|<document start>",
        "A line that begins with % is taken for a directive.",
        "Remove the line.",
    ),
)


def explain_syntax_error(message: str, text: str, index: int, opened: int) -> tuple[str, str, int]:
    """Return a sentence that explains the error, the remedy, and the offset of the error in the text.

    ``message`` is the parser's own message, ``index`` the offset at which the parser stopped, and ``opened``
    the offset at which the unfinished construct begins.
    """
    bracket = len(text[:index].rstrip()) - 1
    if text[bracket : bracket + 1] in ("[", "{") and "node content" in message and not text[index:].strip():
        unclosed = _UNCLOSED[text[bracket]]
        return unclosed.sentence, unclosed.remedy, bracket
    hint = _by_text(message, text, index)
    hint = hint or next((hint for hint in _HINTS if re.search(hint.pattern, message)), None)
    if hint is None:
        return f"This cannot be read as YAML: {message}.", "Correct this line.", index
    before = text[:index]
    sentence = hint.sentence.replace("{character}", text[index : index + 1])
    sentence = sentence.replace("{line}", str(before.count("\n") + 1))
    sentence = sentence.replace("{column}", str(index - before.rfind("\n")))
    return sentence, hint.remedy, opened if hint.at_opening else index


def _by_text(message: str, text: str, index: int) -> _SyntaxHint | None:
    before = text[text.rfind("\n", 0, index) + 1 : index]
    if "\t" in (text[index : index + 1], *before.strip(" ")) and not before.strip():
        return _TAB
    if "a tab character" in message:
        return _TAB
    if "cannot start any token" in message:
        return _NO_START
    if "mapping values are not allowed" in message:
        return _SECOND_COLON if re.search(r":\s", before) else _CONTINUED
    if re.search("expected key|expected <block end>", message):
        return _AFTER_VALUE if before.strip(" -") else _MISALIGNED
    return None
