"""The portal changes after the plan was made, or between the last read and a write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from shell_support import BAKERY, CLAIRE, Shell

from provisioner.embedded.portal import SqlPortal
from provisioner.model import Billing, BillingMode, Company, Operator, PortalTerms, User
from provisioner.planning.steps import (
    CloseUser,
    EditApps,
    EditCompany,
    EditProfile,
    SetBilling,
    SetType,
    Step,
    address_of,
)
from provisioner.portal import Call, Receipt, Verdict
from provisioner.storage.sqlite import SqliteDatabase

JULIEN = "julien.martin@boulangerie-martin.fr"
SAMIRA = "samira.benali@boulangerie-martin.fr"
PAUL = "paul.girard@boulangerie-martin.fr"
INES = "ines.caron@boulangerie-martin.fr"
LEA = "lea.petit@boulangerie-martin.fr"

LEA_ARRIVES = f"""
  - email: {LEA}
    first_name: Léa
    last_name: Petit
    type: standard
"""

EDITS = (
    ("offer: Essentiel", "offer: Confort"),
    ("first_name: Claire", "first_name: Clara"),
    ("apps: [Documents, Scan]\n\n  - email: samira", "apps: [Documents]\n\n  - email: samira"),
    ("type: standard\n    apps: [Documents, Scan]", "type: administrator\n    apps: [Documents, Scan]"),
    ("profile: reader                #", "profile: reader\n    status: closed   #"),
)
"""Replacements in the manifest that change the company, Claire, Julien, Samira and Paul, but not Inès."""


def edited(shell: Shell) -> Path:
    """Edit the bakery's manifest, add Léa to it, and save the plan."""
    for old, new in EDITS:
        shell.edit(BAKERY, old, new)
    file = shell.folder / BAKERY
    file.write_text(file.read_text() + LEA_ARRIVES)
    planfile = shell.folder / "plan.json"
    assert shell("plan", "--out", planfile, "--detailed-exitcode").code == 2
    touched = [change["address"] for change in json.loads(planfile.read_text())["resource_changes"]]
    assert touched == ["company:004217", *(f"user:{email}" for email in (CLAIRE, JULIEN, LEA, PAUL, SAMIRA))]
    return planfile


class OtherWriter:
    """A writer beside the run under test, with its own connection to the portal."""

    def __init__(self, folder: Path) -> None:
        self.portal = SqlPortal(
            SqliteDatabase(folder / "portal.db"),
            Operator.PARTNER,
            PortalTerms(),
            "",
            lambda: datetime.now(UTC),
        )

    def find(self, email: str) -> User:
        return self.portal.snapshot().state.users[email]

    def bakery(self) -> Company:
        return self.portal.snapshot().state.companies["004217"]

    def does(self, step: Step) -> Receipt:
        address = address_of(step)
        resource = self.portal.snapshot().state.get(address)
        assert resource is not None
        (receipt,) = self.portal.execute([Call("", step, getattr(resource, "id", ""), resource.version)])
        return receipt

    def renames(self, email: str, first_name: str) -> Receipt:
        user = self.find(email)
        return self.does(EditProfile(email, user.email, first_name, user.last_name, user.phone))

    def close(self) -> None:
        self.portal.close()


@contextmanager
def another_writer(shell: Shell) -> Iterator[OtherWriter]:
    other = OtherWriter(shell.folder)
    yield other
    other.close()


Write = Callable[[OtherWriter], Receipt]


def creates_lea(who: OtherWriter) -> Receipt:
    julien = who.find(JULIEN)
    lea = replace(julien, email=LEA, first_name="Léa", apps=frozenset())
    return who.portal.client_creates_user(julien.id, lea)


