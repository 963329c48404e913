"""The conversion of the program's values to and from JSON, for plan files, the journal and the REST API.

``writer(User)`` and ``reader(User)`` are generated from the type annotations of the class, so a new field
needs no further code. Keys and sets are written in sorted order, dates in ISO 8601, and all text in ASCII.
Therefore equal values have the same JSON text. A reader rejects unknown fields, missing fields, values of
another type, and duplicate keys.

The codec supports the types in :data:`_SCALARS`, string enums, optional types, tuples with one item type,
frozen sets of strings or of records, mappings with string keys, records (dataclasses and named tuples), and
unions of records. The class of a value in a union is recognised by its set of fields, or by a tag if
:data:`TAGS` lists the union. To add a scalar type, add it to :data:`_SCALARS` and to
``tests/support/plan_schema.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from enum import StrEnum
from functools import cache, lru_cache
from json.encoder import encode_basestring_ascii
from operator import attrgetter, call, itemgetter
from types import NoneType, UnionType
from typing import Any, NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

from provisioner.model import Address
from provisioner.planning.steps import Step

Json = Any
"""A value that ``json.loads`` returns: None, bool, int, str, list or dict."""

TAGS: Mapping[Any, str] = {Step: "step"}
"""A mapping from each tagged union to its tag: the JSON key under which a value's class name is written.

A record can have an attribute with the tag as its name and the union as its type (``PlannedStep.step``).
The fields of this attribute are written in the record's own JSON object, not in a nested object."""

_CACHED_SETS = 50_000
"""The maximum number of entries of each cache of sets. Many users have the same companies or applications."""

_READ_ERRORS = (TypeError, ValueError, KeyError)


class InvalidJson(ValueError):
    """The error for an invalid JSON value. ``where`` is its path, and ``expected`` describes valid values."""

    def __init__(self, expected: str, where: str = "") -> None:
        super().__init__(f"{where or 'the whole'}: {expected}")
        self.expected = expected
        self.where = where


canonical: Callable[[Json], str] = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), check_circular=False
).encode
"""A function that returns the canonical text of a JSON value: sorted keys, no spaces, ASCII only."""


