"""The plan of samples/next-month on terminals of several kinds, through a pipe, and read line by line."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples_support import NEXT_MONTH, ONBOARDING, copy_samples, run

from provisioner.render.sanitize import columns

PLAN = (".venv/bin/provisioner", "-C", NEXT_MONTH, "plan")
UTF8 = {"LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Environment variables that prevent Python from treating the C locale as UTF-8."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the samples in which the plan of next-month has each kind of change."""
    clone = copy_samples(tmp_path_factory.mktemp("clone"))
    run(f"provisioner -C {ONBOARDING} apply --auto-approve", clone)
    run(f"provisioner -C {ONBOARDING} simulate close ines.caron@boulangerie-martin.fr", clone)
    return clone


def environment(clone: Path, extra: dict[str, str]) -> dict[str, str]:
    """Return an environment with ``extra``, HOME, PATH and PYTHONPATH, without the tester's settings."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {**kept, "HOME": str(clone), **extra}


def on_a_terminal(clone: Path, width: int, *options: str, **extra: str) -> str:
    """Show the plan on a terminal of this width. Return all output with plain line ends."""
    ours, theirs = os.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        child = subprocess.Popen(
            [*PLAN, *options],
            cwd=clone,
            env=environment(clone, extra),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    written = b"".join(_read(ours))
    os.close(ours)
    assert child.wait(60) == 0, written.decode(errors="replace")
    return written.decode("utf-8").replace("\r\n", "\n")


def _read(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(descriptor, 65536)
        except OSError:
            # the end of a terminal on Linux
            return
        if not data:
            return
        yield data


def through_a_pipe(clone: Path, **extra: str) -> str:
    done = subprocess.run(
        PLAN, cwd=clone, env=environment(clone, extra), stdin=subprocess.DEVNULL,
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.decode("utf-8")


def widest(text: str) -> int:
    return max(map(columns, COLOUR.sub("", text).splitlines()))


def answer(text: str) -> str:
    """Return the text from the first line of the plan on, without the progress before it."""
    return text[text.index("In short") :]


@pytest.fixture(scope="module")
def plain(clone: Path) -> str:
    return through_a_pipe(clone, **UTF8)


@pytest.mark.parametrize("width", [80, 200])
def test_no_line_is_wider_than_the_terminal_and_a_wide_one_is_used(
    clone: Path, plain: str, width: int
) -> None:
    text = on_a_terminal(clone, width, **UTF8)
    assert 0.8 * width < widest(text) <= width
    # the same words, whatever the width
    assert COLOUR.sub("", answer(text)).split() == plain.split()


def test_the_answer_has_no_escapes_but_colours(clone: Path, plain: str) -> None:
    text = answer(on_a_terminal(clone, 80, **UTF8))
    assert COLOUR.search(text)
    assert COLOUR.sub("", text) == plain
    assert "\x1b" not in plain


@pytest.mark.parametrize(
    ("options", "extra"),
    [
        ((), {**UTF8, "NO_COLOR": "1"}),
        ((), {**UTF8, "TERM": "dumb"}),
        (("--no-color",), UTF8),
        (("-no-color",), UTF8),
    ],
    ids=["NO_COLOR", "TERM=dumb", "--no-color", "-no-color"],
)
def test_without_colour_there_is_no_escape(
    clone: Path, plain: str, options: tuple[str, ...], extra: dict[str, str]
) -> None:
    text = on_a_terminal(clone, 80, *options, **extra)
    assert "\x1b" not in answer(text)
    assert answer(text) == plain
    if extra["TERM"] == "dumb":
        # no line is drawn over itself either
        assert "\x1b" not in text
        assert "\r" not in text


def test_a_terminal_without_unicode_gets_every_word_in_ascii(clone: Path, plain: str) -> None:
    for text in (answer(on_a_terminal(clone, 80, **ASCII, TERM="dumb")), through_a_pipe(clone, **ASCII)):
        assert text.isascii()
        assert "->" in text
        # é is escaped as it is written, which may make its line longer
        restored = text.encode("ascii").decode("unicode_escape")
        assert widest(restored) <= 80
        assert restored.replace("->", "→").split() == plain.split()


def test_the_c_locale_and_columns_of_the_environment_are_respected(clone: Path, plain: str) -> None:
    assert through_a_pipe(clone, LANG="C") == plain
    assert 100 < widest(through_a_pipe(clone, **UTF8, COLUMNS="132")) <= 132


# --- read aloud, one line after another ---

HEADLINES = re.compile(
    r"(New|Becomes|Changes|Validated|Account reopens|Account closes|Company changes|New company)\b"
)
LEAVING = re.compile(r"no longer|withdrawn|ending|removed|stops|taken")


@pytest.fixture(scope="module")
def aloud(clone: Path) -> list[str]:
    """The lines of the plan on a wide terminal."""
    lines: list[str] = []
    for line in answer(on_a_terminal(clone, 200, "--no-color", **UTF8)).splitlines():
        assert "  " not in line.strip(), "columns are for the eye"
        assert not re.search("[\u2500-\u259f\t|]", line), "frames are for the eye"
        lines.append(line)
    return lines


def test_a_plan_read_aloud_begins_and_ends_with_what_matters(aloud: list[str]) -> None:
    assert aloud[0].startswith("In short: ")
    assert next(line for line in aloud if line.isupper()) == "READ THIS FIRST"
    assert aloud.index("READ THIS FIRST") < next(
        n for n, line in enumerate(aloud) if line.startswith("Company ")
    )
    assert aloud[-1].startswith("Plan: ")
    assert aloud[-2].startswith(("To check before you agree:", "  "))


def test_every_symbol_has_a_word_beside_it(aloud: list[str]) -> None:
    signs = [line for line in aloud if re.match(r" +[-+~] ", line)]
    assert len(signs) > 40
    for line in signs:
        depth, sign, words = len(line) - len(line.lstrip()), line.lstrip()[0], line.lstrip()[2:]
        if depth == 2:
            assert HEADLINES.match(words), line
        elif sign == "-":
            assert LEAVING.search(words), line
        elif sign == "~":
            assert " → " in words, line


def test_each_block_names_its_user_and_its_reason(clone: Path, aloud: list[str]) -> None:
    """Each block names its user and its reason, so that a block is understood without other blocks."""
    blocks: dict[str, list[str]] = {}
    block: list[str] = []
    for line in aloud:
        if re.match(r"  [-+~] ", line):
            block = blocks.setdefault(line, [])
        elif line.startswith("      "):
            block.append(line.strip())
    saved = json.loads(_saved(clone))
    people = {
        change["address"] for change in saved["resource_changes"] if change["address"].startswith("user:")
    }
    named = {f"user:{found[1]}" for headline in blocks if (found := re.search(r"<(\S+)>$", headline))}
    assert named == people
    for headline, lines in blocks.items():
        assert lines[0].startswith(("declared in: clients/", "why: ")), headline
        assert len(lines) > 1, headline


def _saved(clone: Path) -> str:
    return subprocess.run(
        [*PLAN, "--json"],
        cwd=clone,
        env=environment(clone, UTF8),
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout.decode()
