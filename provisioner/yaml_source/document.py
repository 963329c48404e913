"""Reads YAML text strictly, with the position of every value.

Every scalar except null, true and false remains a string: ``0612345670`` is not read as an octal number, nor
``no`` as a boolean. Tags, anchors, aliases, merge keys, duplicate keys and invisible characters are refused,
each with a specific message.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from provisioner.diagnostics import Diagnostic, Source
from provisioner.yaml_source.events import Data, EventReader, Unquoted, positions
from provisioner.yaml_source.source_text import SourceText, decode


class Positions:
    """The positions of the keys and values of one text.

    The object keeps only the text, and parses it again when a position is first needed. Most files need no
    position, and storing the parsed data would take three times the memory of the text.
    """

    __slots__ = ("_data", "_marks", "_page", "_tables")

    def __init__(self, page: SourceText) -> None:
        self._page = page
        self._data: Data = None
        self._marks: Sequence[int] = ()
        self._tables: dict[int, dict[str | int, int]] = {}

    @property
    def file(self) -> str:
        """The path of the file as messages show it: relative to the workspace, with forward slashes."""
        return self._page.file

    def source(self, *path: str | int) -> Source:
        """Return the start of the value at a path, or of the nearest ancestor if there is no such value."""
        mark = self._find(path)[1]
        return self._page.at(self._marks[mark])

    def key_source(self, *path: str | int) -> Source:
        """Return the start of the key at a path. A list item has no key, so return the start of the item."""
        mark = self._find(path)[0]
        return self._page.at(self._marks[mark])

    def at(self, offset: int) -> Source:
        """Return the line and the column of the character at an offset in the text."""
        return self._page.at(offset)

    def _find(self, path: tuple[str | int, ...]) -> tuple[int, int]:
        if not self._marks:
            read = EventReader(self._page.file, self._page.text).read()
            assert read is not None
            self._data, self._marks = read
        key = mark = 0
        value = self._data
        for part in path:
            if type(value) not in (dict, list):
                break
            table = self._tables.get(mark)
            if table is None:
                table = self._tables[mark] = positions(self._marks, mark, value)
            if part not in table:
                break
            key = table[part]
            mark = key + 1 if type(value) is dict else key
            value = value[part]
        return key, mark


class Document(NamedTuple):
    """One file: its data, its positions, and the unquoted texts that are not text for other YAML parsers."""

    data: Data
    positions: Positions
    unquoted: Sequence[Unquoted]


def read_document(file: str, content: bytes | str) -> tuple[Document | None, list[Diagnostic]]:
    """Return the document of a file, and the problems of its text, sorted by position.

    The document is None if a problem stops the parser before the end. ``file`` is the path shown in messages.
    """
    text = decode(file, content)
    if isinstance(text, Diagnostic):
        return None, [text]
    reader = EventReader(file, text)
    read = reader.read()
    document = read and Document(read[0], Positions(reader.page), reader.unquoted)
    return document, sorted(reader.problems, key=attrgetter("source"))


def digest_of(data: Data) -> str:
    """Return the SHA-256 of a file's data. Comments, layout and the order of keys do not affect it."""
    import json
    from hashlib import sha256

    return sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
