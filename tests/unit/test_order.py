"""The order of steps: intermediate states keep the rules, and a change without a safe order is reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, permutations

from hypothesis import given
from hypothesis import strategies as st
from people import all_violations

from provisioner.diagnostics import Source
from provisioner.model import AppState, Company, Grant, State, Status, User, user_address
from provisioner.planning.plan import Plan
from provisioner.planning.planner import PlanOptions, Resolution, make_plan
from provisioner.planning.steps import PHASES, Phase, address_of, after
from provisioner.rules import StateIndex
from provisioner.testing.people import TERMS, TODAY, company, state, state_after, user

OPTIONS = PlanOptions("Cabinet Durand", TODAY)


def plan_of(current: State, desired: State) -> Plan:
    return make_plan(Resolution(current, desired), "portal", TERMS, OPTIONS)


def steps_of(plan: Plan) -> list[str]:
    return [f"{type(planned.step).__name__} {address_of(planned.step).key}" for planned in plan.steps]


def end_of(current: State, plan: Plan) -> State:
    """Return the state after the whole plan: ``current`` with the new values of the changed resources."""
    changed = {change.address: change.after for change in plan.changes}
    companies = {a.key: after for a, after in changed.items() if isinstance(after, Company)}
    users = {a.key: after for a, after in changed.items() if isinstance(after, User)}
    return State({**current.companies, **companies}, {**current.users, **users})


def codes_of(plan: Plan) -> list[str]:
    return [problem.code for problem in plan.diagnostics]


def test_companies_come_first_then_administrators_then_their_colleagues() -> None:
    plan = plan_of(State(), state(user("zoe", type="standard"), user("ann")))
    assert steps_of(plan) == [
        "CreateCompany 1",
        "SetBilling 1",
        "CreateUser ann@example.fr",
        "CreateUser zoe@example.fr",
    ]


def test_the_last_administrator_leaves_after_the_users_of_his_company() -> None:
    current = state(user("ann"), user("bob", type="standard"))
    desired = state(user("ann", status="closed"), user("bob", type="standard", status="closed"))
    assert steps_of(plan_of(current, desired)) == ["CloseUser bob@example.fr", "CloseUser ann@example.fr"]


def test_administrators_leave_after_the_last_standard_user() -> None:
    everybody = ("ann", "bob", "cid")
    current = state(user("ann", type="standard"), user("bob"), user("cid"))
    desired = state(
        *(
            user(name, type=str(current.users[f"{name}@example.fr"].type), status="closed")
            for name in everybody
        )
    )
    plan = plan_of(current, desired)
    assert [planned.wave for planned in plan.steps] == [0, 0, 1]
    assert steps_of(plan)[-1] == "CloseUser cid@example.fr"


def test_a_successor_is_promoted_before_his_predecessor_is_demoted() -> None:
    current = state(user("ann"), user("bob", type="standard"))
    desired = state(user("ann", type="standard"), user("bob"))
    assert steps_of(plan_of(current, desired)) == ["SetType bob@example.fr", "SetType ann@example.fr"]


def test_a_chain_of_moves_unrolls_from_its_free_end() -> None:
    current = state(user("ann", "1"), user("bob", "1", "standard"), user("cid", "2"))
    desired = state(user("ann", "2"), user("bob", "1", "standard"), user("cid", "1"))
    assert [step for step in steps_of(plan_of(current, desired)) if step.startswith("SetBilled")] == [
        "SetBilledCompany cid@example.fr",
        "SetBilledCompany ann@example.fr",
    ]


def test_two_administrators_who_would_swap_companies_have_no_safe_order() -> None:
    standing = (user("bob", "1", "standard"), user("dan", "2", "standard"))
    current = state(user("ann", "1"), user("cid", "2"), *standing)
    desired = state(user("ann", "2"), user("cid", "1"), *standing)
    plan = plan_of(current, desired)
    assert set(codes_of(plan)) == {"no-order"}
    assert not plan.applyable


def waves_of(plan: Plan) -> dict[str, int]:
    return {planned.address.key.partition("@")[0]: planned.wave for planned in plan.steps}


def test_no_move_into_company_in_the_wave_that_swaps_its_administrators() -> None:
    """R2: no user moves into a company in the wave in which the company exchanges its administrators.

    The steps of a wave have no fixed order. Bob could arrive after Ann leaves and before Cid arrives.
    """
    people = (
        user("ann", "1"), user("cid", "2"), user("dan", "2"), user("bob", "3", "standard"), user("eve", "3")
    )  # fmt: skip
    moves = {"ann": ("2", "administrator"), "cid": ("1", "administrator"), "bob": ("1", "standard")}
    for others in ((), (user("tom", "1", "standard"), user("al", "1"))):
        # should Tom and Al be there, they leave at the same time
        leaving = {someone.id: ("2", str(someone.type)) for someone in others}
        current = state(*people, *others)
        moved = [user(name, *place) for name, place in {**moves, **leaving}.items()]
        plan = plan_of(current, State(current.companies, {**current.users, **state(*moved).users}))
        moving = [planned for planned in plan.steps if planned.phase is Phase.MOVE]
        for order in permutations(step for step in moving if step.wave == moving[0].wave):
            census = StateIndex(current, TERMS)
            for planned in order:
                step = planned.step
                assert census.put(planned.address, after(census.get(planned.address), step)) == []
        assert plan.applyable


def test_who_has_to_wait_holds_up_nobody_else() -> None:
    current = state(user("ann"), user("bob"), user("zoe", type="standard"), user("eve", "2"))
    desired = state(*(replace(someone, status=Status.CLOSED) for someone in current.users.values()))
    assert waves_of(plan_of(current, desired)) == {"ann": 0, "zoe": 0, "eve": 0, "bob": 1}


def test_two_accounts_given_one_address_are_refused_with_dependents() -> None:
    """R1: if two accounts are given one address, the second account and its dependents are refused.

    Ann gets the address. Bob keeps the old address, so Cid cannot take over Bob's address.
    """
    current = state(user("ann"), user("bob"), user("cid"), user("dan"))
    users = dict(current.users)
    for name, email in (("ann", "new"), ("bob", "new"), ("cid", "bob")):
        users[f"{name}@example.fr"] = user(name, email=f"{email}@example.fr")
    plan = plan_of(current, State(current.companies, users))
    assert steps_of(plan) == ["EditProfile ann@example.fr"]
    assert {problem.address for problem in plan.errors} == {"user:bob@example.fr", "user:cid@example.fr"}


def test_problems_of_different_phases_are_all_told() -> None:
    current = state(
        user("ann", "1"),
        user("bob", "1", "standard"),
        user("cid", "2"),
        user("dan", "3"),
        user("eve", "3", "standard"),
    )
    desired = state(
        user("ann", "2"), user("bob", "1", "standard"), user("cid", "2"), user("dan", "3", "standard"),
        user("eve", "3", "standard"),
    )  # fmt: skip
    plan = plan_of(current, desired)
    assert [(problem.code, problem.address) for problem in plan.errors] == [
        ("R2", "company:1"),
        ("R2", "company:3"),
    ]


def test_a_company_left_without_administrator_is_refused_with_its_rule() -> None:
    current = state(user("ann"), user("bob", type="standard"))
    desired = state(user("ann", type="standard"), user("bob", type="standard"))
    assert codes_of(plan_of(current, desired)) == ["R2"]


def test_an_address_that_an_unmanaged_account_holds_is_refused() -> None:
    current = state(user("ann"), user("eve"))
    desired = State(current.companies, {**current.users, "new": user("eve", id="new")})
    assert codes_of(plan_of(current, desired)) == ["R1"]


def test_a_root_problem_is_not_echoed_by_those_who_depend_on_it() -> None:
    desired = state(user("ann", email="ann@durand-associes.fr"), user("bob", type="standard"))
    assert codes_of(plan_of(State(), desired)) == ["R14"]


def test_a_problem_of_another_company_is_no_echo() -> None:
    desired = state(
        user("ann", email="ann@durand-associes.fr"), user("bob", "2", "standard", companies=("1",))
    )
    assert codes_of(plan_of(State(), desired)) == ["R14", "R2"]


def test_user_who_cannot_leave_keeps_the_administrator_from_leaving() -> None:
    current = state(user("ann"), user("bob", type="standard"), user("cid", "2"))
    users = dict(current.users)
    users["ann@example.fr"] = user("ann", "2")
    users["bob@example.fr"] = user("bob", "2", "standard", email="cid@example.fr")
    assert codes_of(plan_of(current, State(current.companies, users))) == ["R1"]


def test_a_problem_stands_where_its_change_is_asked_for() -> None:
    sources = {
        user_address(f"{name}@example.fr"): Source("clients/1.yaml", line, 5)
        for line, name in enumerate(NAMES)
    }
    current = state(user("ann"), user("bob", type="standard"))
    desired = state(user("ann", type="standard"), user("bob", type="standard"))
    resolution = Resolution(current, desired, source_of=sources.get)
    [problem] = make_plan(resolution, "portal", TERMS, OPTIONS).diagnostics
    assert problem.source == sources[user_address("ann@example.fr")]


def test_what_narrows_is_done_before_what_widens() -> None:
    current = state(user("ann"), user("bob", type="standard", companies=("2",), apps=("Scan",)))
    desired = state(
        user("ann", companies=("2",), apps=("Documents",)), user("bob", type="standard", status="closed")
    )
    phases = [planned.phase for planned in plan_of(current, desired).steps]
    assert phases == sorted(phases, key=PHASES.index)
    assert phases[0] is Phase.NARROW
    assert phases[-1] is Phase.WIDEN


def test_a_family_switch_is_one_step_at_once() -> None:
    current, desired = state(user("ann")), state(user("ann", production="consultation"))
    assert steps_of(plan_of(current, desired)) == ["EditApps ann@example.fr"]


def test_a_closed_account_is_made_what_it_shall_be_before_it_is_reopened() -> None:
    current = state(user("ann"), user("bob", type="standard", companies=("2",), status="closed"))
    desired = state(user("ann"), user("bob", type="standard", companies=("3",)))
    assert [step for step in steps_of(plan_of(current, desired)) if "bob" in step][-1] == (
        "ReopenUser bob@example.fr"
    )


def test_who_awaits_validation_loses_what_he_shall_not_have_before_he_can_log_in() -> None:
    current = state(user("ann", companies=("2",), status="to_validate"))
    desired = state(user("ann"))
    assert steps_of(plan_of(current, State(current.companies, desired.users))) == [
        "EditCompanies ann@example.fr",
        "ValidateUser ann@example.fr",
    ]


NAMES = ("ann", "bob", "cid", "dan", "eve")
APPS = ("Documents", "Scan", "Achats")


@st.composite
def people(draw: st.DrawFn, *, pending: bool = True) -> User:
    name = draw(st.sampled_from(NAMES))
    statuses = ["active", "active", "closed", *(["to_validate"] if pending else [])]
    held = draw(st.sets(st.sampled_from(APPS)))
    grants = tuple(
        Grant(app, *draw(st.sampled_from([(AppState.ACTIVE, None), (AppState.ENDING, TODAY)])))
        for app in held
    )
    return user(
        name,
        draw(st.sampled_from("123")),
        draw(st.sampled_from(["administrator", "standard"])),
        companies=tuple(draw(st.sets(st.sampled_from("123")))),
        production=draw(st.sampled_from(["full", "consultation"])),
        grants=grants,
        status=draw(st.sampled_from(statuses)),
        phone=draw(st.sampled_from([None, "+33612345678"])),
    )


@st.composite
def legal_states(draw: st.DrawFn, least: Sequence[str] = ()) -> State:
    found = {someone.email: someone for someone in draw(st.lists(people(), max_size=7))}
    for email in least:
        if email not in found:
            found[email] = user(email.partition("@")[0], status="closed")
    world = state(*(company(number) for number in "123"), *found.values())
    if list(all_violations(StateIndex(world, TERMS))):
        # the first open user of each company without an administrator becomes one
        users = dict(world.users)
        for number in "123":
            billed = [key for key, someone in users.items() if someone.billed == number and someone.is_open]
            if billed and not any(users[key].is_administrator for key in billed):
                someone = users[billed[0]]
                users[billed[0]] = user(
                    someone.id, number, companies=tuple(someone.companies),
                    production=str(someone.production), grants=tuple(someone.apps),
                    status=str(someone.status),
                )  # fmt: skip
        world = State(world.companies, users)
    return world


@st.composite
def transitions(draw: st.DrawFn) -> tuple[State, State]:
    current = draw(legal_states())
    desired = draw(legal_states(least=list(current.users)))
    users = {}
    for key, someone in desired.users.items():
        before = current.users.get(key)
        if before is None and not someone.is_open:
            continue  # no user is created closed
        if before is not None and someone.status == "to_validate" and before.status != "to_validate":
            someone = user(
                someone.id, someone.billed, str(someone.type), companies=tuple(someone.companies),
                production=str(someone.production), grants=tuple(someone.apps),
            )  # fmt: skip
        if before is not None and not someone.is_open:
            someone = replace(before, status=Status.CLOSED)
        users[key] = replace(someone, apps=frozenset(_reachable(someone, before)))
    return current, State(current.companies, users)


def _reachable(someone: User, before: User | None) -> Iterator[Grant]:
    """Yield the grants that ``someone`` can have after ``before``.

    The grant of a new application becomes active, because a new application cannot end.
    """
    had = {grant.app for grant in before.apps} if before else set()
    for grant in someone.apps:
        yield grant if grant.app in had else Grant(grant.app, AppState.ACTIVE)


def test_whoever_is_validated_is_so_whatever_else_becomes_of_him() -> None:
    """A user is validated even if other steps of the plan change the user's profile and companies."""
    current = state(user("ann"), user("bob", companies=("2",), status="to_validate"))
    desired = state(user("ann"), user("bob", phone="+33612345678"))
    plan = plan_of(current, State(current.companies, desired.users))
    assert steps_of(plan) == [
        "EditProfile bob@example.fr",
        "EditCompanies bob@example.fr",
        "ValidateUser bob@example.fr",
    ]


