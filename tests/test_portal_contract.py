"""What every portal promises, whatever it is made of: one suite, run on each driver.

A driver is a line in contract_support.py; a promise is run on those whose portals can what it is about.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from contract_support import (
    CLAIMS,
    DRIVERS,
    LEASES,
    LINKS,
    MONTHS,
    OTHERS,
    PUBLIC_URL,
    RECEIPTS,
    RIGHTS,
    RULES,
    VERSIONS,
    WHOLE,
    Desk,
    World,
    drivers,
    require,
    story,
)
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from people import ESSENTIEL, NOW, TERMS, TODAY, company, state, user
from reference_portal import MemoryPortal
from strategies import states

from provisioner.errors import Locked, LockLost, StalePlan
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
    email_key,
    month_end,
)
from provisioner.operations.apply import apply_steps, settle_interrupted
from provisioner.operations.precondition import unconverged_changes, verify_precondition
from provisioner.planning.plan import Plan
from provisioner.planning.planner import PlanOptions, Resolution, make_plan
from provisioner.planning.steps import (
    CloseUser,
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
from provisioner.portal import SENT, Call, Portal, Receipt, Verdict
from provisioner.storage.sqlite import SqliteDatabase

APPLIED, ALREADY, CONFLICT, FAILED = Verdict.APPLIED, Verdict.ALREADY, Verdict.CONFLICT, Verdict.FAILED


@pytest.fixture
def world(driver: str, memory_path: Path) -> Iterator[World]:
    """A fresh portal of the driver in question."""
    with DRIVERS[driver].world(memory_path) as world:
        yield world


@pytest.fixture
def desk(world: World) -> Desk:
    """Company 1 with its administrator ann and her colleague bob; company 2 with cid alone."""
    desk = Desk(world.portal())
    for someone in (user("ann"), user("bob", type="standard"), user("cid", "2")):
        require(desk.create(someone))
    return desk


def promise(*needs: str) -> pytest.MarkDecorator:
    """Run on every driver whose portals can this."""
    return pytest.mark.parametrize("driver", drivers(*needs))


def verdict(receipt: Receipt) -> tuple[str, str]:
    """What a refusal says to programs."""
    return str(receipt.verdict), receipt.code


def same_people(found: State, expected: State) -> None:
    """Equal states, whatever the order."""
    assert dict(found.companies) == dict(expected.companies)
    assert dict(found.users) == dict(expected.users)


# --- steps ---

EVERY_STEP: tuple[Step, ...] = (
    CreateCompany("7", "Société 7", "732829320"),
    SetBilling("7", ESSENTIEL),
    EditCompany("7", "Compagnie Sept", None),
    SetBilling("7", Billing(BillingMode.FIRM, "Confort")),
    CreateUser(
        "zoe@example.fr",
        user("zoé", "7", companies=("2",), apps=("Scan",), phone="+33612345678", email="zoe@example.fr"),
    ),
    CreateUser("yan@example.fr", user("yan", "7", "standard", production="consultation")),
    CreateUser("xia@example.fr", user("xia", "7", "standard", status="to_validate")),
    EditCompanies("ann@example.fr", add=("7",)),
    EditCompanies("ann@example.fr", add=("2",), remove=("7",)),
    EditApps("ann@example.fr", grant=("Achats", "Scan", "Documents")),
    EditApps(
        "ann@example.fr", production=Production.CONSULTATION, remove=("Achats",), end=("Scan",),
        ends=month_end(TODAY),
    ),
    EditApps("ann@example.fr", production=Production.FULL, grant=("Scan",)),
    SetType("bob@example.fr", UserType.ADMINISTRATOR),
    SetType("ann@example.fr", UserType.STANDARD),
    SetBilledCompany("bob@example.fr", "7", UserType.STANDARD),
    EditProfile("yan@example.fr", "yann@example.fr", "Yann", "Le Goff", "+33699999999"),
    ValidateUser("xia@example.fr"),
    CloseUser("xia@example.fr"),
    EditProfile("xia@example.fr", "xia@example.fr", "Xia", "Nguyen", None),
    ReopenUser("xia@example.fr"),
)  # fmt: skip
"""Each kind, in an order in which all are allowed but for R2, which the last two of bob's would break."""


