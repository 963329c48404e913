"""The rendering of a plan as Markdown, for a comment on a merge request.

The text of a large plan is cut to the platform's size limit, but the counts are always complete. Values that
are plain words are shown as text. All other values are shown as code, because a platform does not interpret
mentions, references, links or markup inside code.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from provisioner.diagnostics import Diagnostic, count_of, plural
from provisioner.model import Address
from provisioner.planning.plan import Change, Plan, PlannedLetter
from provisioner.render import overview
from provisioner.render.describe import Names, field_changes, format_company, format_origin, heading_of
from provisioner.render.sanitize import printable

LIMIT = 65_536
"""The maximum size of a comment in bytes. Such a comment also has at most GitHub's 65,536 characters."""

SKELETON = 8_192
"""The number of bytes reserved for the parts that are never cut: headings, counts, tags, notes about cuts."""

LONGEST = 400
"""The number of characters after which a value is cut."""

_WORD = r"[^\W\d_]+(?:[-'’][^\W\d_]+)*"
_PLAIN = re.compile(
    rf"\(?(?:{_WORD}|[0-9]{{1,6}}|[0-9]{{1,3}}(?:,[0-9]{{3}})+|\+[0-9]{{2,3}}|[RS][0-9]{{1,2}})\)?[.,;:]?|[&→…–]"
)
_COMMIT = re.compile(r"\(?[0-9a-f]{7,}", re.IGNORECASE)
_NUMBERING = re.compile(r"[0-9]+[.)]")
_BACKTICKS = re.compile("`+")


def render_markdown(plan: Plan, *, limit: int = LIMIT) -> str:
    """Return the plan in at most ``limit`` bytes. Raises :class:`ValueError` for a limit under 16,384."""
    if limit < 2 * SKELETON:
        raise ValueError(f"a comment needs {2 * SKELETON:,} bytes at least, not {limit:,}")
    names = overview.names_of(plan)
    room = _Room(limit - SKELETON)
    # the opening, with the risks, is rendered first, and the changes last, in the bytes that remain
    opening = "".join(_opening(plan, names, room))
    beside = "".join(_beside(plan, room.part(4)))
    return opening + "".join(_changes(plan, names, room)) + beside


