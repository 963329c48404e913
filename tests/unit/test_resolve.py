"""The desired state is computed from the current state, the manifests and the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from people import declared, declared_user

from provisioner.manifest.declared import Declared
from provisioner.manifest.resolve import Policy, resolve
from provisioner.model import (
    AppState,
    Grant,
    Managed,
    NoticeKind,
    Operator,
    State,
    Status,
    User,
    Welcome,
)
from provisioner.planning.planner import Resolution
from provisioner.testing.people import TODAY, state, user

POLICY = Policy(Operator.PARTNER, TODAY)
ANN = "ann@example.fr"


def managed(
    name: str, *, phone: str | None = None, email: str = "", created: bool = True
) -> dict[str, Managed]:
    return {f"{name}@example.fr": Managed(name, email or f"{name}@example.fr", phone, created)}


def kinds(resolution: Resolution) -> list[NoticeKind]:
    return [notice.kind for notice in resolution.notices]


def after_of(
    people: Declared, current: State, known: dict[str, Managed], policy: Policy = POLICY, key: str = ANN
) -> User:
    return resolve(people, current, known, policy).desired.users[key]


def test_new_user_is_active_and_gets_a_welcome() -> None:
    resolution = resolve(declared(declared_user("ann")), State(), {}, POLICY)
    assert resolution.desired.users[ANN].status is Status.ACTIVE
    assert resolution.welcomes == {ANN: Welcome("fr")}


def test_new_user_with_activation_later_is_pending_without_welcome() -> None:
    resolution = resolve(declared(declared_user("ann", activation="later")), State(), {}, POLICY)
    assert resolution.desired.users[ANN].status is Status.TO_VALIDATE
    assert resolution.welcomes == {}
    assert kinds(resolution) == [NoticeKind.AWAITS_VALIDATION]


def test_r7_collaborator_creates_pending_users() -> None:
    policy = replace(POLICY, operator=Operator.COLLABORATOR)
    resolution = resolve(declared(declared_user("ann")), State(), {}, policy)
    assert resolution.desired.users[ANN].status is Status.TO_VALIDATE
    assert "partner" in resolution.notices[0].detail


def test_r8_collaborator_does_not_reopen() -> None:
    current = state(user("ann", status="closed"))
    policy = replace(POLICY, operator=Operator.COLLABORATOR)
    resolution = resolve(declared(declared_user("ann")), current, managed("ann"), policy)
    assert resolution.desired == resolution.current
    assert NoticeKind.AWAITS_REOPENING in kinds(resolution)


def test_closed_account_that_is_declared_open_is_reopened() -> None:
    current = state(user("ann", status="closed"))
    assert after_of(declared(declared_user("ann")), current, managed("ann")).status is Status.ACTIVE


def test_pending_user_of_ours_gets_a_welcome_when_validated() -> None:
    current = state(user("ann", status="to_validate"))
    resolution = resolve(declared(declared_user("ann")), current, managed("ann"), POLICY)
    assert resolution.desired.users[ANN].status is Status.ACTIVE
    assert resolution.welcomes == {ANN: Welcome("fr")}


def test_pending_user_of_another_writer_is_validated_without_welcome() -> None:
    current = state(user("ann", status="to_validate"))
    resolution = resolve(declared(declared_user("ann")), current, {}, POLICY)
    assert resolution.welcomes == {}
    assert {NoticeKind.ADOPTED, NoticeKind.NO_WELCOME} <= set(kinds(resolution))


def test_absent_fields_are_unmanaged_and_empty_ones_emptied() -> None:
    current = state(user("ann", companies=("2",), apps=("Scan",), phone="+33612345678"))
    silent = after_of(declared(declared_user("ann")), current, managed("ann"))
    assert silent == current.users[ANN]
    emptied = after_of(
        declared(
            declared_user(
                "ann", companies=(), apps=(), phone=None, phone_declared=True, immediate_removal=True
            )
        ),
        current,
        {},
    )
    assert emptied.companies == {"1"}
    assert emptied.apps == frozenset()
    assert emptied.phone is None


@pytest.mark.parametrize(
    ("today", "ends"),
    [
        (date(2026, 11, 24), date(2026, 11, 30)),
        (date(2026, 11, 30), date(2026, 11, 30)),
        (date(2028, 2, 3), date(2028, 2, 29)),
        (date(2026, 12, 31), date(2026, 12, 31)),
    ],
)
def test_r9_application_ends_at_month_end(today: date, ends: date) -> None:
    current = state(user("ann", apps=("Scan",)))
    after = after_of(
        declared(declared_user("ann", apps=())), current, managed("ann"), replace(POLICY, today=today)
    )
    assert after.apps == {Grant("Scan", AppState.ENDING, ends)}


def test_r9_declaring_an_ending_application_cancels_its_end() -> None:
    ending = Grant("Scan", AppState.ENDING, date(2026, 11, 30))
    current = state(user("ann", grants=(ending,)))
    resolution = resolve(declared(declared_user("ann", apps=())), current, managed("ann"), POLICY)
    assert resolution.desired == resolution.current
    assert kinds(resolution) == [NoticeKind.ENDING]
    again = after_of(declared(declared_user("ann", apps=("Scan",))), current, managed("ann"))
    assert again.apps == {Grant("Scan", AppState.ACTIVE)}


def test_r10_requested_application_waits_until_it_is_declared() -> None:
    current = state(user("ann", grants=(Grant("Scan", AppState.REQUESTED),)))
    resolution = resolve(declared(declared_user("ann", apps=())), current, managed("ann"), POLICY)
    assert resolution.desired == resolution.current
    assert NoticeKind.REQUESTED_APP in kinds(resolution)
    granted = after_of(declared(declared_user("ann", apps=("Scan",))), current, managed("ann"))
    assert granted.apps == {Grant("Scan", AppState.ACTIVE)}


def test_phone_changed_by_the_user_is_reported_and_kept() -> None:
    current = state(user("ann", phone="+33699999999"))
    people = declared(declared_user("ann", phone="+33611111111", phone_declared=True))
    known = managed("ann", phone="+33611111111")
    resolution = resolve(people, current, known, POLICY)
    assert resolution.desired == resolution.current
    assert kinds(resolution) == [NoticeKind.DRIFT]
    restored = after_of(people, current, known, replace(POLICY, restore=True))
    assert restored.phone == "+33611111111"


def test_phone_changed_in_the_manifest_is_applied() -> None:
    current = state(user("ann", phone="+33699999999"))
    people = declared(declared_user("ann", phone="+33622222222", phone_declared=True))
    after = after_of(people, current, managed("ann", phone="+33611111111"))
    assert after.phone == "+33622222222"


def test_account_is_found_after_the_user_changed_the_email() -> None:
    moved = user("ann", email="ann.new@example.fr")
    current = state(moved)
    resolution = resolve(declared(declared_user("ann")), current, managed("ann"), POLICY)
    assert resolution.desired.users == {ANN: moved}
    assert kinds(resolution) == [NoticeKind.DRIFT]


def test_declaring_the_email_that_the_user_chose_changes_nothing() -> None:
    current = state(user("ann", email="ann.new@example.fr"))
    people = declared(declared_user("ann", email="ann.new@example.fr"))
    resolution = resolve(people, current, managed("ann"), POLICY)
    assert resolution.desired == resolution.current
    record, known = resolution.records["ann.new@example.fr"]
    assert (record.email, known) == ("ann.new@example.fr", True)


def test_two_declarations_of_one_account_are_reported() -> None:
    current = state(user("ann", email="ann.new@example.fr"))
    people = declared(declared_user("ann"), declared_user("ann2", email="ann.new@example.fr"))
    resolution = resolve(people, current, managed("ann"), POLICY)
    assert [problem.code for problem in resolution.diagnostics] == ["ambiguous-user"]


def test_previous_email_renames_the_same_account() -> None:
    current = state(user("ann"))
    people = declared(declared_user("ann", email="ann.martin@example.fr", previous=ANN))
    after = after_of(people, current, managed("ann"), key="ann.martin@example.fr")
    assert (after.id, after.email) == ("ann", "ann.martin@example.fr")


def test_unmanaged_account_is_reported_and_unchanged() -> None:
    current = state(user("eve"))
    resolution = resolve(declared(), current, {}, replace(POLICY, close_absent=True))
    assert resolution.desired == resolution.current
    assert kinds(resolution) == [NoticeKind.UNMANAGED]


def test_user_who_left_the_manifests_is_closed_only_by_setting() -> None:
    current = state(user("ann"))
    kept = resolve(declared(), current, managed("ann"), POLICY)
    assert kept.desired == kept.current
    assert kinds(kept) == [NoticeKind.LEFT]
    closed = resolve(declared(), current, managed("ann"), replace(POLICY, close_absent=True))
    assert closed.desired.users[ANN].status is Status.CLOSED


def test_status_closed_closes_and_changes_nothing_else() -> None:
    current = state(user("ann", apps=("Scan",)))
    after = after_of(declared(declared_user("ann", apps=(), closed=True)), current, managed("ann"))
    assert after == replace(current.users[ANN], status=Status.CLOSED)


def test_user_declared_closed_without_account_is_ignored() -> None:
    assert resolve(declared(declared_user("ann", closed=True)), State(), {}, POLICY).desired.users == {}


def test_ledger_record_keeps_the_old_email_until_it_has_changed() -> None:
    current = state(user("ann", phone="+33600000000"))
    people = declared(declared_user("ann", phone="+33611111111", phone_declared=True))
    resolution = resolve(people, current, managed("ann", phone="+33600000000"), POLICY)
    assert ANN not in resolution.records  # the ledger gets the new phone once it is written
