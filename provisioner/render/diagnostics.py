"""The rendering of problems, as text for people and as JSON data for programs. An example of the text:

Error: Unknown company [unknown-company]
  clients/durand.yaml:5:20  ada@example.com is given dossier 10432, which … Did you mean "10423"?
    5 |     companies: ["10432"]
      |                 ^
    To see the companies this portal has, run:
        provisioner export --kind company
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from provisioner.diagnostics import Diagnostic, Severity, Source, count_of, in_source_order
from provisioner.render.sanitize import columns, printable
from provisioner.render.wrap import wrap

LineOf = Callable[[str, int], str | None]
"""A function that returns the line with a given number in a file, or None if the line cannot be read."""

_TITLES = {Severity.ERROR: ("Error", "1;31"), Severity.WARNING: ("Warning", "1;33")}
_TAB = "    "
_REACH = 400  # maximum code points of a quoted line on either side of the column: wider than any terminal
_NARROWEST = 40

# the patterns of passwords that were written into a manifest by mistake; a quoted line shows them masked
_SECRET = re.compile(
    r"""(://[^\s/@:]*:)\S+(?=@)
      | ((?i:password|passwd|secret|token|mot[ _-]de[ _-]passe)["']?\s*:\s*).+
      | (password_env["']?\s*:\s*+)(?!["']?[A-Z_][A-Z0-9_]*["']?\s*(?:[,}\#]|$)).+""",
    re.VERBOSE,
)


def render_problems(diagnostics: Sequence[Diagnostic], line_of: LineOf, *, colour: bool, width: int) -> str:
    """Return the problems as text, in source order, followed by the numbers of errors and of warnings.

    The text is "" if there are no problems. ``line_of`` reads the lines to quote. ``width`` is the terminal
    width in columns. Text from outside is made printable.
    """
    if not diagnostics:
        return ""
    width = max(width, _NARROWEST)
    blocks = ["\n".join(_block(problem, line_of, colour, width)) for problem in in_source_order(diagnostics)]
    return "\n\n".join([*blocks, _counts(diagnostics)]) + "\n"


def problems_json(diagnostics: Sequence[Diagnostic]) -> list[dict[str, object]]:
    """Return the problems, unaltered, as JSON data with the keys of Terraform's ``validate -json``."""
    return [
        {
            "severity": str(problem.severity),
            "code": problem.code,
            "summary": problem.summary,
            "detail": problem.detail,
            "remedy": problem.remedy,
            "address": problem.address,
            "range": _range(problem.source),
        }
        for problem in in_source_order(diagnostics)
    ]


def _counts(diagnostics: Sequence[Diagnostic]) -> str:
    errors = sum(problem.is_error for problem in diagnostics)
    counts = ((errors, "error"), (len(diagnostics) - errors, "warning"))
    return ", ".join(count_of(number, noun) for number, noun in counts if number) + "."


def _range(source: Source | None) -> dict[str, object] | None:
    if source is None:
        return None
    return {"filename": source.file, "start": {"line": source.line, "column": source.column}}


def _block(problem: Diagnostic, line_of: LineOf, colour: bool, width: int) -> Iterator[str]:
    title, code = _TITLES[problem.severity]
    yield f"{_painted(title, code, colour)}: {printable(problem.summary)} [{printable(problem.code)}]"
    place = f"{printable(str(problem.source))}  " if problem.source else ""
    yield from wrap(place + printable(problem.detail), width, "  ", "    ")
    if problem.source is not None:
        yield from _quotation(problem.source, line_of, colour, width)
    for line in problem.remedy.splitlines():
        shown = printable(line)
        indent = "    " + " " * (len(shown) - len(shown.lstrip(" ")))
        # an indented line is a command to copy, so it is not wrapped
        yield from [indent + shown.lstrip(" ")] if len(indent) > 4 else wrap(shown, width, indent, indent)


def _quotation(source: Source, line_of: LineOf, colour: bool, width: int) -> Iterator[str]:
    """Yield the source line, and a caret under the column. For an unreadable or blank line, yield nothing."""
    line = line_of(source.file, source.line)
    if line is None or not line.strip():
        return
    gutter = f"    {source.line} | "
    shown, caret = _window(_SECRET.sub(_masked, line), source.column - 1, width - len(gutter))
    yield gutter + shown
    yield f"{' ' * (len(gutter) - 2)}| {' ' * caret}{_painted('^', '1;31', colour)}"


def _masked(found: re.Match[str]) -> str:
    """Return the match with its secret replaced by bullets, one per character to keep the columns aligned."""
    before = found[1] or found[2] or found[3]
    return before + "•" * (len(found[0]) - len(before))


def _window(line: str, place: int, room: int) -> tuple[str, int]:
    """Return the part of ``line`` around the index ``place`` that fits into ``room`` columns.

    The second result is the column, within this part, of the character at the index ``place``.
    """
    place = min(place, len(line))
    first = max(0, place - _REACH)
    before = printable(line[first:place].replace("\t", _TAB))
    shown = printable(line[first : place + _REACH].replace("\t", _TAB))
    if columns(shown) <= room and first == 0 and place + _REACH >= len(line):
        return shown, columns(before)
    begin = end = len(before)
    while end < len(shown) and columns(shown[begin : end + 1]) < room - room // 2:
        end += 1
    # columns that one side of the code point does not need are used for the other side
    while begin > 0 and columns(shown[begin - 1 : end]) <= room - 2:
        begin -= 1
    left = "…" if begin or first else ""
    while end < len(shown) and columns(left + shown[begin : end + 1]) < room:
        end += 1
    right = "…" if end < len(shown) or place + _REACH < len(line) else ""
    return f"{left}{shown[begin:end]}{right}", columns(left + shown[begin : len(before)])


def _painted(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text