@promise()
def test_every_step_leaves_the_portal_as_the_fold_says(desk: Desk) -> None:
    from provisioner.planning.steps import STEPS, state_after

    require(desk.create(user("ada")))
    expected = desk.state
    portal = desk.portal
    for step in EVERY_STEP:
        receipt = desk.do(step)
        assert receipt.verdict is APPLIED, (step, receipt)
        expected, _ = portal.project(by_email(state_after(expected, step)))
        same_people(desk.state, expected)
        key = getattr(step, "user", "")
        if isinstance(step, CreateUser):
            assert receipt.id == desk.state.users[key].id != ""
    assert {type(step).__name__ for step in EVERY_STEP} == set(STEPS)


def by_email(found: State) -> State:
    return State(found.companies, {email_key(user.email): user for user in found.users.values()})


@promise(VERSIONS)
def test_versions_are_counted_and_the_receipt_says_which(desk: Desk) -> None:
    before = desk.find("ann")
    receipt = desk.do(EditCompanies("ann@example.fr", add=("2",)))
    after = desk.find("ann")
    assert (before.version, after.version) == (1, 2)
    assert (receipt.id, receipt.version) == (after.id, 2)
    assert desk.state.companies["1"].version == 2


@promise(VERSIONS)
def test_who_wrote_meanwhile_is_not_written_over(desk: Desk) -> None:
    """Row 10: a conflict for that step alone; to the same effect it is done already."""
    ann, bob = desk.find("ann"), desk.find("bob")
    stale = [
        Call("a", EditCompanies("ann@example.fr", add=("2",)), ann.id, ann.version),
        Call("b", SetType("bob@example.fr", UserType.ADMINISTRATOR), bob.id, bob.version),
        Call("c", CloseUser("cid@example.fr"), "nobody", 1),
    ]
    require(desk.do(EditCompanies("ann@example.fr", add=("2",))))
    require(desk.do(EditProfile("bob@example.fr", "bob@example.fr", "Robert", "Martin", None)))
    receipts = desk.portal.execute([*stale, desk.call(EditCompanies("cid@example.fr", add=("1",)))])
    assert [verdict(receipt) for receipt in receipts] == [
        ("already", ""), ("conflict", "version-moved"), ("conflict", "not-on-portal"), ("applied", ""),
    ]  # fmt: skip
    assert desk.find("bob").first_name == "Robert"
    assert not desk.find("bob").is_administrator


@promise()
def test_what_is_there_just_as_wanted_is_not_made_again(desk: Desk) -> None:
    before = desk.state
    same = desk.do(CreateUser("ann@example.fr", desk.find("ann")))
    assert same.verdict is ALREADY
    assert same.id == desk.find("ann").id
    assert desk.do(CreateUser("ann@example.fr", user("ann", "2"))).verdict is CONFLICT
    assert desk.do(CreateCompany("1", "Another")).verdict is CONFLICT
    same_people(desk.state, before)


# --- rules ---

REFUSED: tuple[tuple[Step, str], ...] = (
    (CreateUser("eve@example.fr", user("eve", email="ANN@example.fr")), "exists"),
    (EditProfile("bob@example.fr", "Ann@example.fr", "B", "M", None), "R1"),
    (CreateUser("helene@example.com", user("eve", email="helene@example.com")), "R1"),
    (CloseUser("ann@example.fr"), "R2"),
    (SetType("ann@example.fr", UserType.STANDARD), "R2"),
    (SetBilledCompany("ann@example.fr", "2", UserType.ADMINISTRATOR), "R2"),
    (EditApps("ann@example.fr", grant=("Production Paie",)), "R3"),
    (CreateUser("eve@example.fr", replace(user("eve"), billed="")), "R4"),
    (CreateUser("eve@example.fr", user("eve", status="closed")), "R7"),
    (CreateUser("ann@example.fr", user("ann", status="closed")), "R7"),
    (EditCompanies("ann@example.fr", remove=("1",)), "R5"),
    (SetBilling("1", ESSENTIEL._replace(offer="Luxe")), "unknown-offer"),
    (ValidateUser("ann@example.fr"), "R7"),
    (ReopenUser("ann@example.fr"), "R8"),
    (EditApps("ann@example.fr", end=("Scan",), ends=date(2020, 1, 31)), "month-turned"),
    (EditApps("ann@example.fr", grant=("Nothing of ours",)), "unknown-app"),
    (EditCompanies("ann@example.fr", add=("99",)), "unknown-company"),
    (CreateCompany("1", "Another"), "exists"),
    (CreateUser("eve@durand-associes.fr", user("eve", email="eve@durand-associes.fr")), "R14"),
    (EditProfile("bob@example.fr", "bob@DURAND-associes.fr", "B", "M", None), "R14"),
)


