"""The order of a plan's steps, found by simulation: every intermediate state is legal.

A phase is done in waves. A step joins a wave if it is legal by itself at the start of the wave and
also after the steps that joined before it. So the steps of a wave may run side by side, and a step
that could not join is tried again in the next wave: a company's last administrator leaves after its
other users, and moves that depend on one another follow in order. A step that can never join is
reported with the rule that it would break.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from provisioner.diagnostics import Diagnostic, error
from provisioner.model import Address, PortalTerms, Resource, State, User, company_address
from provisioner.planning.plan import Change, PlannedStep
from provisioner.planning.steps import PHASES, Phase, Step, after, steps_between
from provisioner.progress import ProgressCallback, ignore_progress
from provisioner.rules import StateIndex, administrator_standing


@dataclass(slots=True)
class _Queue:
    """The remaining steps of one resource."""

    change: Change
    steps: deque[tuple[Phase, Step]]
    faults: list[Diagnostic]


def order_steps(
    changes: Iterable[Change],
    current: State,
    terms: PortalTerms,
    progress: ProgressCallback = ignore_progress,
) -> tuple[tuple[PlannedStep, ...], tuple[Diagnostic, ...]]:
    """The steps of these changes in apply order, and the problems of those that have no legal order."""
    census = StateIndex(current, terms)
    queues = [
        _Queue(change, deque(steps_between(change.address, change.before, change.after)), [])
        for change in changes
    ]
    total = sum(len(queue.steps) for queue in queues)
    planned: list[PlannedStep] = []
    stuck: list[_Queue] = []
    waves = 0
    for phase in PHASES:
        ready = [queue for queue in queues if _head(queue) is phase]
        while ready:
            wave = _wave(ready, census, lambda steps: progress(len(planned) + steps, total))
            if not wave:
                stuck.extend(ready)
                queues = [queue for queue in queues if not queue.faults]
                break
            planned.extend(PlannedStep(step, phase, waves) for step in wave)
            waves += 1
            ready = [queue for queue in ready if _head(queue) is phase]
    return tuple(planned), tuple(_problems(stuck, census))


def _head(queue: _Queue) -> Phase | None:
    return queue.steps[0][0] if queue.steps else None


def _wave(ready: list[_Queue], census: StateIndex, progress: Callable[[int], object]) -> list[Step]:
    candidates = [queue for queue in ready if _legal_alone(queue, census)]
    balance = _Balance(census, (queue.change for queue in candidates))
    wave: list[Step] = []
    for queue in candidates:
        step = queue.steps[0][1]
        before = census.get(queue.change.address)
        wanted = after(before, step)
        if not balance.allows(before, wanted):
            continue
        queue.faults = census.put(queue.change.address, wanted)
        if queue.faults:
            census.put(queue.change.address, before)
        else:
            queue.steps.popleft()
            wave.append(step)
            progress(len(wave))
    return wave


class _Balance:
    """R2 over one wave, for the worst of its orders: administrators go first, standard users come first."""

    def __init__(self, census: StateIndex, changes: Iterable[Change]) -> None:
        # administrators and standard users as the wave begins: what leaves in between does not count
        self._companies: dict[str, list[int]] = {}
        for change in changes:
            for resource in (census.get(change.address), change.after):
                if isinstance(resource, User):
                    people, administrators = census.billed_counts(resource.billed)
                    self._companies[resource.billed] = [administrators, people - administrators]

    def allows(self, before: Resource | None, wanted: Resource) -> bool:
        """Whether this step may join the wave; one that joins is counted."""
        was, is_ = administrator_standing(before), administrator_standing(wanted)
        if was == is_:
            return True
        moves = []
        if was is not None and was[1]:
            moves.append((was[0], 0))
        if is_ is not None and not is_[1]:
            moves.append((is_[0], 1))
        for number, side in moves:
            self._companies[number][side] += 1 if side else -1
        if all(self._keeps_one(number) for number, _ in moves):
            return True
        for number, side in moves:
            self._companies[number][side] -= 1 if side else -1
        return False

    def _keeps_one(self, number: str) -> bool:
        administrators, standard = self._companies[number]
        return administrators > 0 or standard == 0


def _legal_alone(queue: _Queue, census: StateIndex) -> bool:
    address = queue.change.address
    before = census.get(address)
    queue.faults = census.put(address, after(before, queue.steps[0][1]))
    census.put(address, before)
    return not queue.faults


def _problems(stuck: list[_Queue], census: StateIndex) -> Iterator[Diagnostic]:
    """The violations of the steps that never joined, without those that follow from others."""
    for queue in stuck:
        census.put(queue.change.address, queue.change.after)
    impossible = {(fault.code, fault.address) for queue in stuck for fault in _end_faults(queue, census)}
    echoed = {address for queue in stuck for address in _companies_waiting_for(queue)}
    for queue in stuck:
        for fault in queue.faults:
            if fault.code == "R2" and fault.address in echoed:
                continue
            if (fault.code, fault.address) in impossible:
                yield replace(fault, source=queue.change.source)
            else:
                yield error(
                    "no-order",
                    f"Between the steps, a rule would be broken ({fault.code}): {fault.detail}",
                    "Do it in two runs: first what makes room (for example a further administrator), "
                    "then the rest.",
                    queue.change.source,
                    str(queue.change.address),
                )


def _end_faults(queue: _Queue, census: StateIndex) -> list[Diagnostic]:
    """The violations that remain after all steps."""
    address: Address = queue.change.address
    census.put(address, queue.change.before)
    return census.put(address, queue.change.after)


def _companies_waiting_for(queue: _Queue) -> Iterator[str]:
    """Companies that may lack an administrator only because this user does not move."""
    if any(fault.code != "R2" for fault in queue.faults):
        for resource in (queue.change.before, queue.change.after):
            if isinstance(resource, User):
                yield str(company_address(resource.billed))
