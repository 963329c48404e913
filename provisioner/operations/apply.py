"""Apply does exactly the plan: intend ▸ write ▸ settle, wave by wave.

A plan is its own precondition: before the first write each resource it touches must be as
planned from, as planned to, or a step in between; so running the same plan again is how an
interrupted or partly failed run is finished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

from provisioner.errors import StalePlan
from provisioner.ledger.journal import Intent, JournalEntry, LedgerEffect, Settlement
from provisioner.ledger.ledger import Ledger
from provisioner.model import (
    Address,
    Managed,
    PortalTerms,
    Resource,
    State,
    User,
    company_address,
    email_key,
    user_address,
)
from provisioner.planning.codec import canonical, step_to_json
from provisioner.planning.plan import Change, Plan, PlannedLetter, PlannedStep
from provisioner.planning.steps import CreateUser, EditProfile, Step, ValidateUser, address_of, after
from provisioner.portal import Call, Portal, Receipt, Snapshot, Verdict
from provisioner.rules import StateIndex

DONE = (Verdict.APPLIED, Verdict.ALREADY)

_ANEW = "Make a new one: provisioner plan --out FILE"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one step ended, and the sentence that says why where it did not happen."""

    step: Step
    verdict: Verdict
    problem: str = ""

    @property
    def done(self) -> bool:
        """The portal is as this step wants it."""
        return self.verdict in DONE


@dataclass(slots=True)
class _Position:
    """Where the portal stands on one resource: how many of its steps are done, and its version."""

    done: int
    id: str = ""
    version: int = 0


@dataclass(slots=True)
class Baseline:
    """The plan's addresses as the portal has them before the first write (:func:`verify_precondition`)."""

    portal: str
    terms: PortalTerms
    state: State
    positions: dict[Address, _Position] = field(default_factory=dict)


def settle_interrupted(portal: Portal, ledger: Ledger, snapshot: Snapshot) -> int:
    """Ask the portal how the steps of a run that was killed ended; returns how many had been done.

    A step the portal never received is settled as skipped: it does not happen behind the plan's back.
    """
    unsettled = ledger.snapshot().unsettled
    receipts = portal.receipts([entry.key for entry in unsettled], ledger.id)
    settlements = []
    for entry in unsettled:
        receipt = receipts.get(entry.key)
        if receipt is None or _is_of_another_account(receipt, entry, snapshot):
            settlement = Settlement(entry.key, Verdict.SKIPPED, "interrupted before the portal was asked")
        else:
            settlement = Settlement(entry.key, receipt.verdict, user_id=receipt.id)
        settlements.append(settlement)
    if settlements:
        ledger.journal.settle(settlements, snapshot.portal)
    return sum(settlement.verdict in DONE for settlement in settlements)


def _is_of_another_account(receipt: Receipt, entry: JournalEntry, snapshot: Snapshot) -> bool:
    """Whom another ledger created goes by another name today, and whoever shall have it was never made."""
    if entry.action != CreateUser.__name__ or receipt.verdict is not Verdict.ALREADY:
        return False
    holder = snapshot.state.users.get(entry.address.removeprefix("user:"))
    return holder is None or holder.id != receipt.id