@promise(RULES)
def test_every_rule_is_kept_at_the_border_and_nothing_is_written(desk: Desk) -> None:
    before = desk.portal.snapshot()
    calls = [desk.call(step, f"key-{number}") for number, (step, _) in enumerate(REFUSED)]
    told = [desk.portal.execute([call])[0] for call in calls]
    for receipt, (_, code) in zip(told, REFUSED, strict=True):
        # over HTTP a newcomer without a billed company, or closed, is no newcomer at all
        assert receipt.code == code or (code in ("R4", "R7") and receipt.code == "invalid")
    assert {receipt.verdict for receipt in told} == {CONFLICT, FAILED}
    assert [receipt for receipt in told if not receipt.problem] == []
    together = desk.portal.execute(calls)
    assert [verdict(receipt) for receipt in together] == [verdict(receipt) for receipt in told]
    same_people(desk.state, before.state)
    assert not desk.portal.receipts([call.key for call in calls], "")


@promise(RULES)
def test_a_batch_is_done_in_its_order_and_a_refusal_leaves_its_neighbours_alone(desk: Desk) -> None:
    bob, cid = desk.find("bob"), desk.find("cid")
    receipts = desk.portal.execute(
        [
            Call("a", CreateUser("eve@example.fr", user("eve", email="bob@example.fr"))),
            Call(
                "b", EditProfile("bob@example.fr", "robert@example.fr", "Bob", "M", None), bob.id, bob.version
            ),
            Call("d", EditCompanies("cid@example.fr", remove=("2",)), cid.id, cid.version),
        ]
    )
    assert [receipt.key for receipt in receipts] == ["a", "b", "d"]
    assert [receipt.verdict for receipt in receipts] == [CONFLICT, APPLIED, FAILED]
    assert desk.find("robert").id == bob.id


@promise(RIGHTS)
def test_only_who_may_validate_lets_somebody_log_in(desk: Desk, world: World) -> None:
    require(desk.create(user("eve", status="to_validate")))
    require(desk.do(CloseUser("bob@example.fr")))
    other = Desk(world.portal(Operator.COLLABORATOR))
    told = [
        other.do(ValidateUser("eve@example.fr")),
        other.do(ReopenUser("bob@example.fr")),
        other.create(user("fay")),
    ]
    assert [verdict(receipt) for receipt in told] == [("failed", "no-right")] * 3
    assert [receipt.problem[:2] for receipt in told] == ["R7", "R8", "R7"]
    require(other.create(user("fay", status="to_validate")))
    require(Desk(world.portal(Operator.ADMINISTRATOR)).do(ValidateUser("eve@example.fr")))
    require(Desk(world.portal(Operator.CUSTOMER_MANAGER)).do(ReopenUser("bob@example.fr")))


# --- time ---


@promise(MONTHS, RULES)
def test_an_application_ends_with_the_month_in_paris_and_is_gone_the_day_after(
    desk: Desk, world: World
) -> None:
    assert world.set_clock is not None
    require(desk.do(EditApps("ann@example.fr", grant=("Scan", "Achats"))))
    end = EditApps("ann@example.fr", end=("Scan",), ends=date(2026, 11, 30))
    world.set_clock(datetime(2026, 11, 30, 23, 1, tzinfo=UTC))  # 00:01 in Paris
    assert verdict(desk.do(end)) == ("conflict", "month-turned")
    world.set_clock(datetime(2026, 11, 30, 22, 59, tzinfo=UTC))
    for grant, refusal in (
        (Grant("Scan", AppState.ENDING, date(2026, 12, 31)), ("conflict", "month-turned")),
        (Grant("Scan", AppState.REQUESTED), ("failed", "R10")),
    ):
        assert verdict(desk.create(user("new", grants=(grant,)))) == refusal
    require(desk.do(end))
    assert Grant("Scan", AppState.ENDING, date(2026, 11, 30)) in desk.find("ann").apps
    world.set_clock(datetime(2026, 12, 1, 0, 0, tzinfo=UTC))
    assert {grant.app for grant in desk.find("ann").apps} == {"Achats"}


@promise(RULES)
def test_billing_stops_with_the_month_once_nobody_is_left_and_goes_on_with_the_first_who_is_back(
    desk: Desk,
) -> None:
    """R15: the portal marks it by itself; the company is not changed by that."""
    require(desk.do(CloseUser("cid@example.fr")))
    closed = desk.state.companies["2"]
    require(desk.do(ReopenUser("cid@example.fr")))
    reopened = desk.state.companies["2"]
    require(desk.do(SetBilledCompany("cid@example.fr", "1", UserType.STANDARD)))
    assert closed.billing_ends == month_end(TODAY)
    assert reopened.billing_ends is None
    assert desk.state.companies["2"].billing_ends == month_end(TODAY)
    assert closed.version == reopened.version


