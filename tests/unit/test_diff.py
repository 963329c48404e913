"""The changes between two states, the order of the changes, and the letters that the changes cause."""

from __future__ import annotations

import pytest

from provisioner.diagnostics import Source
from provisioner.model import Address, State, User, Welcome, company_address, user_address
from provisioner.planning.diff import changes_between, letters_for
from provisioner.planning.plan import Change, PlannedLetter
from provisioner.testing.people import company, state, user

ANN = "ann@example.fr"


def changes(current: State, desired: State) -> tuple[Change, ...]:
    return tuple(changes_between(current, desired, {}, lambda address: None))


def letters(before: User | None, after: User, welcomes: tuple[str, ...] = (ANN,)) -> list[PlannedLetter]:
    desired = state(company("1", name="Le Fournil"), after)
    made = (Change(user_address(ANN), before, after, "", None),)
    return list(letters_for(made, desired, {key: Welcome("en") for key in welcomes}, "Cabinet Durand"))


def test_changes_are_ordered_by_company() -> None:
    made = changes(State(), state(user("zoe", "1"), user("bob", "2"), user("ann", "2")))
    names = [change.address.key.partition("@")[0] for change in made]
    assert names == ["1", "2", "zoe", "ann", "bob"]
    assert {change.reason for change in made} == {""}


def test_change_has_before_after_reason_and_source() -> None:
    current = state(company("1", name="Before"), user("ann", phone="+33612345678"), user("bob"))
    desired = state(company("1", name="After"), user("ann"), user("bob"))
    places = {address: Source("f.yaml", 2, 3) for address in (company_address("1"), user_address(ANN))}
    reasons: dict[Address, str] = {company_address("1"): "it moved", user_address(ANN): "she asked"}
    made = list(changes_between(current, desired, reasons, places.get))
    assert made == [
        Change(
            company_address("1"),
            current.companies["1"],
            desired.companies["1"],
            "it moved",
            places[company_address("1")],
        ),
        Change(
            user_address(ANN), current.users[ANN], desired.users[ANN], "she asked", places[user_address(ANN)]
        ),
    ]


def test_resource_as_desired_is_no_change() -> None:
    assert changes(state(user("ann")), state(user("ann", id="another", version=7))) == ()


def test_letter_context_has_user_company_and_firm() -> None:
    [letter] = letters(None, user("ann"))
    assert letter == PlannedLetter(
        user_address(ANN),
        ANN,
        "en",
        {
            "first_name": "Ann",
            "last_name": "Martin",
            "email": ANN,
            "company": "Le Fournil",
            "firm": "Cabinet Durand",
        },
    )


@pytest.mark.parametrize(
    ("before", "after", "earned"),
    [
        (None, "active", True),
        ("to_validate", "active", True),
        (None, "to_validate", False),
        ("to_validate", "to_validate", False),
        ("active", "active", False),
        ("closed", "active", False),
        ("active", "closed", False),
    ],
)
def test_welcome_is_earned_by_first_activation_only(before: str | None, after: str, earned: bool) -> None:
    was = None if before is None else user("ann", status=before, phone="+33612345678")
    assert len(letters(was, user("ann", status=after))) == earned
    assert letters(was, user("ann", status=after), welcomes=()) == []


def test_user_without_letter_does_not_stop_the_letter_of_another() -> None:
    """A user without a letter does not prevent the letter of another user.

    If the desired state does not have the company of a user, the letter shows the number of the company.
    """
    people = (user("al", status="to_validate"), user("ann", "7"))
    made = tuple(Change(user_address(someone.email), None, someone, "", None) for someone in people)
    welcomes = {someone.email: Welcome("fr") for someone in people}
    [letter] = letters_for(made, State(), welcomes, "Cabinet Durand")
    assert (letter.recipient, letter.context["company"]) == (ANN, "7")


def test_company_earns_no_letter() -> None:
    made = (Change(company_address(ANN), None, company("1"), "", None),)
    assert list(letters_for(made, State(), {ANN: Welcome("fr")}, "")) == []
