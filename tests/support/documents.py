"""The Markdown documents of the repository: their code blocks with marks, links, anchors and prose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from samples_support import ROOT

IGNORED = {".venv", ".venv-newest", ".git", "node_modules", "outbox", ".pytest_cache", ".hypothesis"}

SHELL = ("sh", "console")
NOT_RUN = "not run: "
FRESH_COPY = "in a fresh copy"


class Block(NamedTuple):
    """A fenced code block."""

    document: str
    line: int
    language: str
    text: str
    marks: tuple[str, ...]
    """The texts of the HTML comments directly above the block."""

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"

    def mark(self, pattern: str) -> str | None:
        """Return the first group of the mark that matches all of ``pattern``, or None."""
        found = (re.fullmatch(pattern, mark) for mark in self.marks)
        return next((match[1] for match in found if match), None)

    @property
    def is_run(self) -> bool:
        """True if no mark says that the block is not run."""
        return not any(mark.startswith(NOT_RUN) for mark in self.marks)


def documents() -> list[str]:
    """Return the paths of all Markdown documents, relative to the repository. Golden files are left out."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(
        path.as_posix() for path in found if IGNORED.isdisjoint(path.parts) and "golden" not in path.parts
    )


@cache
def tokens(document: str) -> tuple[Token, ...]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return tuple(MarkdownIt("commonmark").enable("table").parse(text))


def blocks(document: str, *languages: str) -> list[Block]:
    """Return the code blocks of a document; with ``languages``, only those in one of these languages."""
    return [block for block in _blocks(document) if not languages or block.language in languages]


def _blocks(document: str) -> Iterator[Block]:
    marks: tuple[str, ...] = ()
    for token in tokens(document):
        if token.type == "html_block":
            marks += tuple(
                " ".join(text.split()) for text in re.findall("<!--(.*?)-->", token.content, re.DOTALL)
            )
        else:
            if token.type == "fence":
                line = (token.map or [0])[0] + 1
                yield Block(document, line, token.info.strip(), token.content, marks)
            marks = ()


def inline_code(document: str) -> list[str]:
    """Return the texts between single backticks."""
    return [child.content for child in _inline(document) if child.type == "code_inline"]


def links(document: str) -> list[str]:
    """Return the targets of all links."""
    return [str(child.attrs["href"]) for child in _inline(document) if child.type == "link_open"]


def prose(document: str) -> str:
    """Return the text of a document without code."""
    return "\n".join(child.content for child in _inline(document) if child.type == "text")


def _inline(document: str) -> Iterator[Token]:
    for token in tokens(document):
        yield from token.children or ()


@cache
def anchors(document: str) -> frozenset[str]:
    """Return the anchors that GitHub and GitLab give to the headings of a document."""
    found: list[str] = []
    parsed = tokens(document)
    for opening, heading in pairwise(parsed):
        if opening.type == "heading_open":
            text = "".join(child.content for child in heading.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return frozenset(found)


def section(document: str, heading: str) -> str:
    """Return the text of the section with this heading, up to the next heading of any level."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{document} has no section {heading}"
    return found[1]


def ci_scripts(value: object) -> Iterator[str]:
    """Yield the commands of a CI file: the values of ``run`` and the items of ``script``."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "run":
                yield inner
            elif key == "script":
                yield from inner
            else:
                yield from ci_scripts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from ci_scripts(inner)


class Command(NamedTuple):
    """A command of a document, with the output that the document shows for it."""

    text: str
    shown: tuple[str, ...]
    """The shown lines; "…" stands for lines that are left out. Empty if the document shows no output."""


def commands(block: Block) -> list[Command]:
    """Return the commands of a block. A ``sh`` block is one command without output."""
    if block.language == "sh":
        return [Command(block.text, ())]
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            assert found, f"{block.place} does not begin with a command"
            found[-1][1].append(line)
    return [Command(text, tuple(lines)) for text, lines in found]


def stories(document: str) -> list[list[Block]]:
    """Return the blocks to run, split where the document begins again in a fresh copy."""
    found: list[list[Block]] = [[]]
    for block in blocks(document):
        if FRESH_COPY in block.marks:
            found.append([])
        if block.is_run and (block.language in SHELL or block.mark("changes (.+)")):
            found[-1].append(block)
    return [story for story in found if story]


def is_shown(lines: tuple[str, ...], output: str) -> bool:
    """Return True if the output has the shown lines in their order. "…" stands for any text."""
    parts = re.split(r"^…\n", "".join(f"{line}\n" for line in lines), flags=re.MULTILINE)
    pattern = ".*".join(re.escape(part.rstrip("\n")) for part in parts)
    return re.match(pattern, output, re.DOTALL) is not None
