"""A plan as text for people: what happens and what to beware of first, then company by company.

Every symbol has a word beside it, and colour and Unicode are decoration: without them the text says the
same. What begins in the first column is always this program's own words, never a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from provisioner.diagnostics import Diagnostic
from provisioner.model import Address
from provisioner.planning.plan import Change, Plan, PlannedLetter
from provisioner.review.describe import (
    ARROW,
    Names,
    company_said,
    counted,
    facts_of,
    origin_said,
    title_of,
)
from provisioner.review.overview import (
    LISTED,
    LISTS_ALL,
    NO_CHANGES,
    NOBODY_SEES_MORE,
    Group,
    Risk,
    counts,
    groups,
    in_short,
    names_of,
    risks,
    sections,
)
from provisioner.review.problems import render_problems
from provisioner.review.visible import columns, visible

_PAINT = {"+": "32", "~": "33", "-": "31", "heading": "1", "risk": "1;31"}
_ASCII = str.maketrans({ARROW: "->", "…": "..."})
_LEGEND = "What changes, company by company (+ arrives, ~ changes, - leaves)"


class Line(NamedTuple):
    """One line before it is wrapped: what follows the break stands ``hang`` columns further in.

    ``symbol`` goes before the text; ``paint`` colours the symbol if there is one, else the line.
    """

    text: str = ""
    indent: int = 0
    symbol: str = ""
    paint: str = ""
    hang: int = 2


def render_plan(plan: Plan, *, width: int = 80, colour: bool = False, unicode: bool = True) -> str:
    """The whole plan. ``width`` is in columns; only a single word that is longer goes beyond it.

    With ``unicode`` off, this program's own words are ASCII; names stay as they are.
    """
    names = names_of(plan)
    told = risks(plan, names)
    page = _Page(width, colour, unicode)
    page.lines(_opening(plan))
    page.problems("This plan cannot be applied", plan.errors)
    page.lines(_risks(told, plan))
    if plan.changes:
        page.lines(_changes(plan, names))
    page.lines(_sections(plan))
    page.problems("Warnings", [problem for problem in plan.diagnostics if not problem.is_error])
    page.lines(_ending(plan, told))
    return page.text()


class _Page:
    """Lines laid out on a page of one width."""

    def __init__(self, width: int, colour: bool, unicode: bool) -> None:
        self._width = width
        self._colour = colour
        self._unicode = unicode
        self._laid: list[str] = []

    def lines(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._laid.extend(self._wrapped(line))

    def problems(self, title: str, diagnostics: Iterable[Diagnostic]) -> None:
        """Each problem with its remedy, as every other command shows it."""
        shown = tuple(diagnostics)
        if not shown:
            return
        self.lines((Line(), Line(f"{title}:", paint="risk"), Line()))
        text = render_problems(shown, lambda file, line: None, colour=self._colour, width=self._width)
        self._laid.extend(self._plain(text).splitlines())

    def text(self) -> str:
        return "\n".join(self._laid) + "\n"

    def _plain(self, text: str) -> str:
        return text if self._unicode or text.isascii() else text.translate(_ASCII)

    def _wrapped(self, line: Line) -> Iterator[str]:
        text = self._plain(visible(line.text))
        lead = " " * line.indent + (line.symbol and f"{line.symbol} ")
        if columns(text) + len(lead) <= self._width:
            yield self._painted(lead, text, line)
            return
        further = " " * (len(lead) + line.hang)
        row, room = lead, self._width - len(lead)
        words: list[str] = []
        for word in text.split(" "):
            wide = columns(word)
            if words and wide > room:
                yield self._painted(row, " ".join(words), line)
                row, room, words, line = further, self._width - len(further), [], line._replace(symbol="")
            words.append(word)
            room -= wide + 1
        yield self._painted(row, " ".join(words), line)

    def _painted(self, lead: str, text: str, line: Line) -> str:
        code = _PAINT.get(line.paint or line.symbol, "")
        if not self._colour or not code or not text:
            return f"{lead}{text}".rstrip()
        if line.symbol:
            at = len(lead) - 2
            return f"{lead[:at]}\x1b[{code}m{lead[at]}\x1b[0m {text}"
        return f"{lead}\x1b[{code}m{text}\x1b[0m" if line.paint else f"{lead}{text}"


def _opening(plan: Plan) -> Iterator[Line]:
    if plan.errors:
        yield Line(
            f"{counted(len(plan.errors), 'error')} to put right: this plan cannot be applied.", paint="risk"
        )
    if plan.has_changes:
        yield Line(f"In short: {in_short(plan)}.", paint="heading")
        yield Line("Nothing happens until this plan is applied.")
    elif not plan.errors:
        yield Line(NO_CHANGES, paint="heading")


def _risks(told: list[Risk], plan: Plan) -> Iterator[Line]:
    if not told:
        if plan.changes:
            yield Line(NOBODY_SEES_MORE)
        return
    yield Line()
    yield Line("READ THIS FIRST", paint="risk")
    for risk in told:
        yield Line(f"{risk.headline}. {risk.meaning}", 2, "!", "risk", hang=0)
        yield from _listed(risk.entries, 6)


def _listed(entries: tuple[str, ...], indent: int) -> Iterator[Line]:
    for entry in entries[:LISTED]:
        yield Line(entry, indent)
    if len(entries) > LISTED:
        yield Line(f"… and {len(entries) - LISTED:,} more ({LISTS_ALL})", indent)


def _changes(plan: Plan, names: Names) -> Iterator[Line]:
    yield Line()
    yield Line(_LEGEND, paint="heading")
    letters = {letter.user: letter for letter in plan.letters}
    for group in groups(plan):
        yield from _group(group, names, letters)


def _group(group: Group, names: Names, letters: dict[Address, PlannedLetter]) -> Iterator[Line]:
    yield Line()
    yield Line(f"Company {company_said(group.number, names)}", paint="heading")
    for change in group.changes:
        yield Line()
        yield from _block(change, names, letters.get(change.address))


def _block(change: Change, names: Names, letter: PlannedLetter | None) -> Iterator[Line]:
    title = title_of(change)
    yield Line(str(title), 2, title.symbol)
    origin = origin_said(change)
    if origin:
        yield Line(str(origin), 6)
    for fact in facts_of(change, names, letter):
        yield Line(str(fact), 6, fact.symbol)


def _sections(plan: Plan) -> Iterator[Line]:
    for section in sections(plan):
        yield Line()
        yield Line(f"{section.title} ({len(section.entries):,})", paint="heading")
        yield from _listed(section.entries, 2)


def _ending(plan: Plan, told: list[Risk]) -> Iterator[Line]:
    yield Line()
    if plan.errors:
        count = counted(len(plan.errors), "error")
        yield Line(f"This plan cannot be applied: {count} to put right, see above.", paint="risk")
    if told:
        yield Line(f"To check before you agree: {'; '.join(risk.headline for risk in told)}.", paint="risk")
    yield Line(counts(plan), paint="heading")
