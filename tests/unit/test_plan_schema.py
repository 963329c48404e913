"""The published schema of a plan describes every plan that is written, and accepts what the codec accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from manifest_support import compare_with_golden
from plan_schema import plan_schema
from shell_support import Shell, copy_sample
from strategies import plans
from test_planfile import everything, saved, tampered

from provisioner.errors import ProvisionerError
from provisioner.planning.codec import InvalidJson, parse_json, reader
from provisioner.planning.plan import Plan
from provisioner.planning.plan_document import PlanDocument
from provisioner.planning.planfile import from_json

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "schemas" / "plan.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(plan_schema())


def has_whole_float(value: Any) -> bool:
    """True if the value contains a float like 7.0: an integer in JSON Schema, but not in the codec."""
    if isinstance(value, dict | list):
        return any(map(has_whole_float, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float)


def is_readable(document: Any) -> bool:
    try:
        reader(PlanDocument)(document)
    except InvalidJson:
        return False
    return True


def test_published_schema_is_made_of_the_annotations() -> None:
    text = json.dumps(plan_schema(), ensure_ascii=False, indent=2) + "\n"
    compare_with_golden(PUBLISHED, text)
    jsonschema.Draft202012Validator.check_schema(plan_schema())


def test_plans_of_the_samples_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # next-month is planned on the portal and the ledger of onboarding
    for sample in ("onboarding", "next-month"):
        shell = Shell(copy_sample(tmp_path / sample, sample), capsys)
        printed = shell("plan", "--json", "--out", tmp_path / "saved.json")
        assert printed.code == 0, printed.err
        VALIDATOR.validate(json.loads(printed.out))
        VALIDATOR.validate(json.loads((tmp_path / "saved.json").read_text()))
        assert shell("apply", "--auto-approve").code == 0
        VALIDATOR.validate(json.loads(shell("plan", "--json").out))


@given(plans())
def test_plan_of_any_states_validates(plan: Plan) -> None:
    VALIDATOR.validate(json.loads(saved(plan)))


@pytest.mark.slow
def test_schema_and_codec_agree_on_plans_with_one_change() -> None:
    verdicts = set()
    for number, (_, done, text) in enumerate(tampered()):
        document = parse_json(text)
        if number % 4 or has_whole_float(document):
            continue
        assert VALIDATOR.is_valid(document) == is_readable(document), done
        verdicts.add(is_readable(document))
    assert verdicts == {True, False}


def test_object_with_a_key_twice_is_refused() -> None:
    text = saved(everything()).replace('"errored": ', '"errored": true, "errored": ')
    assert json.loads(text)
    with pytest.raises(InvalidJson, match="each key once"):
        parse_json(text)
    with pytest.raises(ProvisionerError, match="not a plan"):
        from_json(text)
