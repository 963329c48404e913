"""The embedded portal enforces R1 to R15 for every writer and every step that could break them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from provisioner.embedded.portal import SqlPortal
from provisioner.model import (
    AppState,
    Grant,
    Operator,
    Status,
    User,
    UserType,
    email_key,
    paris_date,
)
from provisioner.planning.steps import (
    CloseUser,
    CreateCompany,
    CreateUser,
    EditApps,
    EditCompanies,
    EditProfile,
    ReopenUser,
    SetBilledCompany,
    SetBilling,
    SetType,
    Step,
    ValidateUser,
)
from provisioner.portal import Call, Receipt, Verdict
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import ESSENTIEL, NOW, TERMS, user


class Desk:
    """A portal with an operator, and a clock that can be set."""

    def __init__(self, path: Path, operator: Operator = Operator.PARTNER) -> None:
        self.now = NOW
        self.path = path
        self.portal = SqlPortal(
            SqliteDatabase(path), operator, TERMS, "https://example.com/activation", lambda: self.now
        )

    def do(self, step: Step, key: str = "") -> Receipt:
        """Execute a step on the current version of its resource and return the receipt.

        ``key`` is the idempotency key of the call.
        """
        number = getattr(step, "company", None)
        snapshot = self.portal.snapshot().state
        if number is not None:
            company = snapshot.companies.get(number)
            call = Call(key, step, "", company.version if company else 0)
        elif isinstance(step, CreateUser):
            call = Call(key, step)
        else:
            someone = self.find(step.user)  # type: ignore[union-attr]
            call = Call(key, step, someone.id, someone.version)
        return self.portal.execute([call])[0]

    def find(self, name: str) -> User:
        return self.portal.snapshot().state.users[name if "@" in name else f"{name}@example.fr"]

    def create(self, someone: User) -> Receipt:
        for number in sorted(someone.companies):
            if number not in self.portal.snapshot().state.companies:
                self.do(CreateCompany(number, f"Company {number}"))
                self.do(SetBilling(number, ESSENTIEL))
        return self.do(CreateUser(email_key(someone.email), someone))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Company 1 with administrator ann and standard user bob; company 2 with administrator cid."""
    desk = Desk(tmp_path / "portal.db")
    for someone in (user("ann"), user("bob", type="standard"), user("cid", "2")):
        assert desk.create(someone).verdict is Verdict.APPLIED
    yield desk
    desk.portal.close()


def refused(receipt: Receipt, rule: str) -> None:
    assert receipt.verdict in (Verdict.FAILED, Verdict.CONFLICT)
    assert receipt.problem.startswith(rule), receipt.problem


def test_r1_email_in_use_cannot_be_created_again(desk: Desk) -> None:
    refused(desk.create(user("eve", email="ANN@example.fr")), "R1")


def test_r1_email_in_use_cannot_be_taken_by_a_rename(desk: Desk) -> None:
    refused(desk.do(EditProfile("bob@example.fr", "ann@example.fr", "B", "M", None)), "R1")


def test_r1_email_in_use_cannot_be_taken_by_self_service(desk: Desk) -> None:
    refused(desk.portal.user_changes_profile(desk.find("bob").id, email="Ann@Example.fr"), "R1")


def test_r1_closed_account_keeps_its_email(desk: Desk) -> None:
    desk.do(CloseUser("bob@example.fr"))
    refused(desk.create(user("eve", email="bob@example.fr")), "R1")


def test_r1_staff_emails_are_taken(desk: Desk) -> None:
    refused(desk.create(user("eve", email="helene@example.com")), "R1")


def test_r1_email_in_use_cannot_be_created_by_a_client_administrator(desk: Desk) -> None:
    refused(desk.portal.client_creates_user(desk.find("ann").id, user("eve", email="cid@example.fr")), "R1")


def test_r2_last_administrator_cannot_be_closed_while_others_are_billed(desk: Desk) -> None:
    refused(desk.do(CloseUser("ann@example.fr")), "R2")


