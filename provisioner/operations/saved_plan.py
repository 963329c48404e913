"""Saved plans: write them as JSON, read them, and check that their manifests have not changed."""

from __future__ import annotations

from pathlib import Path

from provisioner import __version__
from provisioner.errors import ProvisionerError, StalePlan, UsageError
from provisioner.limits import MAX_PLAN_BYTES
from provisioner.operations.pipeline import PlannedWorkspace, Selection
from provisioner.planning.plan_document import SavedPlan
from provisioner.planning.planfile import from_json, to_json
from provisioner.progress import ProgressFactory, no_progress
from provisioner.workspace.files import read_bytes
from provisioner.workspace.settings import Workspace, read_manifests, with_settings


def plan_json(planned: PlannedWorkspace) -> str:
    """Return the JSON text that ``plan --json`` prints and ``plan --out`` writes."""
    return to_json(
        planned.plan,
        manifests=planned.declared.digests,
        version=__version__,
        complete=planned.complete,
    )


def read_plan(file: Path) -> tuple[str, SavedPlan]:
    """Return a plan file's text and plan. Raises :class:`ProvisionerError` if the file has no valid plan."""
    content = read_bytes(file, MAX_PLAN_BYTES)
    if len(content) > MAX_PLAN_BYTES:
        raise UsageError(f"{file} is too large for a plan.", "Make a new one: provisioner plan --out FILE")
    text = content.decode("utf-8", errors="replace")
    try:
        return text, from_json(text)
    except ProvisionerError as problem:
        raise type(problem)(f"{file}: {problem.sentence}", problem.remedy) from problem


def load_saved_plan(
    workspace: Workspace, planfile: Path, selection: Selection, progress: ProgressFactory = no_progress
) -> PlannedWorkspace:
    """Return a saved plan, together with the manifests that the workspace has now.

    Raises :class:`StalePlan` if manifests have changed since the plan was made, and :class:`UsageError` if
    ``selection`` is not empty.
    """
    if selection:
        raise UsageError(
            "A saved plan is applied whole: --target and --exclude belong to plan.",
            f"provisioner plan --target … --out {planfile}",
        )
    _, saved = read_plan(planfile)
    with progress("Reading") as report:
        declared = with_settings(read_manifests(workspace, tell=report)[0], workspace)
    moved = sorted(
        file
        for file in {*declared.digests, *saved.manifests}
        if declared.digests.get(file) != saved.manifests.get(file)
    )
    if moved:
        raise StalePlan(
            f"The manifests have changed since this plan was made: {', '.join(moved)}. Nothing was written.",
            f"Make a new plan: provisioner plan --out {planfile}",
        )
    return PlannedWorkspace(saved.plan, declared, saved.complete)
