"""A plan is read from its file as it was written, and a later change of the file is detected."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from people import all_violations
from strategies import planned, plans, texts

from provisioner.diagnostics import Source, error, warning
from provisioner.errors import ProvisionerError, StalePlan
from provisioner.model import (
    AppState,
    Grant,
    Notice,
    NoticeKind,
    State,
    User,
    company_address,
    email_key,
    user_address,
)
from provisioner.planning import planfile
from provisioner.planning.codec import InvalidJson, parse_json, reader, writer
from provisioner.planning.plan import Adoption, Change, Limits, Plan, PlannedLetter
from provisioner.planning.plan_document import SavedPlan
from provisioner.planning.planfile import digest, from_json, to_json
from provisioner.planning.steps import Step
from provisioner.rules import StateIndex
from provisioner.testing.people import TERMS, company, state, user
from provisioner.testing.step_examples import EXAMPLES
from provisioner.testing.strategies import states

MANIFESTS = {"clients/a.yaml": "ab" * 32}


def saved(plan: Plan) -> str:
    return to_json(plan, manifests=MANIFESTS, version="1.0")


def everything() -> Plan:
    """Return a plan in which no field of the plan file is empty."""
    current = state(
        user("ann", apps=("Scan",), phone="+33612345678", version=3),
        user("bob", type="standard", companies=("2",), apps=("Scan",), version=7),
        user("cid", type="standard", status="closed", version=9),
        user("dan", type="standard", version=2),
    )
    ending = Grant("Scan", AppState.ENDING, date(2026, 11, 30))
    desired = state(
        user("ann", "2", apps=("Scan",), version=3),
        user("bob", production="consultation", grants=(ending,), version=7),
        user("cid", type="standard", apps=("Image",), version=9),
        user("dan", type="standard", status="closed", version=2),
        user("eve", "3", status="to_validate", id=""),
    )
    made = planned(replace(current, companies={"1": company("1"), "2": company("2")}), desired)
    eve = user_address("eve@example.fr")
    return replace(
        made,
        changes=tuple(
            replace(change, reason="why", source=Source("clients/a.yaml", 12, 5)) for change in made.changes
        ),
        letters=(
            PlannedLetter(eve, "eve@example.fr", "fr", {"firm": "Durand"}),
            PlannedLetter(user_address("cid@example.fr"), "cid@example.fr", "en"),
        ),
        adoptions=(Adoption(eve, "u-1", "eve@example.fr", "", created=True, known=True),),
        notices=(
            Notice(NoticeKind.DRIFT, eve, "Eve changed her phone."),
            Notice(NoticeKind.ENDING, eve, "Scan ends.", date(2026, 11, 30)),
        ),
        diagnostics=(
            warning("S1", "contact@ is generic.", "Ask for another.", Source("a.yaml", 1, 2), str(eve)),
            error("R2", "Nobody is left."),
        ),
    )


@given(plans())
def test_a_plan_survives_its_file(plan: Plan) -> None:
    read = from_json(saved(plan))
    assert read.plan == plan
    assert (read.manifests, read.version, read.complete) == (MANIFESTS, "1.0", True)
    assert read.digest == digest(plan)
    # id and version do not compare, and must survive all the same
    assert [marks(change) for change in read.plan.changes] == [marks(change) for change in plan.changes]
    assert saved(read.plan) == saved(plan)


def marks(change: Change) -> list[object]:
    return [
        getattr(resource, name, None)
        for resource in (change.before, change.after)
        for name in ("id", "version", "billing_ends")
    ]


def test_every_class_of_step_survives_its_notation() -> None:
    steps = [step for step, _ in EXAMPLES]
    assert [reader(Step)(parse_json(writer(Step)(step))) for step in steps] == steps


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        [],
        {},
        {"step": "DropTables"},
        {"step": []},
        {"step": "CloseUser", "user": 5},
        {"step": "CloseUser", "user": "a", "at": 1},
    ],
)
def test_what_is_no_step_is_not_read_as_one(value: object) -> None:
    with pytest.raises(InvalidJson):
        reader(Step)(value)


def test_equal_values_have_equal_text_whatever_the_order_of_their_sets() -> None:
    grants = [Grant("Scan", AppState.ENDING), Grant("Scan", AppState.ENDING, date(2026, 1, 1))]
    people = user("ann", grants=tuple(grants)), user("ann", grants=tuple(reversed(grants)))
    one, other = (Plan("p", (Change(user_address("ann"), None, person),)) for person in people)
    assert saved(one) == saved(other)


@given(states())
def test_the_states_drawn_for_tests_keep_the_rules(drawn: State) -> None:
    assert list(all_violations(StateIndex(drawn, TERMS))) == []
    assert all(email_key(one.email) == key for key, one in drawn.users.items())


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside a JSON value. Objects and arrays are values too."""
    if path:
        yield path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from leaves(child, (*path, key))


