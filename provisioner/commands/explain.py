"""``provisioner explain``: print what a code in a message means, where it comes from, and what to do."""

from __future__ import annotations

from pathlib import Path

from provisioner.codes import CODES, code_named
from provisioner.errors import UsageError
from provisioner.render.codes import render_all_codes, render_code
from provisioner.spelling import did_you_mean
from provisioner.terminal.console import Console


def explain(folder: Path, console: Console, *, code: str | None = None) -> int:
    """Print the entry of a code; without a code, print all codes with their summaries."""
    if code is None:
        console.answer(render_all_codes())
        console.say("To read one entry: provisioner explain CODE")
        return 0
    known = code_named(code)
    if known is None:
        raise UsageError(
            f'There is no code "{code}".{did_you_mean(code, CODES)}',
            "To see all codes: provisioner explain (a driver from another package documents its own)",
        )
    console.answer(render_code(known, console.width))
    return 0
