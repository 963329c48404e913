"""The entries of :data:`provisioner.codes.CODES` as text and as the Markdown page schemas/CODES.md."""

from __future__ import annotations

from provisioner.codes import CODES
from provisioner.render.wrap import wrap

_INDENT = "  "


def render_code(code: str, width: int) -> str:
    """Return the entry of a code as text."""
    entry = CODES[code]
    lines = [f"{code}: {entry.summary}"]
    severity, source, action = f"Severity: {entry.severity}", f"Source: {entry.source}", entry.action
    for text in (entry.explanation, severity, source, f"What to do: {action}"):
        lines += wrap(text, width, _INDENT, _INDENT)
    return "\n".join(lines)


def render_all_codes() -> str:
    """Return a line with the summary of each code."""
    longest = max(map(len, CODES))
    return "\n".join(f"{code:<{longest}}  {entry.summary}" for code, entry in CODES.items())


def codes_page() -> str:
    """Return the page schemas/CODES.md."""
    lines = [
        "# Codes",
        "",
        "A message shows its code in brackets, and `provisioner explain CODE` prints the entry. R is a rule",
        "of the portal, A an assumption of provisioner where the portal's help says nothing, and S is",
        "advice. The other codes are problems. *Severity* says what a message with the code stops; a code",
        "may have several. A driver from another package may have codes of its own.",
        "",
        "| code | |",
        "|---|---|",
        *(f"| [{code}](#{code.casefold()}) | `{entry.summary}` |" for code, entry in CODES.items()),
    ]
    for code, entry in CODES.items():
        lines += ["", f"## {code}", "", f"`{entry.summary}`: {entry.explanation}", ""]
        lines += [f"- Severity: {entry.severity}", f"- Source: {entry.source}"]
        lines += [f"- What to do: {entry.action}"]
    return "\n".join(lines) + "\n"
