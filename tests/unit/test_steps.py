"""The steps of a change and their phases, the effect of each step, and the steps that are refused."""

from __future__ import annotations

import pytest

from provisioner.model import Company, Resource, company_address, user_address
from provisioner.planning.steps import (
    PHASES,
    STEPS,
    EditApps,
    IllegalStep,
    Phase,
    Step,
    address_of,
    after,
    steps_between,
)
from provisioner.render.describe import describe_step
from provisioner.testing.people import TODAY
from provisioner.testing.step_examples import CHANGES, ENDING, EXAMPLES, ILLEGAL, KEY, REQUESTED, ann


@pytest.mark.parametrize("change", CHANGES)
def test_steps_of_a_change_lead_from_before_to_after(change: str) -> None:
    before, desired, steps = CHANGES[change]
    address = company_address("1") if isinstance(desired, Company) else user_address(KEY)
    assert list(steps_between(address, before, desired)) == steps
    phases = [phase for phase, _ in steps]
    # a plan goes through the phases once: a step after one of a later phase would never be done
    assert phases == sorted(phases, key=PHASES.index)
    found = before
    for _, step in steps:
        assert address_of(step) == address
        found = after(found, step)
    assert found == desired


def test_names_of_phases_are_those_of_saved_plans() -> None:
    assert [str(phase) for phase in Phase] == ["companies", "profiles", "arrive", "move", "narrow", "widen"]


def test_every_class_of_step_has_its_sentence() -> None:
    assert {type(step).__name__ for step, _ in EXAMPLES} == set(STEPS)
    assert [describe_step(step) for step, _ in EXAMPLES] == [sentence for _, sentence in EXAMPLES]


@pytest.mark.parametrize(("resource", "step", "code", "detail"), ILLEGAL)
def test_illegal_step_is_refused_with_its_rule(
    resource: Resource | None, step: Step, code: str, detail: str
) -> None:
    with pytest.raises(IllegalStep) as caught:
        after(resource, step)
    assert (caught.value.diagnostic.code, caught.value.diagnostic.detail) == (code, detail)
    assert str(caught.value) == detail


def test_removing_an_application_the_user_does_not_have_changes_nothing() -> None:
    step = EditApps(KEY, end=("Scan", "Image"), remove=("Achats",), ends=TODAY)
    assert after(ann(grants=REQUESTED), step) == ann(grants=REQUESTED)
    assert after(ann(grants=ENDING), EditApps(KEY, end=("Scan",))) == ann(grants=ENDING)