# --- reading ---


@promise()
def test_a_snapshot_is_the_same_for_everybody_and_its_stamp_moves_with_every_change(
    desk: Desk, world: World
) -> None:
    one, two = desk.portal.snapshot(), world.portal().snapshot()
    same_people(two.state, one.state)
    assert (two.portal, two.terms) == (one.portal, one.terms)
    assert one.portal
    assert list(one.state.users) == ["ann@example.fr", "bob@example.fr", "cid@example.fr"]
    require(desk.do(EditCompanies("ann@example.fr", add=("2",))))
    three = world.portal().snapshot()
    assert three.portal == one.portal
    assert three.stamp != one.stamp or not one.stamp
    assert three.state.users["ann@example.fr"].companies == {"1", "2"}


@promise()
def test_users_by_id_are_those_of_the_snapshot(desk: Desk) -> None:
    by_id = {user.id: user for user in desk.portal.snapshot().state.users.values()}
    some = list(by_id)[:2]
    assert desk.portal.users([*some, "unknown-id"]) == {id_: by_id[id_] for id_ in some}
    assert desk.portal.users([]) == {}


@promise(WHOLE)
def test_a_portal_that_holds_everything_fits_everything(desk: Desk) -> None:
    wanted = state(user("ann", companies=("2",), phone="+33612345678"), user("x", status="to_validate"))
    assert desk.portal.project(wanted) == (wanted, ())


# --- other writers ---


@promise(OTHERS, RULES)
def test_the_other_writers_pass_the_same_gate(desk: Desk, world: World) -> None:
    others = world.others
    assert others is not None
    ann, bob = desk.find("ann"), desk.find("bob")
    told = [
        others.user_changes_profile(bob.id, email="Ann@example.fr"),
        others.user_changes_profile(bob.id, email="b@durand-associes.fr"),
        others.client_creates_user(ann.id, user("eve", email="cid@example.fr")),
        others.client_creates_user(bob.id, user("eve")),
        others.client_requests_app(ann.id, "Production Paie (Consultation)"),
    ]
    assert [receipt.code for receipt in told] == ["R1", "R14", "exists", "R11", "R3"]
    require(others.user_changes_profile(bob.id, email="robert@example.fr", phone="+33699999999"))
    require(others.client_creates_user(ann.id, user("eve", "2", companies=("2",))))
    require(others.client_requests_app(ann.id, "Scan"))
    eve = desk.find("eve")
    assert (eve.billed, eve.companies, eve.status) == ("1", frozenset("1"), Status.TO_VALIDATE)
    assert not eve.is_administrator
    assert (desk.find("robert").id, desk.find("robert").phone) == (bob.id, "+33699999999")
    assert desk.find("ann").apps == {Grant("Scan", AppState.REQUESTED)}
    stale = Call("", EditCompanies("ann@example.fr", add=("2",)), ann.id, ann.version)
    assert verdict(desk.portal.execute([stale])[0]) == ("conflict", "version-moved")


# --- receipts, claims and leases ---

ONE, TWO, THREE = (f"{number:064}" for number in (1, 2, 3))
"""Letters."""


@promise(RECEIPTS)
def test_a_key_gives_its_first_receipt_again_whatever_happened_since(desk: Desk) -> None:
    """Row 12: a call repeated because its answer was lost has one effect."""
    call = desk.call(EditCompanies("ann@example.fr", add=("2",)), "key-1")
    (first,) = desk.portal.execute([call])
    require(desk.do(EditCompanies("ann@example.fr", remove=("2",))))
    assert desk.portal.execute([call]) == [first]
    assert desk.find("ann").companies == {"1"}
    assert desk.portal.receipts(["key-1", "unheard of"], "") == {"key-1": first}
    made = desk.create(user("eve"), "key-2")
    assert desk.portal.execute([Call("key-2", CreateUser("eve@example.fr", user("eve")))]) == [made]
    assert made.id == desk.find("eve").id