def verify_precondition(
    plan: Plan,
    snapshot: Snapshot,
    managed: Mapping[str, Managed] | None = None,
    creations: Mapping[str, int] | None = None,
) -> Baseline:
    """Hold the plan against the portal as it is now. Raises :class:`StalePlan`, naming what moved.

    ``managed`` and ``creations`` are the ledger's: whose account already stands behind a name, whatever its
    e-mail reads today, and how often a name was given to a new account.
    """
    managed, creations = managed or {}, creations or {}
    if plan.portal and plan.portal != snapshot.portal:
        raise StalePlan("This plan was made for another portal.", _ANEW)
    if not plan.portal and (others := _others(plan, snapshot.state, managed)):
        raise StalePlan(
            "This plan was made when there was no portal yet, and the one that is there has more than the "
            f"plan knows: {others[0]}{f' and {len(others) - 1} more' if others[1:] else ''}.",
            _ANEW,
        )
    by_id = {user.id: user for user in snapshot.state.users.values()}
    steps = _steps_by_address(plan)
    positions: dict[Address, _Position] = {}
    moved: list[str] = []
    for change in plan.changes:
        found = _found(change, snapshot.state, by_id)
        if found is None and change.before is None and change.address.key in managed:
            found = by_id.get(managed[change.address.key].id)
        done = _steps_done(change, steps.get(change.address, ()), found)
        if done is None:
            moved.append(str(change.address))
        elif found is None:
            # a name that was given up may be given again: what is to be is another account
            positions[change.address] = _Position(done, version=creations.get(str(change.address), 0))
        else:
            positions[change.address] = _Position(done, getattr(found, "id", ""), found.version)
    if moved:
        raise StalePlan(
            f"The portal has changed since this plan was made: {', '.join(moved)}. Nothing was written.",
            "Look at what there is to do now: provisioner plan",
        )
    return Baseline(
        snapshot.portal, snapshot.terms, _on_plan_addresses(plan, snapshot.state, positions), positions
    )


def _others(plan: Plan, state: State, managed: Mapping[str, Managed]) -> list[Address]:
    """What the portal has beside what the plan makes there: nothing, where it was made for this plan."""
    planned = {change.address for change in plan.changes}
    ours = {record.id for record in managed.values()}
    found = [company_address(number) for number in state.companies]
    found += [user_address(key) for key, user in state.users.items() if user.id not in ours]
    return [address for address in found if address not in planned]


def apply_steps(
    plan: Plan, start: Baseline, portal: Portal, ledger: Ledger, stop: Callable[[], bool]
) -> Iterator[Outcome]:
    """Do what is left of the plan, yielding each outcome once it is settled.

    A step that fails skips what the rules then forbid, and nothing else. When ``stop`` says so,
    the batch in hand is finished and the rest is left undone.
    """
    census = StateIndex(start.state, start.terms)
    letters = {letter.user: letter for letter in plan.letters}
    failed: dict[Address, str] = {}
    batch = portal.capabilities().batch
    for _, wave in groupby(_left_to_do(plan, start), key=lambda planned: planned.wave):
        for chunk in _chunks(wave, batch):
            if stop():
                return
            allowed: list[tuple[Step, Resource | None]] = []
            for planned in chunk:
                address = planned.address
                before = census.get(address)
                obstacle = _obstacle(address, planned.step, before, failed, census)
                if obstacle:
                    failed.setdefault(address, obstacle)
                    yield Outcome(planned.step, Verdict.SKIPPED, obstacle)
                    continue
                allowed.append((planned.step, before))
            receipts = _write(allowed, start, letters, portal, ledger)
            for (step, before), receipt in zip(allowed, receipts, strict=True):
                address = address_of(step)
                if receipt.verdict in DONE:
                    start.positions[address] = _Position(0, receipt.id, receipt.version)
                else:
                    failed[address] = receipt.problem
                    census.place(address, before)
                yield Outcome(step, receipt.verdict, receipt.problem)


def remember_adoptions(plan: Plan, ledger: Ledger) -> None:
    """Accounts that exist already become known to the ledger."""
    ledger.accounts.adopt(
        {
            adoption.user.key: Managed(adoption.id, adoption.email, adoption.phone, adoption.created)
            for adoption in plan.adoptions
        }
    )


def unconverged_changes(plan: Plan, snapshot: Snapshot) -> list[Change]:
    """The changes whose resource, read again, is not as planned to."""
    by_id = {user.id: user for user in snapshot.state.users.values()}
    return [change for change in plan.changes if _found(change, snapshot.state, by_id) != change.after]


