"""YAML text, read strictly, with the place of every value.

Every scalar stays the text that was written, but for null, true and false, so that ``0612345670`` is
no octal number and ``no`` no boolean. What makes YAML surprising is refused by name: tags,
anchors, aliases, merge keys, keys written twice, characters that do not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from provisioner.diagnostics import Diagnostic, Source
from provisioner.manifest.reading import HAS_LIBYAML, Data, Reading, places
from provisioner.manifest.text import Page, decode

__all__ = ["HAS_LIBYAML", "Data", "Document", "read_document"]


class Document:
    """One file: its data, and where each key and value stands.

    Places are kept as offsets, in the order of the text, and become line and column when asked for.
    """

    __slots__ = ("_marks", "_page", "_tables", "data")

    def __init__(self, page: Page, data: Data, marks: Sequence[int]) -> None:
        self.data = data
        self._page = page
        self._marks = marks
        self._tables: dict[int, dict[str | int, int]] = {}

    @property
    def file(self) -> str:
        """The path as shown to people: relative to the workspace, with forward slashes."""
        return self._page.file

    def source(self, *path: str | int) -> Source:
        """Where the value at a path begins; its nearest ancestor's place where it is missing."""
        return self._page.at(self._marks[self._find(path)[1]])

    def key_source(self, *path: str | int) -> Source:
        """Where the key of the value at a path begins; an item of a list is its own key."""
        return self._page.at(self._marks[self._find(path)[0]])

    def was_quoted(self, *path: str | int) -> bool:
        """True for a scalar in quotes or in block style; false for a plain or missing one."""
        _, mark, value = self._find(path)
        return isinstance(value, str) and self._page.text.startswith(("'", '"', "|", ">"), self._marks[mark])

    def _find(self, path: tuple[str | int, ...]) -> tuple[int, int, Data]:
        """Which marks are those of the key and of the value at a path; and the value, if it is there."""
        key = mark = 0
        value = self.data
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
            table = self._tables[mark] = places(self._marks, mark, collection)
        return table.get(part, -1)


def read_document(file: str, content: bytes | str) -> tuple[Document | None, list[Diagnostic]]:
    """The document, and every problem of its text in the order of the text.

    Without a document where reading could not go on to the end. ``file`` is the name shown to people.
    """
    text = decode(file, content)
    if isinstance(text, Diagnostic):
        return None, [text]
    reading = Reading(file, text)
    read = reading.read()
    return read and Document(reading.page, *read), sorted(reading.problems, key=attrgetter("source"))