def parse_json(text: str | bytes) -> Json:
    """Parse a JSON text. Raises :class:`InvalidJson` for invalid JSON and for duplicate keys."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except InvalidJson:
        raise
    except (ValueError, RecursionError) as problem:
        raise InvalidJson("a JSON text") from problem


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidJson("an object with each key once")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJson(f"no {name}")


@cache
def writer(hint: Any, without: tuple[str, ...] = ()) -> Callable[[Any], str]:
    """Return a function that converts a value of the type ``hint`` to canonical JSON text.

    ``without`` holds the names of fields to omit. Only the outermost record omits these fields.
    """
    return _record_writer(hint, without) if without else _codec(hint).write


@cache
def reader(hint: Any) -> Callable[[Json], Any]:
    """Return a function that converts parsed JSON to the type ``hint``, or raises :class:`InvalidJson`."""
    codec = _codec(hint)

    def read(value: Json) -> Any:
        try:
            return codec.read(value)
        except InvalidJson:
            raise
        except _READ_ERRORS:
            raise InvalidJson(codec.expected) from None

    return read


def record_fields(hint: Any) -> dict[str, Any]:
    """Return the type of each field of a dataclass or named tuple, in the order of the constructor."""
    kind = get_origin(hint) or hint
    names = [field.name for field in fields(kind)] if is_dataclass(kind) else kind._fields
    hints = get_type_hints(kind)
    if kind is not hint:
        # for a generic type such as Page[User], replace the type parameter with User in the field types
        hints = {
            name: part[get_args(hint)] if getattr(part, "__parameters__", ()) else part
            for name, part in hints.items()
        }
    return {name: hints[name] for name in names}


class _Codec(NamedTuple):
    """The functions that write and read the values of one type.

    For an invalid value, ``read`` raises :class:`InvalidJson` or, only if ``expected`` is not "", one of
    :data:`_READ_ERRORS`. In the second case, :func:`reader` raises :class:`InvalidJson` with the text
    ``expected``, which describes valid values.
    """

    write: Callable[[Any], str]
    read: Callable[[Json], Any]
    expected: str = ""


@cache
def _codec(hint: Any) -> _Codec:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        texts, words = {word: canonical(word) for word in hint}, {word.value: word for word in hint}
        return _Codec(texts.__getitem__, words.__getitem__, f"one of {', '.join(hint)}")
    if origin in (Union, UnionType):
        return _union_codec(hint)
    if origin is tuple:
        return _tuple_codec(arguments[0])
    if origin is frozenset:
        return _set_codec(arguments[0])
    if origin is Mapping:
        return _mapping_codec(arguments[1])
    return _Codec(_record_writer(hint), _record_reader(hint))


# --- scalars ---


def _read_exactly(kind: type) -> Callable[[Json], Any]:
    def read(value: Json) -> Any:
        if type(value) is not kind:
            raise TypeError
        return value

    return read


def _read_address(value: Json) -> Address:
    kind, _, key = value.partition(":") if type(value) is str and ":" in value else ("", "", "")
    if kind not in ("company", "user"):
        raise ValueError
    return Address(kind, key)


def _read_date(value: Json) -> date:
    day = date.fromisoformat(value)
    if day.isoformat() != value:
        raise ValueError
    return day


_SCALARS: Mapping[Any, _Codec] = {
    # "".__add__ raises TypeError for a value that is not a string, without a slow call to a Python function
    str: _Codec(encode_basestring_ascii, "".__add__, "a text"),
    int: _Codec(int.__repr__, _read_exactly(int), "a whole number"),
    bool: _Codec({True: "true", False: "false"}.__getitem__, _read_exactly(bool), "true or false"),
    date: _Codec(lambda day: f'"{day.isoformat()}"', _read_date, "a date such as 2026-11-30"),
    Address: _Codec(
        lambda address: encode_basestring_ascii(str(address)),
        _read_address,
        'an address such as "user:claire.martin@example.com"',
    ),
}


# --- unions ---


def _members(hint: Any) -> list[Any]:
    return [member for member in get_args(hint) if member is not NoneType]


def _union_codec(hint: Any) -> _Codec:
    if hint in TAGS:
        return _Codec(_record_writer(hint), _tagged_reader(hint))
    members = _members(hint)
    write, read, expected = _codec(members[0]) if len(members) == 1 else _records_codec(members)
    if NoneType not in get_args(hint):
        return _Codec(write, read)
    return _Codec(
        lambda value: "null" if value is None else write(value),
        lambda value: None if value is None else read(value),
        expected,
    )


def _records_codec(kinds: list[Any]) -> _Codec:
    """Return the codec of a union of record types, each of which has a different set of fields."""
    writes = {kind: _codec(kind).write for kind in kinds}
    reads = {frozenset(record_fields(kind)): _codec(kind).read for kind in kinds}
    names = " or ".join(kind.__name__.lower() for kind in kinds)

    def read(value: Json) -> Any:
        found = reads.get(frozenset(value)) if type(value) is dict else None
        if found is None:
            raise InvalidJson(f"a {names}")
        return found(value)

    return _Codec(lambda value: writes[type(value)](value), read)


# --- tuples, sets and mappings ---


def _tuple_codec(hint: Any) -> _Codec:
    write, read, _ = _codec(hint)
    return _Codec(
        lambda items: f"[{','.join(map(write, items))}]",
        _list_reader(hint, lambda value: tuple(map(read, value))),
    )


def _set_codec(hint: Any) -> _Codec:
    write, read, _ = _codec(hint)
    cached = lru_cache(_CACHED_SETS)
    if hint is str:
        made = cached(lambda items: frozenset(map(read, items)))
        return _Codec(
            cached(lambda items: f"[{','.join(map(write, sorted(items)))}]"),
            _list_reader(hint, lambda value: made(tuple(value))),
        )
    keys = itemgetter(*record_fields(hint))
    width = len(record_fields(hint))
    reads = [_codec(part).read for part in record_fields(hint).values()]
    rows_made = cached(lambda rows: frozenset(hint(*map(call, reads, row)) for row in rows))

    def read_set(value: list[Json]) -> Any:
        if sum(map(len, value)) != width * len(value):
            raise ValueError
        return rows_made(tuple(map(keys, value)))

    return _Codec(
        # sort records by the text of their fields, because None and a date cannot be compared
        cached(lambda items: f"[{','.join(map(write, sorted(items, key=lambda item: [*map(str, item)])))}]"),
        _list_reader(hint, read_set),
    )


def _list_reader(hint: Any, make: Callable[[list[Json]], Any]) -> Callable[[Json], Any]:
    """Return a reader for lists with items of the type ``hint``. ``make`` converts all items of a list."""

    def read(value: Json) -> Any:
        if type(value) is not list:
            raise InvalidJson("a list")
        try:
            items = make(value)
        except _READ_ERRORS:
            pass
        else:
            if len(items) == len(value):
                return items
        _read_each(hint, ((f"[{index}]", item) for index, item in enumerate(value)))
        raise InvalidJson("a list of different values")

    return read


def _mapping_codec(hint: Any) -> _Codec:
    write = _codec(hint).write

    def write_mapping(mapping: Mapping[str, Any]) -> str:
        items = (f"{encode_basestring_ascii(key)}:{write(mapping[key])}" for key in sorted(mapping))
        return "{" + ",".join(items) + "}"

    def read_mapping(value: Json) -> Any:
        if type(value) is not dict:
            raise InvalidJson("an object")
        return _read_each(hint, value.items())

    return _Codec(write_mapping, read_mapping)


def _read_each(hint: Any, items: Iterable[tuple[str, Json]]) -> dict[str, Any]:
    """Convert the items to the type ``hint``. An :class:`InvalidJson` names the first invalid item."""
    return {name: _read_at(name, hint, item) for name, item in items}


def _read_at(name: str, hint: Any, value: Json) -> Any:
    try:
        return reader(hint)(value)
    except InvalidJson as problem:
        joint = "." if problem.where and not problem.where.startswith("[") else ""
        raise InvalidJson(problem.expected, f"{name}{joint}{problem.where}") from None


# --- records ---


def _record_writer(hint: Any, without: tuple[str, ...] = ()) -> Callable[[Any], str]:
    if hint in TAGS:
        return _tagged_writer(hint, without)
    parts = [(name, name, part) for name, part in record_fields(hint).items() if name not in without]
    for name, _, part in parts:
        if TAGS.get(part) == name:
            return _tagged_writer(part, without, [other for other in parts if other[0] != name], name)
    return _object_writer(parts)


def _tagged_writer(
    hint: Any, without: tuple[str, ...], beside: Iterable[_Part] = (), path: str = ""
) -> Callable[[Any], str]:
    """Return a writer for the tagged union ``hint`` or, if ``path`` is not "", for a record that contains the
    union: ``path`` is the record's attribute with the union, and ``beside`` are its other fields.
    """
    tag, prefix = TAGS[hint], f"{path}." if path else ""
    writes = {}
    for kind in _members(hint):
        parts = [(name, prefix + name, part) for name, part in record_fields(kind).items()]
        kept = [part for part in parts if part[0] not in without]
        writes[kind] = _object_writer([*beside, *kept], {tag: kind.__name__})
    if not path:
        return lambda value: writes[type(value)](value)
    member = attrgetter(path)
    return lambda value: writes[type(member(value))](value)


_Part = tuple[str, str, Any]
"""A JSON key, the dotted path of attributes that leads to its value, and the type of the value."""


def _object_writer(parts: list[_Part], tag: Mapping[str, str] | None = None) -> Callable[[Any], str]:
    tags = {name: f'"{name}":"{word}"' for name, word in (tag or {}).items()}
    texts = tags | {name: f'"{name}":%s' for name, _, _ in parts}
    template = "{" + ",".join(texts[name] for name in sorted(texts)) + "}"
    if not parts:
        return lambda _: template
    ordered = sorted(parts, key=itemgetter(0))
    writes = [_codec(part).write for _, _, part in ordered]
    values = attrgetter(*(path for _, path, _ in ordered))
    if len(parts) == 1:
        [write] = writes
        return lambda value: template % write(values(value))
    return lambda value: template % tuple(map(call, writes, values(value)))


def _record_reader(hint: Any) -> Callable[[Json], Any]:
    parts = record_fields(hint)
    for name, part in parts.items():
        if TAGS.get(part) == name:
            return _nested_reader(hint, parts, name)
    # itemgetter returns a tuple only for two or more names, so the name of a single field is repeated
    names, kind, width = [*parts, *parts][: max(2, len(parts))], get_origin(hint) or hint, len(parts)
    take, reads = itemgetter(*names), [_codec(part).read for part in parts.values()]

    def read(value: Json) -> Any:
        try:
            if len(value) == width:
                return kind(*map(call, reads, take(value)))
        except _READ_ERRORS:
            pass
        return _refuse_record(value, parts)

    return read


def _refuse_record(value: Json, parts: Mapping[str, Any]) -> NoReturn:
    """Raise :class:`InvalidJson` with the reason why ``value`` is not a record with the fields ``parts``."""
    if type(value) is not dict:
        raise InvalidJson("an object")
    if value.keys() != parts.keys():
        raise InvalidJson(f"an object with exactly {', '.join(sorted(parts))}")
    for name, part in parts.items():
        _read_at(name, part, value[name])
    raise AssertionError(value)


def _tagged_reader(hint: Any) -> Callable[[Json], Any]:
    tag = TAGS[hint]
    reads = {kind.__name__: _codec(kind).read for kind in _members(hint)}

    def read(value: Json) -> Any:
        if type(value) is not dict:
            raise InvalidJson(f"a {tag}")
        name = value.get(tag)
        if type(name) is not str or name not in reads:
            raise InvalidJson(f"the name of a {tag}", tag)
        return reads[name]({key: item for key, item in value.items() if key != tag})

    return read


def _nested_reader(hint: Any, parts: Mapping[str, Any], tag: str) -> Callable[[Json], Any]:
    """Return a reader for a record whose attribute ``tag`` is not nested in JSON (see :data:`TAGS`)."""
    beside = [name for name in parts if name != tag]
    read_tagged = _codec(parts[tag]).read

    def read(value: Json) -> Any:
        if type(value) is not dict or not value.keys() >= set(beside):
            raise InvalidJson(f"an object with {', '.join(beside)} and a {tag}")
        values = {name: _read_at(name, parts[name], value[name]) for name in beside}
        values[tag] = read_tagged({name: item for name, item in value.items() if name not in values})
        return hint(**values)

    return read
