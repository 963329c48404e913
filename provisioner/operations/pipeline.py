"""The planning pipeline, which makes a plan from files: read, check, resolve, project, plan.

Only :func:`plan_workspace` makes a plan of a workspace. Each run reads all files, the portal and the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from provisioner.diagnostics import Diagnostic, error, warning
from provisioner.errors import LedgerError, ManifestsInvalid, UsageError
from provisioner.ledger.outbox import OutboxState
from provisioner.ledger.snapshot import LedgerSnapshot, read_ledger
from provisioner.manifest.check import check
from provisioner.manifest.declared import Declared
from provisioner.manifest.resolve import Policy, resolve
from provisioner.model import (
    Address,
    Clock,
    Managed,
    Notice,
    NoticeKind,
    State,
    email_key,
    paris_date,
    user_address,
)
from provisioner.operations.open import ledger_location, missing_drivers, open_portal_for, utc_now
from provisioner.planning.plan import Limits, Plan
from provisioner.planning.planner import PlanOptions, Resolution, make_plan, select
from provisioner.planning.steps import CreateUser
from provisioner.portal import Capabilities, Portal, Snapshot, Verdict
from provisioner.progress import ProgressFactory, no_progress
from provisioner.spelling import did_you_mean, near_dossier
from provisioner.workspace.settings import Workspace, read_manifests, with_settings


@dataclass(frozen=True, slots=True)
class Selection:
    """The addresses given with ``--target`` and ``--exclude``. An empty selection is falsy."""

    targets: frozenset[Address] = frozenset()
    excludes: frozenset[Address] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.targets or self.excludes)


@dataclass(frozen=True, slots=True)
class PlannedWorkspace:
    """A plan and its manifests. ``complete`` is False if ``--target`` or ``--exclude`` restrict the plan."""

    plan: Plan
    declared: Declared
    complete: bool


def select_addresses(targets: Iterable[str], excludes: Iterable[str]) -> Selection:
    """Parse the values of ``--target`` and ``--exclude``. Raises :class:`UsageError` for an invalid value."""
    return Selection(_parse_addresses(targets), _parse_addresses(excludes))


def _parse_addresses(words: Iterable[str]) -> frozenset[Address]:
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
    """Read the manifests, the portal and the ledger, and make a plan.

    ``digests`` says whether to compute the digests of the manifests, which a saved plan contains. Raises
    :class:`ManifestsInvalid` with all problems at once, :class:`UsageError` if an address of ``selection`` is
    unknown, and :class:`LedgerError` if the ledger belongs to another portal.
    """
    with progress("Reading") as report:
        declared, problems = read_manifests(workspace, digests=digests, tell=report)
    with closing(open_portal_for(workspace, writing=False, clock=clock)) as portal:
        snapshot, ledger = _read_portal_and_ledger(workspace, portal)
        problems = [*missing_drivers(workspace), *problems]
        problems = _require_valid(workspace, declared, problems, snapshot)
        policy = _policy(workspace, clock, snapshot)
        resolution = resolve(declared, snapshot.state, ledger.managed, policy)
        resolution = _project(workspace, portal, resolution)
    _require_known(selection, declared, snapshot, resolution)
    narrowed = select(resolution, selection.targets, selection.excludes)
    gaps = _missing_terms(workspace, snapshot, narrowed.desired)
    narrowed = replace(
        narrowed,
        notices=(*narrowed.notices, *_letter_notices(ledger), *_interrupted_notices(ledger)),
        diagnostics=(*_restored(ledger), *problems, *narrowed.diagnostics, *gaps),
    )
    limits = Limits(workspace.settings.safety.max_closures, workspace.settings.safety.max_closures_percent)
    options = PlanOptions(workspace.settings.firm.name, policy.today, limits)
    with progress("Planning") as report:
        plan = make_plan(narrowed, snapshot.portal, snapshot.terms, options, report)
    if digests:
        declared = with_settings(declared, workspace)
    return PlannedWorkspace(plan, declared, complete=not selection)


# --- read ---


def _read_portal_and_ledger(workspace: Workspace, portal: Portal) -> tuple[Snapshot, LedgerSnapshot]:
    snapshot = portal.snapshot()
    ledger = read_ledger(ledger_location(workspace))
    if ledger.portal and not snapshot.portal:
        # another run may have created the portal between the two reads
        snapshot = portal.snapshot()
    _require_same_portal(workspace, ledger, snapshot)
    return snapshot, _with_interrupted(ledger, portal, snapshot)


def _require_same_portal(workspace: Workspace, ledger: LedgerSnapshot, snapshot: Snapshot) -> None:
    if not ledger.portal or ledger.portal == snapshot.portal:
        return
    own = "For a new portal, name a new ledger."
    if not snapshot.portal:
        raise LedgerError(
            f"There is no portal yet at {workspace.settings.portal.url}, and the ledger belongs to one "
            "that was.",
            f"Check portal: url: in provisioner.yaml. {own}",
        )
    raise LedgerError(
        f"The ledger {workspace.settings.ledger.url} belongs to another portal.",
        f"See portal: and ledger: in provisioner.yaml. {own}",
    )


def _with_interrupted(ledger: LedgerSnapshot, portal: Portal, snapshot: Snapshot) -> LedgerSnapshot:
    """Return ``ledger`` with the accounts that an interrupted run created but did not record."""
    if not ledger.unsettled:
        return ledger
    accounts = {user.id: user for user in snapshot.state.users.values()}
    managed = dict(ledger.managed)
    created = [entry for entry in ledger.unsettled if entry.action == CreateUser.__name__]
    receipts = portal.receipts([entry.key for entry in created], ledger.id)
    for entry in created:
        receipt = receipts.get(entry.key)
        account = accounts.get(receipt.id) if receipt is not None else None
        if account is not None and receipt is not None:
            key = entry.address.partition(":")[2]
            through_us = receipt.verdict is Verdict.APPLIED
            managed[key] = Managed(account.id, account.email, account.phone or "", created=through_us)
    return replace(ledger, managed=managed)


def _restored(ledger: LedgerSnapshot) -> Iterator[Diagnostic]:
    """Yield a warning if the ledger was restored from a backup and no run has ended since."""
    if ledger.backup:
        yield warning(
            "restored",
            f"The ledger was restored from the backup of {ledger.backup}, and knows nothing of what was done "
            "after that. If the portal was restored too, the accounts created after that are created and "
            "welcomed a second time. If not, they are adopted without a welcome.",
            "Look at each account that this plan adds or adopts. To send a welcome that an adopted account "
            "did not get: provisioner mail send USER",
        )


# --- check ---


def _require_valid(
    workspace: Workspace, declared: Declared, problems: list[Diagnostic], snapshot: Snapshot
) -> list[Diagnostic]:
    problems = [*problems, *check(declared, workspace.settings, snapshot.state.companies)]
    if any(problem.is_error for problem in problems):
        raise ManifestsInvalid("The manifests have errors; nothing was planned.", diagnostics=problems)
    return problems


def _require_known(
    selection: Selection, declared: Declared, snapshot: Snapshot, resolution: Resolution
) -> None:
    # otherwise a mistyped --target would select nothing, and a mistyped --exclude would exclude nothing
    companies = {*declared.companies, *resolution.desired.companies}
    users = {*declared.users, *resolution.desired.users}
    unknown = []
    for address in sorted({*selection.targets, *selection.excludes}):
        if address.key in (companies if address.kind == "company" else users):
            continue
        if address.kind == "company":
            hint = near_dossier(address.key, companies)
        else:
            hint = _name_in_plan(address.key, snapshot, resolution) or did_you_mean(address.key, users)
        unknown.append(f"The plan knows no {address}.{hint}")
    if unknown:
        raise UsageError("\n".join(unknown), "Write --target and --exclude as the plan names them.")


def _name_in_plan(email: str, snapshot: Snapshot, resolution: Resolution) -> str:
    """Return a hint: the plan's key of the account with this e-mail. Return "" if no account has it."""
    account = snapshot.state.users.get(email)
    users = resolution.current.users
    named = next((key for key, user in users.items() if account and user.id == account.id), None)
    return f' Did you mean "{named}"?' if named else ""


