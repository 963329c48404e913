"""Diagnostics: the problems that the program reports, all of one class.

The code fixes the summary, so that people and scripts recognise it. The detail is a sentence with the data,
the remedy a command or an edit to copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

SUMMARIES: dict[str, str] = {
    # the portal's rules (R), our own conventions (S)
    "R1": "E-mail address already in use",
    "R2": "Company without an administrator",
    "R3": "Incomplete or mixed production applications",
    "R4": "More or less than one billed company",
    "R5": "Billed company not among the user's companies",
    "R6": "Billing mode unknown",
    "R7": "Validation needs a right this operator lacks",
    "R8": "Reopening needs a right this operator lacks",
    "R9": "Application ends at month end",
    "R10": "Application waiting for the firm's activation",
    "R11": "User created by a client administrator",
    "R13": "Dossier number used twice",
    "R14": "Firm address used for a client access",
    "R15": "Billing of a company stops",
    "S1": "Generic address instead of a person's",
    # what the manifests say
    "yaml-syntax": "Not valid YAML",
    "yaml-unsafe": "YAML feature not accepted here",
    "yaml-duplicate-key": "Key written twice",
    "yaml-limit": "File beyond a limit",
    "file-encoding": "File is not UTF-8 text",
    "file-unreadable": "File cannot be read",
    "file-path": "Path not accepted",
    "unknown-key": "Unknown key",
    "missing-key": "Missing key",
    "wrong-value": "Value not accepted",
    "quote-it": "Value to be quoted",
    "unknown-company": "Unknown company",
    "unknown-offer": "Unknown offer",
    "unknown-app": "Unknown application",
    "unknown-profile": "Unknown profile",
    "siren": "Not a SIREN",
    "phone": "Not a phone number",
    "email": "Not an e-mail address",
    "name": "Characters not accepted in a name",
    "no-manifests": "No manifest found",
    "no-user": "Company billed to nobody",
    "pending-administrator": "Company whose only administrator is still to be validated",
    # what the plan meets
    "portal-cannot-hold": "The portal has no place for this",
    "cut-off": "Step cut off in the middle",
    "portal-missing": "The portal does not offer this",
    "ambiguous-user": "Two declarations for one account",
    "no-order": "No safe order for these changes",
    "limit-closures": "More closures than allowed",
    "limit-empty": "Manifests gone while accesses are managed",
    "unguarded": "This portal takes one run at a time",
    "welcome-by-portal": "This portal sends no welcome e-mail",
}


class Severity(StrEnum):
    """An error stops the run; a warning is shown before a plan is confirmed."""

    ERROR = "error"
    WARNING = "warning"


class Source(NamedTuple):
    """A position in a file; line and column count from 1, the column in code points."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem. ``address`` is that of the resource concerned ("user:…"), or ""."""

    severity: Severity
    code: str
    detail: str
    remedy: str = ""
    source: Source | None = None
    address: str = ""

    @property
    def summary(self) -> str:
        """The fixed text of this code."""
        return SUMMARIES[self.code]

    @property
    def is_error(self) -> bool:
        """True if this problem stops the run."""
        return self.severity is Severity.ERROR


def error(
    code: str, detail: str, remedy: str = "", source: Source | None = None, address: str = ""
) -> Diagnostic:
    """A problem that stops the run."""
    return Diagnostic(Severity.ERROR, code, detail, remedy, source, address)


def warning(
    code: str, detail: str, remedy: str = "", source: Source | None = None, address: str = ""
) -> Diagnostic:
    """A problem that is shown before a plan is confirmed."""
    return Diagnostic(Severity.WARNING, code, detail, remedy, source, address)


def plural(number: int, one: str, many: str = "") -> str:
    """The singular or the plural for this number; ``many`` is the plural if it is not formed with an s."""
    return one if number == 1 else many or f"{one}s"


def count_of(number: int, one: str, many: str = "") -> str:
    """The number with its noun: ``1 e-mail``, ``1,234 e-mails``."""
    return f"{number:,} {plural(number, one, many)}"


def in_source_order(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """The diagnostics by file, line and column; those without a source come last, in the order given."""
    return sorted(diagnostics, key=lambda problem: (problem.source is None, problem.source or ()))
