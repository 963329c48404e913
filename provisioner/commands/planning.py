"""The plan of a workspace: of what moved since the last one, where that is enough, or of everything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from provisioner.commands.reading import (
    Planned,
    Selection,
    ledger_of,
    plan_of,
    policy_of,
    portal_of,
    utc_now,
)
from provisioner.diagnostics import Diagnostic, warning
from provisioner.errors import ManifestsInvalid
from provisioner.files import Signature
from provisioner.ledger import Books, read_books
from provisioner.manifest.check import check
from provisioner.manifest.resolve import Resolution, resolve
from provisioner.model import Clock, Managed
from provisioner.planning.steps import CreateUser
from provisioner.portals.base import Capabilities, Portal, Snapshot, Verdict
from provisioner.watching import Watch, unwatched
from provisioner.workspace import Workspace, read_manifests, with_settings


def plan_workspace(
    workspace: Workspace,
    selection: Selection,
    clock: Clock = utc_now,
    *,
    digests: bool = False,
    cached: bool = False,
    watch: Watch = unwatched,
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
    with watch("Reading") as tell:
        declared, problems = read_manifests(workspace, digests=digests, signatures=signatures, tell=tell)
    with closing(portal_of(workspace, writing=False, clock=clock)) as portal:
        snapshot = portal.snapshot()
        books = with_interrupted(read_books(ledger_of(workspace)), portal, snapshot)
        problems.extend(check(declared, workspace.check_settings, known_companies=snapshot.state.companies))
        if any(problem.is_error for problem in problems):
            raise ManifestsInvalid("The manifests have errors; nothing was planned.", diagnostics=problems)
        resolution, whole = fitted(
            portal,
            resolve(declared, snapshot.state, books.managed, policy_of(workspace, clock, snapshot.operator)),
        )
    with watch("Planning") as tell:
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
            tell=tell,
        )
    if cached and whole and not selection:
        from provisioner.commands.replan import keep

        keep(workspace, clock, signatures, began, declared, snapshot, books, resolution, plan)
    if digests:
        declared = with_settings(declared, workspace)
    return Planned(plan, declared, complete=not selection)


def fitted(portal: Portal, resolution: Resolution) -> tuple[Resolution, bool]:
    """What this portal can hold of it, with what it cannot hold or guard named; and whether it is all."""
    desired, gaps = portal.fit(resolution.desired)
    found = [*gaps, *unguarded(portal.capabilities())]
    if (desired is resolution.desired or desired == resolution.desired) and not found:
        return resolution, True
    diagnostics = (*resolution.diagnostics, *found)
    return replace(resolution, desired=desired, diagnostics=diagnostics), False


def unguarded(can: Capabilities) -> Iterator[Diagnostic]:
    """What a second run at the same time would not be kept from."""
    risks = []
    if not can.versions:
        risks.append("overwrite what somebody else changes meanwhile")
    if not can.claims:
        risks.append("send a second welcome to the same person")
    if risks:
        yield warning(
            "unguarded",
            "This portal cannot guard against a second run at the same time, "
            f"which might {' or '.join(risks)}.",
            'Run one at a time: see "In CI" in the README.',
        )


def with_interrupted(books: Books, portal: Portal, snapshot: Snapshot) -> Books:
    """With the accounts that a dead run created and did not live to write down: they are ours too."""
    if not books.unsettled:
        return books
    accounts = {user.id: user for user in snapshot.state.users.values()}
    managed = dict(books.managed)
    for entry in books.unsettled:
        created = entry.action == CreateUser.__name__
        receipt = portal.receipt(entry.key, books.ledger) if created else None
        account = accounts.get(receipt.id) if receipt is not None else None
        if account is not None and receipt is not None:
            key = entry.address.partition(":")[2]
            through_us = receipt.verdict is Verdict.APPLIED
            managed[key] = Managed(account.id, account.email, account.phone or "", created=through_us)
    return replace(books, managed=managed)
