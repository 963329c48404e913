"""``provisioner plan`` and ``provisioner show``: what would change, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner import __version__
from provisioner.errors import Blocked, UsageError
from provisioner.limits import MAX_PLAN_BYTES
from provisioner.model import Clock
from provisioner.operations.open import utc_now
from provisioner.operations.pipeline import PlannedWorkspace, Selection, plan_workspace
from provisioner.planning.plan import Plan
from provisioner.render.sanitize import escape_json, printable
from provisioner.render.text import render_plan
from provisioner.terminal.console import Console
from provisioner.terminal.progress import counting
from provisioner.workspace.files import read_bytes, write_private
from provisioner.workspace.settings import load_workspace

if TYPE_CHECKING:
    from provisioner.planning.planfile import SavedPlan

CHANGES_PRESENT = 2
"""With ``--detailed-exitcode``."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The forms in which a plan is wanted."""

    as_json: bool = False
    markdown: Path | None = None
    out: Path | None = None


def plan(
    folder: Path,
    console: Console,
    *,
    outputs: Outputs,
    selection: Selection,
    detailed_exitcode: bool = False,
    clock: Clock = utc_now,
) -> int:
    """Show what apply would do; writes nothing but the files it is asked for."""
    saved = outputs.as_json or outputs.out is not None
    planned = plan_workspace(
        load_workspace(folder),
        selection,
        clock,
        digests=saved,
        watch=partial(counting, console),
    )
    if outputs.out is not None and planned.plan.applyable:
        write_private(outputs.out, _saved(planned).encode())
    _show(planned.plan, _saved(planned) if outputs.as_json else "", console, outputs.markdown)
    if outputs.as_json:
        tell_unguarded(planned.plan, console)
    if outputs.out is not None and planned.plan.applyable:
        console.say(f"Saved. To do exactly this: provisioner apply {printable(str(outputs.out))}")
    if not planned.plan.applyable:
        if outputs.out is not None:
            console.say("Not saved, because it cannot be applied.")
        return Blocked.exit_code
    return CHANGES_PRESENT if detailed_exitcode and planned.plan.has_changes else 0


def show(file: Path, console: Console, *, outputs: Outputs) -> int:
    """Show a saved plan; needs neither workspace nor portal."""
    text, saved = read_plan(file)
    _show(saved.plan, text if outputs.as_json else "", console, outputs.markdown)
    return 0


def read_plan(file: Path) -> tuple[str, SavedPlan]:
    """A saved plan and its text. Raises :class:`ProvisionerError` for anything else."""
    content = read_bytes(file, MAX_PLAN_BYTES)
    if len(content) > MAX_PLAN_BYTES:
        raise UsageError(f"{file} is too large for a plan.", "Make a new one: provisioner plan --out FILE")
    from provisioner.planning.planfile import from_json

    text = content.decode("utf-8", errors="replace")
    return text, from_json(text)


def show_text(plan: Plan, console: Console) -> None:
    """The plan for people, on stdout."""
    console.answer(render_plan(plan, width=console.width, colour=console.colour, unicode=console.unicode))


def tell_unguarded(plan: Plan, console: Console) -> None:
    """Say beside an answer that does not show the plan that only one run may work at a time."""
    for problem in plan.diagnostics:
        if problem.code == "unguarded":
            console.say(f"Warning: {problem.detail}\n  {problem.remedy}")


def _saved(planned: PlannedWorkspace) -> str:
    from provisioner.planning.planfile import to_json

    return to_json(
        planned.plan,
        manifests=planned.declared.digests,
        version=__version__,
        complete=planned.complete,
    )


def _show(plan: Plan, as_json: str, console: Console, markdown: Path | None) -> None:
    if markdown is not None:
        from provisioner.render.markdown import render_markdown

        write_private(markdown, render_markdown(plan).encode())
    if as_json:
        console.answer(escape_json(as_json))
    else:
        show_text(plan, console)