# --- resolve ---


def _policy(workspace: Workspace, clock: Clock, snapshot: Snapshot) -> Policy:
    return Policy(
        operator=snapshot.operator or workspace.settings.portal.operator,
        today=paris_date(clock()),
        close_absent=workspace.settings.safety.absent == "close",
        restore=workspace.settings.safety.self_service == "restore",
        welcome=workspace.settings.mail.welcome == "ours",
    )


# --- project ---


def _project(workspace: Workspace, portal: Portal, resolution: Resolution) -> Resolution:
    """Reduce the desired state to what the portal can store. Add diagnostics for missing capabilities."""
    capabilities = portal.capabilities()
    desired, gaps = portal.project(resolution.desired)
    found = [*gaps, *_unguarded(capabilities), *_without_welcome(workspace, capabilities)]
    return replace(resolution, desired=desired, diagnostics=(*resolution.diagnostics, *found))


def _unguarded(capabilities: Capabilities) -> Iterator[Diagnostic]:
    risks = []
    if not capabilities.versions:
        risks.append("overwrite what somebody else changes meanwhile")
    if not capabilities.claims:
        risks.append("send a second welcome to the same person")
    if risks:
        yield warning(
            "unguarded",
            "This portal cannot guard against a second run at the same time, "
            f"which might {' or '.join(risks)}.",
            "Make sure that one run at a time applies: in GitLab with resource_group, in GitHub Actions with "
            "concurrency.",
        )


