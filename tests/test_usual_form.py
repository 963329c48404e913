"""What is read a line at a time is read as libyaml's events read it, to the last place, or left to them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from samples_support import ROOT
from yaml_texts import everything_said, many_texts, shortest

from provisioner.diagnostics import Diagnostic
from provisioner.manifest.document import read_by_events, read_document
from provisioner.manifest.text import decode
from provisioner.manifest.usual import MAX_USUAL, read_usual

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
    usual = 0
    for text in structures(COUNT, seed=3):
        if read_usual(text) is not None:
            usual += 1
            assert not _differs(text), shortest(text, _differs)
    assert usual > COUNT // 50, "these texts would compare refusals alone"


@pytest.mark.parametrize("folder", ["onboarding", "next-month"])
def test_our_samples_are_of_the_usual_form(folder: str) -> None:
    """Or else the fast road is one that nobody takes."""
    for path in sorted((ROOT / "samples" / folder / "clients").glob("*.yaml")):
        assert read_usual(path.read_text(encoding="utf-8")) is not None, path.name


def test_a_long_or_deep_text_is_left_to_the_reader_that_counts() -> None:
    line = "a: b\n"
    assert read_usual("c: d\n" + "# x\n" * 10) == {"c": "d"}
    assert read_usual(line + "#" + " " * (MAX_USUAL - len(line) - 1)) is not None
    assert read_usual(line + "#" + " " * (MAX_USUAL - len(line))) is None
    deep = "".join(f"{'  ' * level}a:\n" for level in range(40))
    assert read_usual(deep) is None


def test_the_published_examples_are_of_the_usual_form() -> None:
    """What ``init`` writes is where people begin."""
    for path in sorted((ROOT / "templates" / "workspace" / "clients").glob("*.yaml")):
        assert read_usual(path.read_text(encoding="utf-8")) is not None, path.name
