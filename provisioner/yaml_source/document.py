"""YAML text, read strictly, with the place of every value.

Every scalar stays the text that was written, but for null, true and false, so that ``0612345670`` is
no octal number and ``no`` no boolean. What makes YAML surprising is refused by name: tags,
anchors, aliases, merge keys, keys written twice, characters that do not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from provisioner.diagnostics import Diagnostic, Source
from provisioner.manifest.usual import Data, read_usual
from provisioner.yaml_source.source_text import SourceText, decode

__all__ = ["Data", "Document", "Positions", "digest_of", "read_document"]


class Positions:
    """Where each key and value of one text stands.

    Places are kept as offsets, in the order of the text, and become line and column when asked for. Of a
    text in its usual form they are not even found before: most files are read and nothing is said of them.
    """

    __slots__ = ("_data", "_marks", "_page", "_tables")

    def __init__(self, page: SourceText, data: Data = None, marks: Sequence[int] = ()) -> None:
        self._page = page
        self._data = data
        self._marks = marks
        self._tables: dict[int, dict[str | int, int]] = {}

    @property
    def file(self) -> str:
        """The path as shown to people: relative to the workspace, with forward slashes."""
        return self._page.file

    def source(self, *path: str | int) -> Source:
        """Where the value at a path begins; its nearest ancestor's place where it is missing."""
        _, mark, _ = self._find(path)
        return self._page.at(self._marks[mark])

    def key_source(self, *path: str | int) -> Source:
        """Where the key of the value at a path begins; an item of a list is its own key."""
        mark, _, _ = self._find(path)
        return self._page.at(self._marks[mark])

    def was_quoted(self, *path: str | int) -> bool:
        """True for a scalar in quotes or in block style; false for a plain or missing one."""
        _, mark, value = self._find(path)
        return isinstance(value, str) and self._page.text.startswith(("'", '"', "|", ">"), self._marks[mark])

    def _find(self, path: tuple[str | int, ...]) -> tuple[int, int, Data]:
        """Which marks are those of the key and of the value at a path; and the value, if it is there."""
        if not self._marks:
            self._read_again()
        key = mark = 0
        value = self._data
        for part in path:
            place = self._child(mark, value, part)
            if place < 0:
                return key, mark, None
            key = place
            mark = place + 1 if type(value) is dict else place
            value = value[part]
        return key, mark, value

    def _child(self, mark: int, collection: Data, part: str | int) -> int:
        """The mark of a key or an item; -1 where there is none."""
        table = self._tables.get(mark)
        if table is None:
            if type(collection) not in (dict, list):
                return -1
            from provisioner.yaml_source.events import positions

            table = self._tables[mark] = positions(self._marks, mark, collection)
        return table.get(part, -1)

    def _read_again(self) -> None:
        from provisioner.yaml_source.events import EventReader

        again = EventReader(self._page.file, self._page.text).read()
        assert again is not None
        self._data, self._marks = again


class Document:
    """One file: its data, and where each key and value stands."""

    __slots__ = ("data", "is_usual", "places")

    def __init__(self, data: Data, places: Positions, *, is_usual: bool = False) -> None:
        self.data = data
        self.places = places
        self.is_usual = is_usual
        """Read in its usual form: no plain text in it could be taken for a date or a yes, or where that
        matters for a number."""

    @property
    def file(self) -> str:
        """See :class:`Positions`, as for the following."""
        return self.places.file

    def source(self, *path: str | int) -> Source:
        """Where the value at a path begins."""
        return self.places.source(*path)

    def key_source(self, *path: str | int) -> Source:
        """Where the key of the value at a path begins."""
        return self.places.key_source(*path)

    def was_quoted(self, *path: str | int) -> bool:
        """True for a scalar in quotes or in block style."""
        return self.places.was_quoted(*path)


def read_document(
    file: str, content: bytes | str, *, numbers: bool = False
) -> tuple[Document | None, list[Diagnostic]]:
    """The document, and every problem of its text in the order of the text.

    Without a document where reading could not go on to the end. ``file`` is the name shown to people;
    ``numbers`` says that plain ones are usual in it.
    """
    text = decode(file, content)
    if isinstance(text, Diagnostic):
        return None, [text]
    data = read_usual(text, numbers=numbers)
    if data is not None:
        return Document(data, Positions(SourceText(file, text)), is_usual=True), []
    return read_by_events(file, text)


def read_by_events(file: str, text: str) -> tuple[Document | None, list[Diagnostic]]:
    """The document of a decoded text, read from libyaml's events."""
    from provisioner.yaml_source.events import EventReader

    reading = EventReader(file, text)
    read = reading.read()
    document = read and Document(read[0], Positions(reading.page, *read))
    return document, sorted(reading.problems, key=attrgetter("source"))


def digest_of(data: Data) -> str:
    """SHA-256 over a file's data: comments, layout and the order of keys do not count."""
    import json
    from hashlib import sha256

    return sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