OTHERWISE: dict[str, tuple[str, Write]] = {
    "the company's name": (
        "company:004217",
        lambda who: who.does(EditCompany("004217", "Boulangerie Martin SAS", who.bakery().siren)),
    ),
    "the company's offer": (
        "company:004217",
        lambda who: who.does(SetBilling("004217", Billing(BillingMode.FIRM, "Essentiel"))),
    ),
    "a phone": (f"user:{CLAIRE}", lambda who: who.portal.user_changes_profile(who.find(CLAIRE).id, phone="")),
    "a name": (f"user:{CLAIRE}", lambda who: who.renames(CLAIRE, "Clarisse")),
    "a request in the Store": (
        f"user:{JULIEN}",
        lambda who: who.portal.client_requests_app(who.find(JULIEN).id, "Image"),
    ),
    "an application": (f"user:{JULIEN}", lambda who: who.does(EditApps(JULIEN, grant=("Achats",)))),
    "an account closed": (f"user:{SAMIRA}", lambda who: who.does(CloseUser(SAMIRA))),
    "an e-mail": (
        f"user:{CLAIRE}",
        lambda who: who.portal.user_changes_profile(who.find(CLAIRE).id, email="claire@example.fr"),
    ),
    "an account that arrived first": (f"user:{LEA}", creates_lea),
}
"""Writes of values that differ from the plan, each with the address of the resource that it changes."""


def test_every_changed_resource_of_a_plan_is_named(applied: Shell) -> None:
    planfile = edited(applied)
    with another_writer(applied) as other:
        for _, does in OTHERWISE.values():
            assert does(other).verdict is Verdict.APPLIED
    before, files = applied.tables(), applied.letters()
    said = applied("apply", planfile)
    assert said.code == 5
    assert "Nothing was written" in said.err
    for address in {address for address, _ in OTHERWISE.values()}:
        assert address in said.err
    assert PAUL not in said.err
    assert INES not in said.err
    assert applied.tables() == before
    assert applied.letters() == files


@pytest.mark.parametrize("what", OTHERWISE)
def test_one_changed_resource_refuses_the_whole_plan(what: str, applied: Shell) -> None:
    planfile = edited(applied)
    address, does = OTHERWISE[what]
    with another_writer(applied) as other:
        assert does(other).verdict is Verdict.APPLIED
    before = applied.tables()
    said = applied("apply", planfile)
    assert said.code == 5
    assert f": {address}. Nothing was written" in said.err
    assert applied.tables() == before


ELSEWHERE: dict[str, Write] = {
    "another user's phone": lambda who: who.portal.user_changes_profile(
        who.find(INES).id, phone="+33199001234"
    ),
    "another user closed": lambda who: who.does(CloseUser(INES)),
    "an unplanned user": lambda who: who.portal.client_creates_user(
        who.find(CLAIRE).id, replace(who.find(CLAIRE), email="new@example.fr")
    ),
    "another company": lambda who: who.does(SetBilling("004512", Billing(BillingMode.FIRM, "Confort"))),
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_change_elsewhere_does_not_refuse_a_plan(what: str, applied: Shell) -> None:
    planfile = edited(applied)
    with another_writer(applied) as other:
        assert ELSEWHERE[what](other).verdict is Verdict.APPLIED
        mine = {"ines": other.find(INES), "company": other.portal.snapshot().state.companies["004512"]}
        assert applied("apply", planfile).code == 0
        assert other.find(CLAIRE).first_name == "Clara"
        # the other writer's change is kept
        assert mine == {
            "ines": other.find(INES),
            "company": other.portal.snapshot().state.companies["004512"],
        }


LIKEWISE: dict[str, Write] = {
    "the company's offer": lambda who: who.does(SetBilling("004217", Billing(BillingMode.CLIENT, "Confort"))),
    "a name": lambda who: who.renames(CLAIRE, "Clara"),
    "a promotion": lambda who: who.does(SetType(SAMIRA, who.find(CLAIRE).type)),
    "a closure": lambda who: who.does(CloseUser(PAUL)),
}
"""Writes of the values that the plan contains."""


def test_a_resource_with_the_planned_value_is_done_already(applied: Shell) -> None:
    planfile = edited(applied)
    with another_writer(applied) as other:
        for does in LIKEWISE.values():
            assert does(other).verdict is Verdict.APPLIED
    said = applied("apply", planfile)
    assert said.code == 0, said.err
    # Julien's application and Léa are left to do
    assert "Applied: 2 steps done, 1 e-mail sent." in said.out
    assert applied("plan", "--detailed-exitcode").code == 0


def test_a_resource_between_two_planned_steps_is_finished(applied: Shell) -> None:
    """A resource is finished if another writer has already done one of its two planned steps."""
    applied.edit(
        BAKERY, "first_name: Samira\n    last_name: Benali\n    type: standard",
        "first_name: Samia\n    last_name: Benali\n    type: administrator",
    )  # fmt: skip
    planfile = applied.folder / "plan.json"
    applied("plan", "--out", planfile)
    with another_writer(applied) as other:
        assert other.renames(SAMIRA, "Samia").verdict is Verdict.APPLIED
    said = applied("apply", planfile)
    assert said.code == 0
    assert "1 step done" in said.out


# --- between the last read and a write ---


@contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, shell: Shell, *deeds: Write) -> Iterator[list[Verdict]]:
    """Let another writer do ``deeds`` before the portal receives the first step. Yield the verdicts."""
    execute = SqlPortal.execute
    ended: list[Verdict] = []

    def late(portal: SqlPortal, calls: Sequence[Call]) -> list[Receipt]:
        monkeypatch.setattr(SqlPortal, "execute", execute)
        with another_writer(shell) as other:
            ended.extend(does(other).verdict for does in deeds)
        return execute(portal, calls)

    monkeypatch.setattr(SqlPortal, "execute", late)
    yield ended
    monkeypatch.setattr(SqlPortal, "execute", execute)


