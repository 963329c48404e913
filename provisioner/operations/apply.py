"""Apply a plan: write its steps to the portal, wave by wave, and then send its letters.

The ledger records each step before its write (*intended*) and after its write (*settled*). Before the first
write, each resource of the plan must be in the state before its first step or in the state after one of its
steps. Therefore a second run with the same plan completes an interrupted or partly failed run. The steps of
one wave can be written in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby, islice

from provisioner.diagnostics import count_of
from provisioner.errors import Partial, ProvisionerError
from provisioner.ledger.journal import Intent, JournalEntry, LedgerEffect
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.outbox import OutboxState
from provisioner.model import Address, Clock, Managed, Resource, Status, User
from provisioner.operations.deliver import (
    DeliveryReport,
    LetterProgress,
    check_templates,
    deliver,
    load_sender,
    open_mail_transport,
    preview_letters,
    recover_outbox,
    will_send,
)
from provisioner.operations.precondition import (
    Baseline,
    ResourceProgress,
    remaining_steps,
    unconverged_changes,
    verify_precondition,
)
from provisioner.operations.session import writing_session
from provisioner.planning.codec import canonical, writer
from provisioner.planning.plan import Plan, PlannedLetter
from provisioner.planning.planfile import digest
from provisioner.planning.steps import CreateUser, EditProfile, Step, ValidateUser, address_of, after
from provisioner.portal import DONE, Call, Portal, Receipt, Snapshot, Verdict
from provisioner.rules import StateIndex
from provisioner.workspace.settings import Workspace


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one step. ``problem`` says why the step was not applied; "" if it was applied."""

    step: Step
    verdict: Verdict
    problem: str = ""

    @property
    def done(self) -> bool:
        """True if the portal now has the state that the step requires."""
        return self.verdict in DONE


@dataclass(slots=True)
class ApplyReport:
    """The results of a run of ``apply`` so far: its steps, its letters, and how it ended."""

    outcomes: list[Outcome] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    """The addresses of resources that differ from the plan when the portal is read after the last step."""
    letters: DeliveryReport = field(default_factory=DeliveryReport)
    stopped: bool = False
    """True if the user stopped the run before its end."""

    @property
    def done(self) -> int:
        """The number of steps whose result is now on the portal."""
        return sum(outcome.done for outcome in self.outcomes)

    @property
    def undone(self) -> list[Outcome]:
        """The outcomes of the steps that were not applied."""
        return [outcome for outcome in self.outcomes if not outcome.done]

    @property
    def complete(self) -> bool:
        """True if the whole plan is on the portal and each of its letters was sent."""
        trouble = self.undone or self.differing or self.letters.trouble or self.letters.problem
        return not trouble and not self.stopped

    def in_words(self) -> str:
        """Return the counts of steps and e-mails in one line, for the ledger and for the user."""
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


StepProgress = Callable[[int], AbstractContextManager[Callable[[Outcome], None]]]
"""A function that takes the number of steps and returns a context manager. The context manager is entered
before the first step, and yields a callback that is called with the outcome of each step."""


def apply_plan(
    workspace: Workspace,
    plan: Plan,
    *,
    command: str,
    say: Callable[[str], None],
    interruptible: Callable[[], AbstractContextManager[Callable[[], bool]]],
    step_progress: StepProgress,
    letter_progress: LetterProgress,
    lock_timeout: float,
    parallelism: int,
    clock: Clock,
) -> ApplyReport:
    """Apply the plan and send its letters, while no other run of the same ledger can write.

    ``command`` is the name of the run in the ledger; ``say`` prints a sentence for the user. The context
    manager ``interruptible()`` yields a function that returns True if the user asked to stop. Before any
    write, raises :class:`MailError` if letters will be sent and a template or the settings of the transport
    are broken, and :class:`StalePlan` if the portal has changed.
    """
    report = ApplyReport()
    resend_unknown = workspace.settings.mail.on_unknown == "resend"
    with load_sender(workspace) as sender:
        check_templates(preview_letters(plan, clock()), sender)
        if plan.letters:
            # opened only for its errors, which must come before the session creates a missing portal
            open_mail_transport(workspace)
        with writing_session(
            workspace,
            command,
            on_wait=say,
            interruptible=interruptible,
            lock_timeout=lock_timeout,
            clock=clock,
            parallelism=parallelism,
        ) as session:
            ledger, portal, stop = session.ledger, session.portal, session.stop
            snapshot = _read_settled(portal, ledger, say)
            if will_send(ledger, resend_unknown=resend_unknown):
                open_mail_transport(workspace)
            parked = recover_outbox(ledger, portal, resend_unknown=resend_unknown)
            report.letters.trouble += parked
            start = verify_precondition(plan, snapshot, ledger.snapshot().managed, ledger.journal.creations())
            with _recorded_run(ledger, command, plan, report, say):
                record_adoptions(plan, ledger)
                with step_progress(len(plan.steps)) as on_outcome:
                    for outcome in apply_steps(plan, start, portal, ledger, stop):
                        report.outcomes.append(outcome)
                        on_outcome(outcome)
                report.stopped = stop()
                if not report.stopped:
                    unconverged = unconverged_changes(plan, portal.snapshot())
                    report.differing = [str(change.address) for change in unconverged]
                    owed = ledger.outbox.letters(OutboxState.OWED)
                    report.letters = deliver(workspace, ledger, portal, sender, owed, letter_progress, stop)
                    report.letters.trouble[:0] = parked
                    report.stopped = stop()
    report.stopped = session.stop()
    return report