def test_r2_last_administrator_cannot_be_demoted(desk: Desk) -> None:
    refused(desk.do(SetType("ann@example.fr", UserType.STANDARD)), "R2")


def test_r2_last_administrator_cannot_move_to_another_company(desk: Desk) -> None:
    refused(desk.do(SetBilledCompany("ann@example.fr", "2", UserType.ADMINISTRATOR)), "R2")


def test_r2_first_user_of_a_company_is_an_administrator(desk: Desk) -> None:
    refused(desk.create(user("eve", "3", "standard")), "R2")


def test_r2_standard_user_is_not_reopened_without_an_administrator(desk: Desk) -> None:
    desk.do(CloseUser("bob@example.fr"))
    desk.do(CloseUser("ann@example.fr"))
    refused(desk.do(ReopenUser("bob@example.fr")), "R2")


def test_r2_last_administrator_may_be_closed_last(desk: Desk) -> None:
    desk.do(CloseUser("bob@example.fr"))
    assert desk.do(CloseUser("ann@example.fr")).verdict is Verdict.APPLIED


def test_r3_production_applications_are_not_granted_one_by_one(desk: Desk) -> None:
    refused(desk.do(EditApps("ann@example.fr", grant=("Production Paie",))), "R3")


def test_r3_production_applications_are_not_requested_in_the_store(desk: Desk) -> None:
    refused(desk.portal.client_requests_app(desk.find("ann").id, "Production Paie (Consultation)"), "R3")


def test_r4_user_without_a_billed_company_is_refused(desk: Desk) -> None:
    refused(desk.do(CreateUser("eve@example.fr", replace(user("eve"), billed=""))), "R4")


def test_r5_billed_company_is_not_withdrawn(desk: Desk) -> None:
    refused(desk.do(EditCompanies("ann@example.fr", remove=("1",))), "R5")


def test_r5_user_is_not_created_without_access_to_the_billed_company(desk: Desk) -> None:
    profile = replace(user("eve"), companies=frozenset({"2"}))
    refused(desk.do(CreateUser("eve@example.fr", profile)), "R5")


def test_r5_move_gives_access_to_the_new_billed_company(desk: Desk) -> None:
    desk.do(SetBilledCompany("bob@example.fr", "2", UserType.STANDARD))
    assert desk.find("bob").companies == {"1", "2"}


def test_r6_offer_not_in_the_catalogue_is_refused(desk: Desk) -> None:
    refused(desk.do(SetBilling("1", ESSENTIEL._replace(offer="Luxe"))), "unknown-offer")


def test_r7_collaborator_neither_validates_nor_creates_active_users(tmp_path: Path, desk: Desk) -> None:
    desk.create(user("eve", status="to_validate"))
    other = Desk(desk.path, Operator.COLLABORATOR)
    refused(other.do(ValidateUser("eve@example.fr")), "R7")
    refused(other.create(user("fay")), "R7")
    assert other.create(user("fay", status="to_validate")).verdict is Verdict.APPLIED
    other.portal.close()
    assert desk.do(ValidateUser("eve@example.fr")).verdict is Verdict.APPLIED


def test_r8_collaborator_does_not_reopen(desk: Desk) -> None:
    desk.do(CloseUser("bob@example.fr"))
    other = Desk(desk.path, Operator.COLLABORATOR)
    refused(other.do(ReopenUser("bob@example.fr")), "R8")
    other.portal.close()
    assert desk.do(ReopenUser("bob@example.fr")).verdict is Verdict.APPLIED


def test_closed_account_is_neither_validated_nor_closed_again(desk: Desk) -> None:
    desk.do(CloseUser("bob@example.fr"))
    refused(desk.do(ValidateUser("bob@example.fr")), "R7")
    refused(desk.do(CloseUser("bob@example.fr")), "R8")