@pytest.mark.parametrize("what", [name for name in OTHERWISE if name != "an account that arrived first"])
def test_a_write_after_the_read_is_a_conflict_for_that_step_alone(
    what: str, applied: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    planfile = edited(applied)
    address, does = OTHERWISE[what]
    with meanwhile(monkeypatch, applied, does) as ended:
        said = applied("apply", planfile)
    assert ended == [Verdict.APPLIED]
    assert said.code == 7
    assert said.out.endswith("Applied in part: 5 steps done, 1 in conflict, 1 e-mail sent.\n")
    shown = " ".join(said.err.partition("Not done:")[2].split())
    assert f"conflict, {address} was changed by somebody else meanwhile" in shown
    assert "To finish: provisioner " in shown
    entries = json.loads(applied("history", "2", "--json").out)
    assert {entry["address"]: entry["verdict"] for entry in entries} == {
        f"user:{email}": "applied" for email in (CLAIRE, JULIEN, SAMIRA, PAUL, LEA)
    } | {"company:004217": "applied"} | {address: "conflict"}
    # the other writer's value was not overwritten
    assert applied("apply", planfile).code == 5


def test_the_same_write_after_the_read_is_no_conflict(
    applied: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    planfile = edited(applied)
    with meanwhile(monkeypatch, applied, *LIKEWISE.values()) as ended:
        said = applied("apply", planfile)
    assert ended == [Verdict.APPLIED] * len(LIKEWISE)
    assert said.code == 0
    assert said.err.count("was so already") == len(LIKEWISE)
    assert applied("plan", "--detailed-exitcode").code == 0


def test_steps_that_depend_on_a_conflict_are_skipped_and_named(
    applied: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that depend on a conflict are skipped, and the output names them.

    Another writer takes the address of the first administrator of the new company.
    """
    (applied.folder / "clients/new.yaml").write_text(
        """
company: {number: "009001", name: Garage Neuf}
billing: {mode: client, offer: Essentiel}
users:
  - {email: chef@example.fr, first_name: Chloé, last_name: Chef, type: administrator}
  - {email: aide@example.fr, first_name: Anatole, last_name: Aide, type: standard}
"""
    )
    applied.edit(BAKERY, "first_name: Claire", "first_name: Clara")

    def takes(who: OtherWriter) -> Receipt:
        julien = who.find(JULIEN)
        return who.portal.client_creates_user(julien.id, replace(julien, email="chef@example.fr"))

    letters = applied.letters()
    with meanwhile(monkeypatch, applied, takes) as ended:
        said = applied("apply", "--auto-approve")
    assert ended == [Verdict.APPLIED]
    assert said.code == 7
    shown = " ".join(said.err.partition("Not done:")[2].split())
    assert "conflict, R1: chef@example.fr already belongs to another account" in shown
    assert "aide@example.fr" in shown
    assert "skipped, R2: Garage Neuf (009001) has 1 user billed to it" in shown
    assert CLAIRE not in shown
    assert applied.letters() == letters
    with another_writer(applied) as other:
        assert other.find(CLAIRE).first_name == "Clara"
        assert "aide@example.fr" not in other.portal.snapshot().state.users
