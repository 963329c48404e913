"""What each rule says of a state, to the letter; and what a move is told, which is what it breaks itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from people import TERMS, company, state, user

from provisioner.diagnostics import Diagnostic
from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Grant,
    State,
    company_address,
    user_address,
)
from provisioner.rules import StateIndex, administrator_standing

ANN, ONE = "user:ann@example.fr", "company:1"


def production(name: str) -> Grant:
    return Grant(name, AppState.ACTIVE)


def words(faults: Iterable[Diagnostic]) -> list[tuple[str, str, str, str]]:
    return [(fault.code, fault.detail, fault.remedy, fault.address) for fault in faults]


SPOILT: dict[str, tuple[State, list[tuple[str, str, str, str]]]] = {
    "R3": (
        state(
            user(
                "ann", grants=(production("Production Paie"), production("Production Compta (Consultation)"))
            )
        ),
        [
            (
                "R3",
                f"ann@example.fr is given {app!r} alone; production applications come as one whole trio.",
                "Use production: full or production: consultation instead.",
                ANN,
            )
            for app in ("Production Compta (Consultation)", "Production Paie")
        ],
    ),
    "R4": (state(user("ann", "")), [("R4", "ann@example.fr has no billed company.", "", ANN)]),
    "R5": (
        state(company("1"), replace(user("ann"), companies=frozenset({"2"}))),
        [
            (
                "R5",
                "ann@example.fr is billed to 1 but has no access to it.",
                "Add dossier 1 to this user's companies.",
                ANN,
            )
        ],
    ),
    "unknown companies": (
        State({"1": company("1")}, {"ann@example.fr": user("ann", companies=("3", "2"))}),
        [
            (
                "unknown-company",
                f"ann@example.fr is given dossier {number}, which does not exist.",
                "Declare the dossier in a manifest, or correct its number.",
                ANN,
            )
            for number in "23"
        ],
    ),
    "unknown applications": (
        state(user("ann", apps=("Scan", "Skan", "Fax"))),
        [
            (
                "unknown-app",
                f"ann@example.fr is given {app!r}, which is not in the catalogue.",
                "Correct the name, or add the application to the catalogue.",
                ANN,
            )
            for app in ("Fax", "Skan")
        ],
    ),
    "an unknown offer": (
        state(company("1", billing=Billing(BillingMode.FIRM, "Luxe")), company("2", billing=None)),
        [
            (
                "unknown-offer",
                "Dossier 1 has offer 'Luxe', which is not in the catalogue.",
                "Correct the name, or add the offer to the catalogue.",
                ONE,
            )
        ],
    ),
    "R14": (
        state(user("ann", email="Ann@DURAND-associes.fr")),
        [
            (
                "R14",
                "Ann@DURAND-associes.fr is an address of the firm itself (durand-associes.fr).",
                "Give the client's own address.",
                "user:ann@durand-associes.fr",
            )
        ],
    ),
    "R1, somebody else's": (
        State(
            {"1": company("1")},
            {"a": user("ann"), "b": user("bob", email="ANN@example.fr", status="closed"), "c": user("cid")},
        ),
        [
            (
                "R1",
                "ann@example.fr already belongs to Bob Martin, a closed account.",
                "Use another address, or declare the existing account instead.",
                "user:a",
            ),
            (
                "R1",
                "ANN@example.fr already belongs to Ann Martin.",
                "Use another address, or declare the existing account instead.",
                "user:b",
            ),
        ],
    ),
    "R1, the staff's": (
        state(user("ann", email="Helene@example.com")),
        [
            (
                "R1",
                "Helene@example.com belongs to a member of the firm's staff.",
                "Use the client's own address.",
                "user:helene@example.com",
            )
        ],
    ),
    "R2": (
        state(
            user("ann", type="standard"),
            user("bob", "2", "standard", status="to_validate"),
            user("cid", "2", "standard"),
            user("dan", "2", status="closed"),
        ),
        [
            (
                "R2",
                f"Company {number} (Company {number}) would have {people} billed to it and no administrator.",
                "Make one of its users an administrator first.",
                f"company:{number}",
            )
            for number, people in (("1", "1 user"), ("2", "2 users"))
        ],
    ),
}


@pytest.mark.parametrize("rule", SPOILT)
def test_a_broken_rule_is_told_with_whom_it_concerns_and_what_mends_it(rule: str) -> None:
    spoilt, told = SPOILT[rule]
    assert words(StateIndex(spoilt, TERMS).faults()) == told


def test_a_state_that_keeps_the_rules_has_no_faults() -> None:
    sound = state(user("ann", companies=("2",), apps=("Scan",)), user("bob", type="standard"), company("3"))
    assert list(StateIndex(sound, TERMS).faults()) == []


def test_a_move_is_told_what_it_breaks_and_nothing_that_was_broken_before() -> None:
    census = StateIndex(state(user("ann"), user("bob", "2", "standard"), user("cid", "3", "standard")), TERMS)
    moved = user("ann", "3")
    assert census.place(user_address("ann@example.fr"), moved) == []
    assert census.billed_counts("1") == (0, 0)
    assert census.billed_counts("3") == (2, 1)
    both = census.place(user_address("ann@example.fr"), user("ann", "2", "standard"))
    assert [(fault.code, fault.address) for fault in both] == [("R2", "company:2"), ("R2", "company:3")]
    assert census.billed_counts("2") == (2, 0)
    assert (
        census.place(user_address("cid@example.fr"), user("cid", "3", "standard", phone="+33612345678")) == []
    )


def test_what_is_taken_away_counts_no_more() -> None:
    census = StateIndex(state(user("ann"), user("bob", type="standard")), TERMS)
    gone = census.place(user_address("ann@example.fr"), None)
    assert [fault.code for fault in gone] == ["R2"]
    assert census.billed_counts("1") == (1, 0)
    assert census.place(user_address("nobody"), None) == []
    assert census.place(user_address("new"), user("ann")) == []
    assert census.place(company_address("1"), None) == []
    assert census.place(company_address("9"), None) == []
    assert census.get(company_address("1")) is None
    unnamed = census.place(user_address("new"), None)
    assert unnamed[0].detail == "Company 1 would have 1 user billed to it and no administrator."
    assert census.state == State({}, {"bob@example.fr": user("bob", type="standard")})


def test_the_state_that_a_census_began_with_stays_as_it_was() -> None:
    began = state(user("ann"))
    census = StateIndex(began, TERMS)
    copied = census.state
    census.place(company_address("2"), company("2"))
    census.place(user_address("bob@example.fr"), user("bob"))
    assert copied == began == state(user("ann"))
    assert census.get(company_address("2")) == company("2")
    assert census.get(user_address("bob@example.fr")) == user("bob")


def test_a_company_is_asked_for_its_offer_as_it_comes() -> None:
    census = StateIndex(State(), TERMS)
    assert census.place(company_address("1"), company("1")) == []
    luxe = company("1", billing=Billing(BillingMode.FIRM, "Luxe"))
    assert [fault.code for fault in census.place(company_address("1"), luxe)] == ["unknown-offer"]


def test_whoever_is_open_stands_for_the_company_that_he_is_billed_to() -> None:
    assert administrator_standing(user("ann", "7")) == ("7", True)
    assert administrator_standing(user("ann", "7", "standard", status="to_validate")) == ("7", False)
    assert administrator_standing(user("ann", status="closed")) is None
    assert administrator_standing(company("1")) is None
    assert administrator_standing(None) is None