@contextmanager
def _recorded_run(
    ledger: Ledger, command: str, plan: Plan, report: ApplyReport, say: Callable[[str], None]
) -> Iterator[None]:
    ledger.journal.begin(command, digest(plan))
    try:
        yield
    except ProvisionerError as problem:
        say(f"Stopped after {count_of(report.done, 'step')}.")
        # an error while writing to the ledger must not hide the error that ends the run
        with suppress(ProvisionerError):
            ledger.journal.end(f"{report.in_words()}; {problem.sentence}")
        if problem.exit_code == ProvisionerError.exit_code and _may_have_written(report, ledger):
            problem.exit_code = Partial.exit_code
        raise
    ledger.journal.end(report.in_words())


def _may_have_written(report: ApplyReport, ledger: Ledger) -> bool:
    unsettled = False
    with suppress(ProvisionerError):
        # the portal may have received a step whose outcome this run could not read or record
        unsettled = bool(ledger.snapshot().unsettled)
    return bool(report.done or unsettled)


def _read_settled(portal: Portal, ledger: Ledger, say: Callable[[str], None]) -> Snapshot:
    """Settle the steps of an interrupted run, if there is one. Then return the portal's snapshot."""
    snapshot = portal.snapshot()
    ledger.bind_portal(snapshot.portal)
    if not ledger.snapshot().unsettled:
        return snapshot
    recovered = settle_interrupted(portal, ledger, snapshot)
    if recovered:
        say(f"{count_of(recovered, 'step')} of an interrupted run had reached the portal; settled.")
    # the request for the receipts may make a driver finish or undo an interrupted step
    return portal.snapshot()


def settle_interrupted(portal: Portal, ledger: Ledger, snapshot: Snapshot) -> int:
    """Settle the steps of an interrupted run from the portal's receipts. Return how many had been applied.

    A step that the portal never received is settled as skipped. It is applied later only if the present plan
    contains it too.
    """
    unsettled = ledger.snapshot().unsettled
    receipts = portal.receipts([entry.key for entry in unsettled], ledger.id)
    settled = []
    for entry in unsettled:
        receipt = receipts.get(entry.key)
        if receipt is None or _is_of_another_account(receipt, entry, snapshot):
            problem = "interrupted before the portal was asked"
            receipt = Receipt(entry.key, Verdict.SKIPPED, problem=problem)
        settled.append(receipt)
    if settled:
        ledger.journal.settle(settled, snapshot.portal)
    return sum(receipt.verdict in DONE for receipt in settled)


def _is_of_another_account(receipt: Receipt, entry: JournalEntry, snapshot: Snapshot) -> bool:
    """Return True if the step found an existing account, which has since lost the e-mail of ``entry``."""
    if entry.action != CreateUser.__name__ or receipt.verdict is not Verdict.ALREADY:
        return False
    holder = snapshot.state.users.get(entry.address.removeprefix("user:"))
    return holder is None or holder.id != receipt.id


