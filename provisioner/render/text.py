"""The rendering of a plan as text for people: the summary and the risks, then the changes of each company.

Every symbol is accompanied by a word, so the text is complete without colour and without Unicode. A value
from outside never stands in the first column of a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from provisioner.diagnostics import Diagnostic, count_of
from provisioner.planning.plan import Change, Plan, PlannedLetter
from provisioner.render import overview
from provisioner.render.describe import ARROW, Names, field_changes, format_company, format_origin, heading_of
from provisioner.render.sanitize import printable
from provisioner.render.wrap import wrap

_PAINT = {"+": "32", "~": "33", "-": "31", "heading": "1", "risk": "1;31"}
_ASCII = str.maketrans({ARROW: "->", "…": "..."})
_LEGEND = "What changes, company by company (+ arrives, ~ changes, - leaves)"


class Line(NamedTuple):
    """One line before wrapping. A continuation line is indented ``hang`` columns more than the first line.

    ``symbol`` precedes the text and has its own colour. ``paint`` names a colour for the whole line.
    ``whole`` is True if the line is not wrapped, because users copy it or scripts search for it.
    """

    text: str = ""
    indent: int = 0
    symbol: str = ""
    paint: str = ""
    hang: int = 2
    whole: bool = False


def render_plan(plan: Plan, *, width: int = 80, colour: bool = False, unicode: bool = True) -> str:
    """Return the text of the plan. A line exceeds ``width`` columns only if a single word does not fit.

    If ``unicode`` is False, the program's own words are in ASCII, but values from outside are unchanged.
    """
    names = overview.names_of(plan)
    found = overview.risks(plan, names)
    page = _Page(width, colour, unicode)
    warnings = [problem for problem in plan.diagnostics if not problem.is_error]
    lines = chain(
        _opening(plan),
        _problems("Errors", plan.errors),
        _risks(found, plan),
        _changes(plan, names),
        _sections(plan),
        _problems("Warnings", warnings),
        _ending(plan, found),
    )
    return "".join(f"{row}\n" for line in lines for row in page.rows(line))


@dataclass(frozen=True, slots=True)
class _Page:
    width: int
    colour: bool
    unicode: bool

    def rows(self, line: Line) -> Iterator[str]:
        text = printable(line.text)
        if not (self.unicode or text.isascii()):
            text = text.translate(_ASCII)
        lead = " " * line.indent + (line.symbol and f"{line.symbol} ")
        if line.whole:
            yield self._painted(lead + text, line)
            return
        for row in wrap(text, self.width, lead, " " * (len(lead) + line.hang)):
            yield self._painted(row, line)
            line = line._replace(symbol="")

    def _painted(self, row: str, line: Line) -> str:
        code = _PAINT.get(line.paint or line.symbol, "")
        row = row.rstrip()
        if not self.colour or not code or not row:
            return row
        begin = len(row) - len(row.lstrip(" "))
        end = len(row) if line.paint else begin + len(line.symbol)
        return f"{row[:begin]}\x1b[{code}m{row[begin:end]}\x1b[0m{row[end:]}"


def _opening(plan: Plan) -> Iterator[Line]:
    if plan.errors:
        yield Line(
            f"{count_of(len(plan.errors), 'error')} to put right: this plan cannot be applied.", paint="risk"
        )
    if plan.has_changes:
        yield Line(f"In short: {overview.in_short(plan)}.", paint="heading")
        if plan.applyable:
            yield Line("Nothing happens until this plan is applied.")
    elif not plan.errors:
        yield Line(overview.NO_CHANGES, paint="heading")


def _problems(title: str, problems: Sequence[Diagnostic]) -> Iterator[Line]:
    if not problems:
        return
    yield Line()
    yield Line(f"{title} ({len(problems):,})", paint="risk")
    for problem in problems:
        place = f"{problem.source}  " if problem.source else ""
        yield Line(f"{problem.summary} [{problem.code}]", 2)
        yield Line(f"{place}{problem.detail}", 6)
        for line in problem.remedy.splitlines():
            command = line.startswith(" ")
            yield Line(line.strip(), 10 if command else 6, whole=command)


def _risks(found: list[overview.Risk], plan: Plan) -> Iterator[Line]:
    if not found:
        if plan.changes:
            yield Line(overview.NOBODY_SEES_MORE)
        return
    yield Line()
    yield Line("READ THIS FIRST", paint="risk")
    for risk in found:
        yield Line(f"{risk.headline}. {risk.meaning}", 2, "!", "risk", hang=0)
        yield from _listed(risk.entries, 6)


def _listed(entries: tuple[str, ...], indent: int) -> Iterator[Line]:
    for entry in entries[: overview.LISTED]:
        yield Line(entry, indent)
    if len(entries) > overview.LISTED:
        yield Line(f"… and {len(entries) - overview.LISTED:,} more ({overview.LISTS_ALL})", indent)


def _changes(plan: Plan, names: Names) -> Iterator[Line]:
    if not plan.changes:
        return
    yield Line()
    yield Line(_LEGEND, paint="heading")
    letters = {letter.user: letter for letter in plan.letters}
    for group in overview.groups(plan):
        yield Line()
        yield Line(f"Company {format_company(group.number, names)}", paint="heading")
        for change in group.changes:
            yield Line()
            yield from _block(change, names, letters.get(change.address))


def _block(change: Change, names: Names, letter: PlannedLetter | None) -> Iterator[Line]:
    title = heading_of(change)
    yield Line(str(title), 2, title.symbol)
    origin = format_origin(change)
    if origin:
        yield Line(str(origin), 6)
    for fact in field_changes(change, names, letter):
        yield Line(str(fact), 6, fact.symbol)


def _sections(plan: Plan) -> Iterator[Line]:
    for section in overview.sections(plan):
        yield Line()
        yield Line(f"{section.title} ({len(section.entries):,})", paint="heading")
        yield from _listed(section.entries, 2)


def _ending(plan: Plan, found: list[overview.Risk]) -> Iterator[Line]:
    yield Line()
    if plan.errors:
        count = count_of(len(plan.errors), "error")
        yield Line(f"This plan cannot be applied: {count} to put right, see above.", paint="risk")
    if found:
        yield Line(f"To check before you agree: {'; '.join(risk.headline for risk in found)}.", paint="risk")
    yield Line(overview.counts(plan), paint="heading", whole=True)
