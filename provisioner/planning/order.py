"""The ordering of a plan's steps. A simulation finds an order in which every intermediate state is legal.

Each phase is split into waves. A step joins a wave if it is legal in the state at the start of the wave and
also in the state after the steps that joined earlier. Therefore the steps of a wave can be applied in any
order or concurrently. A step that could not join a wave is tried again in the next wave. For example, a
company's last administrator is closed one wave after the other users of the company. If a step can never join
a wave, a diagnostic names the rule that the step would violate.
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
class _RemainingSteps:
    """The steps of one change that are in no wave yet, and the violations that the next step would cause."""

    change: Change
    steps: deque[tuple[Phase, Step]]
    violations: list[Diagnostic]


def order_steps(
    changes: Iterable[Change],
    current: State,
    terms: PortalTerms,
    progress: ProgressCallback = ignore_progress,
) -> tuple[tuple[PlannedStep, ...], tuple[Diagnostic, ...]]:
    """Return the steps of the changes in a legal order, and errors for the steps that fit into no order."""
    index = StateIndex(current, terms)
    remaining = [
        _RemainingSteps(change, deque(steps_between(change.address, change.before, change.after)), [])
        for change in changes
    ]
    total = sum(len(pending.steps) for pending in remaining)
    planned: list[PlannedStep] = []
    stuck: list[_RemainingSteps] = []
    waves = 0
    for phase in PHASES:
        ready = [pending for pending in remaining if _head(pending) is phase]
        while ready:
            wave = _wave(ready, index, lambda steps: progress(len(planned) + steps, total))
            if not wave:
                stuck.extend(ready)
                remaining = [pending for pending in remaining if not pending.violations]
                break
            planned.extend(PlannedStep(step, phase, waves) for step in wave)
            waves += 1
            ready = [pending for pending in ready if _head(pending) is phase]
    return tuple(planned), tuple(_problems(stuck, index))


def _head(pending: _RemainingSteps) -> Phase | None:
    return pending.steps[0][0] if pending.steps else None


def _wave(ready: list[_RemainingSteps], index: StateIndex, progress: Callable[[int], object]) -> list[Step]:
    candidates = [pending for pending in ready if _legal_alone(pending, index)]
    balance = _Balance(index, (pending.change for pending in candidates))
    wave: list[Step] = []
    for pending in candidates:
        step = pending.steps[0][1]
        before = index.get(pending.change.address)
        wanted = after(before, step)
        if not balance.allows(before, wanted):
            continue
        pending.violations = index.put(pending.change.address, wanted)
        if pending.violations:
            index.put(pending.change.address, before)
        else:
            pending.steps.popleft()
            wave.append(step)
            progress(len(wave))
    return wave


class _Balance:
    """Checks that each company keeps an administrator (R2), whatever the order in which a wave is applied."""

    def __init__(self, index: StateIndex, changes: Iterable[Change]) -> None:
        # by company number: [administrators, standard users] after only the steps that endanger R2
        self._companies: dict[str, list[int]] = {}
        for change in changes:
            for resource in (index.get(change.address), change.after):
                if isinstance(resource, User):
                    people, administrators = index.billed_counts(resource.billed)
                    self._companies[resource.billed] = [administrators, people - administrators]

    def allows(self, before: Resource | None, wanted: Resource) -> bool:
        """If the step from ``before`` to ``wanted`` can join the wave, count the step and return True."""
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


def _legal_alone(pending: _RemainingSteps, index: StateIndex) -> bool:
    address = pending.change.address
    before = index.get(address)
    pending.violations = index.put(address, after(before, pending.steps[0][1]))
    index.put(address, before)
    return not pending.violations


def _problems(stuck: list[_RemainingSteps], index: StateIndex) -> Iterator[Diagnostic]:
    """Yield the errors of the steps that joined no wave, except R2 errors that result from another error."""
    for pending in stuck:
        index.put(pending.change.address, pending.change.after)
    impossible = {
        (violation.code, violation.address)
        for pending in stuck
        for violation in _end_violations(pending, index)
    }
    echoed = {address for pending in stuck for address in _companies_waiting_for(pending)}
    for pending in stuck:
        for violation in pending.violations:
            if violation.code == "R2" and violation.address in echoed:
                continue
            if (violation.code, violation.address) in impossible:
                yield replace(violation, source=pending.change.source)
            else:
                yield error(
                    "no-order",
                    f"Between the steps, a rule would be broken ({violation.code}): {violation.detail}",
                    "Do it in two runs: first what makes room (for example a further administrator), "
                    "then the rest.",
                    pending.change.source,
                    str(pending.change.address),
                )


def _end_violations(pending: _RemainingSteps, index: StateIndex) -> list[Diagnostic]:
    address: Address = pending.change.address
    index.put(address, pending.change.before)
    return index.put(address, pending.change.after)


def _companies_waiting_for(pending: _RemainingSteps) -> Iterator[str]:
    """If the step violates a rule other than R2, yield the addresses of the companies to which its user is
    billed before and after the change. Their R2 errors possibly result from that other violation.
    """
    if any(violation.code != "R2" for violation in pending.violations):
        for resource in (pending.change.before, pending.change.after):
            if isinstance(resource, User):
                yield str(company_address(resource.billed))
