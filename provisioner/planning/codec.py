"""The JSON text of the program's values: plan file, journal and REST all have it from here.

``writer(User)`` and ``reader(User)`` are made once from the annotations of dataclasses and named
tuples, so a new field is written and read as soon as it exists. Keys and sets are written sorted, dates in
ISO 8601, everything in ASCII: equal values have equal bytes. Unknown and missing fields, values of another
type and keys that appear twice are refused.

It knows ``str``, ``int``, ``bool``, ``date``, string enums, :class:`Address`, tuples and frozen sets of one
type, mappings from texts, records, optional types, and unions of records. A union is read by the fields of
its records, which differ, or by a tag where :data:`TAGS` names one. To support a further type, add a line to
:func:`_writer` and one to :func:`_reader`; ``tests/plan_schema.py`` describes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date
from enum import StrEnum
from functools import cache, lru_cache
from json.encoder import encode_basestring_ascii
from operator import attrgetter, call, itemgetter
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from provisioner.model import Address
from provisioner.planning.steps import Step

Json = Any
"""What ``json.loads`` gives: None, bool, int, str, list or dict."""

KINDS = ("company", "user")

TAGS: Mapping[Any, str] = {Step: "step"}
"""The field that names the class of a union's record. In a field of this very name, the record's fields are
written beside those of the object that has it."""

_REMEMBERED = 50_000
"""Different sets whose text or value is kept: users have few different sets of companies and applications."""

_MISFITS = (TypeError, ValueError, KeyError)


class InvalidJson(ValueError):
    """A JSON value of the wrong type; ``where`` is its path from the outside in."""

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


def parse_json(text: str | bytes) -> Json:
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


@cache
def writer(hint: Any, without: tuple[str, ...] = ()) -> Callable[[Any], str]:
    """The function that gives the canonical text of a value of this type.

    ``without`` names fields that it leaves out of the outermost record.
    """
    if hint in TAGS:
        tag = TAGS[hint]
        written = {kind: _record_writer(_parts(kind), without, tag, kind) for kind in _members(hint)}
        return lambda value: written[type(value)](value)
    return _record_writer(_parts(hint), without) if _is_record(hint) else _writer(hint)


@cache
def reader(hint: Any) -> Callable[[Json], Any]:
    """The function that makes a value of this type from JSON; it raises :class:`InvalidJson`."""
    read = _reader(hint)

    def read_value(value: Json) -> Any:
        try:
            return read(value)
        except InvalidJson:
            raise
        except _MISFITS:
            raise InvalidJson(_expected(hint)) from None

    return read_value


def record_fields(hint: Any) -> dict[str, Any]:
    """The type of each field of a dataclass or named tuple, in the order of its constructor."""
    kind = _class(hint)
    names = [field.name for field in fields(kind)] if is_dataclass(kind) else kind._fields
    hints = get_type_hints(kind)
    if kind is not hint:
        # Page[User]: one type parameter, filled in
        hints = {
            name: part[get_args(hint)] if getattr(part, "__parameters__", ()) else part
            for name, part in hints.items()
        }
    return {name: hints[name] for name in names}


def _class(hint: Any) -> Any:
    return get_origin(hint) or hint


def _is_record(hint: Any) -> bool:
    kind = _class(hint)
    return kind is not Address and (is_dataclass(kind) or hasattr(kind, "_fields"))


def _is_word(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, StrEnum)


def _members(hint: Any) -> list[Any]:
    """The types of a union but None."""
    return [member for member in get_args(hint) if member is not NoneType]


# --- writing ---


def _writer(hint: Any) -> Callable[[Any], str]:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is str:
        return encode_basestring_ascii
    if hint is int:
        return int.__repr__
    if hint is bool:
        return {True: "true", False: "false"}.__getitem__
    if hint is Address:
        return lambda address: encode_basestring_ascii(str(address))
    if hint is date:
        return lambda day: f'"{day.isoformat()}"'
    if _is_word(hint):
        return {word: canonical(word) for word in hint}.__getitem__
    if origin in (Union, UnionType):
        return _union_writer(hint)
    if origin is frozenset:
        return _set_writer(arguments[0])
    if origin is tuple:
        write = writer(arguments[0])
        return lambda items: f"[{','.join(map(write, items))}]"
    write = writer(arguments[1])
    return lambda mapping: (
        "{"
        + ",".join(f"{encode_basestring_ascii(key)}:{write(mapping[key])}" for key in sorted(mapping))
        + "}"
    )


def _union_writer(hint: Any) -> Callable[[Any], str]:
    members = _members(hint)
    if len(members) == 1:
        write = writer(members[0])
        return lambda value: "null" if value is None else write(value)
    written = {kind: writer(kind) for kind in members} | {NoneType: lambda _: "null"}
    return lambda value: written[type(value)](value)


def _set_writer(hint: Any) -> Callable[[Any], str]:
    write = writer(hint)
    # records by text: a field may be None in one and a date in the other
    key = (lambda item: [*map(str, item)]) if _is_record(hint) else None

    @lru_cache(_REMEMBERED)
    def write_set(items: frozenset[Any]) -> str:
        return f"[{','.join(map(write, sorted(items, key=key)))}]"

    return write_set


_Part = tuple[str, str, Any]
"""A key, the path of attributes to its value, and the value's type."""