@promise(RECEIPTS, VERSIONS)
def test_a_key_is_good_for_nothing_but_what_it_was_first_given_with(desk: Desk, world: World) -> None:
    """Row 12: a collaborator cannot use up the key of a step that somebody is yet to do."""
    used = desk.call(EditCompanies("ann@example.fr", add=("2",)), "key-1")
    (first,) = desk.portal.execute([used])
    made = desk.create(user("eve", type="standard"), "key-2")
    bob, ann = desk.find("bob"), desk.find("ann")
    before = desk.state
    others = [
        Call("key-1", CloseUser("bob@example.fr"), bob.id, bob.version),
        Call("key-1", EditCompanies("bob@example.fr", add=("2",)), bob.id, bob.version),
        Call("key-1", EditCompanies("ann@example.fr", add=("2",)), ann.id, ann.version),
        Call("key-1", EditCompanies("ann@example.fr", remove=("2",)), used.id, used.version),
        Call("key-1", CreateCompany("9", "Neuf")),
        Call("key-2", CreateUser("eve@example.fr", user("eve", "2", type="standard"))),
    ]
    for call in others:
        (receipt,) = world.portal().execute([call])
        assert (receipt.verdict, receipt.code, receipt.id) == (FAILED, "key-reused", ""), call
    assert desk.state == before
    # whatever the manifest calls him, and also in one batch with what it is not good for
    again = [replace(used, step=EditCompanies("annie", add=("2",))), others[-1]]
    assert [receipt.code for receipt in desk.portal.execute(again)] == ["", "key-reused"]
    assert desk.portal.execute(again[:1]) == [first]
    assert desk.create(user("eve", type="standard"), "key-2") == made


@promise(RECEIPTS, CLAIMS, LEASES)
def test_only_the_ledger_that_a_step_was_done_for_is_told_that_it_did_it(desk: Desk, world: World) -> None:
    ours, theirs = desk.portal, world.portal()
    ours.hold("ledger-A", "ann", 1, 60)
    theirs.hold("ledger-B", "bob", 1, 60)
    call = Call("key", CreateUser("eve@example.fr", user("eve", type="standard")))
    (first,) = ours.execute([call])
    (second,) = theirs.execute([call])
    assert [first.verdict, second.verdict] == [APPLIED, ALREADY]
    assert second == replace(first, verdict=ALREADY)
    assert world.portal().receipts(["key"], "ledger-A") == {"key": first}
    assert world.portal().receipts(["key"], "ledger-B") == {"key": second}
    assert ours.execute([call]) == [first]


@promise(CLAIMS, LEASES)
def test_a_letter_belongs_to_the_first_ledger_that_asks_for_ever(desk: Desk, world: World) -> None:
    ours, theirs = desk.portal, world.portal()
    ours.hold("ledger-A", "ann", 1, 60)
    theirs.hold("ledger-B", "bob", 1, 60)
    assert ours.claim("a", {ONE: (), TWO: ()}) == {ONE: "a", TWO: "a"}
    assert theirs.claim("b", {TWO: (), THREE: ()}) == {TWO: "", THREE: "b"}
    # whatever it pretends to know
    assert theirs.claim("b", {TWO: ("a",)}) == {TWO: ""}
    assert theirs.claim(SENT, {TWO: ("a",)}) == {TWO: ""}
    ours.release()
    again = world.portal()
    again.hold("ledger-A", "ann", 2, 60)
    known = {ONE: ("a",), TWO: ("a",), THREE: ("a", "b")}
    assert again.claim("c", known) == {ONE: "c", TWO: "c", THREE: ""}
    assert again.claim("c", {}) == {}


@promise(CLAIMS, LEASES)
def test_within_a_ledger_a_letter_passes_on_from_a_run_that_is_known_and_from_no_run_of_a_copy(
    desk: Desk, world: World
) -> None:
    """Row 7: of two copies of a ledger that both owe a letter, one has it."""
    portal = desk.portal
    portal.hold("ledger", "ann", 1, 60)
    assert portal.claim("a", {ONE: ()}) == {ONE: "a"}
    # the answer was lost
    assert portal.claim("a", {ONE: ()}) == {ONE: "a"}
    assert portal.claim("b", {ONE: ("a",), TWO: ("a",)}) == {ONE: "b", TWO: "b"}
    for known in ((), ("a",), ("a", "another")):
        assert portal.claim("copy", {ONE: known, THREE: known}) == {ONE: "b", THREE: "copy"}
    # a person has decided
    assert portal.claim("copy", {ONE: ("b",)}) == {ONE: "copy"}
    assert portal.claim("b", {ONE: ("a", "b")}) == {ONE: "copy"}
    assert portal.claim(SENT, {ONE: ("b",), TWO: ("b",)}) == {ONE: "copy", TWO: SENT}
    assert portal.claim("d", {ONE: ("copy",), TWO: ("a", "b", "copy")}) == {ONE: "d", TWO: SENT}


