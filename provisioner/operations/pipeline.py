"""The planning pipeline, from files to a plan: read, check, resolve, project, plan.

:func:`plan_workspace` is the only way from a workspace to a plan. Everything is read on every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from provisioner.diagnostics import Diagnostic, error, warning
from provisioner.errors import LedgerError, ManifestsInvalid, UsageError
from provisioner.ledger.outbox_state import OutboxState
from provisioner.ledger.snapshot import LedgerSnapshot, read_ledger
from provisioner.manifest.check import check
from provisioner.manifest.declared import Declared
from provisioner.manifest.fields import did_you_mean, near_dossier
from provisioner.manifest.resolve import Policy, resolve
from provisioner.model import (
    Address,
    Clock,
    Managed,
    Notice,
    NoticeKind,
    Operator,
    State,
    email_key,
    paris_date,
    user_address,
)
from provisioner.operations.open import ledger_location, open_portal_for, utc_now
from provisioner.planning.plan import Limits, Plan
from provisioner.planning.planner import PlanOptions, Resolution, make_plan, select
from provisioner.planning.steps import CreateUser
from provisioner.portal import Capabilities, Portal, Snapshot, Verdict
from provisioner.progress import ProgressCallback, ProgressFactory, ignore_progress, no_progress
from provisioner.workspace.settings import Workspace, read_manifests, with_settings


@dataclass(frozen=True, slots=True)
class Selection:
    """``--target`` and ``--exclude``."""

    targets: frozenset[Address] = frozenset()
    excludes: frozenset[Address] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.targets or self.excludes)


@dataclass(frozen=True, slots=True)
class PlanContext:
    """Everything that a plan is made of: read, and resolved against one another."""

    declared: Declared
    problems: Sequence[Diagnostic]
    snapshot: Snapshot
    books: LedgerSnapshot
    resolution: Resolution


@dataclass(frozen=True, slots=True)
class PlannedWorkspace:
    """A plan with what it was made from."""

    plan: Plan
    declared: Declared
    complete: bool


def parse_addresses(words: Iterable[str]) -> frozenset[Address]:
    """``company:004217`` and ``user:claire@example.fr`` as addresses. Raises :class:`UsageError`."""
    addresses = set()
    for word in words:
        kind, colon, key = word.partition(":")
        if not colon or kind not in ("company", "user") or not key:
            raise UsageError(
                f"{word!r} is no address.", "Write company:NUMBER or user:E-MAIL, as the plan does."
            )
        addresses.add(Address(kind, email_key(key) if kind == "user" else key))
    return frozenset(addresses)


def plan_workspace(
    workspace: Workspace,
    selection: Selection,
    clock: Clock = utc_now,
    *,
    digests: bool = False,
    progress: ProgressFactory = no_progress,
) -> PlannedWorkspace:
    """Read everything and plan. Raises :class:`ManifestsInvalid` with all problems at once,
    :class:`UsageError` where the selection names nobody.
    """
    with progress("Reading") as tell:
        declared, problems = read_manifests(workspace, digests=digests, tell=tell)
    world = _resolved(workspace, declared, problems, clock)
    require_known(selection, world)
    with progress("Planning") as tell:
        plan = plan_of(workspace, world, selection, clock, tell)
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
        problems = [*problems, *check(declared, workspace.settings, snapshot.state.companies)]
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


def require_known(selection: Selection, world: PlanContext) -> None:
    """A target that is nobody would select nothing, and an exclude that is nobody everything.

    Raises :class:`UsageError`, naming each of them.
    """
    declared, desired = world.declared, world.resolution.desired
    companies = {*declared.companies, *desired.companies}
    users = {*declared.users, *desired.users}
    unknown = []
    for address in sorted({*selection.targets, *selection.excludes}):
        if address.key in (companies if address.kind == "company" else users):
            continue
        if address.kind == "company":
            hint = near_dossier(address.key, companies)
        else:
            hint = _other_name(address.key, world) or did_you_mean(address.key, users)
        unknown.append(f"The plan knows no {address}.{hint}")
    if unknown:
        raise UsageError("\n".join(unknown), "Write --target and --exclude as the plan names them.")


def _other_name(email: str, world: PlanContext) -> str:
    """How a plan names the account that has this e-mail on the portal, where a user changed his own."""
    account = world.snapshot.state.users.get(email)
    users = world.resolution.current.users
    named = next((key for key, user in users.items() if account and user.id == account.id), None)
    return f' Did you mean "{named}"?' if named else ""


def policy_of(workspace: Workspace, clock: Clock, operator: Operator | None = None) -> Policy:
    """What of provisioner.yaml decides how manifests are read against the portal, and the day.

    ``operator`` is whose rights we have, where the portal says so.
    """
    return Policy(
        operator=operator or workspace.portal.operator,
        today=paris_date(clock()),
        close_absent=workspace.safety.absent == "close",
        restore=workspace.safety.self_service == "restore",
        welcome=workspace.mail.welcome == "ours",
    )


def fitted(workspace: Workspace, portal: Portal, resolution: Resolution) -> Resolution:
    """What this portal can hold of it; diagnostics name what it cannot hold, guard or send."""
    can = portal.capabilities()
    desired, gaps = portal.project(resolution.desired)
    found = [*gaps, *unguarded(can), *_unsent(workspace, can)]
    diagnostics = (*resolution.diagnostics, *found)
    return replace(resolution, desired=desired, diagnostics=diagnostics)


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


def _unsent(workspace: Workspace, can: Capabilities) -> Iterator[Diagnostic]:
    """That the welcome is left to a portal which makes links for ours."""
    if workspace.mail.welcome == "portal" and can.activation_links:
        yield error(
            "welcome-by-portal",
            "The welcome e-mails are left to the portal, and this portal sends none.",
            "Write welcome: ours, or welcome: none.",
            workspace.places.source("mail", "welcome"),
        )


def plan_of(
    workspace: Workspace,
    world: PlanContext,
    selection: Selection,
    clock: Clock,
    tell: ProgressCallback = ignore_progress,
) -> Plan:
    """The plan of what was read."""
    snapshot = world.snapshot
    narrowed = select(world.resolution, selection.targets, selection.excludes)
    gaps = _portal_gaps(workspace, snapshot, narrowed.desired)
    resolution = replace(
        narrowed,
        notices=(*narrowed.notices, *_book_notices(world.books)),
        diagnostics=(*world.problems, *narrowed.diagnostics, *gaps),
    )
    limits = Limits(workspace.safety.max_closures, workspace.safety.max_closures_percent)
    options = PlanOptions(workspace.firm.name, paris_date(clock()), limits)
    return make_plan(resolution, snapshot.portal, snapshot.terms, options, tell)


def _portal_gaps(workspace: Workspace, snapshot: Snapshot, desired: State) -> Iterable[Diagnostic]:
    """What the catalogue has and this portal does not offer."""
    configure = "If your catalogue is right, tell the portal: provisioner portal configure"
    for app in sorted(workspace.terms.apps - snapshot.terms.apps):
        if any(grant.app == app for user in desired.users.values() for grant in user.apps):
            yield error("portal-missing", f"The portal does not offer the application {app!r}.", configure)
    for offer in sorted(workspace.terms.offers - snapshot.terms.offers):
        if any(c.billing and c.billing.offer == offer for c in desired.companies.values()):
            yield error("portal-missing", f"The portal does not have the offer {offer!r}.", configure)


def _book_notices(books: LedgerSnapshot) -> Iterable[Notice]:
    kinds = {OutboxState.UNKNOWN: NoticeKind.LETTER_UNKNOWN, OutboxState.FAILED: NoticeKind.LETTER_FAILED}
    for posted in books.open_letters:
        kind = kinds.get(posted.state, NoticeKind.LETTER_OWED)
        words = {
            NoticeKind.LETTER_UNKNOWN: f"may or may not have arrived ({posted.detail}). "
            f"To decide: provisioner mail settle {posted.user} --sent or --resend",
            NoticeKind.LETTER_FAILED: f"was refused for good ({posted.detail}). "
            f"Once mended: provisioner mail send {posted.user}",
            NoticeKind.LETTER_OWED: "is owed from an earlier run; apply, or provisioner mail send, sends it.",
        }[kind]
        yield Notice(
            kind, user_address(posted.user), f"The welcome e-mail to {posted.letter.recipient} {words}"
        )
    if books.unsettled:
        run = books.unsettled[0].run
        for entry in books.unsettled:
            kind_, _, key = entry.address.partition(":")
            yield Notice(
                NoticeKind.INTERRUPTED,
                Address(kind_, key),
                f"Run {run} was interrupted during {entry.action} of {entry.address}; "
                "the next apply first asks the portal how it ended.",
            )