@pytest.mark.parametrize(
    ("now", "ends"),
    [
        (datetime(2026, 11, 24, 12, tzinfo=UTC), date(2026, 11, 30)),
        (datetime(2028, 2, 28, 12, tzinfo=UTC), date(2028, 2, 29)),
        (datetime(2026, 11, 30, 22, 59, tzinfo=UTC), date(2026, 11, 30)),  # 23:59 in Paris
        (datetime(2026, 11, 30, 23, 1, tzinfo=UTC), date(2026, 12, 31)),  # 00:01 in Paris
        (datetime(2026, 3, 31, 21, 59, tzinfo=UTC), date(2026, 3, 31)),  # summer time has started
        (datetime(2026, 10, 31, 22, 59, tzinfo=UTC), date(2026, 10, 31)),  # and has ended
    ],
)
def test_r9_application_ends_on_the_last_day_of_the_month_in_paris(
    desk: Desk, now: datetime, ends: date
) -> None:
    desk.do(EditApps("ann@example.fr", grant=("Scan",)))
    desk.now = now
    wrong = date(2020, 1, 31)
    assert desk.do(EditApps("ann@example.fr", end=("Scan",), ends=wrong)).verdict is Verdict.CONFLICT
    assert desk.do(EditApps("ann@example.fr", end=("Scan",), ends=ends)).verdict is Verdict.APPLIED
    assert desk.find("ann").apps == {Grant("Scan", AppState.ENDING, ends)}


def test_r9_ended_application_is_gone_after_its_last_day(desk: Desk) -> None:
    desk.do(EditApps("ann@example.fr", grant=("Scan",)))
    desk.do(EditApps("ann@example.fr", end=("Scan",), ends=date(2026, 11, 30)))
    desk.now = datetime(2026, 12, 1, 0, 0, tzinfo=UTC)
    assert desk.find("ann").apps == frozenset()
    desk.do(EditApps("ann@example.fr", grant=("Achats",)))
    desk.now = NOW
    assert {grant.app for grant in desk.find("ann").apps} == {"Achats"}
    assert paris_date(desk.now) == date(2026, 11, 24)


def test_r10_requested_application_waits_for_the_firm(desk: Desk) -> None:
    desk.portal.client_requests_app(desk.find("ann").id, "Scan")
    assert desk.find("ann").apps == {Grant("Scan", AppState.REQUESTED)}
    desk.do(EditApps("ann@example.fr", grant=("Scan",)))
    assert desk.find("ann").apps == {Grant("Scan", AppState.ACTIVE)}


def test_r11_user_of_a_client_administrator_is_billed_alike_and_pending(desk: Desk) -> None:
    asked = user("eve", "2", companies=("2",))
    desk.portal.client_creates_user(desk.find("ann").id, asked)
    eve = desk.find("eve")
    assert (eve.billed, eve.companies) == ("1", frozenset("1"))
    assert (eve.status, eve.type) == (Status.TO_VALIDATE, UserType.STANDARD)


def test_r11_standard_user_creates_no_user(desk: Desk) -> None:
    refused(desk.portal.client_creates_user(desk.find("bob").id, user("eve")), "R11")


def test_r12_user_may_access_several_companies(desk: Desk) -> None:
    assert desk.do(EditCompanies("ann@example.fr", add=("2",))).verdict is Verdict.APPLIED
    assert desk.find("ann").companies == {"1", "2"}


def test_access_to_an_unknown_company_is_refused(desk: Desk) -> None:
    refused(desk.do(EditCompanies("ann@example.fr", add=("99",))), "unknown-company")


def test_r13_dossier_number_is_unique(desk: Desk) -> None:
    receipt = desk.do(CreateCompany("1", "Another"))
    refused(receipt, "R13")


def test_r14_email_of_the_firm_is_no_client(desk: Desk) -> None:
    refused(desk.create(user("eve", email="eve@durand-associes.fr")), "R14")
    renamed = EditProfile("bob@example.fr", "bob@DURAND-associes.fr", "B", "M", None)
    refused(desk.do(renamed), "R14")
    refused(desk.portal.user_changes_profile(desk.find("bob").id, email="b@durand-associes.fr"), "R14")