@promise(LEASES)
def test_a_later_run_of_a_ledger_takes_the_place_of_an_earlier_one_which_then_writes_nothing(
    desk: Desk, world: World
) -> None:
    """Row 8: a run that was stopped, and woke up, is fenced out."""
    stopped, later = Desk(world.portal()), Desk(world.portal())
    stopped.portal.hold("ledger", "ann", 4, 60)
    require(stopped.do(EditCompanies("ann@example.fr", add=("2",)), "a"))
    later.portal.hold("ledger", "bob", 5, 60)
    before = later.portal.snapshot()
    for attempt in (
        lambda: stopped.do(EditCompanies("ann@example.fr", remove=("2",)), "b"),
        lambda: stopped.do(EditCompanies("ann@example.fr", add=("2",)), "a"),
        lambda: stopped.portal.claim("a", {ONE: ()}),
        lambda: stopped.portal.hold("ledger", "ann", 4, 60),
    ):
        with pytest.raises(LockLost):
            attempt()
    stopped.portal.release()
    same_people(later.state, before.state)
    require(later.do(EditCompanies("ann@example.fr", remove=("2",)), "b"))
    assert later.portal.claim("b", {ONE: ()}) == {ONE: "b"}


@promise(LEASES)
def test_a_copy_of_a_ledger_waits_until_the_other_one_is_done(desk: Desk, world: World) -> None:
    ours, copy = world.portal(), world.portal()
    ours.hold("ledger", "ann", 4, 60)
    for number in (4, 3):
        with pytest.raises(Locked, match="ann") as refusal:
            copy.hold("ledger", "bob", number, 60)
        assert not isinstance(refusal.value, LockLost)
    ours.hold("ledger", "ann", 4, 60)
    require(Desk(ours).do(EditCompanies("ann@example.fr", add=("2",)), "a"))
    ours.release()
    copy.hold("ledger", "bob", 4, 60)
    require(Desk(copy).do(EditCompanies("ann@example.fr", remove=("2",)), "b"))
    world.portal().hold("another-ledger", "cid", 1, 60)
    with pytest.raises(Locked):
        world.portal().hold("ledger", "cid", 4, 60)


@promise(LEASES, MONTHS)
def test_a_lease_ends_by_itself_unless_its_holder_writes(desk: Desk, world: World) -> None:
    assert world.set_clock is not None
    slow = Desk(world.portal())
    slow.portal.hold("ledger", "ann", 4, 60)
    world.set_clock(NOW + timedelta(seconds=50))
    require(slow.do(EditCompanies("ann@example.fr", add=("2",)), "a"))
    world.set_clock(NOW + timedelta(seconds=100))
    with pytest.raises(Locked):
        world.portal().hold("ledger", "bob", 4, 60)
    world.set_clock(NOW + timedelta(seconds=111))
    # late, but in nobody's way
    require(slow.do(EditCompanies("ann@example.fr", remove=("2",)), "b"))
    world.set_clock(NOW + timedelta(seconds=172))
    other = world.portal()
    other.hold("ledger", "bob", 4, 60)
    with pytest.raises(LockLost):
        slow.do(EditCompanies("ann@example.fr", add=("2",)), "c")
    other.release()
    with pytest.raises(LockLost):
        slow.portal.hold("ledger", "ann", 4, 60)


# --- links ---


@promise(LINKS, OTHERS)
def test_a_link_is_the_same_until_it_is_used_and_works_once(desk: Desk, world: World) -> None:
    assert world.others is not None
    require(desk.create(user("eve", type="standard", status="to_validate")))
    require(desk.do(CloseUser("bob@example.fr")))
    ids = {name: desk.find(name).id for name in ("ann", "bob", "cid", "eve")}
    links = desk.portal.activation_links([*ids.values(), "nobody"])
    assert set(links) == {*ids.values(), "nobody"}
    assert [bool(links[id_]) for id_ in (*ids.values(), "nobody")] == [True, False, True, False, False]
    assert all(links[ids[name]].startswith(PUBLIC_URL + "/") for name in ("ann", "cid"))
    assert world.portal().activation_links([ids["ann"]]) == {ids["ann"]: links[ids["ann"]]}
    if world.files is not None:
        token = links[ids["ann"]].rpartition("/")[2].encode()
        assert not any(token in file.read_bytes() for file in world.files.iterdir())
    assert world.others.consume(links[ids["ann"]])
    assert not world.others.consume(links[ids["ann"]])
    assert not world.others.consume(f"{PUBLIC_URL}/invented")
    assert desk.portal.activation_links([ids["ann"]]) == {ids["ann"]: ""}
    require(desk.do(CloseUser("cid@example.fr")))
    assert not world.others.consume(links[ids["cid"]])


