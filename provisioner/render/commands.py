"""Adds ``-C FOLDER`` to the commands that messages name, so that the user can copy these commands.

Messages and saved plans name commands as typed in the workspace, because neither knows where the user is.
"""

from __future__ import annotations

import re
from dataclasses import replace

from provisioner.diagnostics import Diagnostic

COMMANDS = (
    "api-client", "apply", "backup", "export", "history", "lock", "mail", "plan", "portal", "serve", "show",
    "simulate", "unlock", "validate",
)  # fmt: skip
"""The commands that use the workspace of ``-C``."""

# a command to copy stands alone, in brackets or after one of these; "by provisioner unlock" is only its name
_COMMAND = re.compile(
    rf"((?:^ *|[:;,] |\(|\b(?:or|run|then|with) )provisioner )(?=(?:{'|'.join(COMMANDS)})\b)", re.MULTILINE
)


def in_folder(text: str, folder: str) -> str:
    """Return the text with ``-C folder`` in each command to copy; unchanged if ``folder`` is "".

    ``folder`` must be quoted for the shell.
    """
    return _COMMAND.sub(lambda found: f"{found[1]}-C {folder} ", text) if folder else text


def problem_in_folder(problem: Diagnostic, folder: str) -> Diagnostic:
    """Return the diagnostic with ``-C folder`` in each command to copy, as :func:`in_folder` does."""
    detail, remedy = in_folder(problem.detail, folder), in_folder(problem.remedy, folder)
    return replace(problem, detail=detail, remedy=remedy)
