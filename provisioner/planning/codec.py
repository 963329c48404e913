"""How the program's values are written as JSON, and read back with every type checked.

``writer(Change)`` and ``reader(Change)`` are made once from the type's own annotations, so that a
new field is written and read as soon as it exists. Sets are written sorted and keys in order: equal
values have equal text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from enum import StrEnum
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from provisioner.model import Address
from provisioner.planning.steps import STEPS, Step

Json = Any
"""What ``json.loads`` gives: None, bool, int, str, list or dict."""

KINDS = ("company", "user")


class InvalidJson(ValueError):
    """A JSON value that is not of the type it should be; ``where`` is its path from the outside in."""

    def __init__(self, expected: str, where: str = "") -> None:
        super().__init__(f"{where or 'the whole'}: {expected}")
        self.expected = expected
        self.where = where

    def under(self, name: str) -> InvalidJson:
        """The same problem, seen from one level further out."""
        joint = "." if self.where and not self.where.startswith("[") else ""
        return InvalidJson(self.expected, f"{name}{joint}{self.where}")


canonical: Callable[[Json], str] = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), check_circular=False
).encode
"""The one text of a JSON value: sorted keys, no spaces, ASCII only."""


def parse_json(text: str) -> Json:
    """The value of a JSON text. Raises :class:`InvalidJson`, also for an object that has a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except InvalidJson:
        raise
    except (ValueError, RecursionError) as problem:
        raise InvalidJson("a JSON text") from problem


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidJson("an object with each key once")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJson(f"no {name}")


def step_to_json(step: Step) -> dict[str, Json]:
    """A step, by the name its users give it: ``{"step": "CloseUser", "user": "…"}``."""
    kind: Any = type(step)
    return {"step": kind.__name__, **writer(kind)(step)}


def step_from_json(value: Json) -> Step:
    """The step that :func:`step_to_json` wrote. Raises :class:`InvalidJson`."""
    if not isinstance(value, dict):
        raise InvalidJson("a step")
    written = dict(value)
    name = written.pop("step", None)
    if not isinstance(name, str) or name not in STEPS:
        raise InvalidJson("the name of a step", "step")
    kind: Any = STEPS[name]
    step: Step = reader(kind)(written)
    return step


@cache
def writer(hint: Any) -> Callable[[Any], Json]:
    """The function that writes values of this type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (str, int, bool, NoneType):
        return _as_is
    if hint is Address or (isinstance(hint, type) and issubclass(hint, StrEnum)):
        return str
    if hint is date:
        return date.isoformat
    if origin in (Union, UnionType):
        return _optional_writer(_wrapped(hint))
    if origin in (frozenset, tuple):
        return _items_writer(arguments[0], ordered=origin is tuple)
    if origin is Mapping:
        return _mapping_writer(arguments[1])
    return _record_writer(hint)


@cache
def reader(hint: Any) -> Callable[[Json], Any]:
    """The function that reads values of this type; it raises :class:`InvalidJson`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (str, int, bool):
        return _exact_reader(hint)
    if hint is Address:
        return _address
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _word_reader(hint)
    if hint is date:
        return _day
    if origin in (Union, UnionType):
        return _optional_reader(_wrapped(hint))
    if origin in (frozenset, tuple):
        return _items_reader(arguments[0], origin)
    if origin is Mapping:
        return _mapping_reader(arguments[1])
    return _record_reader(hint)


def _wrapped(hint: Any) -> Any:
    """The type inside an optional one."""
    (wrapped,) = (argument for argument in get_args(hint) if argument is not NoneType)
    return wrapped


def _record_fields(hint: Any) -> list[tuple[str, Any]]:
    """Name and type of each field of a dataclass or named tuple, by name."""
    names = [field.name for field in fields(hint)] if is_dataclass(hint) else hint._fields
    hints = get_type_hints(hint)
    return [(name, hints[name]) for name in sorted(names)]


def _as_is(value: Any) -> Json:
    return value


def _optional_writer(hint: Any) -> Callable[[Any], Json]:
    write = writer(hint)
    return write if write is _as_is else lambda value: None if value is None else write(value)