def _parts(hint: Any) -> list[_Part]:
    return [(name, name, part) for name, part in record_fields(hint).items()]


def _record_writer(
    parts: list[_Part], without: Sequence[str] = (), tag: str = "", kind: Any = None
) -> Callable[[Any], str]:
    for name, path, part in parts:
        if TAGS.get(part) == name:
            beside = [other for other in parts if other[0] != name]
            written = {
                member: _record_writer(
                    [*beside, *((key, f"{path}.{key}", inner) for key, _, inner in _parts(member))],
                    without,
                    name,
                    member,
                )
                for member in _members(part)
            }
            tagged = attrgetter(path)
            return lambda value: written[type(tagged(value))](value)
    kept = sorted(part for part in parts if part[0] not in without)
    texts = {name: f'"{name}":%s' for name, _, _ in kept}
    if tag:
        texts[tag] = f'"{tag}":"{kind.__name__}"'
    template = "{" + ",".join(texts[name] for name in sorted(texts)) + "}"
    if not kept:
        return lambda _: template
    writes = [writer(part) for _, _, part in kept]
    values = attrgetter(*(path for _, path, _ in kept))
    if len(kept) == 1:
        [write] = writes
        return lambda value: template % write(values(value))
    return lambda value: template % tuple(map(call, writes, values(value)))


# --- reading ---


