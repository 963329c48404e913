"""The plan as a Markdown comment. The tests parse the comment again and check its maximum length."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from review_support import HENRI, SITUATIONS, every_notice, hostile, large, matches, next_month, plan_between
from strategies import HOSTILE, plans, texts

from provisioner.diagnostics import error
from provisioner.model import Notice, NoticeKind, State, User, user_address
from provisioner.planning.plan import Plan
from provisioner.render.markdown import LIMIT, SKELETON, escaped, render_markdown
from provisioner.render.overview import counts, groups, names_of, risks, sections
from provisioner.render.sanitize import printable
from provisioner.testing.people import state

OURS = {"h2", "h3", "p", "ul", "li", "strong", "code", "details", "summary"}
ACTS = re.compile(
    r"@\w|#\w|GH-\d|!\d|https?:|www\.|[<>`*~|$\\\[\]]|:\w+:|::|(^|\n)\s*/\w|\b(?=\w*\d)[0-9a-f]{7,40}\b|&\w+;",
    re.IGNORECASE,
)
"""Text that a platform turns into links, mentions or references outside code."""


class Reading(HTMLParser):
    """A parsed comment: its visible text (``text``), and its visible text outside code (``plain``)."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[object] = []
        self.text = ""
        self.plain = ""
        parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        self.feed(parser.render(markdown))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes.extend(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "code" not in self.open:
            self.plain += data

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.tags.append("declaration")

    def handle_pi(self, data: str) -> None:
        self.tags.append("instruction")


def read(markdown: str) -> Reading:
    reading = Reading(markdown)
    assert set(reading.tags) <= OURS
    assert reading.attributes == []
    assert reading.open == []
    assert ACTS.search(reading.plain) is None, ACTS.search(reading.plain)
    return reading


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_comment_reads_as_its_golden_file(name: str) -> None:
    assert matches(render_markdown(SITUATIONS[name]()), f"{name}.md")


@given(plans(), st.sampled_from([2 * SKELETON, LIMIT]))
def test_no_name_becomes_markup(plan: Plan, limit: int) -> None:
    text = render_markdown(plan, limit=limit)
    assert len(text.encode()) <= limit
    reading = read(text)
    assert all(character == "\n" or character.isprintable() for character in text)
    assert not any(re.search(r"::[A-Za-z]|##(\[|vso\[)", line) for line in text.splitlines())
    if limit == LIMIT:
        assert reading.tags.count("details") == len(groups(plan)) + len(sections(plan))
        assert reading.tags.count("summary") == reading.tags.count("details")
    for risk in risks(plan, names_of(plan)):
        assert f"{risk.headline}. {risk.meaning}" in reading.text


@given(texts | st.text(st.characters(codec="utf-8", categories=["P", "S", "L", "Z", "N"]), max_size=40))
def test_escaped_text_is_read_back_as_it_was(text: str) -> None:
    shown = " ".join(printable(text).split())
    reading = read(f"- said: {escaped(text)}\n- end\n")
    assert reading.text.strip() == f"said: {shown}".strip() + "\nend"
    assert [tag for tag in reading.tags if tag != "code"] == ["ul", "li", "li"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_becomes_code_or_plain_words(text: str) -> None:
    read(f"- **said**: {escaped(text)} and {escaped(text)}, {escaped(text + text)}\n")


@pytest.mark.parametrize("text", ["1) Ann", "0. Ann", "12.", "1) * Ann"])
def test_a_name_that_begins_like_a_list_makes_no_list(text: str) -> None:
    assert "ol" not in read(f"- {escaped(text)}\n  - {escaped(text)}\n").tags


def test_plain_words_stay_plain() -> None:
    for words in (
        "Claire O'Brien-Lefèvre",
        "004217 Boulangerie Martin SARL (billed)",
        "30 November 2026: Clarke & Sons, ends.",
        "It is closed (R8).",
        "+33 6 12 34 56 78",
    ):
        assert escaped(words) == words
    assert escaped("the word deadbeef") == "the word `deadbeef`", "it may be the name of a commit"
    assert escaped("see ann@example.com, please") == "see `ann@example.com`, please"


def test_a_hostile_plan_is_complete_and_has_no_effect() -> None:
    reading = read(render_markdown(hostile()))
    user = next(change.after for change in hostile().changes if isinstance(change.after, User))
    for value in (user.first_name, user.last_name, user.email, user.billed):
        assert " ".join(printable(value).split()) in reading.text


def test_the_summary_and_the_risks_come_before_everything_else() -> None:
    text = render_markdown(next_month())
    assert text.startswith(f"## {counts(next_month())}\n")
    assert text.index("### Read this first") < text.index("<details>")
    assert "- **2 new administrators.** An administrator sees every document" in text


@pytest.mark.parametrize("limit", [2 * SKELETON, 30_000, LIMIT])
def test_a_large_plan_is_cut_to_the_limit_and_says_so(limit: int) -> None:
    plan = large()
    began = time.process_time()
    text = render_markdown(plan, limit=limit)
    assert time.process_time() - began < 5
    assert limit - SKELETON - 2_000 < len(text.encode()) <= limit
    reading = read(text)
    rest = re.search(
        r"… ([\d,]+) further companies are not shown here; the counts above include them. "
        r"See the plan artifact\.",
        reading.text,
    )
    assert rest
    shown = reading.tags.count("details") - len(sections(plan))
    assert shown + int(rest[1].replace(",", "")) == 5_000
    assert "9500 to add, 0 to change, 500 to close" in reading.text
    assert "4,500 new administrators." in reading.text
    assert "500 accounts close." in reading.text
    assert "… and 4,480 more" in reading.text


def test_a_single_company_too_large_for_the_limit_is_cut_between_its_people() -> None:
    colleagues = [
        replace(HENRI, email=f"henri.{number}@example.com", id=f"id-{number}") for number in range(500)
    ]
    plan = plan_between(State(), state(*colleagues))
    text = render_markdown(plan)
    reading = read(text)
    assert len(text.encode()) <= LIMIT
    rest = re.search(r"… ([\d,]+) further changes of this company are not shown here", reading.text)
    assert rest
    assert reading.text.count("New administrator:") + int(rest[1]) == 500
    assert "… 1 further company is not shown here; the counts above include it." in reading.text


def test_the_counts_survive_names_as_long_as_the_whole_comment() -> None:
    for unit in ("x", "`", "<", "é ", "漢", "\u202e", "a@b "):
        name = unit * LIMIT
        someone = replace(HENRI, first_name=name, last_name=name)
        plan = replace(
            plan_between(State(), state(someone)),
            notices=tuple(Notice(kind, user_address(name), name) for kind in NoticeKind),
            diagnostics=(error("R2", name, name),) * 50,
        )
        text = render_markdown(plan)
        assert len(text.encode()) <= LIMIT
        reading = read(text)
        assert "1 new administrator." in reading.text
        assert "50 errors to put right" in reading.text
        assert "characters)" in reading.text


def test_the_uncut_parts_fit_into_their_reserve() -> None:
    many = tuple(notice for notice in every_notice() for _ in range(10_000))
    plan = replace(large(2_000), notices=many, diagnostics=(error("limit-closures", "x"),) * 10_000)
    assert len(render_markdown(plan, limit=2 * SKELETON).encode()) <= 2 * SKELETON


def test_no_changes_says_so() -> None:
    assert "No changes. The portal is as the manifests say." in render_markdown(SITUATIONS["empty"]())


def test_a_limit_too_small_for_any_comment_is_refused() -> None:
    render_markdown(hostile(), limit=2 * SKELETON)
    with pytest.raises(ValueError, match="16,384 bytes at least"):
        render_markdown(hostile(), limit=2 * SKELETON - 1)


def test_every_notice_is_in_its_own_section() -> None:
    reading = read(render_markdown(Plan("p", notices=every_notice())))
    assert all(notice.detail in reading.text for notice in every_notice())