def _items_writer(hint: Any, *, ordered: bool) -> Callable[[Any], Json]:
    write = writer(hint)
    if ordered:
        return lambda items: [write(item) for item in items]
    if write is _as_is:
        return sorted
    # by text: the fields of two items may be None in one and a date in the other
    return lambda items: [write(item) for item in sorted(items, key=lambda item: [*map(str, item)])]


def _mapping_writer(hint: Any) -> Callable[[Any], Json]:
    write = writer(hint)
    return lambda mapping: {key: write(value) for key, value in mapping.items()}


def _record_writer(hint: Any) -> Callable[[Any], Json]:
    parts = [(name, writer(part)) for name, part in _record_fields(hint)]
    names = [name for name, _ in parts]
    values = attrgetter(*names) if len(names) > 1 else _alone(names[0])
    changed = [(name, write) for name, write in parts if write is not _as_is]

    def write_record(value: Any) -> Json:
        written = dict(zip(names, values(value), strict=True))
        for name, write in changed:
            written[name] = write(written[name])
        return written

    return write_record


def _alone(name: str) -> Callable[[Any], tuple[Any, ...]]:
    """What ``attrgetter`` would give for one name if it gave a tuple as it does for several."""
    return lambda value: (getattr(value, name),)


def _exact_reader(kind: type) -> Callable[[Json], Any]:
    expected = {str: "a text", int: "a whole number", bool: "true or false"}[kind]

    def read(value: Json) -> Any:
        if type(value) is not kind:
            raise InvalidJson(expected)
        return value

    return read


def _address(value: Json) -> Address:
    kind, colon, key = value.partition(":") if type(value) is str else ("", "", "")
    if not colon or kind not in KINDS:
        raise InvalidJson('an address such as "user:claire.martin@example.com"')
    return Address(kind, key)


def _word_reader(words: type[StrEnum]) -> Callable[[Json], Any]:
    known = {word.value: word for word in words}
    expected = f"one of {', '.join(known)}"

    def read(value: Json) -> Any:
        if type(value) is not str or value not in known:
            raise InvalidJson(expected)
        return known[value]

    return read


def _day(value: Json) -> date:
    try:
        day = date.fromisoformat(value)
    except (TypeError, ValueError):
        raise InvalidJson("a date such as 2026-11-30") from None
    if day.isoformat() != value:
        raise InvalidJson("a date such as 2026-11-30")
    return day


def _optional_reader(hint: Any) -> Callable[[Json], Any]:
    read = reader(hint)
    return lambda value: None if value is None else read(value)


def _items_reader(hint: Any, collection: Any) -> Callable[[Json], Any]:
    read = reader(hint)

    def read_items(value: Json) -> Any:
        if type(value) is not list:
            raise InvalidJson("a list")
        items = []
        for index, item in enumerate(value):
            try:
                items.append(read(item))
            except InvalidJson as problem:
                raise problem.under(f"[{index}]") from None
        return collection(items)

    return read_items


def _mapping_reader(hint: Any) -> Callable[[Json], Any]:
    read = reader(hint)

    def read_mapping(value: Json) -> Any:
        if type(value) is not dict:
            raise InvalidJson("an object")
        mapping = {}
        for key, item in value.items():
            try:
                mapping[key] = read(item)
            except InvalidJson as problem:
                raise problem.under(key) from None
        return mapping

    return read_mapping


def _record_reader(hint: Any) -> Callable[[Json], Any]:
    parts = [(name, reader(part)) for name, part in _record_fields(hint)]
    names = {name for name, _ in parts}

    def read_record(value: Json) -> Any:
        if type(value) is not dict:
            raise InvalidJson("an object")
        if value.keys() != names:
            raise InvalidJson(f"an object with exactly {', '.join(sorted(names))}")
        values = {}
        for name, read in parts:
            try:
                values[name] = read(value[name])
            except InvalidJson as problem:
                raise problem.under(name) from None
        return hint(**values)

    return read_record
