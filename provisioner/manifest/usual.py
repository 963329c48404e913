"""Manifests in their usual form, read a line at a time, in a third of the time that libyaml's events take.

Nearly every manifest is written in a small part of YAML: mappings and lists as blocks, one key a line,
plain or quoted texts that end on their line, short lists and mappings in brackets. That part is read here,
and nothing else: whatever is not plainly of it is left to :mod:`~provisioner.manifest.reading`, which alone
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
_SCALAR = rf"""(?:"[ !#-\[\]-~{_SHOWN}]*+"|'[ -&(-~{_SHOWN}]*+'|{_PLAIN})"""
_KEY = "[a-z][a-z_]{0,40}"
_LIST = rf"\[ *(?:{_SCALAR} *(?:, *{_SCALAR} *)*+)?\]"
_MAPPING = rf"\{{ *{_KEY}: +{_SCALAR} *(?:, *{_KEY}: +{_SCALAR} *)*+\}}"
_COMMENT = f"#[ -~{_SHOWN}]*+"

_ENTRY = re.compile(rf"( *)(- )?({_KEY}):(?: +(?:({_SCALAR})|({_LIST})|({_MAPPING})))?(?: +{_COMMENT}| *)")
_ITEM = re.compile(rf"( *)- ({_SCALAR})(?: +{_COMMENT}| *)")
_NOTHING = re.compile(rf" *(?:{_COMMENT})?")
_SCALARS = re.compile(_SCALAR)
_PAIRS = re.compile(rf"({_KEY}): +({_SCALAR})")


class _Unusual(Exception):
    """Not of the usual form, as far as this module can tell."""


_lines: dict[str, _Line] = {}


_Level = tuple[dict[str, Data], int, list[Data], int]


def read_usual(text: str) -> dict[str, Data] | None:
    """The data of a text in the usual form; None where it is not, which is no judgement about it."""
    if len(text) > MAX_USUAL:
        return None
    if len(_lines) > _LINES_KEPT:
        _lines.clear()
    try:
        return _read(text) or None
    except _Unusual:
        return None


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
    _lines[line] = taken = _line(line)
    return taken


def _line(line: str) -> _Line:
    entry = _ENTRY.fullmatch(line)
    if entry is not None:
        indent, item, key, scalar, items, pairs = entry.groups()
        return _Line(len(indent), item is not None, intern(key), _value(scalar, items, pairs))
    item = _ITEM.fullmatch(line)
    if item is not None:
        return _Line(len(item[1]), True, "", _scalar(item[2]))
    if _NOTHING.fullmatch(line) is None:
        raise _Unusual
    return _BLANK


def _value(scalar: str | None, items: str | None, pairs: str | None) -> Data:
    if scalar is not None:
        return _scalar(scalar)
    if items is not None:
        return [_scalar(text) for text in _SCALARS.findall(items)]
    if pairs is None:
        return _OPEN
    found = _PAIRS.findall(pairs)
    mapping = {intern(key): _scalar(text) for key, text in found}
    if len(mapping) < len(found):
        raise _Unusual
    return mapping


def _scalar(text: str) -> Data:
    if text[0] in "\"'":
        return text[1:-1]
    if text.lower() in _AMBIGUOUS:
        raise _Unusual
    return CONSTANTS.get(text, text)
