"""``apply`` makes exactly the planned changes, on a real portal and ledger, also while others write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import pytest

from provisioner.embedded.portal import SqlPortal
from provisioner.errors import Locked, LockLost, StalePlan
from provisioner.ledger.journal import Intent, LedgerEffect, read_entries
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.lock import read_lock
from provisioner.ledger.outbox import letter_key
from provisioner.ledger.snapshot import read_ledger
from provisioner.mail.message import Letter
from provisioner.model import AppState, Grant, Operator, State, Welcome
from provisioner.operations.apply import Outcome, apply_steps, settle_interrupted, step_key
from provisioner.operations.precondition import unconverged_changes, verify_precondition
from provisioner.planning.plan import Plan
from provisioner.planning.planner import PlanOptions, Resolution, make_plan
from provisioner.portal import Call, Verdict
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import NOW, TERMS, TODAY, company, state, user


@dataclass(slots=True)
class World:
    """A portal and a ledger in a folder."""

    folder: Path
    portal: SqlPortal
    ledger: Ledger

    def current(self) -> State:
        return self.portal.snapshot().state

    def plan(self, desired: State, *, welcome: bool = True) -> Plan:
        """Return the plan from the portal's current state to ``desired``. Users are matched by e-mail."""
        current = self.current()
        users = {}
        for key, wanted in desired.users.items():
            before = current.users.get(key)
            users[key] = replace(wanted, id=before.id, version=before.version) if before else wanted
        companies = {**current.companies, **desired.companies}
        welcomes = {key: Welcome("fr") for key in users} if welcome else {}
        resolution = Resolution(current, State(companies, {**current.users, **users}), welcomes)
        return make_plan(resolution, self.portal.snapshot().portal, TERMS, PlanOptions("Cabinet", TODAY))

    def apply(self, plan: Plan) -> list[Outcome]:
        """Apply the plan without sending its letters."""
        settle_interrupted(self.portal, self.ledger, self.portal.snapshot())
        start = verify_precondition(plan, self.portal.snapshot())
        self.ledger.journal.begin("apply", "digest")
        return list(apply_steps(plan, start, self.portal, self.ledger, lambda: False))

    def letters(self) -> list[str]:
        return [posted.letter.recipient for posted in self.ledger.outbox.letters()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    portal = SqlPortal(
        SqliteDatabase(tmp_path / "portal.db"),
        Operator.PARTNER,
        TERMS,
        "https://portal.example.com",
        lambda: NOW,
    )
    ledger = Ledger(SqliteDatabase(tmp_path / "ledger.db"), lambda: NOW)
    with ledger.lock.hold("test"):
        ledger.bind_portal(portal.snapshot().portal)
        portal.hold(ledger.id, ledger.lock.owner, ledger.lock.fence, 60)
        yield World(tmp_path, portal, ledger)
    portal.close()
    ledger.close()


SCAN = [Grant("Scan", AppState.ACTIVE)]
ONBOARDING = state(user("ann", companies=("2",), apps=("Scan",)), user("bob", type="standard"))


def verdicts(outcomes: list[Outcome]) -> list[str]:
    return [str(outcome.verdict) for outcome in outcomes]


def test_what_was_planned_is_done_and_planning_again_finds_nothing(world: World) -> None:
    plan = world.plan(ONBOARDING)
    outcomes = world.apply(plan)
    assert set(verdicts(outcomes)) == {"applied"}
    assert unconverged_changes(plan, world.portal.snapshot()) == []
    assert world.current().users == ONBOARDING.users
    assert not world.plan(ONBOARDING).changes


def test_each_newcomer_is_owed_one_letter(world: World) -> None:
    world.apply(world.plan(ONBOARDING))
    assert sorted(world.letters()) == ["ann@example.fr", "bob@example.fr"]


def test_the_same_plan_again_does_nothing_more(world: World) -> None:
    plan = world.plan(ONBOARDING)
    world.apply(plan)
    assert world.apply(plan) == []
    assert len(world.letters()) == 2


def test_no_welcome_for_a_user_created_by_another_writer(world: World) -> None:
    plan = world.plan(ONBOARDING)
    for planned in plan.steps:
        (receipt,) = world.portal.execute([_call_for(world, planned.step)])
        assert receipt.verdict is Verdict.APPLIED
    world.apply(plan)
    assert world.letters() == []


def test_no_welcome_for_a_user_created_between_read_and_write(world: World) -> None:
    world.apply(world.plan(state(user("ann")), welcome=False))
    plan = world.plan(state(user("ann"), user("bob", type="standard")))
    start = verify_precondition(plan, world.portal.snapshot())
    world.portal.execute([_call_for(world, plan.steps[0].step)])
    world.ledger.journal.begin("apply", "digest")
    outcomes = list(apply_steps(plan, start, world.portal, world.ledger, lambda: False))
    assert verdicts(outcomes) == ["already"]
    assert world.letters() == []


def test_every_commit_is_on_the_disk_before_it_returns(world: World) -> None:
    for opened in (world.ledger._store.connection, world.portal._connection):
        (level,) = opened.execute("PRAGMA synchronous").fetchone()
        (journal,) = opened.execute("PRAGMA journal_mode").fetchone()
        assert (level, journal) == (2, "wal")


def _call_for(world: World, step: object) -> Call:
    number = getattr(step, "company", None)
    company = world.current().companies.get(str(number))
    version = company.version if company else 0
    return Call("", step, version=version)  # type: ignore[arg-type]


def test_a_plan_is_refused_when_a_resource_in_it_has_changed(world: World) -> None:
    world.apply(world.plan(ONBOARDING))
    changed = state(
        replace(ONBOARDING.users["ann@example.fr"], first_name="Anne"), user("bob", type="standard")
    )
    plan = world.plan(changed)
    account = world.current().users["ann@example.fr"]
    world.portal.user_changes_profile(account.id, phone="+33699999999")
    with pytest.raises(StalePlan, match=r"user:ann@example\.fr"):
        world.apply(plan)
    assert world.current().users["ann@example.fr"].first_name == "Ann"


def test_a_plan_is_applied_when_another_resource_has_changed(world: World) -> None:
    world.apply(world.plan(ONBOARDING))
    plan = world.plan(state(replace(ONBOARDING.users["ann@example.fr"], first_name="Anne")))
    bob = world.current().users["bob@example.fr"]
    world.portal.user_changes_profile(bob.id, phone="+33699999999")
    assert verdicts(world.apply(plan)) == ["applied"]


def test_a_write_between_read_and_write_is_a_conflict_for_that_step(world: World) -> None:
    world.apply(world.plan(ONBOARDING))
    renamed = state(*(replace(someone, first_name="New") for someone in ONBOARDING.users.values()))
    plan = world.plan(renamed)
    start = verify_precondition(plan, world.portal.snapshot())
    ann = world.current().users["ann@example.fr"]
    world.portal.user_changes_profile(ann.id, phone="+33699999999")
    world.ledger.journal.begin("apply", "digest")
    outcomes = list(apply_steps(plan, start, world.portal, world.ledger, lambda: False))
    assert sorted(verdicts(outcomes)) == ["applied", "conflict"]
    assert world.current().users["bob@example.fr"].first_name == "New"


def test_only_steps_that_depend_on_a_failed_one_are_skipped(world: World) -> None:
    desired = state(user("ann"), user("bob", type="standard"), user("cid", "2"))
    plan = world.plan(desired)
    eve = user("eve", "9", email="ann@example.fr")
    for step_plan in (world.plan(state(company("9"), user("zed", "9"))),):
        world.apply(step_plan)
    start = verify_precondition(plan, world.portal.snapshot())
    taken = world.plan(state(eve))
    world.apply(taken)
    world.ledger.journal.begin("apply", "digest")
    outcomes = list(apply_steps(plan, start, world.portal, world.ledger, lambda: False))
    verdict_of = {str(getattr(outcome.step, "user", "")): str(outcome.verdict) for outcome in outcomes}
    assert verdict_of["ann@example.fr"] == "conflict"
    assert verdict_of["bob@example.fr"] == "skipped"
    assert verdict_of["cid@example.fr"] == "applied"


def test_an_intent_the_portal_never_received_is_skipped(world: World) -> None:
    plan = world.plan(ONBOARDING)
    step = plan.steps[0].step
    key = step_key(world.portal.snapshot().portal, step, "", 0)
    run = world.ledger.journal.begin("apply", "digest")
    world.ledger.journal.intend([Intent(key, "company:1", "CreateCompany", LedgerEffect())])
    assert settle_interrupted(world.portal, world.ledger, world.portal.snapshot()) == 0
    assert [entry.verdict for entry in read_entries(SqliteDatabase(world.folder / "ledger.db"), run)] == [
        "skipped"
    ]
    assert world.current() == State()


def test_step_keys_do_not_depend_on_the_run_or_the_clock() -> None:
    step = make_plan(Resolution(State(), ONBOARDING), "p", TERMS, PlanOptions("", TODAY)).steps[0].step
    assert step_key("p", step, "", 0) == step_key("p", step, "", 0)
    assert len({step_key("p", step, "", 0), step_key("q", step, "", 0), step_key("p", step, "", 1)}) == 3


def test_steps_of_the_former_account_do_not_count_for_the_new_one_of_the_same_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step for the former account does not count as done for a new account with the same name.

    The step, the name and the version are the same. Only the id of the account differs.
    """
    ann, paul = user("ann"), user("paul", type="standard", email="compta@example.fr")
    world.apply(world.plan(state(ann, paul)))
    world.apply(world.plan(state(ann, replace(paul, apps=frozenset(SCAN)))))
    first = world.current().users["compta@example.fr"]
    world.portal.user_changes_profile(first.id, email="paul@example.fr")
    sophie = replace(paul, first_name="Sophie")
    world.apply(world.plan(state(ann, sophie)))
    plan = world.plan(state(ann, replace(sophie, apps=frozenset(SCAN))))
    with monkeypatch.context() as patch:
        patch.setattr(world.portal, "execute", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            world.apply(plan)
    assert settle_interrupted(world.portal, world.ledger, world.portal.snapshot()) == 0
    assert verdicts(world.apply(plan)) == ["applied"]
    second = world.current().users["compta@example.fr"]
    assert (second.apps, second.id != first.id) == (frozenset(SCAN), True)
    assert world.ledger.snapshot().managed["compta@example.fr"].id == second.id


def _interrupted(calls: object) -> NoReturn:
    raise KeyboardInterrupt


def test_a_letter_has_one_key_per_account_and_generation(world: World) -> None:
    """A letter has one key per account and generation. If it is enqueued twice, it is stored once."""
    for name in ("ann", "ann", "bob"):
        key = letter_key("p", f"id of {name}")
        world.ledger.outbox.enqueue(
            f"{name}@example.fr", f"id of {name}", Letter(key, f"{name}@example.fr", "fr", {}, NOW)
        )
    assert world.letters() == ["ann@example.fr", "bob@example.fr"]
    assert (
        len({letter_key("p", "1"), letter_key("q", "1"), letter_key("p", "2"), letter_key("p", "1", 2)}) == 4
    )


def test_a_held_ledger_is_refused_with_its_holder(world: World) -> None:
    other = Ledger(SqliteDatabase(world.folder / "ledger.db"), lambda: NOW)
    with pytest.raises(Locked, match="process"), other.lock.hold("apply"):
        raise AssertionError
    other.close()


def test_a_run_whose_lock_was_taken_writes_nothing_more(world: World) -> None:
    holder = read_lock(SqliteDatabase(world.folder / "ledger.db"))
    assert holder is not None
    other = Ledger(SqliteDatabase(world.folder / "ledger.db"), lambda: NOW)
    other.lock.remove(holder.id)
    other.close()
    with pytest.raises(LockLost):
        world.ledger.journal.begin("apply", "digest")


def test_planning_does_not_change_the_ledger(tmp_path: Path) -> None:
    assert read_ledger(SqliteDatabase(tmp_path / "ledger.db")).managed == {}
    assert list(tmp_path.iterdir()) == []


def test_the_files_are_private(world: World) -> None:
    for name in ("portal.db", "ledger.db"):
        assert (world.folder / name).stat().st_mode & 0o077 == 0
