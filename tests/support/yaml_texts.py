"""A generator of ordinary and unusual YAML texts, to compare two readers of YAML.

``manifest_texts`` is a strategy for Hypothesis, and Hypothesis shortens a failing text. ``many_texts`` yields
the same kinds of texts a hundred times as fast; ``shortest`` shortens a failing text of ``many_texts``. Every
table of texts has the usual entries first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice, zip_longest
from typing import Any

from hypothesis import strategies as st
from samples_support import ROOT

from provisioner.diagnostics import Diagnostic
from provisioner.yaml_source.document import Document, read_document

SAMPLE_TEXTS = tuple(
    path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "samples").rglob("*.yaml"))
    if not {"broken", "outbox"} & set(path.parts) or path.stat().st_size < 2_000
)
"""The texts of the sample files, without the large files in the folders ``broken`` and ``outbox``."""

_SAMPLE_DATA = tuple(
    document.data
    for text in SAMPLE_TEXTS
    if (document := read_document("sample.yaml", text)[0]) is not None and isinstance(document.data, dict)
)

INDICATORS = tuple("#:-?,{}[]&*!|>'\"%@`")
"""Characters that have a meaning in YAML."""

LOOKALIKES = (
    "null", "Null", "NULL", "~", "true", "True", "TRUE", "false", "False", "FALSE", "tRUE", "nULL", "",
    "yes", "no", "on", "off", "y", "n", "None", "nil",
    "004217", "0612345670", "01000", "0x1F", "0o17", "0b11", "1_000", "1e3", "1.0", "-1", "+33612345678",
    ".inf", "-.INF", ".nan", "12:30", "190:20:30", "2024-11-30", "2024-11-30 10:00:00", "=", "<<",
)  # fmt: skip
"""Words that other YAML readers take for numbers, dates and booleans."""

_WORDS = (
    "Claire", "Le Goff", "O'Brien-Lefèvre", "Boulangerie Martin SARL", "Durand & Associés", "gérant",
    "claire.martin@boulangerie-martin.fr", "+33 6 12 34 56 78", "C:\\Clients", "100 %", "Oui !", "C++", "a:b",
    "a#b", "a #b", "a: b", "a :b", "L'\"Atelier\"", "é", "e\u0301", "😀", "日本", "\u00a0", "x" * 300,
    "- a", "? a", ": a", "-", "?", ":", "- ", "...", "---", "--- a", "... b", "a,b", "a, b", "[a]", "{a}",
    "a]", "a}", "{a: b}", "[]", "{}", "*.fr", "&a", "!a", "| a", "> a", "%a", "@a", "`a`", "#a", " a", "a ",
    "a\tb", "\ta", "a\t", "a\t#b", "sqlite:///portal.db", "smtp://a:b@c.fr:25", "<<", "a\\", "\\n", "''",
    '""',
)  # fmt: skip

_HIDDEN = tuple(
    "\x00\x01\x07\x0b\x0c\x1b\x7f\x80\x85\x9f\xad\u061c\u200b\u200e\u2028\u2029\u202e\u2066\ufdd0\ufeff\ufffd\ufffe\uffff\U0001fffe"
)
"""Unusual characters: some that the program refuses, and some similar ones that the program accepts."""

_ESCAPES = (
    "\\n", "\\t", "\\\\", '\\"', "\\/", "\\0", "\\a", "\\e", "\\r", "\\N", "\\_", "\\L", "\\P",
    "\\x41", "\\ ", "\\xe9", "\\u00e9", "\\u202e", "\\uD800", "\\U0001F600", "\\U7fffffff", "\\x4", "\\q",
    "\\\n", "\\",
)  # fmt: skip

_COMMENTS = ("", "", "", "  # a comment", " #", " # a: b", "# no comment", "\t# after a tab", " #é\t", "  ")
_BETWEEN = ("", "", "", "", "\n", "\n\n", "# a comment\n", "    # set in: a: b\n", "  \n", "\t\n", "#\n")
_ENDINGS = (*("\r\n",) * 6, *("\r",) * 3, "\x85", "\u2028", "\n\r")
_HEADS = (
    *("", "# yaml-language-server: $schema=x\n", "---\n", "\ufeff", "\n") * 3,
    "--- ",
    "%YAML 1.2\n---\n",
)
_TAILS = (*("", "...\n", "# end", "\n\n", "  ") * 3, "---\n", "--- a\n", "...\n---\nb: c\n", "\x00", "\t")

_SCRAPS = (
    *INDICATORS, " ", "  ", "\n", "\n  ", "\n    ", "\n- ", "\n  - ", "\t", "\n\t", ": ", ":\n", " #", "- ",
    "? ", ", ", "[", "]", "{", "}", "[]", "{}", "a", "é", "a: b", "\n---\n", "\n...\n", "''", '""', "\\",
    "|\n", ">-\n", "&a ", "*a", "!!str ", "<<: ", "~", "\r\n", "\r", *_HIDDEN, *_ESCAPES,
)  # fmt: skip
"""Texts that an edit inserts at any position."""


# --- texts written from data ---


class _Writer:
    """A writer of YAML that uses ordinary styles and, with the probability ``odd``, unusual styles."""

    def __init__(self, choose: random.Random, odd: float) -> None:
        self._choose = choose
        self._odd = odd

    def _is_odd(self) -> bool:
        return self._choose.random() < self._odd

    def _one(self, usual: str, others: tuple[str, ...]) -> str:
        return self._choose.choice(others) if self._is_odd() else usual

    def block(self, data: Any, indent: int) -> str:
        """The indented lines of a mapping or a list, or the one line of a scalar."""
        if not isinstance(data, dict | list) or not data:
            return " " * indent + self._flow(data) + self._end()
        lines = []
        pairs = data.items() if isinstance(data, dict) else ((None, item) for item in data)
        for key, child in pairs:
            lead = " " * (indent + (self._choose.choice((1, -1, 2)) if self._odd_rarely() else 0))
            lines.append(self._one("", _BETWEEN))
            lines.append(lead + self._entry(key, child, indent))
        return "".join(lines)

    def _odd_rarely(self) -> bool:
        return self._is_odd() and self._choose.random() < 0.1

    def _entry(self, key: str | None, child: Any, indent: int) -> str:
        if key is None:
            lead = self._one("- ", ("-  ", "-\t", "-\n" + " " * (indent + 2), "- - ", "-"))
            if isinstance(child, dict | list) and child and not self._is_odd():
                # the first key is beside the dash
                return lead + self.block(child, indent + len(lead)).lstrip(" ")
            return lead + self._inline(child, indent + 2)
        name = self._key(key)
        if self._odd_rarely():
            return f"? {name}\n{' ' * indent}: {self._inline(child, indent + 2)}"
        if isinstance(child, dict | list) and child and self._choose.random() < 0.7:
            further = self._choose.choice((2, 2, 2, 4, 1)) if self._is_odd() else 2
            if isinstance(child, list) and self._is_odd():
                further = 0
            return f"{name}:{self._end()}{self.block(child, indent + further)}"
        colon = self._one(
            ": ", (":  ", ":\t", " : ", ":", ":\n" + " " * (indent + 2), ": \n" + " " * (indent + 1))
        )
        return f"{name}{colon}{self._inline(child, indent + 2)}"

    def _inline(self, data: Any, indent: int) -> str:
        """The text after a colon or a dash, up to the end of its line."""
        if isinstance(data, str) and self._is_odd() and self._choose.random() < 0.3:
            return self._literal(data, indent)
        text = self._flow(data, indent)
        return text + self._end()

    def _end(self) -> str:
        return self._one("", _COMMENTS) + "\n"

    def _flow(self, data: Any, indent: int = 2) -> str:
        if not isinstance(data, dict | list):
            return self._scalar(data, indent)
        opening, closing = "{}" if isinstance(data, dict) else "[]"
        keys = [
            self._key(key) + self._one(": ", (":", " : ", ":  ")) for key in data if isinstance(data, dict)
        ]
        children = data.values() if isinstance(data, dict) else data
        inside = [
            "".join(pair)
            for pair in zip_longest(keys, (self._flow(child, indent) for child in children), fillvalue="")
        ]
        comma = self._one(
            ", ", (",", " , ", ",\n" + " " * indent, ", # c\n" + " " * indent, ",,", " ", ",\n")
        )
        pad = self._one("", (" ", "\n" + " " * indent, "\t"))
        last = self._one("", (",", ", ", " ,"))
        return f"{opening}{pad}{comma.join(inside)}{last if inside else ''}{pad}{closing}"

    def _key(self, key: str) -> str:
        if self._is_odd():
            key = self._choose.choice(
                (key, key, "email", "users", "a b", "a:b", "é", "<<", "", "true", "-a", "?")
            )
            return self._quoted(key, self._choose.choice(("", "'", '"')))
        return key

    def _scalar(self, value: Any, indent: int) -> str:
        if value is None:
            return self._one("", ("null", "~", "Null"))
        if isinstance(value, bool):
            return str(value).lower()
        text = str(value)
        if self._is_odd():
            text = self._choose.choice((text, *_WORDS, *LOOKALIKES))
            if self._choose.random() < 0.2:
                at = self._choose.randint(0, len(text))
                text = text[:at] + self._choose.choice((*INDICATORS, *_HIDDEN, "\t", " ", "é")) + text[at:]
        written = self._quoted(text, self._choose.choice(("", "", '"', "'")))
        if self._odd_rarely() and " " in written:
            # over several lines
            written = written.replace(" ", self._choose.choice(("\n", "\n\n")) + " " * (indent + 1), 1)
        return written

    def _quoted(self, text: str, quote: str) -> str:
        if quote == "'":
            return f"'{text if self._odd_rarely() else text.replace(quote, quote * 2)}'"
        if quote == '"':
            inside = text if self._odd_rarely() else text.replace("\\", "\\\\").replace('"', '\\"')
            if self._is_odd():
                at = self._choose.randint(0, len(inside))
                inside = inside[:at] + self._choose.choice(_ESCAPES) + inside[at:]
            return f'"{inside}"'
        return text

    def _literal(self, text: str, indent: int) -> str:
        style = self._choose.choice(("|", ">", "|-", ">-", "|+", ">+", "|2", ">1-", "| # c", "|x"))
        lines = text.split(" ")
        if self._is_odd():
            lines.insert(
                self._choose.randint(0, len(lines)), self._choose.choice(("", " more", "\t", "# no comment"))
            )
        return style + "\n" + "".join(f"{' ' * indent}{line}\n" for line in lines)


def _some_data(choose: random.Random) -> Any:
    """A random part of a sample's data, with at most two users.

    In one of ten cases, the part is put into nested lists.
    """
    data = dict(choose.choice(_SAMPLE_DATA))
    users = data.get("users")
    if isinstance(users, list) and users:
        data["users"] = [choose.choice(users) for _ in range(choose.randint(1, 2))]
    for key in list(data):
        if len(data) > 1 and choose.random() < 0.3:
            del data[key]
    if choose.random() < 0.1:
        data = {"users": [[data, []], {}, [[]], [{}], None]}
    return data


def _written(choose: random.Random) -> str:
    odd = choose.choice((0.0, 0.003, 0.006, 0.01, 0.02, 0.05, 0.15))
    return _Writer(choose, odd).block(_some_data(choose), 0)


# --- texts edited ---


def _edited(choose: random.Random, text: str, times: int) -> str:
    for _ in range(times):
        text = choose.choice(_EDITS)(choose, text)
    return text


def _put_in(choose: random.Random, text: str) -> str:
    at = choose.randint(0, len(text))
    return text[:at] + choose.choice(_SCRAPS) + text[at:]


def _put_around(choose: random.Random, text: str) -> str:
    """Insert a text beside a colon, a dash, a bracket, a comma, a quote, a comment sign or a line end."""
    places = [at for at, character in enumerate(text) if character in ":-[]{},'\"\n#"]
    at = choose.choice(places or [0]) + choose.randint(0, 1)
    return text[:at] + choose.choice(_SCRAPS) + text[at:]


def _replace(choose: random.Random, text: str) -> str:
    at = choose.randint(0, len(text))
    return text[:at] + choose.choice(_SCRAPS) + text[at + 1 :]


def _take_out(choose: random.Random, text: str) -> str:
    at = choose.randint(0, len(text))
    return text[:at] + text[at + choose.choice((1, 1, 2, 5)) :]


def _replace_value(choose: random.Random, text: str) -> str:
    """Replace the text after the first colon or dash of one line by another value."""
    lines = text.split("\n")
    at = choose.randrange(len(lines))
    head, colon, _ = lines[at].partition(choose.choice((": ", "- ")))
    value = choose.choice((*_WORDS, *LOOKALIKES, *INDICATORS))
    quote = choose.choice(("", "", "'", '"'))
    lines[at] = f"{head}{colon}{quote}{value}{quote}{choose.choice(_COMMENTS)}"
    return "\n".join(lines)


def _move_line(choose: random.Random, text: str) -> str:
    lines = text.split("\n")
    line = lines.pop(choose.randrange(len(lines)))
    lines.insert(choose.randint(0, len(lines)), line)
    return "\n".join(lines)


def _repeat_line(choose: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = choose.randrange(len(lines))
    lines.insert(choose.choice((at, choose.randint(0, len(lines)))), lines[at])
    return "\n".join(lines)


def _indent_line(choose: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = choose.randrange(len(lines))
    lines[at] = choose.choice((" ", "  ", "\t", "    ", "- ", "-")) + lines[at]
    return "\n".join(lines)


def _outdent_line(choose: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = choose.randrange(len(lines))
    lines[at] = lines[at][choose.choice((1, 2)) :]
    return "\n".join(lines)


def _join_lines(choose: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = choose.randrange(len(lines))
    lines[at : at + 2] = [choose.choice(("", " ", ", ")).join(lines[at : at + 2])]
    return "\n".join(lines)


def _lengthen(choose: random.Random, text: str) -> str:
    at = choose.randint(0, len(text))
    return (
        text[:at]
        + choose.choice(("x", " ", "é", "- ", "# ")) * choose.choice((1_100, 130, 2_000))
        + text[at:]
    )


_EDITS: tuple[Callable[[random.Random, str], str], ...] = (
    _put_in, _put_around, _put_around, _replace, _take_out, _replace_value, _replace_value, _move_line,
    _repeat_line, _indent_line, _outdent_line, _join_lines, _lengthen,
)  # fmt: skip


# --- texts of random lines ---

_LEADS = ("", "  ", "- ", "    ", "  - ", "- - ", "? ", "  ? ", ": ", "\t", " ", "--- ", "... ")
_KEYS = (
    "a: ",
    "b: ",
    "a:",
    "email: ",
    "'a': ",
    '"a": ',
    "a : ",
    "é: ",
    "[a]: ",
    "a",
    "? a",
    "<<: ",
    ": ",
    "*a : ",
)
_VALUES = (
    "b", "", '"b"', "'b'", "[b, c]", "{b: c}", "[]", "{}", "|", ">-", "b: c", "[b", "b]", "{b", "b}", "'b",
    '"b', "&a b", "*a", "!t b", "- b", '"b" c', "[b] c", "b, c", "[[b], {c: d}]", "[b: c]", "[? b]", "{b}",
    "{b: , c}", "[b,]", "[,b]", "{'b':c}", '{"b":c}', "[a:b]", "{a:b}", "[-b]", "[- b]", "[b #c", "#b",
    "b #c", "b# c",
)  # fmt: skip


def _loose(choose: random.Random) -> str:
    lines = []
    for _ in range(choose.randint(1, 7)):
        value = choose.choice((*_VALUES, *_VALUES, *_WORDS, *LOOKALIKES))
        lines.append(choose.choice(_LEADS) + choose.choice(_KEYS) + value + choose.choice(_COMMENTS))
    return "\n".join(lines) + "\n"


# --- all kinds of texts ---


def a_text(choose: random.Random) -> str:
    """Return one text: ordinary in half of the cases, otherwise edited or random."""
    kind = choose.randrange(10)
    if kind < 5:
        text = _written(choose)
    elif kind < 7:
        text = _edited(choose, _written(choose), choose.choice((1, 1, 2, 4)))
    elif kind < 9:
        text = _edited(choose, choose.choice(SAMPLE_TEXTS), choose.choice((1, 1, 2, 4)))
    else:
        text = _loose(choose)
    if choose.random() < 0.25:
        text = choose.choice(_HEADS) + text + choose.choice(_TAILS)
    if choose.random() < 0.15:
        text = text.replace("\n", choose.choice(_ENDINGS))
    return text.removesuffix("\n") if choose.random() < 0.1 else text


manifest_texts = st.randoms(use_true_random=False).map(a_text)
"""A Hypothesis strategy for the texts of :func:`a_text`."""


def many_texts(count: int, seed: int = 0) -> Iterator[str]:
    """Yield ``count`` texts, always the same texts for the same seed."""
    choose = random.Random(seed)
    return islice(iter(lambda: a_text(choose), None), count)


def shortest(text: str, fails: Callable[[str], bool]) -> str:
    """Return a shorter text that still fails. Lines are removed first, and then characters are removed."""
    for parts, glue in ((text.split("\n"), "\n"), (None, "")):
        pieces = parts if parts is not None else list(text)
        size = max(1, len(pieces) // 2)
        while size:
            at = 0
            while at < len(pieces):
                fewer = pieces[:at] + pieces[at + size :]
                if fails(glue.join(fewer)):
                    pieces = fewer
                else:
                    at += size
            size //= 2
        text = glue.join(pieces)
    return text


# --- comparison ---


def comparable(document: Document | None, problems: list[Diagnostic]) -> tuple[Any, ...]:
    """The problems, the data and all positions of a document, to compare with ``==``."""
    if document is None:
        return (problems,)
    # 1 == True in Python, so the data is compared as text
    return (problems, repr(document.data), [_place(document, path) for path in paths_of(document.data)])


def _place(document: Document, path: tuple[str | int, ...]) -> tuple[Any, ...]:
    return path, document.positions.source(*path), document.positions.key_source(*path)


def paths_of(data: Any, *above: str | int) -> Iterator[tuple[str | int, ...]]:
    """The path of each value, parents first."""
    yield above
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for part, child in children:
        yield from paths_of(child, *above, part)
