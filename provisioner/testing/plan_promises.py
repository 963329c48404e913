"""The promises of a driver about whole plans, and the comparison with the reference portal."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from provisioner.errors import StalePlan
from provisioner.ledger.journal import Intent, LedgerEffect, read_entries
from provisioner.ledger.ledger import Ledger
from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Grant,
    Operator,
    Production,
    State,
    Status,
    UserType,
    Welcome,
    month_end,
)
from provisioner.operations.apply import apply_steps, settle_interrupted
from provisioner.operations.precondition import unconverged_changes, verify_precondition
from provisioner.planning.plan import Plan
from provisioner.planning.planner import PlanOptions, Resolution, make_plan
from provisioner.planning.steps import (
    CloseUser,
    CompanyStep,
    CreateCompany,
    CreateUser,
    EditApps,
    EditCompanies,
    EditCompany,
    EditProfile,
    ReopenUser,
    SetBilledCompany,
    SetBilling,
    SetType,
    Step,
    ValidateUser,
)
from provisioner.portal import Call, Portal, Verdict
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import (
    ESSENTIEL,
    NOW,
    PUBLIC_URL,
    TERMS,
    TODAY,
    company,
    state,
    user,
)
from provisioner.testing.reference_portal import MemoryPortal
from provisioner.testing.strategies import states
from provisioner.testing.world import (
    CLAIMS,
    COUNTED,
    LEASES,
    RECEIPTS,
    RULES,
    VERSIONS,
    WHOLE,
    Desk,
    Promises,
    World,
    needs,
    require,
    same_state,
    verdict,
)

APPLIED, ALREADY, CONFLICT, FAILED = Verdict.APPLIED, Verdict.ALREADY, Verdict.CONFLICT, Verdict.FAILED

FIRST = state(
    user("ann", companies=("2",), apps=("Scan",), phone="+33612345678"),
    user("bob", type="standard", production="consultation"),
    user("cid", "2"),
    user("dan", "2", "standard", status="to_validate"),
)


SECOND = state(
    user("ann", type="standard", apps=("Documents",)),
    user("bob", apps=("Scan",)),
    user("cid", "3", companies=("2",)),
    user("dan", "2", "administrator"),
    user("eve", "3", "standard"),
    company("3", billing=Billing(BillingMode.FIRM, "Confort")),
)


THIRD = state(
    user("bob", companies=("3",), production="consultation"),
    user("cid", "3", companies=("1",), apps=("Achats",)),
    user("eve", "3", "standard", status="closed"),
    company("1", name="Another name"),
)


def plan_to(portal: Portal, desired: State, *, welcomed: Collection[str] = ()) -> Plan:
    """Return the plan to reach ``desired``. Resources that ``desired`` lacks stay unchanged.

    ``welcomed`` has the keys of the users who get a welcome letter.
    """
    snapshot = portal.snapshot()
    users = {**snapshot.state.users}
    for key, wanted in desired.users.items():
        before = users.get(key)
        users[key] = replace(wanted, id=before.id, version=before.version) if before else wanted
    fitted, _ = portal.project(State({**snapshot.state.companies, **desired.companies}, users))
    welcomes = {key: Welcome("fr") for key in welcomed}
    resolution = Resolution(snapshot.state, fitted, welcomes)
    return make_plan(resolution, snapshot.portal, TERMS, PlanOptions("Cabinet", TODAY))


def carried_out(plan: Plan, portal: Portal, ledger: Ledger) -> set[str]:
    """Apply a whole plan and return the verdicts of its steps."""
    ledger.journal.begin("apply", "digest")
    start = verify_precondition(
        plan, portal.snapshot(), ledger.snapshot().managed, ledger.journal.creations()
    )
    return {str(outcome.verdict) for outcome in apply_steps(plan, start, portal, ledger, lambda: False)}


def simplified(found: State) -> State:
    """Return the state, changed so that it breaks no rule on any day.

    All users and applications are active, and all companies are billed.
    """
    users = {
        key: replace(
            someone,
            status=Status.ACTIVE,
            apps=frozenset(Grant(grant.app, AppState.ACTIVE) for grant in someone.apps),
        )
        for key, someone in found.users.items()
    }
    companies = {
        number: replace(one, billing=one.billing or ESSENTIEL) for number, one in found.companies.items()
    }
    return State(companies, users)


NAMES = ("ann", "bob", "cid", "dan", "eve", "fay")


def some_steps(chance: random.Random, found: State) -> list[tuple[int, Step]]:
    """Draw one to six steps on different resources. Some of the steps may break rules."""
    names = chance.sample(NAMES, chance.randint(1, 5))
    steps: list[Step] = [_some_step(chance, f"{name}@example.fr", found) for name in names]
    if chance.random() < 0.4:
        number = chance.choice("1234")
        possible: list[Step] = [
            CreateCompany(number, f"Company {number}"),
            EditCompany(number, chance.choice(["One", "Two"])),
            SetBilling(number, Billing(BillingMode.FIRM, chance.choice(["Essentiel", "Luxe"]))),
        ]
        steps.append(chance.choice(possible))
    return list(enumerate(steps))


def _some_step(chance: random.Random, key: str, found: State) -> Step:
    name = key.partition("@")[0]
    number = chance.choice("1123")
    kind = UserType(chance.choice(["administrator", "standard"]))
    if key not in found.users:
        status = chance.choice(["active", "active", "to_validate"])
        email = chance.choice([key, key, key, f"{chance.choice(NAMES)}@example.fr"])
        return CreateUser(key, user(name, number, str(kind), status=status, email=email))
    apps = tuple(chance.sample(["Scan", "Documents", "Achats", "Luxe"], 2))
    possible: list[Step] = [
        CloseUser(key),
        ReopenUser(key),
        ValidateUser(key),
        SetType(key, kind),
        SetBilledCompany(key, number, kind),
        EditCompanies(key, add=(number,), remove=(chance.choice("123"),)),
        EditApps(key, grant=apps[:1], end=apps[1:], ends=month_end(TODAY)),
        EditApps(key, production=Production(chance.choice(["full", "consultation"])), remove=apps),
        EditProfile(key, key, chance.choice(["Ann", "Bob"]), "Martin", None),
    ]
    return chance.choice(possible)


def aimed(step: Step, found: State, key: str, stale: bool) -> Call:
    """Return the call for ``step``, with the id and the version that the resource has in ``found``.

    If ``stale`` is true, the call has an older version.
    """
    if isinstance(step, CreateCompany | CreateUser):
        return Call(key, step)
    if isinstance(step, CompanyStep):
        known = found.companies.get(step.company)
        return Call(key, step, "", (known.version if known else 0) - stale)
    someone = found.users[step.user]
    return Call(key, step, someone.id, someone.version - stale)


class PlanPromises(Promises):
    """The promises about plans that are applied to the portal, alone or at the same time as other runs."""

    def test_applied_plan_leaves_nothing_to_plan(self, world: World, tmp_path: Path) -> None:
        portal = world.portal()
        ledger = Ledger(SqliteDatabase(tmp_path / "ledger.db"), lambda: NOW)
        with ledger.lock.hold("test"):
            for desired in (FIRST, SECOND, THIRD):
                plan = plan_to(portal, desired)
                assert plan.applyable, plan.diagnostics
                assert plan.steps
                assert carried_out(plan, portal, ledger) == {"applied"}
                assert unconverged_changes(plan, portal.snapshot()) == []
                fitted, _ = portal.project(desired)
                assert {key: portal.snapshot().state.users[key] for key in desired.users} == fitted.users
                assert not plan_to(portal, desired).changes
                assert carried_out(plan, portal, ledger) == set()
        ledger.close()

    def test_plan_is_stale_only_if_what_it_touches_has_changed(self, desk: Desk) -> None:
        """A plan is stale only if a resource that the plan changes was changed after planning (law 5).

        Changes to other resources are allowed on every portal.
        """
        plan = plan_to(desk.portal, state(user("ann", companies=("2",))))
        assert {str(change.address) for change in plan.changes} == {"user:ann@example.fr"}
        require(desk.do(EditCompanies("cid@example.fr", add=("1",))))
        verify_precondition(plan, desk.portal.snapshot())
        require(desk.do(EditApps("ann@example.fr", grant=("Scan",))))
        with pytest.raises(StalePlan) as refused:
            verify_precondition(plan, desk.portal.snapshot())
        assert "user:ann@example.fr" in str(refused.value)
        assert "cid" not in str(refused.value)

    @needs(RECEIPTS, CLAIMS, LEASES)
    def test_one_of_two_simultaneous_ledgers_owes_the_welcomes(self, world: World, tmp_path: Path) -> None:
        """Only the ledger whose calls created the accounts owes letters. The other's calls get *already*."""
        looked = []
        for name in ("one", "two"):
            portal = world.portal()
            ledger = Ledger(SqliteDatabase(tmp_path / f"{name}.db"), lambda: NOW)
            plan = plan_to(portal, FIRST, welcomed=FIRST.users)
            looked.append((portal, ledger, plan, verify_precondition(plan, portal.snapshot())))
        results = []
        for portal, ledger, plan, start in looked:
            with ledger.lock.hold("test"):
                portal.hold(ledger.id, ledger.lock.owner, ledger.lock.fence, 60)
                ledger.journal.begin("apply", "digest")
                results.append(
                    {str(o.verdict) for o in apply_steps(plan, start, portal, ledger, lambda: False)}
                )
                portal.release()
        assert results == [{"applied"}, {"already"}]
        owed = [[posted.user for posted in ledger.outbox.letters()] for _, ledger, _, _ in looked]
        assert [sorted(owed[0]), owed[1]] == [["ann@example.fr", "bob@example.fr", "cid@example.fr"], []]
        created = [
            [known.created for known in ledger.snapshot().managed.values()] for _, ledger, _, _ in looked
        ]
        assert created == [[True] * 4, [False] * 4]
        for _, ledger, _, _ in looked:
            ledger.close()

    @needs(RECEIPTS, CLAIMS, LEASES)
    def test_step_done_by_another_ledger_is_settled_as_already_done(
        self, world: World, tmp_path: Path
    ) -> None:
        theirs, ours = world.portal(), world.portal()
        ledger = Ledger(SqliteDatabase(tmp_path / "ledger.db"), lambda: NOW)
        step = CreateCompany("1", "Company 1")
        with ledger.lock.hold("test"):
            theirs.hold("another-ledger", "somebody", 1, 60)
            ours.hold(ledger.id, ledger.lock.owner, ledger.lock.fence, 60)
            ledger.journal.begin("apply", "digest")
            ledger.journal.intend(
                [Intent(key, "company:1", "CreateCompany", LedgerEffect()) for key in ("a", "b", "c")]
            )
            require(theirs.execute([Call("a", step)])[0])
            require(ours.execute([Call("b", CreateCompany("2", "Company 2"))])[0])
            assert settle_interrupted(ours, ledger, ours.snapshot()) == 2
        entries = read_entries(SqliteDatabase(tmp_path / "ledger.db"), 1)
        assert [entry.verdict for entry in entries] == ["already", "applied", "skipped"]
        ledger.close()

    @needs(RECEIPTS)
    def test_receipt_of_a_renamed_account_is_not_used_for_its_former_email(
        self, world: World, desk: Desk, tmp_path: Path
    ) -> None:
        """The receipt of a creation does not count for an e-mail address that the account no longer has.

        Another ledger's call created the account, and the account got another e-mail address afterwards.
        """
        theirs, ours = desk.portal, world.portal()
        ledger = Ledger(SqliteDatabase(tmp_path / "ledger.db"), lambda: NOW)
        call = Call("key", CreateUser("eve@example.fr", user("eve", type="standard")))
        intent = Intent("key", "user:eve@example.fr", "CreateUser", LedgerEffect("eve@example.fr"))
        with ledger.lock.hold("test"):
            theirs.hold("ledger-A", "ann", 1, 60)
            require(theirs.execute([call])[0])
            require(desk.do(EditProfile("eve@example.fr", "eva@example.fr", "Eva", "Martin", None)))
            ours.hold(ledger.id, ledger.lock.owner, ledger.lock.fence, 60)
            ledger.journal.begin("apply", "digest")
            ledger.journal.intend([intent])
            assert settle_interrupted(ours, ledger, ours.snapshot()) == 0
            assert ledger.snapshot().managed == {}
            (made,) = ours.execute([call])
            require(made)
            assert made.id == desk.find("eve").id != desk.find("eva").id
            assert ours.execute([call]) == [made]
            ledger.journal.intend([intent])
            assert settle_interrupted(ours, ledger, ours.snapshot()) == 1
            assert ledger.snapshot().managed["eve@example.fr"].id == made.id
            # nor for another account that took the e-mail by self-service
            require(desk.do(EditProfile("eve@example.fr", "eve2@example.fr", "Eve", "Martin", None)))
            require(desk.create(user("eve", "2", type="standard")))
            assert verdict(theirs.execute([call])[0]) == ("conflict", "exists")
        ledger.close()

    @needs(WHOLE)
    @settings(
        max_examples=8,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=[HealthCheck.differing_executors],
        database=None,
    )
    @given(ends=st.tuples(states(), states()))
    def test_plan_leads_from_any_state_to_any_other(self, ends: tuple[State, State]) -> None:
        """Law: the plan from state a to b, applied to a portal in state a, gives b and keeps what b lacks."""
        with TemporaryDirectory() as name:
            folder = Path(name)
            ledger = Ledger(SqliteDatabase(folder / "ledger.db"), lambda: NOW)
            with self.opened(folder) as world, ledger.lock.hold("test"):
                portal = world.portal()
                for wanted in map(simplified, ends):
                    plan = plan_to(portal, wanted)
                    assume(plan.applyable)
                    assert carried_out(plan, portal, ledger) <= {"applied"}
                    assert not plan_to(portal, wanted).changes
                    same_state(
                        portal.snapshot().state,
                        State(
                            {**portal.snapshot().state.companies, **wanted.companies},
                            {**portal.snapshot().state.users, **wanted.users},
                        ),
                    )
            ledger.close()

    @needs(RULES, VERSIONS, COUNTED, RECEIPTS)
    @pytest.mark.parametrize("seed", range(3))
    def test_random_calls_have_the_same_effect_as_on_the_reference_portal(
        self, world: World, seed: int
    ) -> None:
        """After any sequence of calls, both portals have the same verdicts, versions and states."""
        chance = random.Random(seed)
        ours = Desk(world.portal())
        reference = Desk(MemoryPortal(Operator.PARTNER, TERMS, PUBLIC_URL, lambda: NOW))
        for number in ("1", "2"):
            for desk in (ours, reference):
                desk.company(company(number))
        for turn in range(25):
            here, there = ours.state, reference.state
            same_state(here, there)
            assert [(u.version, bool(u.id)) for u in here.users.values()] == [
                (u.version, True) for u in there.users.values()
            ]
            assert list(here.companies.values()) == list(there.companies.values())
            steps = some_steps(chance, there)
            stale = chance.random() < 0.2
            results = [
                desk.portal.execute(
                    [aimed(step, found, f"{seed}.{turn}.{n % 5}", stale) for n, step in steps]
                )
                for desk, found in ((ours, here), (reference, there))
            ]
            assert [(*verdict(r), r.version) for r in results[0]] == [
                (*verdict(r), r.version) for r in results[1]
            ], steps
        assert len(ours.state.users) > 3
