"""``provisioner plan`` and ``provisioner show``: show what would change, as text or as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from provisioner.errors import Blocked
from provisioner.model import Clock
from provisioner.operations.open import utc_now
from provisioner.operations.pipeline import plan_workspace, select_addresses
from provisioner.planning.plan import Plan
from provisioner.render.commands import problem_in_folder
from provisioner.render.formats import FORMATS
from provisioner.render.sanitize import escape_json
from provisioner.render.text import render_plan
from provisioner.terminal.console import Console
from provisioner.terminal.progress import counting
from provisioner.workspace.files import write_private
from provisioner.workspace.settings import load_workspace

CHANGES_PRESENT = 2
"""The exit code of a plan with changes under ``--detailed-exitcode``."""


def plan(
    folder: Path,
    console: Console,
    *,
    targets: Sequence[str] = (),
    excludes: Sequence[str] = (),
    as_json: bool = False,
    out: Path | None = None,
    detailed_exitcode: bool = False,
    clock: Clock = utc_now,
    **files: Path | None,
) -> int:
    """Show what apply would change. If ``out`` is not None and the plan has no errors, save the plan there.

    ``files`` maps the name of each format to the file to write in this format, or to None for no file.
    """
    planned = plan_workspace(
        load_workspace(folder),
        select_addresses(targets, excludes),
        clock,
        digests=as_json or out is not None,
        progress=partial(counting, console),
    )
    saved = out if planned.plan.applyable else None
    text = ""
    if as_json or saved is not None:
        from provisioner.operations.saved_plan import plan_json

        text = plan_json(planned)
    if saved is not None:
        write_private(saved, text.encode())
    _show(planned.plan, text if as_json else "", console, files)
    if as_json:
        warn_if_unguarded(planned.plan, console)
    if saved is not None:
        console.say(f"Saved. To do exactly this: provisioner apply {shlex.quote(str(saved))}")
    if not planned.plan.applyable:
        if out is not None:
            console.say("Not saved, because it cannot be applied.")
        return Blocked.exit_code
    return CHANGES_PRESENT if detailed_exitcode and planned.plan.has_changes else 0


def show(
    folder: Path, console: Console, *, planfile: Path, as_json: bool = False, **files: Path | None
) -> int:
    """Show the saved plan ``planfile``. This works without a workspace and without a portal."""
    from provisioner.operations.saved_plan import read_plan

    text, saved = read_plan(planfile)
    _show(saved.plan, text if as_json else "", console, files)
    return 0


def show_text(plan: Plan, console: Console) -> None:
    """Print the plan as text on stdout."""
    plan = replace(
        plan,
        notices=tuple(notice._replace(detail=console.in_folder(notice.detail)) for notice in plan.notices),
        diagnostics=tuple(problem_in_folder(problem, console.folder) for problem in plan.diagnostics),
    )
    console.answer(render_plan(plan, width=console.width, colour=console.colour, unicode=console.unicode))


def warn_if_unguarded(plan: Plan, console: Console) -> None:
    """Print the plan's warnings with the code ``unguarded`` on stderr: the portal lacks a protection."""
    for problem in plan.diagnostics:
        if problem.code == "unguarded":
            console.say(f"Warning: {problem.detail}\n  {problem.remedy}")


def _show(plan: Plan, as_json: str, console: Console, files: Mapping[str, Path | None]) -> None:
    for name, file in files.items():
        if file is not None:
            write_private(file, FORMATS[name].render(plan).encode())
    if as_json:
        console.answer(escape_json(as_json))
    else:
        show_text(plan, console)
