"""Manifests in their usual form, read a line at a time, in a third of the time that libyaml's events take.

Nearly every manifest is written in a small part of YAML: mappings and lists as blocks, one key a line,
plain or quoted texts that end on their line, short lists and mappings in brackets. That part is read here,
and nothing else: whatever is not plainly of it is left to :mod:`~provisioner.yaml_source.events`, which alone
refuses and explains. Where this module answers, the two agree to the last character; tests let both read
the same texts.

People write the same lines again and again (``type: standard``), so a line is taken apart once.
"""

from __future__ import annotations

import re
from sys import intern
from typing import Any, NamedTuple

from provisioner.limits import MAX_NODES, MAX_SCALAR

Data = Any

CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
"""The only plain texts that are not kept as they are written."""

MAX_USUAL = min(MAX_SCALAR, MAX_NODES // 2)
"""Characters: a text no longer than this is within every limit of length and number, whatever it holds."""

_MAX_LEVELS = 16
_LINES_KEPT = 8192


class _Line(NamedTuple):
    """One line: where it begins, whether with ``- ``, and its key and value."""

    column: int
    """-1 for a line without content."""
    is_item: bool
    key: str
    """Empty for an item that is a text."""
    value: Data


_OPEN: Any = object()
"""The value of a key with nothing behind its colon: it follows, or there is none."""

_BLANK = _Line(-1, False, "", None)

# texts that other readers of YAML take for booleans, which a lint looks for: left to the other reader
_AMBIGUOUS = frozenset(("y", "yes", "n", "no", "on", "off"))

# letters of French and its neighbours; what shows, and to which YAML gives no meaning
_LETTER = "A-Za-zÀ-ÖØ-öø-ɏ"
_SHOWN = "¡-¬®-ɏ–—‘’“”…€"
_WORD = f"[{_LETTER}0-9._@+'&/()-]"
_PLAIN = f"[{_LETTER}]{_WORD}*+(?: ++{_WORD}++)*+"
_SCALAR = rf"""(?:"[ !#-\[\]-~{_SHOWN}]*+"|'[ -&(-~{_SHOWN}]*+'|{_PLAIN}|[0-9]++(?=[ ,\]}}]|$))"""
_KEY = "[a-z][a-z_]{0,40}"
_COMMENT = f"#[ -~{_SHOWN}]*+"

_ENTRY = re.compile(rf"( *)(- )?({_KEY}):(?: +(?:({_SCALAR})|([\[{{].*)))?(?: +{_COMMENT}| *)")
_ITEM = re.compile(rf"( *)- ({_SCALAR})(?: +{_COMMENT}| *)")
_NOTHING = re.compile(rf" *(?:{_COMMENT})?")
_REST = re.compile(f"(?: +{_COMMENT})? *")
_SCALAR_HERE = re.compile(_SCALAR)
_KEY_HERE = re.compile(f"({_KEY}): +")


class _Unusual(Exception):
    """Not of the usual form, as far as this module can tell."""


_lines: dict[str, _Line] = {}
_numbers: list[str] = []
"""The plain numbers of the text in hand; lines with one are not remembered, so that each is seen."""


_Level = tuple[dict[str, Data], int, list[Data], int]


def read_usual(text: str, *, numbers: bool = False) -> dict[str, Data] | None:
    """The data of a text in the usual form; None where it is not, which is no judgement about it.

    With ``numbers``, plain ones are of it: kept as they are written, like everything else.
    """
    if len(text) > MAX_USUAL:
        return None
    if len(_lines) > _LINES_KEPT:
        _lines.clear()
    _numbers.clear()
    try:
        data = _read(text)
    except _Unusual:
        return None
    return None if _numbers and not numbers else data or None


def _read(text: str) -> dict[str, Data]:
    """Follow the lines: the mapping in hand stands at ``column``, the dashes around it at ``dash``."""
    root: dict[str, Data] = {}
    mapping, column = root, 0
    items: list[Data] = []
    dash = -1
    opened = ""
    outer: list[_Level] = []
    for line in text.split("\n"):
        at, is_item, key, value = _lines.get(line) or _taken_apart(line)
        if at == column and not is_item:
            pass
        elif at < 0:
            continue
        elif is_item:
            if opened and at >= column:
                _require_room(outer)
                outer.append((mapping, column, items, dash))
                items, dash = [], at
                mapping[opened] = items
            while at != dash:
                mapping, column, items, dash = _closed(outer)
            if not key:
                items.append(value)
                # nothing but a further item may follow at this level
                mapping, column, opened = {}, -2, ""
                continue
            mapping, column = {}, at + 2
            items.append(mapping)
        elif opened and at > column:
            _require_room(outer)
            outer.append((mapping, column, items, dash))
            inner: dict[str, Data] = {}
            mapping[opened] = inner
            mapping, column, items, dash = inner, at, [], -1
        else:
            while at != column:
                mapping, column, items, dash = _closed(outer)
        if key in mapping:
            raise _Unusual
        if value is _OPEN:
            opened = key
            mapping[key] = None
        else:
            opened = ""
            mapping[key] = value
    return root


def _closed(outer: list[_Level]) -> _Level:
    """The level that goes on once the one in hand is over."""
    if not outer:
        raise _Unusual
    return outer.pop()


def _require_room(outer: list[_Level]) -> None:
    if len(outer) >= _MAX_LEVELS:
        raise _Unusual


def _taken_apart(line: str) -> _Line:
    """What a line says, remembered for the next one that reads the same."""
    seen = len(_numbers)
    taken = _line(line)
    if len(_numbers) == seen:
        _lines[line] = taken
    return taken


def _line(line: str) -> _Line:
    entry = _ENTRY.fullmatch(line)
    if entry is not None:
        indent, item, key, scalar, flow = entry.groups()
        value = _scalar(scalar) if scalar is not None else _OPEN if flow is None else _flow(flow)
        return _Line(len(indent), item is not None, intern(key), value)
    item = _ITEM.fullmatch(line)
    if item is not None:
        return _Line(len(item[1]), True, "", _scalar(item[2]))
    if _NOTHING.fullmatch(line) is None:
        raise _Unusual
    return _BLANK


def _flow(text: str) -> Data:
    """A list or a mapping in brackets, with nothing but a comment behind it."""
    value, end = _collection(text, 0, 0)
    if _REST.fullmatch(text, end) is None:
        raise _Unusual
    return value


def _collection(text: str, at: int, levels: int) -> tuple[Data, int]:
    """What begins with the bracket at ``at``, and where it has ended."""
    if levels > _MAX_LEVELS:
        raise _Unusual
    keyed = text[at] == "{"
    closing = "}" if keyed else "]"
    items: list[Data] = []
    mapping: dict[str, Data] = {}
    at = _past_spaces(text, at + 1)
    if not keyed and text.startswith("]", at):
        return items, at + 1
    while True:
        key = ""
        if keyed:
            found = _KEY_HERE.match(text, at)
            if found is None or found[1] in mapping:
                raise _Unusual
            key, at = found[1], found.end()
        if text.startswith(("[", "{"), at):
            value, at = _collection(text, at, levels + 1)
        else:
            scalar = _SCALAR_HERE.match(text, at)
            if scalar is None:
                raise _Unusual
            value, at = _scalar(scalar[0]), scalar.end()
        if keyed:
            mapping[intern(key)] = value
        else:
            items.append(value)
        at = _past_spaces(text, at)
        if text.startswith(closing, at):
            return (mapping if keyed else items), at + 1
        if not text.startswith(",", at):
            raise _Unusual
        at = _past_spaces(text, at + 1)


def _past_spaces(text: str, at: int) -> int:
    while text.startswith(" ", at):
        at += 1
    return at


def _scalar(text: str) -> Data:
    if text[0] in "\"'":
        return text[1:-1]
    if text.isdigit():
        _numbers.append(text)
    if text.lower() in _AMBIGUOUS:
        raise _Unusual
    return CONSTANTS.get(text, text)
