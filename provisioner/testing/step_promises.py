"""The promises of a driver about single steps, the rules of the portal, time, and reading."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from provisioner.errors import PortalError
from provisioner.model import AppState, Grant, Operator, State, Status, UserType, email_key, month_end
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
from provisioner.portal import Call, Verdict
from provisioner.testing.people import (
    ESSENTIEL,
    TODAY,
    state,
    state_after,
    user,
)
from provisioner.testing.step_examples import EXAMPLES
from provisioner.testing.world import (
    CLAIMS,
    COUNTED,
    CREATING,
    DECLARED,
    LINKS,
    MONTHS,
    OTHERS,
    READING,
    RECEIPTS,
    RIGHTS,
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
    (EditApps("ann@example.fr", grant=("Unknown",)), "unknown-app"),
    (EditCompanies("ann@example.fr", add=("99",)), "unknown-company"),
    (CreateCompany("1", "Another"), "exists"),
    (CreateUser("eve@durand-associes.fr", user("eve", email="eve@durand-associes.fr")), "R14"),
    (EditProfile("bob@example.fr", "bob@DURAND-associes.fr", "B", "M", None), "R14"),
)


WANTED = state(user("ann", companies=("2",), phone="+33612345678"), user("x", status="to_validate"))


def by_email(found: State) -> State:
    """Return the state with its users under the keys of their present e-mails."""
    return State(found.companies, {email_key(user.email): user for user in found.users.values()})


class StepPromises(Promises):
    """The promises about what steps do, what the portal refuses, and what a reader sees."""

    def test_every_step_changes_the_portal_as_the_fold_says(self, desk: Desk) -> None:
        require(desk.create(user("ada")))
        expected = desk.state
        portal = desk.portal
        for step, sentence in EXAMPLES:
            receipt = desk.do(step)
            assert receipt.verdict is APPLIED, (sentence, receipt)
            expected, _ = portal.project(by_email(state_after(expected, step)))
            same_state(desk.state, expected)
            key = getattr(step, "user", "")
            if isinstance(step, CreateUser):
                assert receipt.id == desk.state.users[key].id != ""

    @needs(VERSIONS)
    def test_every_write_changes_the_version_and_returns_it(self, desk: Desk) -> None:
        before = desk.state
        receipt = desk.do(EditCompanies("ann@example.fr", add=("2",)))
        after = desk.find("ann")
        assert after.version != before.users["ann@example.fr"].version
        assert (receipt.id, receipt.version) == (after.id, after.version)
        named = desk.do(EditCompany("1", "Another name"))
        assert named.version == desk.state.companies["1"].version != before.companies["1"].version
        assert desk.find("bob").version == before.users["bob@example.fr"].version

    @needs(VERSIONS, COUNTED)
    def test_versions_are_counted_from_one(self, desk: Desk) -> None:
        before = desk.find("ann")
        require(desk.do(EditCompanies("ann@example.fr", add=("2",))))
        assert (before.version, desk.find("ann").version) == (1, 2)
        assert desk.state.companies["1"].version == 2

    @needs(VERSIONS)
    def test_concurrent_change_is_not_overwritten(self, desk: Desk) -> None:
        """A step on a changed resource gets *conflict*, or *already* if the resource has the step's effect.

        The other steps of the batch are applied.
        """
        ann, bob = desk.find("ann"), desk.find("bob")
        stale = [
            Call("a", EditCompanies("ann@example.fr", add=("2",)), ann.id, ann.version),
            Call("b", SetType("bob@example.fr", UserType.ADMINISTRATOR), bob.id, bob.version),
            Call("c", CloseUser("cid@example.fr"), "unknown", 1),
        ]
        require(desk.do(EditCompanies("ann@example.fr", add=("2",))))
        require(desk.do(EditProfile("bob@example.fr", "bob@example.fr", "Robert", "Martin", None)))
        receipts = desk.portal.execute([*stale, desk.call(EditCompanies("cid@example.fr", add=("1",)))])
        assert [verdict(receipt) for receipt in receipts] == [
            ("already", ""), ("conflict", "version-moved"), ("conflict", "not-on-portal"), ("applied", ""),
        ]  # fmt: skip
        assert desk.find("cid").companies == {"1", "2"}
        assert desk.find("bob").first_name == "Robert"
        assert not desk.find("bob").is_administrator

    def test_existing_resource_as_wanted_is_not_created_again(self, desk: Desk) -> None:
        before = desk.state
        same = desk.do(CreateUser("ann@example.fr", desk.find("ann")))
        assert same.verdict is ALREADY
        assert same.id == desk.find("ann").id
        assert desk.do(CreateUser("ann@example.fr", user("ann", "2"))).verdict is CONFLICT
        assert desk.do(CreateCompany("1", "Another")).verdict is CONFLICT
        same_state(desk.state, before)

    def test_accounts_are_found_by_their_e_mail_in_any_case(self, desk: Desk) -> None:
        require(desk.create(user("eve", email="Eve.X@example.fr")))
        assert email_key(desk.find("eve.x@example.fr").email) == "eve.x@example.fr"
        again = desk.do(CreateUser("eve.x@example.fr", user("eve", "2", email="EVE.X@example.fr")))
        assert again.verdict is CONFLICT
        assert len(desk.state.users) == 4

    def test_illegal_step_gets_a_receipt_that_says_why(self, desk: Desk) -> None:
        """A refusal is a receipt with a sentence, and no exception."""
        before = desk.state
        for step in (ReopenUser("ann@example.fr"), ValidateUser("ann@example.fr")):
            receipt = desk.do(step)
            assert receipt.verdict in (FAILED, CONFLICT)
            assert receipt.problem
        same_state(desk.state, before)

    @needs(RULES)
    def test_every_rule_is_enforced_and_a_refused_step_writes_nothing(self, desk: Desk) -> None:
        before = desk.portal.snapshot()
        calls = [desk.call(step, f"key-{number}") for number, (step, _) in enumerate(REFUSED)]
        results = [desk.portal.execute([call])[0] for call in calls]
        for receipt, (_, code) in zip(results, REFUSED, strict=True):
            # over HTTP a creation without a billed company, or of a closed account, is malformed
            assert receipt.code == code or (code in ("R4", "R7") and receipt.code == "invalid")
        assert {receipt.verdict for receipt in results} == {CONFLICT, FAILED}
        assert [receipt for receipt in results if not receipt.problem] == []
        together = desk.portal.execute(calls)
        assert [verdict(receipt) for receipt in together] == [verdict(receipt) for receipt in results]
        same_state(desk.state, before.state)
        assert not desk.portal.receipts([call.key for call in calls], "")

    @needs(RULES)
    def test_batch_keeps_its_order_and_a_refusal_affects_one_call(self, desk: Desk) -> None:
        bob, cid = desk.find("bob"), desk.find("cid")
        receipts = desk.portal.execute(
            [
                Call("a", CreateUser("eve@example.fr", user("eve", email="bob@example.fr"))),
                Call(
                    "b",
                    EditProfile("bob@example.fr", "robert@example.fr", "Bob", "M", None),
                    bob.id,
                    bob.version,
                ),
                Call("d", EditCompanies("cid@example.fr", remove=("2",)), cid.id, cid.version),
            ]
        )
        assert [receipt.key for receipt in receipts] == ["a", "b", "d"]
        assert [receipt.verdict for receipt in receipts] == [CONFLICT, APPLIED, FAILED]
        assert desk.find("robert").id == bob.id

    @needs(RIGHTS)
    def test_only_operators_with_the_right_let_a_user_log_in(self, desk: Desk, world: World) -> None:
        require(desk.create(user("eve", status="to_validate")))
        require(desk.do(CloseUser("bob@example.fr")))
        other = Desk(world.portal(Operator.COLLABORATOR))
        results = [
            other.do(ValidateUser("eve@example.fr")),
            other.do(ReopenUser("bob@example.fr")),
            other.create(user("fay")),
        ]
        assert [verdict(receipt) for receipt in results] == [("failed", "no-right")] * 3
        assert [receipt.problem[:2] for receipt in results] == ["R7", "R8", "R7"]
        require(other.create(user("fay", status="to_validate")))
        require(Desk(world.portal(Operator.ADMINISTRATOR)).do(ValidateUser("eve@example.fr")))
        require(Desk(world.portal(Operator.CUSTOMER_MANAGER)).do(ReopenUser("bob@example.fr")))

    @needs(MONTHS, RULES)
    def test_application_ends_with_the_month_in_paris(self, desk: Desk, world: World) -> None:
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

    @needs(RULES)
    def test_billing_stops_without_open_users_and_resumes_with_one(
        self,
        desk: Desk,
    ) -> None:
        """R15: the portal itself sets and removes the end of billing. The company keeps its version."""
        require(desk.do(CloseUser("cid@example.fr")))
        closed = desk.state.companies["2"]
        require(desk.do(ReopenUser("cid@example.fr")))
        reopened = desk.state.companies["2"]
        require(desk.do(SetBilledCompany("cid@example.fr", "1", UserType.STANDARD)))
        assert closed.billing_ends == month_end(TODAY)
        assert reopened.billing_ends is None
        assert desk.state.companies["2"].billing_ends == month_end(TODAY)
        assert closed.version == reopened.version

    def test_snapshot_is_the_same_for_all_and_its_stamp_changes_with_it(
        self, desk: Desk, world: World
    ) -> None:
        one, two = desk.portal.snapshot(), world.portal().snapshot()
        same_state(two.state, one.state)
        assert (two.portal, two.terms) == (one.portal, one.terms)
        assert one.portal
        assert list(one.state.users) == ["ann@example.fr", "bob@example.fr", "cid@example.fr"]
        require(desk.do(EditCompanies("ann@example.fr", add=("2",))))
        three = world.portal().snapshot()
        assert three.portal == one.portal
        assert three.stamp != one.stamp or not one.stamp
        assert three.state.users["ann@example.fr"].companies == {"1", "2"}

    def test_users_by_id_are_those_of_the_snapshot(self, desk: Desk) -> None:
        by_id = {user.id: user for user in desk.portal.snapshot().state.users.values()}
        some = list(by_id)[:2]
        assert desk.portal.users([*some, "unknown-id"]) == {id_: by_id[id_] for id_ in some}
        assert desk.portal.users([]) == {}

    @needs(WHOLE)
    def test_projection_changes_nothing_on_a_portal_that_holds_everything(self, desk: Desk) -> None:
        assert desk.portal.project(WANTED) == (WANTED, ())

    def test_projection_is_idempotent_and_says_what_is_lost(self, desk: Desk) -> None:
        before = desk.state
        fitted, problems = desk.portal.project(WANTED)
        assert desk.portal.project(fitted)[0] == fitted
        assert fitted.users.keys() == WANTED.users.keys()
        assert fitted == WANTED or problems
        for problem in problems:
            assert problem.summary != problem.code, "the driver gives its own codes a driver_summary"
            assert problem.detail
        same_state(desk.state, before)

    @needs(READING)
    def test_reader_sees_the_same_and_writes_nothing(self, desk: Desk, world: World) -> None:
        reader = world.reader()
        before, seen = desk.portal.snapshot(), reader.snapshot()
        same_state(seen.state, before.state)
        assert seen.portal == before.portal
        ann = desk.find("ann")
        assert reader.users([ann.id]) == {ann.id: ann}
        with pytest.raises(PortalError):
            reader.execute([desk.call(CloseUser("bob@example.fr"))])
        same_state(desk.state, before.state)

    @needs(READING, CREATING)
    def test_reader_creates_no_portal(self, world: World) -> None:
        """A portal that does not exist yet is read as an empty portal, and reading does not create it."""
        for _ in range(2):
            empty = world.reader().snapshot()
            assert (empty.portal, empty.state) == ("", State())
        if world.files is not None:
            assert list(world.files.iterdir()) == []

    def test_features_are_those_that_the_driver_declares(self, desk: Desk) -> None:
        declared = desk.portal.capabilities()
        assert {name for name in DECLARED if getattr(declared, name)} == self.features & set(DECLARED)
        assert declared.batch > 0

    def test_missing_features_are_answered_as_the_protocol_says(self, desk: Desk) -> None:
        portal, ids = desk.portal, [desk.find("ann").id, "unknown"]
        assert portal.hold("ledger", "ann", 7, 60) >= 7
        if RECEIPTS not in self.features:
            require(desk.do(EditCompanies("ann@example.fr", add=("2",)), "key"))
            assert portal.receipts(["key"], "ledger") == {}
        if CLAIMS not in self.features:
            assert portal.claim("run", {"1" * 64: ()}) == {"1" * 64: "run"}
        if LINKS not in self.features:
            assert portal.activation_links(ids) == dict.fromkeys(ids, "")
        portal.release()

    @needs(OTHERS, RULES)
    def test_rules_apply_to_the_other_writers(self, desk: Desk, world: World) -> None:
        others = world.others
        assert others is not None
        ann, bob = desk.find("ann"), desk.find("bob")
        results = [
            others.user_changes_profile(bob.id, email="Ann@example.fr"),
            others.user_changes_profile(bob.id, email="b@durand-associes.fr"),
            others.client_creates_user(ann.id, user("eve", email="cid@example.fr")),
            others.client_creates_user(bob.id, user("eve")),
            others.client_requests_app(ann.id, "Production Paie (Consultation)"),
        ]
        assert [receipt.code for receipt in results] == ["R1", "R14", "exists", "R11", "R3"]
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