def flipped(value: Any) -> Iterator[Any]:
    """Yield values that differ slightly from ``value``, and values of every other type."""
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, float(value), -value - 1)
        case str():
            yield from (value + "x", value[1:] + "?", value.upper() + " ")
        case list():
            yield from ([*value, *value[-1:]] if value else [None], value[1:] if value else {})
        case dict():
            yield from ({**value, "further": 1}, dict(list(value.items())[1:]) if value else [])
    yield from (
        other for other in (None, 7, "seven", [7], {"seven": 7}, True) if type(other) is not type(value)
    )


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copied: Any = copy.deepcopy(document)
    place = copied
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return dict(copied)


def value_at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def tampered() -> Iterator[tuple[str, str, str]]:
    """Yield plan files with one changed or removed field.

    Each item contains the outermost key of the field, a description of the change, and the text of the file.
    """
    document = json.loads(saved(everything()))
    for path in leaves(document):
        for value in flipped(value_at(document, path)):
            if value != value_at(document, path) or type(value) is not type(value_at(document, path)):
                yield path[0], f"{path} = {value!r}", json.dumps(changed(document, path, value))
        if isinstance(path[-1], str):
            without = copy.deepcopy(document)
            del value_at(without, path[:-1])[path[-1]]
            yield path[0], f"{path} removed", json.dumps(without)


def sealed_again(text: str) -> str:
    """Return the plan file with a new valid seal, as an attacker who knows the algorithm would write it."""
    document = json.loads(text)
    document.pop("seal", None)
    return planfile._sealed({key: planfile._lines(value) for key, value in document.items()})


def test_each_field_flipped_is_refused_with_a_sentence() -> None:
    tried = 0
    for key, done, text in tampered():
        with pytest.raises(ProvisionerError) as refusal:
            from_json(text)
        assert refusal.value.sentence.endswith("."), done
        assert refusal.value.remedy, done
        if key != "format_version":
            assert isinstance(refusal.value, StalePlan), done
            assert "changed after it was made" in refusal.value.sentence, done
        tried += 1
    assert tried > 3000


def test_a_flipped_field_under_a_new_seal_is_refused_or_another_plan_altogether() -> None:
    original = saved(everything())
    accepted = set()
    for number, (key, done, text) in enumerate(tampered()):
        if number % 8:
            continue
        again = sealed_again(text)
        if again == original:
            continue
        try:
            read = from_json(again)
        except ProvisionerError:
            continue
        assert saved_as(read) == again, done
        accepted.add(key)
    # nothing else in the file follows from these; what the digest covers is not among them
    assert accepted <= {
        *("checks", "companies", "complete", "manifests"),
        *("notices", "provisioner_version", "resource_changes"),
    }


def saved_as(read: SavedPlan) -> str:
    return to_json(
        read.plan,
        manifests=read.manifests,
        version=read.version,
        complete=read.complete,
    )


def test_a_file_laid_out_anew_is_still_the_same_plan() -> None:
    text = json.dumps(json.loads(saved(everything())), indent=4, ensure_ascii=False)
    assert from_json(text).plan == everything()


@given(st.text(max_size=60) | st.recursive(st.none() | st.integers() | texts, st.lists).map(json.dumps))
def test_garbage_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ProvisionerError, match=r"not a plan"):
        from_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        "[" * 200_000,
        '{"format_version": ' * 100_000,
        '{"format_version": "1.0", "x": NaN}',
        '{"format_version": 1.0}',
        '{"format_version": "\ud800"}',
        '{"format_version": "one"}',
        '{"format_version": "1.0", "x": ' + "9" * 5000 + "}",
        "\ufeff{}",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_what_is_no_plan_file_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ProvisionerError, match="not a plan") as refusal:
        from_json(text)
    assert "provisioner plan" in refusal.value.remedy


def test_a_file_cut_anywhere_is_refused_with_a_sentence() -> None:
    text = saved(everything())
    for end in range(0, len(text.rstrip()) - 1, 7):
        with pytest.raises(ProvisionerError, match="not a plan, or it was cut short"):
            from_json(text[:end])


def test_a_file_beyond_the_limit_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = saved(everything())
    monkeypatch.setattr(planfile, "MAX_PLAN_BYTES", len(text))
    assert from_json(text).plan == everything()
    with pytest.raises(ProvisionerError, match="too large"):
        from_json(text + " ")


@pytest.mark.parametrize(("found", "word"), [("2.0", "newer"), ("1.1", "newer"), ("0.9", "older")])
def test_another_format_is_refused_by_its_version(found: str, word: str) -> None:
    text = saved(everything()).replace('"format_version": "1.0"', f'"format_version": "{found}"')
    with pytest.raises(ProvisionerError, match=f"format {found}, {word} than") as refusal:
        from_json(text)
    assert "the version that made it" in refusal.value.remedy