def test_r15_billing_stops_without_open_users_and_resumes_with_one(
    desk: Desk,
) -> None:
    desk.do(CloseUser("cid@example.fr"))
    assert desk.portal.snapshot().state.companies["2"].billing_ends == date(2026, 11, 30)
    desk.do(ReopenUser("cid@example.fr"))
    assert desk.portal.snapshot().state.companies["2"].billing_ends is None


def test_r15_billing_stops_when_the_last_user_moves_away(desk: Desk) -> None:
    desk.do(SetBilledCompany("cid@example.fr", "1", UserType.STANDARD))
    assert desk.portal.snapshot().state.companies["2"].billing_ends == date(2026, 11, 30)


def test_repeated_key_gives_its_first_receipt(desk: Desk) -> None:
    ann = desk.find("ann")
    call = Call("k", EditCompanies("ann@example.fr", add=("2",)), ann.id, ann.version)
    (first,) = desk.portal.execute([call])
    desk.do(EditCompanies("ann@example.fr", remove=("2",)))
    assert desk.portal.execute([call]) == [first]
    assert desk.find("ann").companies == {"1"}
    assert desk.portal.receipts(["k", "unheard of"], "") == {"k": first}


def test_changed_version_is_a_conflict_unless_the_effect_is_there(desk: Desk) -> None:
    ann = desk.find("ann")
    desk.do(EditCompanies("ann@example.fr", add=("2",)))
    same = Call("", EditCompanies("ann@example.fr", add=("2",)), ann.id, ann.version)
    other = Call("", SetType("ann@example.fr", UserType.STANDARD), ann.id, ann.version)
    closed = Call("", CloseUser("ann@example.fr"), ann.id, ann.version)
    receipts = [desk.portal.execute([call])[0].verdict for call in (same, other, closed)]
    assert receipts == [Verdict.ALREADY, Verdict.CONFLICT, Verdict.CONFLICT]


def test_refusal_does_not_affect_the_rest_of_the_batch(desk: Desk) -> None:
    bob, cid = desk.find("bob"), desk.find("cid")
    receipts = desk.portal.execute(
        [
            Call("a", CreateUser("ann2@example.fr", user("ann2", email="ann@example.fr"))),
            Call("b", EditCompanies("bob@example.fr", add=("2",)), bob.id, bob.version),
            Call("c", EditCompanies("cid@example.fr", remove=("2",)), cid.id, cid.version),
        ]
    )
    assert [receipt.verdict for receipt in receipts] == [Verdict.CONFLICT, Verdict.APPLIED, Verdict.FAILED]


def test_new_user_may_take_an_email_given_up_in_the_same_batch(desk: Desk) -> None:
    bob = desk.find("bob")
    receipts = desk.portal.execute(
        [
            Call(
                "a", EditProfile("bob@example.fr", "robert@example.fr", "Bob", "M", None), bob.id, bob.version
            ),
            Call("b", CreateUser("bob@example.fr", user("new", type="standard", email="bob@example.fr"))),
        ]
    )
    assert [receipt.verdict for receipt in receipts] == [Verdict.APPLIED, Verdict.APPLIED]
    assert desk.find("robert").id == bob.id
    assert desk.find("bob").first_name == "New"


def test_new_user_is_refused_before_the_email_is_given_up(desk: Desk) -> None:
    bob = desk.find("bob")
    receipts = desk.portal.execute(
        [
            Call("b", CreateUser("bob@example.fr", user("new", type="standard", email="bob@example.fr"))),
            Call(
                "a", EditProfile("bob@example.fr", "robert@example.fr", "Bob", "M", None), bob.id, bob.version
            ),
        ]
    )
    assert [receipt.verdict for receipt in receipts] == [Verdict.CONFLICT, Verdict.APPLIED]
    assert desk.find("robert").id == bob.id