def step_key(portal: str, step: Step, id_: str, version: int) -> str:
    """What makes a repetition harmless: the portal, the step, whom it is done to, and from which version.

    An account is meant by its id, since its name may pass to another one. What does not exist yet has no
    id, and as its version how often it was created before.

    Never the run, the plan, the clock or chance, so that whoever repeats the step has the same key.
    """
    said = step_to_json(step)
    if id_:
        said.pop("user", None)
    words = canonical([portal, id_ or str(address_of(step)), version, said])
    return hashlib.sha256(words.encode()).hexdigest()


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
    ledger.journal.settle([Settlement(r.key, r.verdict, r.problem, r.id) for r in receipts], start.portal)
    return receipts


def effect_of(step: Step, before: Resource | None, letter: PlannedLetter | None) -> LedgerEffect:
    """What the ledger shall remember once the portal has done this step."""
    match step:
        case CreateUser():
            profile = step.profile
            owed = _words(letter) if letter and profile.status == "active" else None
            return LedgerEffect(step.user, profile.email, profile.phone or "", created=True, letter=owed)
        case ValidateUser():
            return LedgerEffect(step.user, letter=_words(letter) if letter else None)
        case EditProfile():
            was = before if isinstance(before, User) else None
            email = step.email if was is None or was.email != step.email else None
            phone = (step.phone or "") if was is None or was.phone != step.phone else None
            return LedgerEffect(step.user, email, phone)
    address = address_of(step)
    return LedgerEffect(address.key if address.kind == "user" else "")


def _words(letter: PlannedLetter) -> dict[str, object]:
    return {"recipient": letter.recipient, "language": letter.language, "context": dict(letter.context)}


def _steps_by_address(plan: Plan) -> dict[Address, list[Step]]:
    steps: dict[Address, list[Step]] = {}
    for planned in plan.steps:
        steps.setdefault(planned.address, []).append(planned.step)
    return steps


def _found(change: Change, state: State, by_id: Mapping[str, User]) -> Resource | None:
    """The resource of a change as the portal has it now, whatever its e-mail reads today."""
    if isinstance(change.after, User):
        if isinstance(change.before, User):
            return by_id.get(change.before.id)
        return state.users.get(email_key(change.after.email))
    return state.companies.get(change.address.key)


def _steps_done(change: Change, steps: Iterable[Step], found: Resource | None) -> int | None:
    """How many of the change's steps the found resource has behind it; None when it fits nowhere."""
    state = change.before
    done = 0 if found == state else None
    for count, step in enumerate(steps, start=1):
        state = after(state, step)
        if found == state:
            done = count
    return done


def _on_plan_addresses(plan: Plan, state: State, positions: Mapping[Address, _Position]) -> State:
    """The state with the plan's users under the plan's names for them."""
    names = {position.id: address.key for address, position in positions.items() if position.id}
    taken = set(names.values())
    users = {}
    for key, user in state.users.items():
        name = names.get(user.id) or (f"{key}#{user.id}" if key in taken else key)
        users[name] = user
    return State(state.companies, users)


def _left_to_do(plan: Plan, start: Baseline) -> Iterator[PlannedStep]:
    behind = {address: position.done for address, position in start.positions.items()}
    for planned in plan.steps:
        if behind[planned.address] > 0:
            behind[planned.address] -= 1
        else:
            yield planned


def _obstacle(
    address: Address, step: Step, before: Resource | None, failed: Mapping[Address, str], census: StateIndex
) -> str:
    """Why a step cannot be tried any more: its own resource failed, or a rule now forbids it.

    Without an obstacle the step is counted as done.
    """
    if address in failed:
        return f"an earlier step on {address} did not happen: {failed[address]}"
    faults = census.place(address, after(before, step))
    if not faults:
        return ""
    census.place(address, before)
    return f"{faults[0].code}: {faults[0].detail}"


def _chunks(steps: Iterable[PlannedStep], size: int) -> Iterator[list[PlannedStep]]:
    iterator = iter(steps)
    while chunk := list(islice(iterator, size)):
        yield chunk