def test_the_digest_covers_what_is_approved_and_nothing_else() -> None:
    plan = everything()
    same = (
        replace(plan, notices=()),
        replace(plan, diagnostics=()),
        replace(plan, companies={}),
        replace(plan, changes=tuple(replace(change, reason="", source=None) for change in plan.changes)),
        replace(plan, changes=plan.changes[::-1], letters=plan.letters[::-1]),
    )
    assert {digest(one) for one in same} == {digest(plan)}
    first, *others = plan.changes
    assert isinstance(first.after, User) or first.before is None
    moved = next(c for c in plan.changes if isinstance(c.before, User))
    assert isinstance(moved.before, User)
    others = [change for change in plan.changes if change is not moved]
    different = (
        replace(plan, portal="another"),
        replace(plan, changes=plan.changes[1:]),
        replace(plan, changes=(replace(moved, before=replace(moved.before, version=99)), *others)),
        replace(plan, changes=(replace(moved, before=replace(moved.before, id="z")), *others)),
        replace(plan, steps=plan.steps[1:]),
        replace(plan, steps=(replace(plan.steps[0], wave=77), *plan.steps[1:])),
        replace(plan, letters=()),
        replace(plan, letters=(replace(plan.letters[0], context={"firm": "Dupont"}),)),
        replace(plan, adoptions=()),
        replace(plan, limits=Limits(max_closures=6)),
    )
    assert len({digest(one) for one in (plan, *different)}) == len(different) + 1


def test_terraforms_names_mean_what_they_mean_there() -> None:
    document = json.loads(saved(everything()))
    assert document["format_version"] == "1.0"
    assert (document["applyable"], document["complete"], document["errored"]) == (False, True, True)
    changes = {entry["address"]: entry for entry in document["resource_changes"]}
    assert {address: (entry["action"], entry["change"]["actions"]) for address, entry in changes.items()} == {
        "company:3": ("create", ["create"]),
        "user:ann@example.fr": ("update", ["update"]),
        "user:bob@example.fr": ("update", ["update"]),
        "user:cid@example.fr": ("reopen", ["create"]),
        "user:dan@example.fr": ("close", ["delete"]),
        "user:eve@example.fr": ("create", ["create"]),
    }
    entry = changes["user:bob@example.fr"]
    assert (entry["type"], entry["name"], entry["reason"]) == ("user", "bob@example.fr", "why")
    assert entry["source"] == {"file": "clients/a.yaml", "line": 12, "column": 5}
    assert entry["change"]["before"]["version"] == 7
    assert entry["change"]["after"]["apps"] == [{"app": "Scan", "ends": "2026-11-30", "state": "ending"}]
    assert [drift["address"] for drift in document["resource_drift"]] == ["user:eve@example.fr"]
    assert [(check["address"]["name"], check["severity"]) for check in document["checks"]] == [
        ("S1", "warning"),
        ("R2", "error"),
    ]


def test_the_access_delta_says_who_sees_and_uses_what_from_now_on() -> None:
    document = json.loads(saved(everything()))
    deltas = {entry["address"]: entry["access_delta"] for entry in document["resource_changes"]}
    nothing: dict[str, Any] = {
        "apps_ending": {},
        "apps_granted": [],
        "apps_removed": [],
        "companies_added": [],
        "companies_removed": [],
        "new_administrator": False,
    }
    assert deltas == {
        "company:3": None,
        "user:ann@example.fr": nothing | {"companies_added": ["2"], "companies_removed": ["1"]},
        "user:bob@example.fr": nothing
        | {"apps_ending": {"Scan": "2026-11-30"}, "companies_removed": ["2"], "new_administrator": True},
        "user:cid@example.fr": nothing | {"apps_granted": ["Image"], "companies_added": ["1"]},
        "user:dan@example.fr": nothing | {"companies_removed": ["1"]},
        "user:eve@example.fr": nothing | {"companies_added": ["3"], "new_administrator": True},
    }


def test_an_empty_plan_is_not_worth_applying_unless_it_has_something_to_remember() -> None:
    assert json.loads(saved(Plan("p")))["applyable"] is False
    assert json.loads(saved(Plan("p", adoptions=(Adoption(user_address("a"), "1"),))))["applyable"] is True
    assert json.loads(saved(Plan("p", letters=everything().letters)))["applyable"] is True


def test_no_line_of_the_file_is_a_command_to_a_build_server() -> None:
    hostile = company("1", name="##[error]stop ##vso[task] ### ::error::x\n::stop")
    plan = planned(State(), State({"1": hostile}))
    text = saved(plan)
    assert "##" not in text
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    assert text.isascii()
    assert from_json(text).plan == plan


def test_ten_thousand_changes_are_written_in_half_a_second_or_little_more() -> None:
    people = {
        f"claire.{number}@example.fr": user(f"claire.{number}", apps=("Documents", "Scan"))
        for number in range(10_000)
    }
    changes = tuple(Change(user_address(key), None, person) for key, person in people.items())
    plan = Plan("p", (Change(company_address("1"), None, company("1")), *changes))
    began = time.process_time()
    saved(plan)
    # four times what it takes, for a busy machine
    assert time.process_time() - began < 2