@promise(LINKS, OTHERS, MONTHS)
def test_a_link_that_has_ended_is_replaced_by_another(desk: Desk, world: World) -> None:
    assert world.set_clock is not None
    assert world.others is not None
    ann = desk.find("ann").id
    old = desk.portal.activation_links([ann])[ann]
    world.set_clock(NOW + timedelta(days=31))
    assert not world.others.consume(old)
    new = desk.portal.activation_links([ann])[ann]
    assert new != old
    assert not world.others.consume(old)
    assert world.others.consume(new)


# --- plans ---

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
    """From the portal as it is; nobody leaves."""
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
    """The verdicts of a whole plan."""
    ledger.journal.begin("apply", "digest")
    start = verify_precondition(
        plan, portal.snapshot(), ledger.snapshot().managed, ledger.journal.creations()
    )
    return {str(outcome.verdict) for outcome in apply_steps(plan, start, portal, ledger, lambda: False)}


@promise()
def test_what_was_planned_is_what_is_and_nothing_is_left_to_plan(world: World, memory_path: Path) -> None:
    portal = world.portal()
    ledger = Ledger(SqliteDatabase(memory_path / "ledger.db"), lambda: NOW)
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


@promise()
def test_a_plan_is_refused_where_what_it_touches_has_moved_and_nowhere_else(desk: Desk) -> None:
    """Row 9: law 5, on every portal."""
    plan = plan_to(desk.portal, state(user("ann", companies=("2",))))
    assert {str(change.address) for change in plan.changes} == {"user:ann@example.fr"}
    require(desk.do(EditCompanies("cid@example.fr", add=("1",))))
    verify_precondition(plan, desk.portal.snapshot())
    require(desk.do(EditApps("ann@example.fr", grant=("Scan",))))
    with pytest.raises(StalePlan) as refused:
        verify_precondition(plan, desk.portal.snapshot())
    assert "user:ann@example.fr" in str(refused.value)
    assert "cid" not in str(refused.value)


@promise(RECEIPTS, CLAIMS, LEASES)
def test_of_two_ledgers_that_both_looked_before_either_wrote_one_owes_the_welcomes(
    world: World, memory_path: Path
) -> None:
    """Row 7: whoever's call the portal did; the other one's was done already, and he adopts."""
    looked = []
    for name in ("one", "two"):
        portal = world.portal()
        ledger = Ledger(SqliteDatabase(memory_path / f"{name}.db"), lambda: NOW)
        plan = plan_to(portal, FIRST, welcomed=FIRST.users)
        looked.append((portal, ledger, plan, verify_precondition(plan, portal.snapshot())))
    told = []
    for portal, ledger, plan, start in looked:
        with ledger.lock.hold("test"):
            portal.hold(ledger.id, ledger.lock.owner, ledger.lock.fence, 60)
            ledger.journal.begin("apply", "digest")
            told.append({str(o.verdict) for o in apply_steps(plan, start, portal, ledger, lambda: False)})
            portal.release()
    assert told == [{"applied"}, {"already"}]
    owed = [[posted.user for posted in ledger.outbox.letters()] for _, ledger, _, _ in looked]
    assert [sorted(owed[0]), owed[1]] == [["ann@example.fr", "bob@example.fr", "cid@example.fr"], []]
    created = [[known.created for known in ledger.snapshot().managed.values()] for _, ledger, _, _ in looked]
    assert created == [[True] * 4, [False] * 4]
    for _, ledger, _, _ in looked:
        ledger.close()


@promise(RECEIPTS, CLAIMS, LEASES)
def test_what_an_interrupted_run_meant_and_another_ledger_did_is_settled_as_done_by_the_other(
    world: World, memory_path: Path
) -> None:
    theirs, ours = world.portal(), world.portal()
    ledger = Ledger(SqliteDatabase(memory_path / "ledger.db"), lambda: NOW)
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
    entries = read_entries(SqliteDatabase(memory_path / "ledger.db"), 1)
    assert [entry.verdict for entry in entries] == ["already", "applied", "skipped"]
    ledger.close()


