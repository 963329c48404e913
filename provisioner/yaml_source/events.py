"""Builds data, positions and problems from the events of PyYAML's parser.

``yaml.compose`` is not used, because it takes three times as long and overflows the C stack on deeply nested
text. ``yaml.parse`` is not used either, because it is 10 % slower than calls of ``loader.get_event``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from sys import intern
from typing import Any, NamedTuple, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from provisioner.diagnostics import Diagnostic, error
from provisioner.limits import MAX_DEPTH, MAX_NODES, MAX_PROBLEMS, MAX_SCALAR
from provisioner.yaml_source.source_text import HIDDEN, SourceText, character_name, is_visible
from provisioner.yaml_source.syntax_errors import explain_syntax_error

Data = Any
"""The data of a YAML value: ``dict[str, Data] | list[Data] | str | bool | None``."""

# the loader without libyaml gives the same results, but is eight times slower
_LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
"""The unquoted scalars that become None, True or False instead of a string."""

# matches unquoted scalars that are numbers, dates or booleans in YAML 1.1 or 1.2
_TYPED = re.compile(
    r"""[-+]?(?: 0b[01_]+ | 0o[0-7]+ | 0x[0-9A-F_]+ | \.inf
               | [0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?
               | (?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)(?:E[-+]?[0-9]+)? )
      | \.nan | [0-9]{4}-[0-9]{1,2}-[0-9]{1,2}
      | y | yes | n | no | on | off""",
    re.VERBOSE | re.IGNORECASE,
)
# the first characters of all scalars that are in _CONSTANTS or that _TYPED matches
_BEGINNINGS = frozenset(("", *"0123456789+-.~yYnNoOtTfF"))

_COLLECTIONS = frozenset((dict, list))
_NAME_SHOWN = 60
_NODES = frozenset((ScalarEvent, MappingStartEvent, SequenceStartEvent, AliasEvent))
# matches the % of a YAML directive; it is replaced, because libyaml takes seconds for many directives
_DIRECTIVE = re.compile("^%", re.MULTILINE)
# matches where an anchor, an alias, a tag or an escape sequence may begin
_SUSPECT = re.compile(r"(?<!\w)(?:[&*](?!\s)|!)|\\")


class Unquoted(NamedTuple):
    """An unquoted scalar that is text here, but a number, a date or a boolean for other YAML parsers."""

    path: tuple[str | int, ...]
    text: str
    offset: int


# The list of marks encodes the positions of all nodes, in the order of the text. A scalar has one mark: its
# offset. A collection has two marks, then those of its children. The first is its offset, and the second
# the number of all its marks, including these two. In a mapping, the mark of each key precedes the marks of
# its value.


def positions(marks: Sequence[int], mark: int, collection: Data) -> dict[str | int, int]:
    """Return, for each key of a mapping or each index of a list, the index of its mark in ``marks``.

    ``marks`` has the source positions of all nodes. The marks of ``collection`` begin at the index ``mark``.
    """
    found: dict[str | int, int] = {}
    keyed = type(collection) is dict
    mark += 2
    for part, child in collection.items() if keyed else enumerate(collection):
        found[part] = mark
        mark += keyed
        mark += marks[mark + 1] if type(child) in _COLLECTIONS else 1
    return found


def _needs_checks(text: str) -> bool:
    """Return True if ``_checked`` could find a problem in the text. If not, the text is read without it."""
    # 2 characters make at most 3 nodes, so a short text cannot exceed a limit
    if len(text) > min(MAX_SCALAR, MAX_NODES // 2):
        return True
    return any(mark in text for mark in "&*!\\") and _SUSPECT.search(text) is not None


def _short(name: str) -> str:
    return name if len(name) <= _NAME_SHOWN else name[:_NAME_SHOWN] + "…"


class _Stop(Exception):
    """The signal to stop reading. The reason is already in ``problems``."""


class EventReader:
    """A recursive-descent reader of the parser's events for one text, at most ``MAX_DEPTH`` levels deep.

    ``_mapping`` and ``_sequence`` are optimized, because they take most of the time of reading manifests.
    """

    def __init__(self, file: str, text: str) -> None:
        self._written = text
        # each hidden character or % is replaced by one character: reading continues, with the same offsets
        if not is_visible(text):
            text = HIDDEN.sub("\ufffd", text)
        if "%" in text:
            text = _DIRECTIVE.sub("#", text)
        self.page = SourceText(file, text)
        self.problems: list[Diagnostic] = []
        self.unquoted: list[Unquoted] = []
        self._path: list[str | int] = []
        self._marks: list[int] = []
        self._nodes = 0
        self._index = 0
        self._parse: Callable[[], Any]
        self._next: Callable[[], Any]

    def read(self) -> tuple[Data, Sequence[int]] | None:
        """Return the data and the marks that encode its positions, or None if a problem stops the reading."""
        try:
            if self._written != self.page.text:
                self._refuse_replaced()
            loader = _LOADER(self.page.text)
            self._parse = loader.get_event
            self._next = self._checked if _needs_checks(self.page.text) else self._parse
            try:
                return self._stream(), self._marks or (0,)
            finally:
                loader.dispose()
        except _Stop:
            pass
        except yaml.MarkedYAMLError as problem:
            self.problems.append(self._syntax(problem))
        except (yaml.YAMLError, ValueError, OverflowError):
            # parsers raise other errors for an escape sequence with a code point outside Unicode
            detail = "An escape sequence here, or soon after, stands for no character."
            self.problems.append(self._problem("yaml-syntax", detail, "Remove it.", self._index))
        return None

    def _stream(self) -> Data:
        self._next()
        if type(self._next()) is StreamEndEvent:
            return None
        data = self._node(self._next(), 0)
        self._next()
        more = self._next()
        kind = type(more)
        if kind is DocumentStartEvent:
            what, remedy = "A second document in one file (---)", "Put it in a file of its own."
            self._unsafe(what, remedy, more.start_mark.index)
        return data

    def _node(self, event: Any, depth: int) -> Data:
        kind = type(event)
        if kind is MappingStartEvent:
            return self._mapping(event, depth + 1)
        if kind is SequenceStartEvent:
            return self._sequence(event, depth + 1)
        self._marks.append(event.start_mark.index)
        if kind is AliasEvent:  # already reported by _checked; a string stands in for the value
            return f"*{event.anchor}"
        value = event.value
        return self._plain(value) if value[:1] in _BEGINNINGS and not event.style else value

    def _mapping(self, start: Any, depth: int) -> dict[str, Data]:
        if depth > MAX_DEPTH:
            self._too_deep(start)
        following = self._next
        marks = self._marks
        at = len(marks)
        marks += (start.start_mark.index, 0)
        data: dict[str, Data] = {}
        while True:
            event = following()
            kind = type(event)
            if kind is not ScalarEvent:
                if kind is MappingEndEvent:
                    break
                self._refuse_pair(event, depth)
                continue
            key = intern(event.value)
            if (key in data or key == "<<") and self._refuse_key(key, event, data, at):
                self._skip(following(), depth)
                continue
            marks.append(event.start_mark.index)
            event = following()
            kind = type(event)
            if kind is ScalarEvent:
                marks.append(event.start_mark.index)
                value = event.value
                if value[:1] in _BEGINNINGS and not event.style:
                    value = self._plain(value, key)
                data[key] = value
            else:
                self._path.append(key)
                data[key] = self._node(event, depth)
                self._path.pop()
        marks[at + 1] = len(marks) - at
        return data

    def _sequence(self, start: Any, depth: int) -> list[Data]:
        if depth > MAX_DEPTH:
            self._too_deep(start)
        following = self._next
        marks = self._marks
        at = len(marks)
        marks += (start.start_mark.index, 0)
        data: list[Data] = []
        while (kind := type(event := following())) is not SequenceEndEvent:
            if kind is ScalarEvent:
                marks.append(event.start_mark.index)
                value = event.value
                if value[:1] in _BEGINNINGS and not event.style:
                    value = self._plain(value, len(data))
                data.append(value)
            else:
                self._path.append(len(data))
                data.append(self._node(event, depth))
                self._path.pop()
        marks[at + 1] = len(marks) - at
        return data

    def _plain(self, value: str, *part: str | int) -> Data:
        if value in _CONSTANTS:
            return _CONSTANTS[value]
        if _TYPED.fullmatch(value) is not None:
            self.unquoted.append(Unquoted((*self._path, *part), value, self._marks[-1]))
        return value

    def _skip(self, event: Any, depth: int) -> None:
        marks, unquoted = len(self._marks), len(self.unquoted)
        self._node(event, depth)
        del self._marks[marks:]
        del self.unquoted[unquoted:]

    def _refuse_pair(self, key: Any, depth: int) -> None:
        if type(key) is not AliasEvent:
            what, remedy = "A key that is a list or a mapping", "Write a plain text before the colon."
            self._unsafe(what, remedy, key.start_mark.index)
        self._skip(key, depth)
        self._skip(self._next(), depth)

    def _refuse_key(self, key: str, event: Any, data: dict[str, Data], at: int) -> bool:
        """Report a repeated key or an unquoted "<<" (merge key), and return True. Otherwise return False."""
        index = event.start_mark.index
        if key in data:
            first = self.page.at(self._marks[positions(self._marks, at, data)[key]])
            here = self.page.at(index)
            detail = f'"{_short(key)}" stands in line {first.line}, column {first.column}'
            detail += f" and again in line {here.line}, column {here.column}."
            self._report("yaml-duplicate-key", detail, "Keep one of the two.", index)
            return True
        if not event.style:
            self._unsafe("A merge key (<<)", "Write out the keys it stands for.", index)
        return not event.style

    def _checked(self) -> Any:
        """Return the next event. Report exceeded limits, anchors, aliases, tags and hidden characters."""
        event = self._parse()
        kind = type(event)
        if kind not in _NODES:
            return event
        self._index = index = event.start_mark.index
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._limit(f"more than {MAX_NODES:,} values", index)
        if kind is AliasEvent:
            self._unsafe(f"An alias (*{_short(event.anchor)})", "Write the value out here.", index)
            return event
        if event.anchor is not None:
            self._unsafe(f"An anchor (&{_short(event.anchor)})", "Write values out where used.", index)
        if event.tag is not None:
            tag = _short(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self._unsafe(f"A tag ({tag})", "Remove it: every value is a text.", index)
        if kind is ScalarEvent:
            self._check_scalar(event.value, index)
        return event

    def _check_scalar(self, value: str, index: int) -> None:
        if len(value) > MAX_SCALAR:
            detail = f"This value is longer than {MAX_SCALAR:,} characters."
            self._report("yaml-limit", detail, "Shorten it.", index)
        if escaped := HIDDEN.search(value):
            self._refuse_character(escaped[0], index)

    def _refuse_replaced(self) -> None:
        for hidden in HIDDEN.finditer(self._written):
            self._refuse_character(hidden[0], hidden.start())
        for directive in _DIRECTIVE.finditer(self._written):
            self._unsafe("A directive (a line that begins with %)", "Remove it.", directive.start())

    def _refuse_character(self, character: str, index: int) -> None:
        detail = f"{character_name(character)} does not show, or rearranges what shows."
        self._report("yaml-unsafe", detail, "Type the text again instead of pasting it.", index)

    def _unsafe(self, what: str, remedy: str, index: int) -> None:
        self._report("yaml-unsafe", f"{what} is not accepted here.", remedy, index)

    def _too_deep(self, event: Any) -> NoReturn:
        self._limit(f"more than {MAX_DEPTH} levels inside one another", event.start_mark.index)

    def _limit(self, what: str, index: int) -> NoReturn:
        detail = f"The file has {what}."
        self.problems.append(self._problem("yaml-limit", detail, "Split it into several files.", index))
        raise _Stop

    def _report(self, code: str, detail: str, remedy: str, index: int) -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            self._limit(f"more than {MAX_PROBLEMS} problems; the others are not shown", index)
        self.problems.append(self._problem(code, detail, remedy, index))

    def _syntax(self, problem: yaml.MarkedYAMLError) -> Diagnostic:
        at, opened = problem.problem_mark, problem.context_mark
        index = at.index if at else self._index
        sentence, remedy, offset = explain_syntax_error(
            problem.problem or "", self.page.text, index, opened.index if opened else index
        )
        return self._problem("yaml-syntax", sentence, remedy, offset)

    def _problem(self, code: str, detail: str, remedy: str, index: int) -> Diagnostic:
        return error(code, detail, remedy, self.page.at(index))
