"""Problems as text: the position of the caret, and hostile text made harmless."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.codes import CODES
from provisioner.diagnostics import Source, error, warning
from provisioner.render.diagnostics import problems_json, render_problems
from provisioner.render.sanitize import columns, printable

DETAIL = 'ada@example.com is given dossier "10432", which neither the manifests nor the portal have.'
REMEDY = "To see the companies that this portal has, run:\n    provisioner export FOLDER"
PROBLEM = error("unknown-company", DETAIL, REMEDY, Source("clients/durand.yaml", 5, 17))
LINE = '    companies: ["10432"]'


def quoted(line: str, column: int, width: int = 80) -> tuple[str, int]:
    """Return the quoted source line of a problem, and the number of columns before the caret."""
    problem = warning("quote-it", "x.", "", Source("a.yaml", 3, column))
    _, _, shown, under, _, _ = render_problems([problem], lambda *_: line, colour=False, width=width).split(
        "\n"
    )[:6]
    assert shown.startswith("    3 | ")
    assert under.startswith("      | ")
    assert columns(shown) <= width
    assert under.endswith("^")
    return shown.removeprefix("    3 | "), len(under) - len("      | ^")


def test_a_problem_reads_as_the_style_has_it() -> None:
    text = render_problems([PROBLEM], lambda *_: LINE, colour=False, width=100)
    assert text == (
        "Error: Unknown company [unknown-company]\n"
        '  clients/durand.yaml:5:17  ada@example.com is given dossier "10432", which neither the manifests\n'
        "    nor the portal have.\n"
        '    5 |     companies: ["10432"]\n'
        "      |                 ^\n"
        "    To see the companies that this portal has, run:\n"
        "        provisioner export FOLDER\n"
        "\n"
        "1 error.\n"
    )


def test_colour_is_decoration_only() -> None:
    plain = render_problems([PROBLEM], lambda *_: LINE, colour=False, width=80)
    coloured = render_problems([PROBLEM], lambda *_: LINE, colour=True, width=80)
    assert "\x1b[1;31mError\x1b[0m" in coloured
    for code in ("\x1b[1;31m", "\x1b[1;33m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain


def test_no_problems_are_no_text() -> None:
    assert render_problems([], lambda *_: None, colour=True, width=80) == ""


def test_the_last_line_counts() -> None:
    bad, doubtful = error("R1", "x."), warning("S1", "x.")
    for problems, counted in (
        ([bad, doubtful, bad, bad], "3 errors, 1 warning."),
        ([doubtful, doubtful], "2 warnings."),
        ([bad], "1 error."),
    ):
        assert render_problems(problems, lambda *_: None, colour=False, width=80).endswith(f"\n\n{counted}\n")


def test_problems_are_in_source_order_those_without_a_place_last() -> None:
    places = [None, Source("b", 1, 1), Source("a", 10, 1), Source("a", 9, 5)]
    shuffled = [error("R1", f"{number}.", source=place) for number, place in enumerate(places)]
    text = render_problems(shuffled, lambda *_: None, colour=False, width=80)
    positions = [text.index(f"{number}.\n") for number in (3, 2, 1, 0)]
    assert positions == sorted(positions)
    assert [row["detail"] for row in problems_json(shuffled)] == ["3.", "2.", "1.", "0."]


def test_a_problem_without_a_line_shows_none() -> None:
    text = render_problems([PROBLEM], lambda *_: None, colour=False, width=80)
    assert "^" not in text
    text = render_problems([error("no-order", "x.", "Do it.")], lambda *_: LINE, colour=False, width=80)
    assert text == "Error: No safe order for these changes [no-order]\n  x.\n    Do it.\n\n1 error.\n"


@pytest.mark.parametrize(
    ("before", "wide"),
    [
        ("name: ", 6),
        ("\tname: ", 10),
        ("é: ", 3),
        ("e\u0301: ", 3),
        ("山田: ", 6),
        ("👩: ", 4),
        ("a\x1b[31m: ", 11),
        ("\u202e: ", 8),
        ("\u00a0: ", 3),
    ],
)
def test_the_caret_stands_under_its_character(before: str, wide: int) -> None:
    shown, caret = quoted(f"{before}VALUE and more", len(before) + 1)
    assert caret == wide
    assert columns(shown[: shown.index("VALUE")]) == wide


@pytest.mark.parametrize("before", ["x" * 300, "é山" * 200, "\t" * 60, "e\u0301" * 500, "x" * 100_000])
@pytest.mark.parametrize("after", ["", "y" * 10, "y" * 300, "山" * 5_000])
def test_a_long_line_is_shown_around_its_column(before: str, after: str) -> None:
    shown, caret = quoted(f"{before}!{after}", len(before) + 1)
    assert shown.startswith("…")
    assert shown.endswith("…") == (len(after) > 100)
    assert columns(shown[: shown.index("!")]) == caret


@given(st.text(max_size=60), st.integers(1, 70), st.integers(10, 120))
def test_the_quoted_line_fits_the_width_and_shows_the_caret(line: str, column: int, width: int) -> None:
    line = "".join(line.splitlines()) + "x"
    shown, caret = quoted(line, column, max(width, 40))
    assert caret <= columns(shown)
    assert is_harmless(shown)


def test_a_column_after_the_end_stands_at_the_end() -> None:
    assert quoted("abc", 99) == ("abc", 3)


def is_harmless(text: str) -> bool:
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return not any(unicodedata.category(character) in hidden for character in text)


HOSTILE = (
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "\x1b[2J", "a\rb", "a\nb", "\u202etxt.exe", "\u200b",
    "\x9b31m", "\ud800", "\u3164", "::set-env name=A::b", "##[command]x", "##vso[task.x]y",
    "\U000e0041", "a\x7f",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_escaped_visibly(text: str) -> None:
    shown = printable(text)
    assert is_harmless(shown)
    assert shown != text
    for command in ("::set-env", "##[", "##vso["):
        assert command not in shown
    problem = error("email", f"{text} is none.", f"Remove {text}", Source(f"a{text}.yaml", 1, 1))
    whole = render_problems([problem], lambda *_: f"email: {text}", colour=False, width=60)
    assert is_harmless(whole.replace("\n", ""))
    assert whole.encode()
    for command in ("::set-env", "##[", "##vso["):
        assert command not in whole


@given(st.text())
def test_visible_text_is_harmless_and_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    assert is_harmless(shown)
    assert printable(shown) == shown
    if text.isascii() and text.isprintable() and "::" not in text and "##" not in text:
        assert shown == text


@pytest.mark.parametrize(
    "text", ["Société Générale", "N'Guyen", "山田", "10:30 :: 11:00", "#1 ## 2", "", "É"]
)
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("password: hunter2", "password: •••••••"),
        ('  smtp_password: "x y" # mine', "  smtp_password: ••••••••••••"),
        ("{transport: smtp://me:hunter2@host, tls: none}", "{transport: smtp://me:•••••••@host, tls: none}"),
        ("password_env: SMTP_PASSWORD", "password_env: SMTP_PASSWORD"),
        ("password_env: hunter2", "password_env: •••••••"),
        ("password_file: secrets/mail", "password_file: secrets/mail"),
        ("public_url: https://example.fr:8443/a", "public_url: https://example.fr:8443/a"),
    ],
)
def test_a_password_in_a_source_line_is_not_repeated(line: str, shown: str) -> None:
    assert quoted(line, 1)[0] == shown


def test_the_json_has_everything_and_survives_a_round_trip() -> None:
    (row,) = problems_json([PROBLEM])
    assert json.loads(json.dumps(row)) == {
        "severity": "error",
        "code": "unknown-company",
        "summary": "Unknown company",
        "detail": DETAIL,
        "remedy": REMEDY,
        "address": "",
        "range": {"filename": "clients/durand.yaml", "start": {"line": 5, "column": 17}},
    }
    assert problems_json([error("R1", "x.")])[0]["range"] is None


def test_driver_gives_the_summary_of_its_own_codes_only() -> None:
    """A driver from another package cannot reword a code that scripts know from the program."""
    own = replace(warning("crm-no-phone", "No phones."), driver_summary="Phone numbers are not kept")
    assert render_problems([own], lambda *_: None, colour=False, width=80).startswith(
        "Warning: Phone numbers are not kept [crm-no-phone]\n"
    )
    assert replace(own, code="R1").summary == CODES["R1"].summary
    assert replace(own, driver_summary="").summary == "crm-no-phone"
