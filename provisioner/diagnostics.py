"""The diagnostics: errors and warnings that the program reports, all of the class :class:`Diagnostic`.

The code of a diagnostic determines its summary (:mod:`provisioner.codes`), so people and scripts can
recognise the problem. The detail is a sentence about the data concerned, and the remedy is a command or an
edit that the user can copy.

A driver from another package may use codes of its own. It then gives each such diagnostic a summary. A saved
plan contains the summary, so the plan can be shown where the driver is not installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from provisioner.codes import CODES


class Severity(StrEnum):
    """The severity of a diagnostic. An error stops the run; a warning is shown before a plan is confirmed."""

    ERROR = "error"
    WARNING = "warning"


class Source(NamedTuple):
    """A position in a file. ``line`` and ``column`` start at 1; columns are counted in code points."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem. ``address`` is the address of the resource concerned ("user:…"), or "" for none.

    ``other`` is a second position that the problem concerns, such as the first of two equal declarations.
    ``driver_summary`` is the summary if only a driver from another package knows the code, otherwise "".
    """

    severity: Severity
    code: str
    detail: str
    remedy: str = ""
    source: Source | None = None
    address: str = ""
    other: Source | None = None
    driver_summary: str = ""

    @property
    def summary(self) -> str:
        """The summary that belongs to the code. No driver can change the summary of a code of the program."""
        known = CODES.get(self.code)
        return known.summary if known is not None else self.driver_summary or self.code

    @property
    def is_error(self) -> bool:
        """True if the severity is *error*, which stops the run."""
        return self.severity is Severity.ERROR


def error(
    code: str,
    detail: str,
    remedy: str = "",
    source: Source | None = None,
    address: str = "",
    other: Source | None = None,
) -> Diagnostic:
    """Return a diagnostic with severity *error*, which stops the run."""
    return Diagnostic(Severity.ERROR, code, detail, remedy, source, address, other)


def warning(
    code: str, detail: str, remedy: str = "", source: Source | None = None, address: str = ""
) -> Diagnostic:
    """Return a diagnostic with severity *warning*, which does not stop the run."""
    return Diagnostic(Severity.WARNING, code, detail, remedy, source, address)


def plural(number: int, one: str, many: str = "") -> str:
    """Return ``one`` if ``number`` is 1, otherwise the plural: ``many``, or ``one`` with an added "s"."""
    return one if number == 1 else many or f"{one}s"


def count_of(number: int, one: str, many: str = "") -> str:
    """Return the number and its noun, such as ``1 e-mail`` or ``1,234 e-mails`` (see :func:`plural`)."""
    return f"{number:,} {plural(number, one, many)}"


def in_source_order(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return the diagnostics sorted by file, line and column; diagnostics without a source come last."""
    return sorted(diagnostics, key=lambda problem: (problem.source is None, problem.source or ()))
