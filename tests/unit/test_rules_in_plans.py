"""R1 to R15 in plans: a violation is an error, and an effect of the portal is a notice.

test_check.py tests the rules in manifests, test_portal_rules.py in the portal, and test_order.py between the
steps of a plan.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from people import declared, declared_company, declared_user

from provisioner.manifest.declared import Declared
from provisioner.manifest.resolve import Policy, resolve
from provisioner.model import (
    AppState,
    Grant,
    Managed,
    NoticeKind,
    Operator,
    Production,
    State,
    Status,
    User,
)
from provisioner.planning.plan import Plan
from provisioner.planning.planner import PlanOptions, make_plan
from provisioner.planning.steps import EditApps
from provisioner.testing.people import ESSENTIEL, TERMS, TODAY, company, state, user


def planned(
    people: Declared,
    current: State,
    *known: str,
    operator: Operator = Operator.PARTNER,
    close_absent: bool = False,
) -> Plan:
    managed = {f"{name}@example.fr": Managed(name, f"{name}@example.fr", None, True) for name in known}
    policy = Policy(operator, TODAY, close_absent=close_absent)
    found = resolve(people, current, managed, policy)
    return make_plan(found, "portal", TERMS, PlanOptions("Cabinet", TODAY))


def errors(plan: Plan) -> list[str]:
    return sorted({problem.code for problem in plan.errors})


def notices(plan: Plan) -> set[NoticeKind]:
    return {notice.kind for notice in plan.notices}


def test_r1_address_of_another_account_is_refused() -> None:
    current = state(user("ann"), user("eve", email="new@example.fr"))
    people = declared(
        declared_user("ann", email="new@example.fr", previous="ann@example.fr"),
        declared_user("ann2", email="other@example.fr"),
    )
    plan = planned(people, current, "ann", "eve")
    assert "R1" in errors(plan)


def test_r1_address_of_the_firms_staff_is_refused() -> None:
    assert errors(planned(declared(declared_user("h", email="helene@example.com")), State())) == ["R1"]


def test_r2_demoting_the_only_administrator_is_refused() -> None:
    current = state(user("ann"), user("bob", type="standard"))
    people = declared(declared_user("ann", type="standard"), declared_user("bob", type="standard"))
    assert errors(planned(people, current, "ann", "bob")) == ["R2"]


def test_r2_closing_the_only_administrator_is_refused() -> None:
    current = state(user("ann"), user("bob", type="standard"))
    people = declared(declared_user("bob", type="standard"))
    assert errors(planned(people, current, "ann", "bob", close_absent=True)) == ["R2"]


def test_r3_switch_of_production_family_is_one_step() -> None:
    plan = planned(declared(declared_user("ann", production="consultation")), state(user("ann")), "ann")
    assert [step.step for step in plan.steps] == [EditApps("ann@example.fr", Production.CONSULTATION)]


def test_r4_r5_move_changes_the_billed_company_and_gives_access_to_it() -> None:
    current = state(user("ann"), company("2"))
    plan = planned(declared(declared_user("ann", "2")), current, "ann")
    (change,) = (change for change in plan.changes if isinstance(change.after, User))
    assert isinstance(change.after, User)
    assert change.after.billed == "2"
    assert change.after.companies == {"1", "2"}


def test_r6_unknown_offer_is_refused() -> None:
    people = declared(companies=(declared_company("1", billing=ESSENTIEL._replace(offer="Luxe")),))
    assert errors(planned(people, State())) == ["unknown-offer"]


def test_r7_collaborator_validates_no_user_and_gets_a_notice() -> None:
    current = state(user("ann", status="to_validate"))
    plan = planned(declared(declared_user("ann")), current, "ann", operator=Operator.COLLABORATOR)
    assert (plan.changes, plan.applyable) == ((), True)
    assert NoticeKind.AWAITS_VALIDATION in notices(plan)


def test_r7_validated_administrator_is_a_new_administrator() -> None:
    current = state(user("ann"), user("eve", status="to_validate"))
    people = declared(declared_user("ann"), declared_user("eve"))
    (change,) = planned(people, current, "ann").changes
    assert change.new_administrator
    renamed = declared(
        declared_user("ann"),
        declared_user("eve", activation="later", companies=("1",), phone="+33199001234", phone_declared=True),
    )
    (kept,) = planned(renamed, current, "ann").changes
    assert not kept.new_administrator


def test_r8_collaborator_reopens_no_user_and_gets_a_notice() -> None:
    current = state(user("ann", status="closed"))
    plan = planned(declared(declared_user("ann")), current, "ann", operator=Operator.COLLABORATOR)
    assert (plan.changes, plan.applyable) == ((), True)
    assert NoticeKind.AWAITS_REOPENING in notices(plan)


def test_r9_removed_application_ends_with_the_month_and_is_then_no_change() -> None:
    people = declared(declared_user("ann", apps=()))
    plan = planned(people, state(user("ann", apps=("Scan",))), "ann")
    assert plan.steps[0].step == EditApps("ann@example.fr", end=("Scan",), ends=date(2026, 11, 30))
    ending = Grant("Scan", AppState.ENDING, date(2026, 11, 30))
    again = planned(people, state(user("ann", grants=(ending,))), "ann")
    assert (again.changes, notices(again)) == ((), {NoticeKind.ENDING})


def test_r10_requested_application_is_reported_and_not_changed() -> None:
    current = state(user("ann", grants=(Grant("Scan", AppState.REQUESTED),)))
    plan = planned(declared(declared_user("ann")), current, "ann")
    assert (plan.changes, notices(plan)) == ((), {NoticeKind.REQUESTED_APP})


def test_r11_user_created_by_the_client_is_reported_and_not_changed() -> None:
    current = state(user("ann"), user("eve", type="standard", status="to_validate"))
    plan = planned(declared(declared_user("ann")), current, "ann")
    assert plan.changes == ()
    assert notices(plan) == {NoticeKind.UNMANAGED, NoticeKind.AWAITS_VALIDATION}


def test_r12_user_gets_access_to_a_second_company() -> None:
    plan = planned(declared(declared_user("ann", companies=("2",))), state(user("ann"), company("2")), "ann")
    assert plan.changes[0].new_companies == {"2"}


def test_r12_unknown_company_is_refused() -> None:
    people = declared(declared_user("ann", companies=("99",)))
    assert errors(planned(people, state(user("ann")), "ann")) == ["unknown-company"]


def test_r13_existing_dossier_is_edited_and_not_created() -> None:
    people = declared(declared_user("ann"), companies=(declared_company("1", "Renamed"),))
    plan = planned(people, state(user("ann")), "ann")
    assert [type(step.step).__name__ for step in plan.steps] == ["EditCompany"]


def test_r14_address_of_the_firm_is_refused() -> None:
    people = declared(declared_user("ann", email="ann@durand-associes.fr"))
    assert errors(planned(people, State())) == ["R14"]


@pytest.mark.parametrize("way", ["closed", "moved"])
def test_r15_end_of_billing_is_reported_with_its_date(way: str) -> None:
    current = state(user("ann"), user("cid", "2"))
    moved = (
        declared_user("cid", "1", "standard") if way == "moved" else declared_user("cid", "2", closed=True)
    )
    plan = planned(declared(declared_user("ann"), moved), current, "ann", "cid")
    (notice,) = (notice for notice in plan.notices if notice.kind is NoticeKind.BILLING_STOPS)
    assert (notice.address.key, notice.on) == ("2", date(2026, 11, 30))


def test_adoption_is_no_change_and_earns_no_letter() -> None:
    plan = planned(declared(declared_user("ann")), state(user("ann")))
    assert (plan.changes, plan.letters, len(plan.adoptions)) == ((), (), 1)
    assert notices(plan) == {NoticeKind.ADOPTED}


def test_declared_user_with_a_closed_account_is_reopened_without_a_letter() -> None:
    current = state(replace(user("ann"), status=Status.CLOSED))
    plan = planned(declared(declared_user("ann")), current, "ann")
    assert [str(change.action) for change in plan.changes] == ["reopen"]
    assert plan.letters == ()
