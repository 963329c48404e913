"""The plan of a workspace: of what moved since the last one, where that is enough, or of everything."""

from __future__ import annotations

import time

from provisioner.commands.reading import (
    Clock,
    Planned,
    Selection,
    plan_of,
    policy_of,
    read_snapshot,
    utc_now,
)
from provisioner.errors import ManifestsInvalid
from provisioner.files import Signature
from provisioner.ledger import read_books
from provisioner.manifest.check import check
from provisioner.manifest.resolve import resolve
from provisioner.workspace import Workspace, read_manifests


def plan_workspace(
    workspace: Workspace,
    selection: Selection,
    clock: Clock = utc_now,
    *,
    digests: bool = False,
    cached: bool = False,
) -> Planned:
    """Read everything and plan. Raises :class:`ManifestsInvalid` with all problems at once.

    With ``cached`` only what moved since the last such plan is read, where that gives the same answer.
    """
    if cached and not selection:
        from provisioner.commands.replan import replan

        planned = replan(workspace, clock, digests=digests)
        if planned is not None:
            return planned
    began = time.time_ns()
    signatures: dict[str, Signature] = {}
    declared, problems = read_manifests(workspace, digests=digests, signatures=signatures)
    snapshot = read_snapshot(workspace, clock)
    problems.extend(check(declared, workspace.check_settings, known_companies=snapshot.state.companies))
    if any(problem.is_error for problem in problems):
        raise ManifestsInvalid("The manifests have errors; nothing was planned.", diagnostics=problems)
    books = read_books(workspace.ledger_path)
    resolution = resolve(declared, snapshot.state, books.managed, policy_of(workspace, clock))
    plan = plan_of(
        workspace,
        problems,
        snapshot,
        books,
        resolution,
        selection,
        clock,
        declared=declared,
        users_managed=len(books.managed),
        users_declared=len(declared.users),
    )
    if cached and not selection:
        from provisioner.commands.replan import keep

        keep(workspace, clock, signatures, began, declared, snapshot, books, resolution, plan)
    return Planned(plan, declared, complete=not selection)
