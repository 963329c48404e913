"""The exact violations of each rule, and the violations that a single change causes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from people import all_violations

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
from provisioner.testing.people import TERMS, company, state, user

ANN, ONE = "user:ann@example.fr", "company:1"


def production(name: str) -> Grant:
    return Grant(name, AppState.ACTIVE)


def words(violations: Iterable[Diagnostic]) -> list[tuple[str, str, str, str]]:
    return [
        (violation.code, violation.detail, violation.remedy, violation.address) for violation in violations
    ]


ILLEGAL: dict[str, tuple[State, list[tuple[str, str, str, str]]]] = {
    "R3": (
        state(
            user(
                "ann", grants=(production("Production Paie"), production("Production Compta (Consultation)"))
            )
        ),
        [
            (
                "R3",
                f'ann@example.fr has "{app}" among apps; production applications come as one whole trio.',
                "Write production: full or production: consultation instead.",
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
                f'ann@example.fr has "{app}", which the catalogue does not have.{hint}',
                f"The apps are: {', '.join(sorted(TERMS.apps))}. "
                "Correct the name, or add it under catalogue: in provisioner.yaml.",
                ANN,
            )
            for app, hint in (("Fax", ""), ("Skan", ' Did you mean "Scan"?'))
        ],
    ),
    "an unknown offer": (
        state(company("1", billing=Billing(BillingMode.FIRM, "Luxe")), company("2", billing=None)),
        [
            (
                "unknown-offer",
                'Dossier 1 has the offer "Luxe", which the catalogue does not have.',
                f"The offers are: {', '.join(sorted(TERMS.offers))}. "
                "Correct the name, or add it under catalogue: in provisioner.yaml.",
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
                "Give the client's own address; firm: email_domains: in provisioner.yaml lists the firm's.",
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
                "Give the client's own address; firm: staff: in provisioner.yaml lists the firm's.",
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
                f"Company {number} ({number}) has {people} billed to it and no open "
                "administrator among them.",
                "Write type: administrator for one of them.",
                f"company:{number}",
            )
            for number, people in (("1", "1 user"), ("2", "2 users"))
        ],
    ),
}


@pytest.mark.parametrize("rule", ILLEGAL)
def test_a_broken_rule_names_the_resource_and_the_remedy(rule: str) -> None:
    illegal, expected = ILLEGAL[rule]
    assert words(all_violations(StateIndex(illegal, TERMS))) == expected


def test_a_legal_state_has_no_violations() -> None:
    legal = state(user("ann", companies=("2",), apps=("Scan",)), user("bob", type="standard"), company("3"))
    assert list(all_violations(StateIndex(legal, TERMS))) == []


def test_put_returns_only_the_violations_that_the_change_causes() -> None:
    index = StateIndex(state(user("ann"), user("bob", "2", "standard"), user("cid", "3", "standard")), TERMS)
    moved = user("ann", "3")
    assert index.put(user_address("ann@example.fr"), moved) == []
    assert index.billed_counts("1") == (0, 0)
    assert index.billed_counts("3") == (2, 1)
    both = index.put(user_address("ann@example.fr"), user("ann", "2", "standard"))
    assert [(violation.code, violation.address) for violation in both] == [
        ("R2", "company:2"),
        ("R2", "company:3"),
    ]
    assert index.billed_counts("2") == (2, 0)
    assert index.put(user_address("cid@example.fr"), user("cid", "3", "standard", phone="+33612345678")) == []


def test_removed_resources_do_not_count() -> None:
    index = StateIndex(state(user("ann"), user("bob", type="standard")), TERMS)
    gone = index.put(user_address("ann@example.fr"), None)
    assert [violation.code for violation in gone] == ["R2"]
    assert index.billed_counts("1") == (1, 0)
    assert index.put(user_address("nobody"), None) == []
    assert index.put(user_address("new"), user("ann")) == []
    assert index.put(company_address("1"), None) == []
    assert index.put(company_address("9"), None) == []
    assert index.get(company_address("1")) is None
    unnamed = index.put(user_address("new"), None)
    assert unnamed[0].detail == "Company 1 has 1 user billed to it and no open administrator among them."
    assert index.state == State({}, {"bob@example.fr": user("bob", type="standard")})


def test_an_index_does_not_change_the_state_it_was_made_from() -> None:
    began = state(user("ann"))
    index = StateIndex(began, TERMS)
    copied = index.state
    index.put(company_address("2"), company("2"))
    index.put(user_address("bob@example.fr"), user("bob"))
    assert copied == began == state(user("ann"))
    assert index.get(company_address("2")) == company("2")
    assert index.get(user_address("bob@example.fr")) == user("bob")


def test_put_of_a_company_checks_its_offer() -> None:
    index = StateIndex(State(), TERMS)
    assert index.put(company_address("1"), company("1")) == []
    luxe = company("1", billing=Billing(BillingMode.FIRM, "Luxe"))
    assert [violation.code for violation in index.put(company_address("1"), luxe)] == ["unknown-offer"]


def test_an_open_user_counts_for_the_company_they_are_billed_to() -> None:
    assert administrator_standing(user("ann", "7")) == ("7", True)
    assert administrator_standing(user("ann", "7", "standard", status="to_validate")) == ("7", False)
    assert administrator_standing(user("ann", status="closed")) is None
    assert administrator_standing(company("1")) is None
    assert administrator_standing(None) is None
