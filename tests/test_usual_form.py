"""What is read a line at a time is read as libyaml's events read it, to the last place, or left to them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from samples_support import ROOT
from yaml_texts import everything_said, many_texts, shortest

from provisioner.diagnostics import Diagnostic
from provisioner.manifest import usual
from provisioner.manifest.usual import MAX_USUAL, read_usual
from provisioner.yaml_source.document import read_by_events, read_document
from provisioner.yaml_source.source_text import decode

COUNT = 60_000 if os.environ.get("CI") else 10_000
"""Texts of each run."""

_KEYS = ("a", "b", "users", "first_name", "apps", "y", "null")
_SCALARS = (
    "Claire", "Le Goff", "O'Brien",
    '"004217"', "'a b'", '""', "''", "null", "true", "False", "L'Atelier & Cie",
    "claire@example.fr", "été", '"# no"', "'- no'", "Martin  Roux", "on", "~", "1", "a:b", "a #b", "x,y",
)  # fmt: skip
_FLOWS = (
    "[]", "[a]", "[a, b]", "[ a , \"b\" ]", "[a,b]", "['x, y', z]", "[a, ]", "[a b, c]", "[null, true]",
    "{a: b}", "{ a: b, c: 'd' }", "{a: b, a: c}", "{}", "{a: [b]}", "[[a]]", "{a:b}", "[a]]", "{a: \"b: c\"}",
)  # fmt: skip
_ENDS = ("", "", "", "", " ", " # note", "  # à voir", "#x", "\t")


def lines(choose: random.Random, count: int) -> Iterator[str]:
    """Lines in the usual form, one by one, set in at columns that mostly follow from the line before."""
    column = 0
    for _ in range(count):
        step = choose.choice((0, 0, 0, 0, 2, 2, 2, -2, -2, -4, 1, 4))
        column = max(0, column + step)
        indent = " " * column
        key, value = choose.choice(_KEYS), choose.choice((*_SCALARS, *_FLOWS, "", "", "", "", "", ""))
        end = choose.choice(_ENDS)
        shape = choose.random()
        if shape < 0.55:
            yield f"{indent}{key}:{' ' if value else ''}{value}{end}"
        elif shape < 0.8:
            yield f"{indent}- {key}:{' ' if value else ''}{value}{end}"
        elif shape < 0.92:
            yield f"{indent}- {value}{end}"
        else:
            yield choose.choice(("", "   ", "# note", f"{indent}# note", "---", f"{indent}{value}"))


def structures(count: int, seed: int) -> Iterator[str]:
    """Texts of such lines."""
    choose = random.Random(seed)
    for _ in range(count):
        yield "\n".join(lines(choose, choose.randrange(1, 9))) + choose.choice(("", "\n"))


def blocks(choose: random.Random, column: int, depth: int, *, is_list: bool) -> Iterator[str]:
    """A mapping or a list in the usual form, with others inside it."""
    indent = " " * column
    for key in choose.sample(_KEYS, choose.randrange(1, 4)):
        shape = choose.random()
        end = choose.choice(("", "", "", "  # note"))
        if is_list and shape < 0.4:
            yield f"{indent}- {choose.choice(_SCALARS[:8])}{end}"
        elif is_list:
            first, *rest = blocks(choose, column + 2, depth + 1, is_list=False)
            yield f"{indent}- {first.lstrip()}"
            yield from rest
        elif shape < 0.4 or depth > 3:
            yield f"{indent}{key}: {choose.choice((*_SCALARS[:8], *_FLOWS[:5]))}{end}"
        else:
            yield f"{indent}{key}:{end}"
            if shape < 0.8:
                further = choose.choice((2, 2, 2, 4, 0))
                yield from blocks(choose, column + further, depth + 1, is_list=choose.random() < 0.4)


def slips(choose: random.Random, text: list[str]) -> list[str]:
    """The lines, of which one may stand elsewhere, or be there twice or not at all."""
    at, slip = choose.randrange(len(text)), choose.random()
    line = text[at]
    if slip < 0.3:
        text[at] = " " * choose.randrange(9) + line.lstrip()
    elif slip < 0.4:
        del text[at]
    elif slip < 0.5:
        text.insert(choose.randrange(len(text)), line)
    return text


def nested(count: int, seed: int) -> Iterator[str]:
    """Texts of such blocks, half of them with a slip."""
    choose = random.Random(seed)
    for _ in range(count):
        yield "\n".join(slips(choose, list(blocks(choose, 0, 0, is_list=False)))) + "\n"


def _differs(text: str) -> bool:
    plain = decode("f.yaml", text)
    if isinstance(plain, Diagnostic):
        return False
    return everything_said(*read_document("f.yaml", text)) != everything_said(
        *read_by_events("f.yaml", plain)
    )


def test_both_readers_say_the_same_of_texts_such_as_people_write() -> None:
    for text in many_texts(COUNT // 4, seed=2):
        assert not _differs(text), shortest(text, _differs)


def test_both_readers_say_the_same_of_every_structure_of_usual_lines() -> None:
    count = 0
    for text in structures(COUNT, seed=3):
        if read_usual(text) is not None:
            count += 1
            assert not _differs(text), shortest(text, _differs)
    assert count > COUNT // 50, "these texts would compare refusals alone"


def test_both_readers_say_the_same_of_blocks_inside_blocks_and_of_slips_in_them() -> None:
    count = 0
    for text in nested(COUNT // 2, seed=4):
        if read_usual(text) is not None:
            count += 1
            assert not _differs(text), shortest(text, _differs)
    assert count > COUNT // 8, "these texts would compare refusals alone"


@pytest.mark.parametrize("folder", ["onboarding", "next-month"])
def test_our_samples_are_of_the_usual_form(folder: str) -> None:
    """Or else the fast road is one that nobody takes."""
    for path in sorted((ROOT / "samples" / folder / "clients").glob("*.yaml")):
        assert read_usual(path.read_text(encoding="utf-8")) is not None, path.name


USUAL: dict[str, object] = {
    "a:\nb: c\n": {"a": None, "b": "c"},
    "a:\n  b:\n    c: d\n  e: f\ng: h\n": {"a": {"b": {"c": "d"}, "e": "f"}, "g": "h"},
    "a:\n  - b: c\n    d: e\n  - b: f\ng: h\n": {"a": [{"b": "c", "d": "e"}, {"b": "f"}], "g": "h"},
    "a:\n  - b\n  - 'c'\nd:\n  - e\n": {"a": ["b", "c"], "d": ["e"]},
    "a:\n- b\n- c: d\ne: f\n": {"a": ["b", {"c": "d"}], "e": "f"},
    "a:\n  - b:\n      - c\n    d: e\n  - f\ng: h\n": {"a": [{"b": ["c"], "d": "e"}, "f"], "g": "h"},
    'a: {b: c}  # note\nd: [e, "f"]\n\ng: h\n': {"a": {"b": "c"}, "d": ["e", "f"], "g": "h"},
    "# note\na: null\nb: true\nc: 'true'\n": {"a": None, "b": True, "c": "true"},
}


@pytest.mark.parametrize("text", USUAL)
def test_what_people_write_takes_the_fast_road(text: str) -> None:
    assert read_usual(text) == USUAL[text]
    document, problems = read_document("clients/a.yaml", text)
    assert document is not None
    assert (document.data, document.is_usual, problems) == (USUAL[text], True, [])
    slowly, _ = read_by_events("clients/a.yaml", text)
    assert slowly is not None
    assert (slowly.data, slowly.is_usual) == (USUAL[text], False)


@pytest.mark.parametrize("word", ["y", "Y", "yes", "Yes", "n", "no", "NO", "on", "On", "off", "OFF"])
def test_words_that_other_programs_take_for_booleans_are_left_to_the_reader_with_places(word: str) -> None:
    """Which has the place that the warning about them names; in quotes they are words like any other."""
    for text in ("a: {}", "a: [b, {}]", "a: {{b: {}}}", "a:\n  - {}"):
        assert read_usual(text.format(word)) is None, text
        assert read_usual(text.format(f'"{word}"')) is not None, text


def test_lines_are_remembered_up_to_a_number() -> None:
    """Or else a hundred thousand users would be kept twice."""
    many = 3 * usual._LINES_KEPT
    for start in range(0, many, 1000):
        text = "a:\n" + "".join(f"  - name {number}\n" for number in range(start, start + 1000))
        assert read_usual(text) is not None
        assert len(usual._lines) <= usual._LINES_KEPT + 1001


def test_plain_numbers_are_usual_where_they_are_asked_for_and_nowhere_else() -> None:
    """provisioner.yaml has them; in a manifest they lack their quotes, which is told with its place."""
    text = "version: 1\nfirm: {name: Durand, email_domains: [a.fr, 12], deep: [[x], {y: 007}]}\nb: [12, a]\n"
    assert read_usual(text) is None
    expected, _ = read_by_events("f.yaml", text)
    for _ in range(2):
        assert read_usual(text, numbers=True) == (expected and expected.data)
    assert read_usual(text) is None
    for odd in ("a: 12:30\n", "a: 1_000\n", "a: [1 2]\n", "a: {b: 1,}\n", "a: 1.5\n", "a: [1]x\n"):
        assert read_usual(odd, numbers=True) is None


@pytest.mark.parametrize("folder", ["onboarding", "next-month"])
def test_our_settings_are_of_the_usual_form(folder: str) -> None:
    """Or every run would load the other reader for one file."""
    text = (ROOT / "samples" / folder / "provisioner.yaml").read_text(encoding="utf-8")
    assert read_usual(text, numbers=True) is not None


def test_a_long_or_deep_text_is_left_to_the_reader_that_counts() -> None:
    line = "a: b\n"
    assert read_usual("c: d\n" + "# x\n" * 10) == {"c": "d"}
    assert read_usual(line + "#" + " " * (MAX_USUAL - len(line) - 1)) is not None
    assert read_usual(line + "#" + " " * (MAX_USUAL - len(line))) is None
    for line in ("a:\n", "- a:\n"):
        deep = ["a:\n", *(f"{'  ' * level}{line}" for level in range(1, 41))]
        assert read_usual("".join(deep[:10])) is not None
        assert read_usual("".join(deep)) is None


def test_the_published_examples_are_of_the_usual_form() -> None:
    """What ``init`` writes is where people begin."""
    for path in sorted((ROOT / "templates" / "workspace" / "clients").glob("*.yaml")):
        assert read_usual(path.read_text(encoding="utf-8")) is not None, path.name
