"""``provisioner apply``: show the plan, ask the user, apply the plan, and report the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from provisioner.commands.letters import letter_progress, parked_at_ctrl_c, say_parked, say_trouble
from provisioner.commands.plan import show_text, warn_if_unguarded
from provisioner.errors import Blocked, Cancelled, Partial, ProvisionerError, UsageError
from provisioner.model import Clock, NoticeKind
from provisioner.operations.apply import ApplyReport, Outcome, apply_plan
from provisioner.operations.open import PARALLELISM, utc_now
from provisioner.operations.pipeline import PlannedWorkspace, plan_workspace, select_addresses
from provisioner.operations.saved_plan import load_saved_plan
from provisioner.planning.plan import Plan
from provisioner.portal import Verdict
from provisioner.render.describe import describe_step
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console, interruptible
from provisioner.terminal.progress import counting, progress
from provisioner.workspace.settings import Workspace, load_workspace


def apply(
    folder: Path,
    planfile: Path | None,
    console: Console,
    *,
    targets: Sequence[str] = (),
    excludes: Sequence[str] = (),
    auto_approve: bool = False,
    may_ask: bool = True,
    lock_timeout: float = 0,
    parallelism: int = PARALLELISM,
    clock: Clock = utc_now,
) -> int:
    """Apply the saved plan ``planfile``. If it is None, make a plan, show it, ask the user, and apply it."""
    selection = select_addresses(targets, excludes)
    workspace = load_workspace(folder)
    reading = partial(counting, console)
    if planfile is None:
        planned = plan_workspace(workspace, selection, clock, progress=reading)
        show_text(planned.plan, console)
    else:
        planned = load_saved_plan(workspace, planfile, selection, reading)
        warn_if_unguarded(planned.plan, console)
    if not planned.plan.applyable:
        raise Blocked(
            "This plan cannot be applied; nothing was written.", "Mend what it lists, then plan again."
        )
    if not (_anything_to_do(planned.plan) or _ends_restore(planned)):
        return 0
    if planfile is None and not auto_approve and planned.plan.has_changes:
        _ask(console, may_ask)
    with parked_at_ctrl_c(console, workspace), _to_finish_in_remedy(console):
        report = apply_plan(
            workspace,
            planned.plan,
            command="apply" if planfile is None else f"apply {planfile}",
            say=console.say,
            interruptible=partial(interruptible, console),
            step_progress=partial(_step_progress, console),
            letter_progress=partial(letter_progress, console),
            lock_timeout=lock_timeout,
            parallelism=parallelism,
            clock=clock,
        )
    _conclude(report, console, workspace)
    return _exit_code(report)


def _anything_to_do(plan: Plan) -> bool:
    left_behind = {NoticeKind.LETTER_OWED, NoticeKind.LETTER_UNKNOWN, NoticeKind.INTERRUPTED}
    return bool(
        plan.has_changes or plan.adoptions or any(notice.kind in left_behind for notice in plan.notices)
    )


def _ends_restore(planned: PlannedWorkspace) -> bool:
    """Return True if the ledger was restored: the end of a run ends the warning, also if nothing is to do."""
    return planned.complete and any(problem.code == "restored" for problem in planned.plan.diagnostics)


def _ask(console: Console, may_ask: bool) -> None:
    if not (may_ask and console.interactive):
        raise UsageError(
            "Nobody is here to confirm this plan.",
            "Add --auto-approve, or save it with provisioner plan --out FILE and apply FILE once reviewed.",
        )
    if not console.confirm("\nDo you want to apply these changes?"):
        raise Cancelled("Cancelled; nothing was written.")


@contextmanager
def _step_progress(console: Console, total: int) -> Iterator[Callable[[Outcome], None]]:
    with progress(console, "Applying", total) as show:
        numbers = count(1)
        yield lambda outcome: show(_line(outcome, next(numbers), total))


def _line(outcome: Outcome, number: int, total: int) -> str:
    place = f"[{number}/{total}]"
    step = printable(describe_step(outcome.step))
    if outcome.verdict is Verdict.APPLIED:
        return f"{place} {step}: done"
    if outcome.verdict is Verdict.ALREADY:
        return f"{place} {step}: was so already"
    return f"{place} {step}: {outcome.verdict} ({printable(outcome.problem)})"


def _to_finish(console: Console) -> str:
    again = console.invocation or "provisioner apply"
    return f"To finish: {again} (what is done stays done, no e-mail goes out twice)"


@contextmanager
def _to_finish_in_remedy(console: Console) -> Iterator[None]:
    """Add to the remedy of an error that ends the run halfway how to finish the run."""
    try:
        yield
    except ProvisionerError as problem:
        if problem.exit_code == Partial.exit_code:
            problem.remedy = f"{problem.remedy}\n  {_to_finish(console)}".lstrip()
        raise


def _exit_code(report: ApplyReport) -> int:
    if report.stopped:
        return Cancelled.exit_code
    return 0 if report.complete else Partial.exit_code


def _conclude(report: ApplyReport, console: Console, workspace: Workspace) -> None:
    if report.undone:
        console.say("\nNot done:")
        for outcome in report.undone:
            step = printable(describe_step(outcome.step))
            console.say(f"  {step}: {outcome.verdict}, {printable(outcome.problem)}")
    if report.differing and not report.undone:
        console.say(f"\nRead again, these are not as planned: {', '.join(sorted(set(report.differing)))}.")
    say_trouble(console, report.letters)
    say_parked(console, workspace)
    if _exit_code(report):
        console.say(f"\n{_to_finish(console)}")
    word = "Stopped" if report.stopped else "Applied in part" if _exit_code(report) else "Applied"
    console.answer(f"{word}: {report.in_words()}.")