def apply_steps(
    plan: Plan, start: Baseline, portal: Portal, ledger: Ledger, stop: Callable[[], bool]
) -> Iterator[Outcome]:
    """Apply the remaining steps of the plan in batches, and yield the outcome of each step.

    After a failed step, the later steps on the same resource are skipped. Steps that a rule now forbids are
    skipped too. All other steps are applied. Once ``stop`` returns True, no further batch is started.
    """
    index = StateIndex(start.state, start.terms)
    letters = {letter.user: letter for letter in plan.letters}
    failed: dict[Address, str] = {}
    batch = portal.capabilities().batch
    for _, wave in groupby(remaining_steps(plan, start), key=lambda planned: planned.wave):
        waiting = iter(wave)
        while chunk := list(islice(waiting, batch)):
            if stop():
                return
            allowed: list[tuple[Step, Resource | None]] = []
            for planned in chunk:
                address = planned.address
                before = index.get(address)
                obstacle = _obstacle(address, planned.step, before, failed, index)
                if obstacle:
                    failed.setdefault(address, obstacle)
                    yield Outcome(planned.step, Verdict.SKIPPED, obstacle)
                    continue
                allowed.append((planned.step, before))
            receipts = _write(allowed, start, letters, portal, ledger)
            for (step, before), receipt in zip(allowed, receipts, strict=True):
                address = address_of(step)
                if receipt.verdict in DONE:
                    start.positions[address] = ResourceProgress(0, receipt.id, receipt.version)
                else:
                    failed[address] = receipt.problem
                    index.put(address, before)
                yield Outcome(step, receipt.verdict, receipt.problem)


def record_adoptions(plan: Plan, ledger: Ledger) -> None:
    """Store in the ledger the existing accounts that the plan adopts."""
    ledger.adopt(
        {
            adoption.user.key: Managed(adoption.id, adoption.email, adoption.phone, adoption.created)
            for adoption in plan.adoptions
        }
    )


def step_key(portal: str, step: Step, id_: str, version: int) -> str:
    """Return the idempotency key of a step: a digest of the portal, the resource, its version and the step.

    An account is identified by ``id_``, because its e-mail may pass to another account. For a resource that
    does not exist yet, ``id_`` is empty and ``version`` is the number of earlier creations at its address.
    The run, the plan and the time are not part of the key, so a repeated step has the same key.
    """
    named = canonical([portal, id_ or str(address_of(step)), version])
    asked = writer(Step, without=("user",) if id_ else ())(step)
    return hashlib.sha256(f"{named} {asked}".encode()).hexdigest()


def _write(
    steps: Sequence[tuple[Step, Resource | None]],
    start: Baseline,
    letters: Mapping[Address, PlannedLetter],
    portal: Portal,
    ledger: Ledger,
) -> list[Receipt]:
    if not steps:
        return []
    calls = []
    intents = []
    for step, before in steps:
        address = address_of(step)
        position = start.positions[address]
        key = step_key(start.portal, step, position.id, position.version)
        calls.append(Call(key, step, position.id, position.version))
        effect = effect_of(step, before, letters.get(address))
        intents.append(Intent(key, str(address), type(step).__name__, effect))
    ledger.journal.intend(intents)
    receipts = portal.execute(calls)
    ledger.journal.settle(receipts, start.portal)
    return receipts


def effect_of(step: Step, before: Resource | None, letter: PlannedLetter | None) -> LedgerEffect:
    """Return what the ledger records after ``step`` is applied; ``before`` is the resource before the step.

    ``letter`` is the planned letter to the user of the step. It becomes owed if the step opens the account.
    """
    match step:
        case CreateUser():
            profile = step.profile
            owed = letter if profile.status is Status.ACTIVE else None
            return LedgerEffect(step.user, profile.email, profile.phone or "", created=True, letter=owed)
        case ValidateUser():
            return LedgerEffect(step.user, letter=letter)
        case EditProfile():
            was = before if isinstance(before, User) else None
            email = step.email if was is None or was.email != step.email else None
            phone = (step.phone or "") if was is None or was.phone != step.phone else None
            return LedgerEffect(step.user, email, phone)
    address = address_of(step)
    return LedgerEffect(address.key if address.kind == "user" else "")


def _obstacle(
    address: Address, step: Step, before: Resource | None, failed: Mapping[Address, str], index: StateIndex
) -> str:
    """Return why a step cannot be applied: an earlier step on its resource failed, or a rule forbids it.

    Return "" if the step can be applied. In this case, ``index`` is updated to the state after the step.
    """
    if address in failed:
        return f"an earlier step on {address} did not happen: {failed[address]}"
    faults = index.put(address, after(before, step))
    if not faults:
        return ""
    index.put(address, before)
    return f"{faults[0].code}: {faults[0].detail}"
