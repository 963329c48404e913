"""From libyaml's events to data and marks.

Less than half the time of composing nodes, and safe where composing is not: it overflows on deep nesting.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from sys import intern
from typing import Any, NoReturn

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
from provisioner.manifest.usual import CONSTANTS
from provisioner.yaml_source.source_text import HIDDEN, SourceText, in_words, shows
from provisioner.yaml_source.syntax_errors import explain_syntax_error

HAS_LIBYAML: bool = yaml.__with_libyaml__
"""False where PyYAML came without libyaml: the same answers, eight times slower."""

Data = Any
"""``dict[str, Data] | list[Data] | str | bool | None``."""

# what yaml.parse takes events from, without the constructor that only composing needs
_Parser: Any = yaml.cyaml.CParser if HAS_LIBYAML else yaml.SafeLoader  # type: ignore[attr-defined]
_COLLECTIONS = frozenset((dict, list))
_NAME_SHOWN = 60
_NODES = frozenset((ScalarEvent, MappingStartEvent, SequenceStartEvent, AliasEvent))
# at the beginning of any line: libyaml takes seconds over many
_DIRECTIVE = re.compile("^%", re.MULTILINE)
# where an anchor, an alias or a tag may begin, or an escape write a hidden character
_SUSPECT = re.compile(r"(?<!\w)(?:[&*](?!\s)|!)|\\")

# Marks are where things stand, in the order of the text. A scalar has one, its offset; a collection has
# two before those of its children: its offset, and how many marks it takes in all. In a mapping, the
# mark of a key comes before those of its value.


def positions(marks: Sequence[int], mark: int, collection: Data) -> dict[str | int, int]:
    """The mark of each key of a mapping, or of each item of a list."""
    found: dict[str | int, int] = {}
    keyed = type(collection) is dict
    mark += 2
    for part, child in collection.items() if keyed else enumerate(collection):
        found[part] = mark
        mark += keyed
        mark += marks[mark + 1] if type(child) in _COLLECTIONS else 1
    return found


def _needs_checks(text: str) -> bool:
    """Whether a text may hold what ``_checked`` refuses; most cannot, and are read without it."""
    # 2 characters make 3 nodes at the most, so that a short text is within every limit
    if len(text) > min(MAX_SCALAR, MAX_NODES // 2):
        return True
    return any(mark in text for mark in "&*!\\") and _SUSPECT.search(text) is not None


def _short(name: str) -> str:
    return name if len(name) <= _NAME_SHOWN else name[:_NAME_SHOWN] + "…"


class _Stop(Exception):
    """Reading cannot go on; the reason is among the problems."""


class EventReader:
    """One reading of one text: a descent along the parser's events, no deeper than ``MAX_DEPTH``.

    Time goes into ``_mapping`` and ``_sequence``: they ask nothing but which event is next.
    """

    def __init__(self, file: str, text: str) -> None:
        self._written = text
        # what is refused before parsing is replaced one for one: reading goes on, and offsets stay
        if not shows(text):
            text = HIDDEN.sub("\ufffd", text)
        if "%" in text:
            text = _DIRECTIVE.sub("#", text)
        self.page = SourceText(file, text)
        self.problems: list[Diagnostic] = []
        self._marks: list[int] = []
        self._nodes = 0
        self._index = 0
        self._parse = _Parser(text).get_event
        self._next = self._checked if _needs_checks(text) else self._parse

    def read(self) -> tuple[Data, Sequence[int]] | None:
        """The data and its marks, or None where reading could not go on to the end."""
        try:
            if self._written != self.page.text:
                self._refuse_replaced()
            return self._stream(), array("I", self._marks or (0,))
        except _Stop:
            pass
        except yaml.MarkedYAMLError as problem:
            self.problems.append(self._syntax(problem))
        except (yaml.YAMLError, ValueError, OverflowError):
            # what the escapes of a tag or a text spell may be no Unicode, which parsers do not foresee
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
        if kind is AliasEvent:  # refused already, and read on as the text it is
            return f"*{event.anchor}"
        value = event.value
        return CONSTANTS[value] if value in CONSTANTS and not event.style else value

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
                data[key] = CONSTANTS[value] if value in CONSTANTS and not event.style else value
            else:
                data[key] = self._node(event, depth)
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
                data.append(CONSTANTS[value] if value in CONSTANTS and not event.style else value)
            else:
                data.append(self._node(event, depth))
        marks[at + 1] = len(marks) - at
        return data

    def _skip(self, event: Any, depth: int) -> None:
        """Read a node for the problems in it alone."""
        end = len(self._marks)
        self._node(event, depth)
        del self._marks[end:]

    def _refuse_pair(self, key: Any, depth: int) -> None:
        if type(key) is not AliasEvent:
            what, remedy = "A key that is a list or a mapping", "Write a plain text before the colon."
            self._unsafe(what, remedy, key.start_mark.index)
        self._skip(key, depth)
        self._skip(self._next(), depth)

    def _refuse_key(self, key: str, event: Any, data: dict[str, Data], at: int) -> bool:
        """False for a key that is to be kept: "<<" in quotes, for the first time."""
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
        """The next event, looked at for what most texts cannot hold."""
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
        detail = f"{in_words(character)} does not show, or rearranges what shows."
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
        said = explain_syntax_error(
            problem.problem or "", self.page.text, index, opened.index if opened else index
        )
        return self._problem("yaml-syntax", said.sentence, said.remedy, said.offset)

    def _problem(self, code: str, detail: str, remedy: str, index: int) -> Diagnostic:
        return error(code, detail, remedy, self.page.at(index))
