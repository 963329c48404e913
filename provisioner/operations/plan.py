"""The plan of a workspace: everything is read, then planned."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from provisioner.diagnostics import Diagnostic
from provisioner.errors import LedgerError, ManifestsInvalid
from provisioner.ledger.ledger import LedgerSnapshot, read_ledger
from provisioner.manifest.check import check
from provisioner.manifest.declared import Declared
from provisioner.manifest.resolve import resolve
from provisioner.model import Clock, Managed
from provisioner.operations.open import ledger_location, open_portal_for, utc_now
from provisioner.operations.pipeline import (
    PlanContext,
    PlannedWorkspace,
    Selection,
    fitted,
    plan_of,
    policy_of,
    require_known,
)
from provisioner.planning.steps import CreateUser
from provisioner.portal import Portal, Snapshot, Verdict
from provisioner.progress import ProgressFactory, no_progress
from provisioner.workspace.settings import Workspace, read_manifests, with_settings


def plan_workspace(
    workspace: Workspace,
    selection: Selection,
    clock: Clock = utc_now,
    *,
    digests: bool = False,
    watch: ProgressFactory = no_progress,
) -> PlannedWorkspace:
    """Read everything and plan. Raises :class:`ManifestsInvalid` with all problems at once,
    :class:`UsageError` where the selection names nobody.
    """
    with watch("Reading") as tell:
        declared, problems = read_manifests(workspace, digests=digests, tell=tell)
    world = _resolved(workspace, declared, problems, clock)
    require_known(selection, world)
    with watch("Planning") as tell:
        plan = plan_of(
            workspace,
            world,
            selection,
            clock,
            users_managed=len(world.books.managed),
            users_declared=len(declared.users),
            tell=tell,
        )
    if digests:
        declared = with_settings(declared, workspace)
    return PlannedWorkspace(plan, declared, complete=not selection)


def _resolved(
    workspace: Workspace, declared: Declared, problems: list[Diagnostic], clock: Clock
) -> PlanContext:
    """What is declared beside portal and ledger.

    Raises :class:`ManifestsInvalid` with all problems at once, :class:`LedgerError` beside another's portal.
    """
    with closing(open_portal_for(workspace, writing=False, clock=clock)) as portal:
        snapshot = portal.snapshot()
        books = read_ledger(ledger_location(workspace))
        if books.portal and not snapshot.portal:
            # another run may have made it between the two looks
            snapshot = portal.snapshot()
        _require_its_own(workspace, books, snapshot)
        books = with_interrupted(books, portal, snapshot)
        problems = [*problems, *check(declared, workspace.check_settings, snapshot.state.companies)]
        if any(problem.is_error for problem in problems):
            raise ManifestsInvalid("The manifests have errors; nothing was planned.", diagnostics=problems)
        policy = policy_of(workspace, clock, snapshot.operator)
        wished = resolve(declared, snapshot.state, books.managed, policy)
        resolution = fitted(workspace, portal, wished)
    return PlanContext(declared, problems, snapshot, books, resolution)


def _require_its_own(workspace: Workspace, books: LedgerSnapshot, snapshot: Snapshot) -> None:
    """What a ledger manages is managed on its own portal. Raises :class:`LedgerError`."""
    if not books.portal or books.portal == snapshot.portal:
        return
    own = "For a new portal, name a new ledger."
    if not snapshot.portal:
        raise LedgerError(
            f"There is no portal yet at {workspace.portal.url}, and the ledger belongs to one that was.",
            f"Check portal: url: in provisioner.yaml. {own}",
        )
    raise LedgerError(
        f"The ledger {workspace.ledger.url} belongs to another portal.",
        f"See portal: and ledger: in provisioner.yaml. {own}",
    )


def with_interrupted(books: LedgerSnapshot, portal: Portal, snapshot: Snapshot) -> LedgerSnapshot:
    """With the accounts that a dead run created and did not live to write down: they are ours too."""
    if not books.unsettled:
        return books
    accounts = {user.id: user for user in snapshot.state.users.values()}
    managed = dict(books.managed)
    created = [entry for entry in books.unsettled if entry.action == CreateUser.__name__]
    receipts = portal.receipts([entry.key for entry in created], books.ledger)
    for entry in created:
        receipt = receipts.get(entry.key)
        account = accounts.get(receipt.id) if receipt is not None else None
        if account is not None and receipt is not None:
            key = entry.address.partition(":")[2]
            through_us = receipt.verdict is Verdict.APPLIED
            managed[key] = Managed(account.id, account.email, account.phone or "", created=through_us)
    return replace(books, managed=managed)
