"""The plan as text."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_support import (
    HENRI,
    NOVEMBER,
    SITUATIONS,
    SOPHIE,
    empty,
    every_notice,
    large,
    matches,
    next_month,
    plan_between,
)
from strategies import plans

from provisioner.model import AppState, Grant, NoticeKind, Production, State, UserType
from provisioner.planning.plan import Plan, PlannedLetter
from provisioner.render.describe import format_day, format_phone, format_siren
from provisioner.render.overview import NOTICE_TITLES, counts
from provisioner.render.sanitize import columns
from provisioner.render.text import render_plan
from provisioner.testing.people import state

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
LAST_LINE = re.compile(
    r"Plan: (\d+ to reopen, )?\d+ to add, \d+ to change, \d+ to close, \d+ e-mails? to send\."
)


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("name", SITUATIONS)
def test_a_plan_reads_as_its_golden_file(name: str, width: int) -> None:
    assert matches(render_plan(SITUATIONS[name](), width=width), f"{name}.{width}.txt")


def test_without_unicode_the_words_are_the_same_and_the_arrows_plain() -> None:
    assert matches(render_plan(next_month(), unicode=False), "next-month.ascii.txt")


def test_with_colour_the_words_are_the_same() -> None:
    assert matches(render_plan(next_month(), colour=True), "next-month.colour.txt")


@given(plans(), st.integers(40, 200), st.booleans())
def test_hostile_names_do_not_change_the_layout(plan: Plan, width: int, unicode: bool) -> None:
    text = render_plan(plan, width=width, unicode=unicode)
    lines = text.split("\n")
    assert lines.pop() == ""
    assert all(line == line.rstrip(" ") for line in lines)
    # only a single word that is longer exceeds the width
    wide = [line for line in lines[:-1] if columns(line) > width]
    assert all(" " not in re.sub(r"^ *([+~!-] )?", "", line) for line in wide)
    assert LAST_LINE.fullmatch(lines[-1])
    assert [line for line in lines if line.startswith("Plan:")] == lines[-1:]
    assert not any(re.match(r"\s*::", line) or re.search(r"##(\[|vso)", line) for line in lines)
    assert all(character.isprintable() for line in lines for character in line)
    if not unicode:
        assert not {"→", "…"} & {character for line in lines for character in line}


@given(plans())
def test_colour_is_decoration(plan: Plan) -> None:
    assert ESCAPES.sub("", render_plan(plan, colour=True)) == render_plan(plan)


def test_the_first_column_has_no_value_from_outside() -> None:
    starts = {
        re.split(r"[ :,]", line)[0]
        for line in render_plan(SITUATIONS["hostile"](), width=40).splitlines()
        if line and not line.startswith(" ")
    }
    ours = {"2", "In", "Errors", "READ", "What", "Company", "Welcome", "This", "To", "Plan"}
    assert starts == ours


def test_the_summary_comes_first_and_last() -> None:
    lines = render_plan(next_month(), width=200).splitlines()
    assert lines[0].startswith("In short: 2 companies change, ")
    assert lines[3] == "READ THIS FIRST"
    assert lines[4].startswith(
        "  ! 2 new administrators. An administrator sees every document of the company, "
    )
    assert next(line for line in lines if line.startswith("To check")).startswith(
        "To check before you agree: 2 new administrators; "
    )
    assert lines[-1] == counts(next_month())


def test_the_last_line_counts_and_agrees_in_number() -> None:
    assert counts(Plan("p")) == "Plan: 0 to add, 0 to change, 0 to close, 0 e-mails to send."
    one = plan_between(State(), state(HENRI), letters={"henri.lefevre@example.com": "fr"})
    assert counts(one) == "Plan: 3 to add, 0 to change, 0 to close, 1 e-mail to send."
    assert counts(next_month()).startswith("Plan: 1 to reopen, 0 to add, ")


def test_a_plan_without_changes_shows_its_notices() -> None:
    lines = render_plan(empty()).splitlines()
    assert lines[0] == "No changes. The portal is as the manifests say."
    assert "Existing accounts, managed from now on (1)" in lines
    assert render_plan(Plan("p")).splitlines() == [lines[0], "", lines[-1]]


def test_a_letter_alone_is_a_change() -> None:
    henri = plan_between(State(), state(HENRI)).changes[-1].address
    plan = Plan("p", letters=(PlannedLetter(henri, "henri.lefevre@example.com", "fr"),))
    text = render_plan(plan)
    assert text.startswith("In short: 1 e-mail goes out.\n")
    assert "henri.lefevre@example.com, in French" in text


def test_a_plan_without_risks_says_so() -> None:
    plan = plan_between(state(HENRI), state(replace(HENRI, phone=None)))
    assert "No new administrator, no further company for anybody, " in render_plan(plan)
    assert "READ THIS FIRST" not in render_plan(plan)


def test_a_plan_that_cannot_be_applied_says_so_first_and_at_the_end() -> None:
    lines = render_plan(SITUATIONS["blocked"]()).splitlines()
    assert lines[0] == "2 errors to put right: this plan cannot be applied."
    assert "This plan cannot be applied: 2 errors to put right, see above." in lines[-4:]


def test_a_validated_account_is_a_risk_like_a_new_one() -> None:
    waiting = replace(HENRI, status=type(HENRI.status).TO_VALIDATE)
    text = render_plan(plan_between(state(waiting), state(HENRI)))
    assert "  ! 1 account is validated. Whoever was waiting" in text
    assert "  ~ Validated, as administrator: Henri Lefevre" in text


def test_long_lists_are_cut_and_say_how_much_is_missing() -> None:
    unmanaged = [notice for notice in every_notice() if notice.kind is NoticeKind.UNMANAGED]
    plan = Plan("p", notices=tuple(unmanaged * 57))
    lines = render_plan(plan).splitlines()
    assert "In no manifest, left alone (57)" in lines
    assert "  … and 37 more (provisioner plan --json lists them all)" in lines
    assert sum("max@example.com" in line for line in lines) == 20


def test_every_kind_of_notice_is_shown() -> None:
    placed = {NoticeKind.ENDING, NoticeKind.BILLING_STOPS, NoticeKind.INTERRUPTED}
    assert {kind for kind, _ in NOTICE_TITLES} | placed == set(NoticeKind)
    text = render_plan(Plan("p", notices=every_notice()), width=1_000)
    assert [notice for notice in every_notice() if notice.detail not in text] == []


def test_each_change_of_an_application_has_its_words() -> None:
    asked, held = Grant("Scan", AppState.REQUESTED), Grant("Image", AppState.ACTIVE)
    ending = Grant("Achats", AppState.ENDING, NOVEMBER)
    before = replace(SOPHIE, type=UserType.ADMINISTRATOR, apps=frozenset({asked, held, ending}))
    granted = frozenset(Grant(app, AppState.ACTIVE) for app in ("Scan", "Achats", "Documents"))
    text = render_plan(plan_between(state(before), state(replace(before, apps=granted))))
    assert "+ application given: Documents" in text
    assert "+ application given, as asked for: Scan" in text
    assert "+ application kept, which was to end: Achats" in text
    assert "- application removed at once: Image" in text
    text = render_plan(
        plan_between(state(before), state(replace(before, apps=frozenset({ending._replace(app="Image")}))))
    )
    assert "- application ending on 30 November 2026: Image" in text
    assert "- application refused, which was asked for: Scan" in text


def test_a_family_switch_says_that_it_is_read_only_and_at_once() -> None:
    after = replace(HENRI, production=Production.CONSULTATION)
    text = render_plan(plan_between(state(HENRI), state(after)), width=200)
    assert (
        "~ production: full → consultation, which is read only (Compta, Fiscalité, Paie, all at once)" in text
    )


def test_dates_phones_and_numbers_read_as_people_write_them() -> None:
    assert format_day(NOVEMBER) == "30 November 2026"
    assert format_phone("+33612345678") == "+33 6 12 34 56 78"
    assert format_phone("+441632960001") == "+441632960001"
    assert format_phone(None) == "none"
    assert format_siren("732829320") == "732 829 320"


def test_a_large_plan_is_rendered_in_seconds() -> None:
    began = time.process_time()
    lines = render_plan(large()).splitlines()
    assert time.process_time() - began < 10
    assert lines[-1] == "Plan: 9500 to add, 0 to change, 500 to close, 0 e-mails to send."
    assert "  ! 4,500 new administrators. An administrator sees every document of the" in lines