# the servers that can less keep no other receipts
@pytest.mark.parametrize("driver", [*drivers(RECEIPTS, LEASES), "scim"])
def test_whom_another_ledger_created_is_not_taken_for_whoever_is_to_have_his_name_by_now(
    world: World, desk: Desk, memory_path: Path
) -> None:
    """The ledger was lost, or is another workspace's; the account goes by another e-mail since."""
    theirs, ours = desk.portal, world.portal()
    ledger = Ledger(SqliteDatabase(memory_path / "ledger.db"), lambda: NOW)
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
        # nor for somebody else who has come to that name by himself
        require(desk.do(EditProfile("eve@example.fr", "eve2@example.fr", "Eve", "Martin", None)))
        require(desk.create(user("eve", "2", type="standard")))
        assert verdict(theirs.execute([call])[0]) == ("conflict", "exists")
    ledger.close()


@cache
def the_story() -> list[str]:
    """What the samples say on the portal in memory."""
    with (
        TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        DRIVERS["memory"].world(Path(folder)) as world,
    ):
        return story(world, Path(folder), patch)


@promise(WHOLE, VERSIONS, CLAIMS)
def test_the_samples_give_the_same_plans_and_outcomes_on_every_portal(
    world: World, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [but_for_what_it_cannot_guard(text) for text in story(world, memory_path, monkeypatch)]
    assert "Plan: 25 to add" in told[0]
    assert told == the_story()


def but_for_what_it_cannot_guard(text: str) -> str:
    """A plan without the one warning of a portal that cannot guard against a second run."""
    alone = "Warnings (1)\n  This portal takes one run at a time [unguarded]"
    return "\n\n".join(part for part in text.split("\n\n") if not part.startswith(alone))


@promise(WHOLE, VERSIONS)
@settings(
    max_examples=8,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(ends=st.tuples(states(), states()))
def test_from_anywhere_to_anywhere_the_plan_leads_there(driver: str, ends: tuple[State, State]) -> None:
    """Law: apply(plan(a, b)) on a portal at a gives b."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        ledger = Ledger(SqliteDatabase(folder / "ledger.db"), lambda: NOW)
        with DRIVERS[driver].world(folder) as world, ledger.lock.hold("test"):
            portal = world.portal()
            for wanted in map(settled, ends):
                plan = plan_to(portal, wanted)
                assume(plan.applyable)
                assert carried_out(plan, portal, ledger) <= {"applied"}
                assert not plan_to(portal, wanted).changes
                same_people(
                    portal.snapshot().state,
                    State(
                        {**portal.snapshot().state.companies, **wanted.companies},
                        {**portal.snapshot().state.users, **wanted.users},
                    ),
                )
        ledger.close()


def settled(found: State) -> State:
    """Everybody active, with applications that stay, companies billed: what may be asked for on any day."""
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


@promise(RULES, VERSIONS, RECEIPTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_walk_of_random_calls_leads_where_it_leads_on_the_portal_in_memory(world: World, seed: int) -> None:
    """The same verdicts, versions and states, whatever was asked for in whatever order."""
    chance = random.Random(seed)
    ours = Desk(world.portal())
    reference = Desk(MemoryPortal(Operator.PARTNER, TERMS, PUBLIC_URL, lambda: NOW))
    for number in ("1", "2"):
        for desk in (ours, reference):
            desk.company(company(number))
    for turn in range(25):
        here, there = ours.state, reference.state
        same_people(here, there)
        assert [(u.version, bool(u.id)) for u in here.users.values()] == [
            (u.version, True) for u in there.users.values()
        ]
        assert list(here.companies.values()) == list(there.companies.values())
        steps = _some_steps(chance, there)
        stale = chance.random() < 0.2
        told = [
            desk.portal.execute([_aimed(step, found, f"{seed}.{turn}.{n % 5}", stale) for n, step in steps])
            for desk, found in ((ours, here), (reference, there))
        ]
        assert [(*verdict(r), r.version) for r in told[0]] == [(*verdict(r), r.version) for r in told[1]], (
            steps
        )
    assert len(ours.state.users) > 3


NAMES = ("ann", "bob", "cid", "dan", "eve", "fay")


def _some_steps(chance: random.Random, found: State) -> list[tuple[int, Step]]:
    """One to six steps on different resources, allowed or not."""
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


def _aimed(step: Step, found: State, key: str, stale: bool) -> Call:
    """The call for a step on a portal that stands so."""
    if isinstance(step, CreateCompany | CreateUser):
        return Call(key, step)
    if isinstance(step, EditCompany | SetBilling):
        known = found.companies.get(step.company)
        return Call(key, step, "", (known.version if known else 0) - stale)
    someone = found.users[step.user]
    return Call(key, step, someone.id, someone.version - stale)
