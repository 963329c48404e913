"""The diagnostics: errors and warnings that the program reports, all of the class :class:`Diagnostic`.

The code of a diagnostic determines its summary, so people and scripts can recognise the problem. The detail
is a sentence about the data concerned, and the remedy is a command or an edit that the user can copy.

A driver from another package may use codes of its own. It then gives each such diagnostic a summary. A saved
plan contains the summary, so the plan can be shown where the driver is not installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

SUMMARIES: dict[str, str] = {
    # the rules of the portal (R) and the conventions of provisioner (S)
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
    # problems in the manifests
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
    # problems found while planning or applying
    "portal-cannot-hold": "The portal has no place for this",
    "cut-off": "Step cut off in the middle",
    "portal-missing": "The portal does not offer this",
    "ambiguous-user": "Two declarations for one account",
    "no-order": "No safe order for these changes",
    "limit-closures": "More closures than allowed",
    "limit-empty": "Manifests gone while accesses are managed",
    "restored": "Ledger restored from a backup",
    "unguarded": "This portal takes one run at a time",
    "no-driver": "Driver that is not installed",
    "welcome-by-portal": "This portal sends no welcome e-mail",
}


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
    ``driver_summary`` is the summary of a code that only a driver from another package knows.
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
        return SUMMARIES.get(self.code) or self.driver_summary or self.code

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
