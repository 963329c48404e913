"""``provisioner apply``: do exactly the plan, then send the letters it earned."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from provisioner.commands.plan import read_plan, show_text, tell_unguarded
from provisioner.errors import Blocked, Cancelled, Partial, ProvisionerError, StalePlan, UsageError
from provisioner.ledger.ledger import Ledger
from provisioner.model import Clock, NoticeKind
from provisioner.operations.apply import (
    Outcome,
    apply_steps,
    remember_adoptions,
    settle_interrupted,
    unconverged_changes,
    verify_precondition,
)
from provisioner.operations.deliver import DeliveryReport, SenderProfile, check_templates, recover_outbox
from provisioner.operations.mailing import deliver, load_sender, preview_letters
from provisioner.operations.open import PARALLELISM, utc_now
from provisioner.operations.pipeline import PlannedWorkspace, Selection, plan_workspace
from provisioner.operations.session import Session, writing_session
from provisioner.planning.plan import Plan
from provisioner.planning.planfile import digest
from provisioner.portal import Portal, Snapshot, Verdict
from provisioner.render.describe import count_of, describe_step
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.terminal.progress import counting, progress
from provisioner.workspace.settings import Workspace, load_workspace, read_manifests, with_settings


@dataclass(slots=True)
class Report:
    """What a run did, counted as it goes."""

    outcomes: list[Outcome] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    letters: DeliveryReport = field(default_factory=DeliveryReport)
    stopped: bool = False

    @property
    def done(self) -> int:
        """Steps after which the portal is as wanted."""
        return sum(outcome.done for outcome in self.outcomes)

    @property
    def undone(self) -> list[Outcome]:
        """Steps that did not happen."""
        return [outcome for outcome in self.outcomes if not outcome.done]

    @property
    def exit_code(self) -> int:
        """0 when all is done, 7 in part, 8 when the person stopped it."""
        if self.stopped:
            return Cancelled.exit_code
        trouble = self.undone or self.differing or self.letters.trouble or self.letters.problem
        return Partial.exit_code if trouble else 0

    def in_words(self) -> str:
        """One line for history and for the end of the run."""
        verdicts = dict.fromkeys(Verdict, 0)
        for outcome in self.outcomes:
            verdicts[outcome.verdict] += 1
        words = [f"{count_of(self.done, 'step')} done"]
        words += [
            f"{verdicts[verdict]} {word}"
            for verdict, word in (
                (Verdict.CONFLICT, "in conflict"),
                (Verdict.FAILED, "failed"),
                (Verdict.SKIPPED, "skipped"),
            )
            if verdicts[verdict]
        ]
        words.append(f"{count_of(self.letters.sent, 'e-mail')} sent")
        if self.letters.trouble:
            words.append(f"{len(self.letters.trouble)} not sent")
        if self.stopped:
            words.append("stopped before the end")
        return ", ".join(words)


def apply(
    folder: Path,
    planfile: Path | None,
    console: Console,
    *,
    selection: Selection,
    auto_approve: bool = False,
    lock_timeout: float = 0,
    parallelism: int = PARALLELISM,
    clock: Clock = utc_now,
) -> int:
    """Apply a saved plan, or plan, show, ask and apply."""
    workspace = load_workspace(folder)
    if planfile is None:
        planned = plan_workspace(workspace, selection, clock, watch=partial(counting, console))
        show_text(planned.plan, console)
    else:
        planned = _saved(workspace, planfile, selection, console)
        tell_unguarded(planned.plan, console)
    if not planned.plan.applyable:
        raise Blocked(
            "This plan cannot be applied; nothing was written.", "Mend what it lists, then plan again."
        )
    if not _anything_to_do(planned.plan):
        return 0
    if planfile is None:
        _ask(planned.plan, console, auto_approve)
    sender = load_sender(workspace)
    check_templates(preview_letters(planned.plan, clock()), sender)
    return _run(
        workspace, planned.plan, sender, console, _command(planfile), lock_timeout, parallelism, clock
    )


def _command(planfile: Path | None) -> str:
    return "apply" if planfile is None else f"apply {planfile}"


def _saved(workspace: Workspace, planfile: Path, selection: Selection, console: Console) -> PlannedWorkspace:
    if selection:
        raise UsageError(
            "A saved plan is applied whole: --target and --exclude belong to plan.",
            f"provisioner plan --target … --out {planfile}",
        )
    _, saved = read_plan(planfile)
    with counting(console, "Reading") as tell:
        declared = with_settings(read_manifests(workspace, tell=tell)[0], workspace)
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


def _anything_to_do(plan: Plan) -> bool:
    left_behind = {NoticeKind.LETTER_OWED, NoticeKind.LETTER_UNKNOWN, NoticeKind.INTERRUPTED}
    return bool(
        plan.has_changes or plan.adoptions or any(notice.kind in left_behind for notice in plan.notices)
    )


def _ask(plan: Plan, console: Console, auto_approve: bool) -> None:
    if auto_approve or not plan.has_changes:
        return
    if not console.interactive:
        raise UsageError(
            "Nobody is here to confirm this plan.",
            "Add --auto-approve, or save it with provisioner plan --out FILE and apply FILE once reviewed.",
        )
    if not console.confirm("\nDo you want to apply these changes?"):
        raise Cancelled("Cancelled; nothing was written.")


def _run(
    workspace: Workspace,
    plan: Plan,
    sender: SenderProfile,
    console: Console,
    command: str,
    lock_timeout: float,
    parallelism: int,
    clock: Clock,
) -> int:
    with writing_session(
        workspace, command, console, lock_timeout=lock_timeout, clock=clock, parallelism=parallelism
    ) as work:
        report = _apply(workspace, plan, sender, work, console, command)
    report.stopped = work.stop()
    _conclude(report, console)
    return report.exit_code


def _apply(
    workspace: Workspace,
    plan: Plan,
    sender: SenderProfile,
    work: Session,
    console: Console,
    command: str,
) -> Report:
    ledger, portal, stop = work.ledger, work.portal, work.stop
    report = Report()
    snapshot = _taken_up(portal, ledger, console)
    parked = recover_outbox(ledger, portal, resend_unknown=workspace.mail.on_unknown == "resend")
    report.letters.trouble += parked
    start = verify_precondition(plan, snapshot, ledger.snapshot().managed, ledger.journal.creations())
    ledger.journal.begin(command, digest(plan))
    try:
        remember_adoptions(plan, ledger)
        total = len(plan.steps)
        with progress(console, "Applying", total) as shown:
            for outcome in apply_steps(plan, start, portal, ledger, stop):
                report.outcomes.append(outcome)
                shown.tell(_line(outcome, len(report.outcomes), total), good=outcome.done)
        report.stopped = stop()
        if not report.stopped:
            report.differing = [
                str(change.address) for change in unconverged_changes(plan, portal.snapshot())
            ]
            report.letters = deliver(
                workspace, ledger, portal, sender, ledger.outbox.letters("owed"), console, stop
            )
            report.letters.trouble[:0] = parked
            report.stopped = stop()
    except ProvisionerError as problem:
        console.say(f"Stopped after {count_of(report.done, 'step')}.")
        # what stopped it is told, once, and not that the ledger could not be written for the same reason
        with suppress(ProvisionerError):
            ledger.journal.end(f"{report.in_words()}; {problem.sentence}")
        raise
    ledger.journal.end(report.in_words())
    return report


def _taken_up(portal: Portal, ledger: Ledger, console: Console) -> Snapshot:
    """The portal as it is, once what an interrupted run left is settled."""
    snapshot = portal.snapshot()
    ledger.bind_portal(snapshot.portal)
    if not ledger.snapshot().unsettled:
        return snapshot
    recovered = settle_interrupted(portal, ledger, snapshot)
    if recovered:
        console.say(f"{count_of(recovered, 'step')} of an interrupted run had reached the portal; settled.")
    # a step that is asked for may be finished only then, or taken back
    return portal.snapshot()


def _line(outcome: Outcome, number: int, total: int) -> str:
    """One line a step, the same in a terminal and in CI."""
    place = f"[{number}/{total}]"
    step = printable(describe_step(outcome.step))
    if outcome.verdict is Verdict.APPLIED:
        return f"{place} {step}: done"
    if outcome.verdict is Verdict.ALREADY:
        return f"{place} {step}: was so already"
    return f"{place} {step}: {outcome.verdict} ({printable(outcome.problem)})"


def _conclude(report: Report, console: Console) -> None:
    """Done, failed, skipped and why; and the command that finishes the job."""
    if report.undone:
        console.say("\nNot done:")
        for outcome in report.undone:
            step = printable(describe_step(outcome.step))
            console.say(f"  {step}: {outcome.verdict}, {printable(outcome.problem)}")
    named = set(report.differing)
    if named and not report.undone:
        console.say(f"\nRead again, these are not as planned: {', '.join(sorted(named))}.")
    if report.letters.problem is not None:
        console.say(f"\n{report.letters.problem.sentence}\n  {report.letters.problem.remedy}")
    for delivery in report.letters.trouble[:20]:
        console.say(f"  E-mail not sent ({delivery.state}): {printable(delivery.detail)}")
    if report.exit_code:
        again = console.invocation or "provisioner apply"
        console.say(f"\nTo finish: {again} (what is done stays done, no e-mail goes out twice)")
    word = "Stopped" if report.stopped else "Applied in part" if report.exit_code else "Applied"
    console.answer(f"{word}: {report.in_words()}.")