def _reader(hint: Any) -> Callable[[Json], Any]:
    """A function that makes a value of this type, or raises one of :data:`_MISFITS`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is str:
        # refuses what is no text, without a call of a Python function
        return "".__add__
    if hint in (int, bool):
        return _exactly(hint)
    if hint is Address:
        return _address
    if hint is date:
        return _day
    if _is_word(hint):
        return {word.value: word for word in hint}.__getitem__
    if origin in (Union, UnionType):
        return _union_reader(hint)
    if origin in (tuple, frozenset):
        return _items_reader(arguments[0], origin)
    if origin is Mapping:
        return _mapping_reader(arguments[1])
    return _record_reader(hint)


def _expected(hint: Any) -> str:
    """What a value should have been, where :func:`_reader` does not say so by itself."""
    if _is_word(hint):
        return f"one of {', '.join(hint)}"
    if get_origin(hint) in (Union, UnionType):
        return _expected(_members(hint)[0])
    known = {
        str: "a text",
        int: "a whole number",
        bool: "true or false",
        Address: 'an address such as "user:claire.martin@example.com"',
        date: "a date such as 2026-11-30",
    }
    return known[hint]


def _exactly(kind: type) -> Callable[[Json], Any]:
    def read(value: Json) -> Any:
        if type(value) is not kind:
            raise TypeError
        return value

    return read


def _address(value: Json) -> Address:
    kind, colon, key = value.partition(":") if type(value) is str else ("", "", "")
    if not colon or kind not in KINDS:
        raise ValueError
    return Address(kind, key)


@lru_cache(4096)
def _day(text: str) -> date:
    day = date.fromisoformat(text)
    if day.isoformat() != text:
        raise ValueError
    return day


def _union_reader(hint: Any) -> Callable[[Json], Any]:
    members = _members(hint)
    if hint in TAGS:
        return _tagged_reader(TAGS[hint], members)
    if len(members) == 1:
        read = _reader(members[0])
    else:
        by_fields = {frozenset(record_fields(kind)): _reader(kind) for kind in members}
        names = " or ".join(kind.__name__.lower() for kind in members)

        def read(value: Json) -> Any:
            found = by_fields.get(frozenset(value)) if type(value) is dict else None
            if found is None:
                raise InvalidJson(f"a {names}")
            return found(value)

    if NoneType not in get_args(hint):
        return read
    return lambda value: None if value is None else read(value)


def _tagged_reader(tag: str, members: Sequence[Any]) -> Callable[[Json], Any]:
    by_name = {kind.__name__: _reader(kind) for kind in members}

    def read_tagged(value: Json) -> Any:
        if type(value) is not dict:
            raise InvalidJson(f"a {tag}")
        name = value.get(tag)
        if type(name) is not str or name not in by_name:
            raise InvalidJson(f"the name of a {tag}", tag)
        return by_name[name]({key: item for key, item in value.items() if key != tag})

    return read_tagged


def _items_reader(hint: Any, collection: Any) -> Callable[[Json], Any]:
    make = _set_maker(hint) if collection is frozenset else _tuple_maker(hint)

    def read_items(value: Json) -> Any:
        if type(value) is not list:
            raise InvalidJson("a list")
        try:
            items = make(value)
        except _MISFITS:
            pass
        else:
            if len(items) == len(value):
                return items
        for index, item in enumerate(value):
            _read_at(f"[{index}]", hint, item)
        raise InvalidJson("a list of different values")

    return read_items


def _tuple_maker(hint: Any) -> Callable[[list[Json]], Any]:
    read = _reader(hint)
    return lambda value: tuple(map(read, value))


def _set_maker(hint: Any) -> Callable[[list[Json]], Any]:
    """The function that makes a frozen set of a list, once for the same texts."""
    if hint is str:
        read = _reader(hint)
        made = lru_cache(_REMEMBERED)(lambda items: frozenset(map(read, items)))
        return lambda value: made(tuple(value))
    parts = record_fields(hint) if _is_record(hint) else {}
    if not parts or not all(map(_is_textual, parts.values())):
        read = _reader(hint)
        return lambda value: frozenset(map(read, value))
    take, make, width = _taker(parts), _maker(hint), len(parts)
    made = lru_cache(_REMEMBERED)(lambda rows: frozenset(map(make, rows)))

    def make_set(value: list[Json]) -> Any:
        rows = tuple(map(take, value))
        if sum(map(len, value)) != width * len(value):
            raise ValueError
        return made(rows)

    return make_set


def _is_textual(hint: Any) -> bool:
    """Whether values of this type are texts or null in JSON."""
    members = _members(hint) if get_origin(hint) in (Union, UnionType) else [hint]
    return all(member in (str, date) or _is_word(member) for member in members)


def _mapping_reader(hint: Any) -> Callable[[Json], Any]:
    read = reader(hint)

    def read_mapping(value: Json) -> Any:
        if type(value) is not dict:
            raise InvalidJson("an object")
        try:
            return {key: read(item) for key, item in value.items()}
        except _MISFITS:
            for key, item in value.items():
                _read_at(key, hint, item)
            raise

    return read_mapping


def _record_reader(hint: Any) -> Callable[[Json], Any]:
    parts = record_fields(hint)
    for name, part in parts.items():
        if TAGS.get(part) == name:
            return _spread_reader(hint, parts, name)
    take, kind, width = _taker(parts), _class(hint), len(parts)
    reads = [_reader(part) for part in parts.values()]

    def read_record(value: Json) -> Any:
        try:
            if len(value) == width:
                return kind(*map(call, reads, take(value)))
        except _MISFITS:
            pass
        raise _misfit(value, parts)

    return read_record


def _taker(parts: Mapping[str, Any]) -> Callable[[Json], Sequence[Json]]:
    """The function that gives the items of these keys; it raises :class:`KeyError` or :class:`TypeError`."""
    if len(parts) > 1:
        return itemgetter(*parts)
    [name] = parts
    return lambda value: (value[name],)


def _maker(hint: Any) -> Callable[[Sequence[Json]], Any]:
    """The function that makes a record of the items of its fields."""
    reads = [_reader(part) for part in record_fields(hint).values()]
    kind = _class(hint)
    return lambda items: kind(*map(call, reads, items))


def _misfit(value: Json, parts: Mapping[str, Any]) -> InvalidJson:
    """Why an object is not read as a record with these fields."""
    if type(value) is not dict:
        return InvalidJson("an object")
    if value.keys() != parts.keys():
        return InvalidJson(f"an object with exactly {', '.join(sorted(parts))}")
    for name, part in parts.items():
        try:
            reader(part)(value[name])
        except InvalidJson as problem:
            return problem.under(name)
    raise AssertionError(value)


def _spread_reader(hint: Any, parts: Mapping[str, Any], name: str) -> Callable[[Json], Any]:
    """Reads a record in whose object the fields of another, tagged one are written."""
    beside = [other for other in parts if other != name]
    read_tagged = _reader(parts[name])

    def read_spread(value: Json) -> Any:
        if type(value) is not dict or not value.keys() >= set(beside):
            raise InvalidJson(f"an object with {', '.join(beside)} and a {name}")
        values = {other: _read_at(other, parts[other], value[other]) for other in beside}
        values[name] = read_tagged({key: item for key, item in value.items() if key not in values})
        return hint(**values)

    return read_spread


def _read_at(name: str, hint: Any, value: Json) -> Any:
    try:
        return reader(hint)(value)
    except InvalidJson as problem:
        raise problem.under(name) from None