class _Room:
    """A budget of bytes for text. Bytes taken from a part of a budget also count against the whole budget."""

    def __init__(self, size: int, whole: _Room | None = None) -> None:
        self._left = size
        self._whole = whole

    def take(self, text: str) -> bool:
        """If the text fits, subtract its size and return True. Otherwise return False."""
        size = len(text.encode())
        if size > self._left or (self._whole is not None and not self._whole.take(text)):
            return False
        self._left -= size
        return True

    def part(self, share: int) -> _Room:
        """Return a part of this budget. Its size is the remaining number of bytes divided by ``share``."""
        return _Room(self._left // share, self)


def escaped(text: str) -> str:
    """Return the text for use in Markdown: everything except plain words is shown as code."""
    return _by_runs(text, lambda words: words, _code)


def _in_tag(text: str) -> str:
    """Return the text for use in an HTML element inside Markdown, where Markdown syntax has no effect."""
    return _by_runs(text, html.escape, lambda words: f"<code>{html.escape(words)}</code>")


def _by_runs(text: str, plain: Callable[[str], str], odd: Callable[[str], str]) -> str:
    words = printable(_cut(text)).split()
    # a number such as "1)" becomes code, because at the start of a line it would begin a numbered list
    numbered = words[:1] if words and _NUMBERING.fullmatch(words[0]) else []
    runs = [(False, word) for word in numbered]
    runs += [(safe, " ".join(run)) for safe, run in groupby(words[len(numbered) :], key=_is_plain)]
    return " ".join(plain(run) if safe else _but_for_its_end(run, odd) for safe, run in runs)


def _but_for_its_end(run: str, odd: Callable[[str], str]) -> str:
    """Convert ``run`` with ``odd``, but leave a punctuation mark at the end of ``run`` as it is."""
    body = run[:-1] if run[-1] in ".,;:" and len(run) > 1 else run
    return odd(body) + run[len(body) :]


def _is_plain(word: str) -> bool:
    # a platform may link seven or more hexadecimal digits as a commit hash, even if all are letters
    return _PLAIN.fullmatch(word) is not None and _COMMIT.match(word) is None


def _code(text: str) -> str:
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _cut(text: str) -> str:
    rest = len(text) - LONGEST
    return text if rest <= 0 else f"{text[:LONGEST]} … ({rest:,} more characters)"


def _opening(plan: Plan, names: Names, room: _Room) -> Iterator[str]:
    yield f"## {overview.counts(plan)}\n\n"
    if plan.errors:
        yield f"**This plan cannot be applied: {count_of(len(plan.errors), 'error')} to put right.**\n\n"
    if plan.has_changes:
        yield f"In short: {overview.in_short(plan)}.\n\n"
    elif not plan.errors:
        yield f"{overview.NO_CHANGES}\n\n"
    yield from _risks(plan, names, room.part(2))
    yield from _problems("Errors", plan.errors, room.part(2))
    warnings = [problem for problem in plan.diagnostics if not problem.is_error]
    yield from _problems("Warnings", warnings, room.part(4))


def _risks(plan: Plan, names: Names, room: _Room) -> Iterator[str]:
    found = overview.risks(plan, names)
    if not found and plan.changes:
        yield f"{overview.NOBODY_SEES_MORE}\n\n"
    if found:
        yield "### Read this first\n\n"
        for number, risk in enumerate(found):
            yield f"- **{risk.headline}.** {risk.meaning}\n"
            yield from _listed(risk.entries, "  ", room.part(len(found) - number))
        yield "\n"


def _problems(title: str, problems: Sequence[Diagnostic], room: _Room) -> Iterator[str]:
    if not problems:
        return
    yield f"### {title} ({len(problems):,})\n\n"
    shown = 0
    for problem in problems[: overview.LISTED]:
        text = _problem(problem)
        if not room.take(text):
            break
        shown += 1
        yield text
    yield from _more(len(problems) - shown, "")
    yield "\n"


def _problem(problem: Diagnostic) -> str:
    place = f"{escaped(str(problem.source))} " if problem.source else ""
    remedy = "".join(
        f"  - {escaped(line)}\n" for line in problem.remedy.splitlines()[: overview.LISTED] if line.strip()
    )
    title = f"**{escaped(problem.summary)}** ({escaped(problem.code)})"
    return f"- {title}: {place}{escaped(problem.detail)}\n{remedy}"


def _listed(entries: Sequence[str], indent: str, room: _Room) -> Iterator[str]:
    shown = 0
    for entry in entries[: overview.LISTED]:
        text = f"{indent}- {escaped(entry)}\n"
        if not room.take(text):
            break
        shown += 1
        yield text
    yield from _more(len(entries) - shown, indent)


def _more(rest: int, indent: str) -> Iterator[str]:
    if rest:
        yield f"{indent}- … and {rest:,} more (`{overview.LISTS_ALL}`)\n"


def _changes(plan: Plan, names: Names, room: _Room) -> Iterator[str]:
    if not plan.changes:
        return
    yield "### What changes, company by company\n\n`+` arrives, `~` changes, `-` leaves.\n\n"
    letters = {letter.user: letter for letter in plan.letters}
    found = overview.groups(plan)
    shown = 0
    for group in found:
        opening = f"<details>\n<summary>{_summary(group, names)}</summary>\n\n"
        closing = "\n</details>\n\n"
        if not room.take(opening + closing):
            break
        shown += 1
        blocks = _fitting((_block(change, names, letters) for change in group.changes), room)
        rest = len(group.changes) - len(blocks)
        yield opening
        yield from blocks
        if rest:
            yield f"- … {count_of(rest, 'further change')} of this company {_not_shown(rest)}\n"
        yield closing
        if rest:
            break
    if rest := len(found) - shown:
        yield f"… {count_of(rest, 'further company', 'further companies')} {_not_shown(rest)}\n\n"


def _fitting(blocks: Iterable[str], room: _Room) -> list[str]:
    fitting = []
    for block in blocks:
        if not room.take(block):
            break
        fitting.append(block)
    return fitting


def _not_shown(number: int) -> str:
    verb, them = plural(number, "is", "are"), plural(number, "it", "them")
    return f"{verb} not shown here; the counts above include {them}. See the plan artifact."


def _summary(group: overview.CompanyChanges, names: Names) -> str:
    people = sum(change.address.kind == "user" for change in group.changes)
    itself = "the company itself" if people < len(group.changes) else ""
    parts = [part for part in (itself, count_of(people, "person", "people") if people else "") if part]
    return f"Company {_in_tag(format_company(group.number, names))} ({', '.join(parts)})"


def _block(change: Change, names: Names, letters: dict[Address, PlannedLetter]) -> str:
    title = heading_of(change)
    subject = f": {escaped(title.value)}" if title.value else ""
    lines = [f"- `{title.symbol}` **{title.label}**{subject}\n"]
    origin = format_origin(change)
    if origin:
        lines.append(f"  - {origin.label}: {escaped(origin.value)}\n")
    lines += [
        f"  - `{fact.symbol}` {fact.label}: {escaped(fact.value)}\n"
        for fact in field_changes(change, names, letters.get(change.address))
    ]
    return "".join(lines)


def _beside(plan: Plan, room: _Room) -> Iterator[str]:
    found = overview.sections(plan)
    for number, section in enumerate(found):
        yield f"<details>\n<summary>{section.title} ({len(section.entries):,})</summary>\n\n"
        yield from _listed(section.entries, "", room.part(len(found) - number))
        yield "\n</details>\n\n"