def _without_welcome(workspace: Workspace, capabilities: Capabilities) -> Iterator[Diagnostic]:
    if workspace.settings.mail.welcome == "portal" and capabilities.activation_links:
        yield error(
            "welcome-by-portal",
            "The welcome e-mails are left to the portal, and this portal sends none.",
            "Write welcome: ours, or welcome: none.",
            workspace.positions.source("mail", "welcome"),
        )


# --- plan ---


def _missing_terms(workspace: Workspace, snapshot: Snapshot, desired: State) -> Iterator[Diagnostic]:
    configure = "If your catalogue is right, tell the portal: provisioner portal configure"
    for app in sorted(workspace.settings.terms.apps - snapshot.terms.apps):
        if any(grant.app == app for user in desired.users.values() for grant in user.apps):
            yield error("portal-missing", f"The portal does not offer the application {app!r}.", configure)
    for offer in sorted(workspace.settings.terms.offers - snapshot.terms.offers):
        if any(c.billing and c.billing.offer == offer for c in desired.companies.values()):
            yield error("portal-missing", f"The portal does not have the offer {offer!r}.", configure)


def _letter_notices(ledger: LedgerSnapshot) -> Iterator[Notice]:
    kinds = {OutboxState.UNKNOWN: NoticeKind.LETTER_UNKNOWN, OutboxState.FAILED: NoticeKind.LETTER_FAILED}
    for posted in ledger.open_letters:
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


def _interrupted_notices(ledger: LedgerSnapshot) -> Iterator[Notice]:
    """Yield a notice for each step of an interrupted run whose outcome is not known yet."""
    for entry in ledger.unsettled:
        kind, _, key = entry.address.partition(":")
        yield Notice(
            NoticeKind.INTERRUPTED,
            Address(kind, key),
            f"Run {ledger.unsettled[0].run} was interrupted during {entry.action} of {entry.address}; "
            "the next apply first asks the portal how it ended.",
        )
