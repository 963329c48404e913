"""YAML text, read strictly, with the position of every value.

Every scalar stays the text that was written, except null, true and false: ``0612345670`` is not an octal
number and ``no`` is not a boolean. Tags, anchors, aliases, merge keys, duplicate keys and invisible
characters are refused by name.
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

    Only the text is kept. It is read again for the first position, because most files have no diagnostic, and
    data and marks take three times the memory of the text.
    """

    __slots__ = ("_data", "_marks", "_page", "_tables")

    def __init__(self, page: SourceText) -> None:
        self._page = page
        self._data: Data = None
        self._marks: Sequence[int] = ()
        self._tables: dict[int, dict[str | int, int]] = {}

    @property
    def file(self) -> str:
        """The displayed path: relative to the workspace, with forward slashes."""
        return self._page.file

    def source(self, *path: str | int) -> Source:
        """The start of the value at a path, or of its nearest ancestor if the value is missing."""
        mark = self._find(path)[1]
        return self._page.at(self._marks[mark])

    def key_source(self, *path: str | int) -> Source:
        """The start of the key of the value at a path. The key of a list item is the item."""
        mark = self._find(path)[0]
        return self._page.at(self._marks[mark])

    def at(self, offset: int) -> Source:
        """Line and column of a character of the text."""
        return self._page.at(offset)

    def _find(self, path: tuple[str | int, ...]) -> tuple[int, int]:
        """The indexes of the marks of the key and of the value at a path, or at its nearest ancestor."""
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
    """One file: its data, the positions of its keys and values, and its texts that need quotes."""

    data: Data
    positions: Positions
    unquoted: Sequence[Unquoted]


def read_document(file: str, content: bytes | str) -> tuple[Document | None, list[Diagnostic]]:
    """The document and every problem of its text in the order of the text.

    The document is None if reading could not continue to the end. ``file`` is the displayed name.
    """
    text = decode(file, content)
    if isinstance(text, Diagnostic):
        return None, [text]
    reader = EventReader(file, text)
    read = reader.read()
    document = read and Document(read[0], Positions(reader.page), reader.unquoted)
    return document, sorted(reader.problems, key=attrgetter("source"))


def digest_of(data: Data) -> str:
    """SHA-256 over a file's data, independent of comments, layout and the order of keys."""
    import json
    from hashlib import sha256

    return sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