@given(transitions())
def test_every_state_on_the_way_is_legal_and_the_end_is_as_desired(worlds: tuple[State, State]) -> None:
    current, desired = worlds
    plan = plan_of(current, desired)
    census = StateIndex(current, TERMS)
    for planned in plan.steps:
        assert census.put(planned.address, after(census.get(planned.address), planned.step)) == []
    if plan.applyable:
        assert census.state == end_of(current, plan) == desired
        assert plan_of(census.state, desired).changes == ()
    else:
        assert census.state != desired


@given(transitions(), st.randoms(use_true_random=False))
def test_the_steps_of_a_wave_may_be_done_in_any_order(worlds: tuple[State, State], chance: object) -> None:
    current, desired = worlds
    plan = plan_of(current, desired)
    census = StateIndex(current, TERMS)
    for _, wave in groupby(plan.steps, key=lambda planned: planned.wave):
        steps = list(wave)
        assert len({planned.address for planned in steps}) == len(steps)
        chance.shuffle(steps)  # type: ignore[attr-defined]
        for planned in steps:
            assert census.put(planned.address, after(census.get(planned.address), planned.step)) == []


@given(transitions())
def test_the_fold_over_a_state_is_the_fold_over_its_resources(worlds: tuple[State, State]) -> None:
    current, desired = worlds
    plan = plan_of(current, desired)
    folded = current
    for planned in plan.steps:
        folded = state_after(folded, planned.step)
    if plan.applyable:
        assert folded == desired