def test_batch_may_change_a_resource_that_it_created(desk: Desk) -> None:
    calls = [
        Call("a", CreateCompany("77", "Company 77")),
        Call("b", SetBilling("77", ESSENTIEL), "", 1),
        Call("c", CreateUser("zoe@example.fr", user("zoe", "77"))),
        Call("d", CreateUser("yan@example.fr", user("yan", "77", type="standard"))),
        Call("c", CreateUser("zoe@example.fr", user("zoe", "77"))),
    ]
    receipts = desk.portal.execute(calls)
    assert {receipt.verdict for receipt in receipts} == {Verdict.APPLIED}
    assert receipts[4] == receipts[2]
    assert desk.portal.snapshot().state.companies["77"].billing == ESSENTIEL
    assert desk.find("zoe").companies == {"77"}
    assert desk.portal.execute(calls) == receipts


def test_rules_see_the_earlier_calls_of_the_batch(desk: Desk) -> None:
    """R2: a step that an earlier call of the batch makes illegal is refused."""
    zoe, yan = (user("zoe", "77"), user("yan", "77"))
    for someone in (zoe, yan):
        desk.create(someone)
    receipts = desk.portal.execute(
        [
            Call(name, SetType(f"{name}@example.fr", UserType.STANDARD), found.id, found.version)
            for name, found in (("zoe", desk.find("zoe")), ("yan", desk.find("yan")))
        ]
    )
    assert [receipt.verdict for receipt in receipts] == [Verdict.APPLIED, Verdict.FAILED]
    assert "R2" in receipts[1].problem
    assert desk.find("yan").is_administrator


def link_of(desk: Desk, user_id: str) -> str:
    return desk.portal.activation_links([user_id])[user_id]


def test_links_of_one_call_equal_those_of_separate_calls(desk: Desk) -> None:
    ids = [desk.find(name).id for name in ("ann", "bob", "cid")]
    together = desk.portal.activation_links([*ids, "unknown"])
    assert together == {**{id_: link_of(desk, id_) for id_ in ids}, "unknown": ""}
    assert len(set(together.values())) == 4
    assert all(desk.portal.consume(together[id_]) for id_ in ids)


def test_activation_link_is_stable_and_works_once(desk: Desk) -> None:
    ann = desk.find("ann").id
    link = link_of(desk, ann)
    assert link.startswith("https://example.com/activation/")
    assert link_of(desk, ann) == link
    assert link.rpartition("/")[2].encode() not in desk.path.read_bytes()
    assert desk.portal.consume(link)
    assert not desk.portal.consume(link)
    assert link_of(desk, ann) == ""


def test_links_work_after_the_key_was_lost_and_replaced(desk: Desk) -> None:
    ann = desk.find("ann").id
    old = link_of(desk, ann)
    desk.path.with_name(desk.path.name + ".key").unlink()
    new = link_of(desk, ann)
    assert new != old
    assert not desk.portal.consume(old)
    assert desk.portal.consume(new)


def test_expired_link_is_replaced_and_no_longer_works(desk: Desk) -> None:
    ann = desk.find("ann").id
    link = link_of(desk, ann)
    desk.now = datetime(2027, 1, 15, tzinfo=UTC)
    assert not desk.portal.consume(link)
    renewed = link_of(desk, ann)
    assert renewed != link
    assert desk.portal.consume(renewed)


def test_user_who_may_not_log_in_gets_no_link(desk: Desk) -> None:
    desk.create(user("eve", status="to_validate"))
    desk.do(CloseUser("bob@example.fr"))
    assert link_of(desk, desk.find("eve").id) == ""
    assert link_of(desk, desk.find("bob").id) == ""


def test_link_of_a_closed_account_no_longer_works(desk: Desk) -> None:
    link = link_of(desk, desk.find("bob").id)
    desk.do(CloseUser("bob@example.fr"))
    assert not desk.portal.consume(link)


def test_invented_link_does_not_work(desk: Desk) -> None:
    assert not desk.portal.consume("https://example.com/activation/x.1.99999999999.abc")
