"""The precondition for applying a plan: nothing except the plan's own steps has changed its resources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from provisioner.errors import StalePlan
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
from provisioner.planning.plan import Change, Plan, PlannedStep
from provisioner.planning.steps import Step, after
from provisioner.portal import Snapshot

_PLAN_AGAIN = "Make a new one: provisioner plan --out FILE"


@dataclass(slots=True)
class ResourceProgress:
    """The number of steps that are already done on one resource, and the id and version of the resource."""

    done: int
    id: str = ""
    version: int = 0
    """The version or, if the resource does not exist, the number of earlier creations at its address."""


@dataclass(slots=True)
class Baseline:
    """The portal before the first write. ``positions`` has the progress of each resource of the plan."""

    portal: str
    terms: PortalTerms
    state: State
    positions: dict[Address, ResourceProgress] = field(default_factory=dict)


def verify_precondition(
    plan: Plan,
    snapshot: Snapshot,
    managed: Mapping[str, Managed] | None = None,
    creations: Mapping[str, int] | None = None,
) -> Baseline:
    """Return the baseline of the plan. Raises :class:`StalePlan` if the portal is not as the plan expects.

    ``managed`` and ``creations`` come from the ledger. ``managed`` maps each user's key to the account, which
    is found by its id even if its e-mail has changed on the portal. ``creations`` maps the address of each
    user to the number of accounts that provisioner has created there so far.
    """
    managed, creations = managed or {}, creations or {}
    if plan.portal and plan.portal != snapshot.portal:
        raise StalePlan("This plan was made for another portal.", _PLAN_AGAIN)
    if not plan.portal and (others := _others(plan, snapshot.state, managed)):
        raise StalePlan(
            "This plan was made when there was no portal yet, and the one that is there has more than the "
            f"plan knows: {others[0]}{f' and {len(others) - 1} more' if others[1:] else ''}.",
            _PLAN_AGAIN,
        )
    by_id = {user.id: user for user in snapshot.state.users.values()}
    steps = _steps_by_address(plan)
    positions: dict[Address, ResourceProgress] = {}
    moved: list[str] = []
    for change in plan.changes:
        found = _found(change, snapshot.state, by_id)
        if found is None and change.before is None and change.address.key in managed:
            found = by_id.get(managed[change.address.key].id)
        done = _steps_done(change, steps.get(change.address, ()), found)
        if done is None:
            moved.append(str(change.address))
        elif found is None:
            # an address can be used again for another account, whose creation needs another idempotency key
            positions[change.address] = ResourceProgress(done, version=creations.get(str(change.address), 0))
        else:
            positions[change.address] = ResourceProgress(done, getattr(found, "id", ""), found.version)
    if moved:
        raise StalePlan(
            f"The portal has changed since this plan was made: {', '.join(moved)}. Nothing was written.",
            "Look at what there is to do now: provisioner plan",
        )
    return Baseline(
        snapshot.portal, snapshot.terms, _on_plan_addresses(plan, snapshot.state, positions), positions
    )


def unconverged_changes(plan: Plan, snapshot: Snapshot) -> list[Change]:
    """Return the changes whose resource in ``snapshot`` differs from the state that the plan requires."""
    by_id = {user.id: user for user in snapshot.state.users.values()}
    return [change for change in plan.changes if _found(change, snapshot.state, by_id) != change.after]


def remaining_steps(plan: Plan, start: Baseline) -> Iterator[PlannedStep]:
    """Yield the steps of the plan that ``start`` does not count as done, in the order of the plan."""
    behind = {address: position.done for address, position in start.positions.items()}
    for planned in plan.steps:
        if behind[planned.address] > 0:
            behind[planned.address] -= 1
        else:
            yield planned


def _others(plan: Plan, state: State, managed: Mapping[str, Managed]) -> list[Address]:
    """Return the resources on the portal that belong neither to the plan nor to the ledger."""
    planned = {change.address for change in plan.changes}
    ours = {record.id for record in managed.values()}
    found = [company_address(number) for number in state.companies]
    found += [user_address(key) for key, user in state.users.items() if user.id not in ours]
    return [address for address in found if address not in planned]


def _steps_by_address(plan: Plan) -> dict[Address, list[Step]]:
    steps: dict[Address, list[Step]] = {}
    for planned in plan.steps:
        steps.setdefault(planned.address, []).append(planned.step)
    return steps


def _found(change: Change, state: State, by_id: Mapping[str, User]) -> Resource | None:
    # an existing account is found by its id, because its e-mail may have changed on the portal
    if isinstance(change.after, User):
        if isinstance(change.before, User):
            return by_id.get(change.before.id)
        return state.users.get(email_key(change.after.email))
    return state.companies.get(change.address.key)


def _steps_done(change: Change, steps: Iterable[Step], found: Resource | None) -> int | None:
    """Return how many of the steps are done on ``found``; None if ``found`` has an unexpected state."""
    state = change.before
    done = 0 if found == state else None
    for count, step in enumerate(steps, start=1):
        state = after(state, step)
        if found == state:
            done = count
    return done


def _on_plan_addresses(plan: Plan, state: State, positions: Mapping[Address, ResourceProgress]) -> State:
    """Return ``state`` with each user of the plan under the key from the plan, not under a changed e-mail."""
    names = {position.id: address.key for address, position in positions.items() if position.id}
    taken = set(names.values())
    users = {}
    for key, user in state.users.items():
        name = names.get(user.id) or (f"{key}#{user.id}" if key in taken else key)
        users[name] = user
    return State(state.companies, users)
