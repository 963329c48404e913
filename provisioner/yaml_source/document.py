"""YAML text, read strictly, with the position of every value.

Every scalar stays the text that was written, except null, true and false: ``0612345670`` is not an octal
number and ``no`` is not a boolean. Tags, anchors, aliases, merge keys, duplicate keys and invisible
characters are refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from provisioner.diagnostics import Diagnostic, Source
from provisioner.yaml_source.events import Data, EventReader, Unquoted, positions
from provisioner.yaml_source.source_text import SourceText, decode

__all__ = ["Data", "Document", "Positions", "digest_of", "read_document"]


class Positions:
    """The positions of the keys and values of one text.

    Only the text is kept, and it is read again for the first position that is asked for: most files are read
    without a diagnostic, and their data and marks would take three times the memory of their text.
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
        _, mark, _ = self._find(path)
        return self._page.at(self._marks[mark])

    def key_source(self, *path: str | int) -> Source:
        """The start of the key of the value at a path. The key of a list item is the item."""
        mark, _, _ = self._find(path)
        return self._page.at(self._marks[mark])

    def was_quoted(self, *path: str | int) -> bool:
        """True for a scalar in quotes or in block style, False for a plain or missing one."""
        _, mark, value = self._find(path)
        return isinstance(value, str) and self._page.text.startswith(("'", '"', "|", ">"), self._marks[mark])

    def at(self, offset: int) -> Source:
        """Line and column of a character of the text."""
        return self._page.at(offset)

    def _find(self, path: tuple[str | int, ...]) -> tuple[int, int, Data]:
        """The indexes of the marks of the key and the value at a path, and the value if it exists."""
        if not self._marks:
            read = EventReader(self._page.file, self._page.text).read()
            assert read is not None
            self._data, self._marks = read
        key = mark = 0
        value = self._data
        for part in path:
            found = self._child(mark, value, part)
            if found < 0:
                return key, mark, None
            key = found
            mark = found + 1 if type(value) is dict else found
            value = value[part]
        return key, mark, value

    def _child(self, mark: int, collection: Data, part: str | int) -> int:
        """The mark of a key or an item; -1 if there is none."""
        table = self._tables.get(mark)
        if table is None:
            if type(collection) not in (dict, list):
                return -1
            table = self._tables[mark] = positions(self._marks, mark, collection)
        return table.get(part, -1)


class Document:
    """One file: its data, the positions of its keys and values, and its texts that need quotes."""

    __slots__ = ("data", "places", "unquoted")

    def __init__(self, data: Data, places: Positions, unquoted: Sequence[Unquoted] = ()) -> None:
        self.data = data
        self.places = places
        self.unquoted = unquoted

    @property
    def file(self) -> str:
        """The displayed path."""
        return self.places.file

    def source(self, *path: str | int) -> Source:
        """The start of the value at a path."""
        return self.places.source(*path)

    def key_source(self, *path: str | int) -> Source:
        """The start of the key of the value at a path."""
        return self.places.key_source(*path)

    def was_quoted(self, *path: str | int) -> bool:
        """True for a scalar in quotes or in block style."""
        return self.places.was_quoted(*path)


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
