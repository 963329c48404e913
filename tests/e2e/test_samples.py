"""The samples have the results that their comments describe, and show each kind of change once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from samples_support import NEXT_MONTH, ONBOARDING, answer, copy_samples, run

EXPECTED = {
    "company:004217": ["SetBilling"],
    "company:004705": ["EditCompany"],
    "user:samira.benali@boulangerie-martin.fr": ["SetType"],
    "user:paul.girard@boulangerie-martin.fr": ["CloseUser"],
    "user:ines.caron@boulangerie-martin.fr": ["ReopenUser"],
    "user:henri.lefevre@lefevre-participations.fr": ["EditCompanies"],
    "user:sophie.arnaud@lefevre-participations.fr": ["EditCompanies"],
    "user:nadia.lefevre@garage-lefevre.fr": ["SetBilledCompany"],
    "user:lea.nguyen@pharmacie-du-port.fr": ["CreateUser"],
    "user:james.clarke@clarke-ceramics.com": ["SetType"],
    "user:karim.haddad@les-petits-pas.fr": ["ValidateUser"],
    "user:camille.roussel@menuiserie-roussel.fr": ["EditProfile"],
    "user:bruno.roussel@menuiserie-roussel.fr": ["EditApps"],
    # an application that leaves the list narrows, one that joins it widens
    "user:hugo.lambert@menuiserie-roussel.fr": ["EditApps", "EditApps"],
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the samples: onboarding is applied, and the staff has closed the account of Inès."""
    clone = copy_samples(tmp_path_factory.mktemp("clone"))
    run(f"provisioner -C {ONBOARDING} apply --auto-approve", clone)
    run(f"provisioner -C {ONBOARDING} simulate close ines.caron@boulangerie-martin.fr", clone)
    return clone


@pytest.fixture(scope="module")
def plan(clone: Path) -> dict[str, Any]:
    planned: dict[str, Any] = json.loads(answer(f"provisioner -C {NEXT_MONTH} plan --json", clone))
    return planned


def address(step: dict[str, Any]) -> str:
    return f"user:{step['user']}" if "user" in step else f"company:{step['company']}"


@pytest.mark.parametrize("sample", [ONBOARDING, NEXT_MONTH])
def test_a_sample_has_no_problem_and_no_warning(clone: Path, sample: str) -> None:
    said = run(f"provisioner -C {sample} validate", clone)
    assert "Error" not in said
    assert "Warning" not in said


def test_next_month_shows_each_kind_of_change_once(plan: dict[str, Any]) -> None:
    steps: dict[str, list[str]] = {}
    for step in plan["steps"]:
        steps.setdefault(address(step), []).append(step["step"])
    assert steps == EXPECTED
    assert {change["address"] for change in plan["resource_changes"]} == set(EXPECTED)


def test_next_month_welcomes_the_new_and_the_validated_user(plan: dict[str, Any]) -> None:
    assert sorted(letter["recipient"] for letter in plan["letters"]) == [
        "karim.haddad@les-petits-pas.fr",
        "lea.nguyen@pharmacie-du-port.fr",
    ]


def test_next_month_reports_undeclared_users_and_ending_billing(plan: dict[str, Any]) -> None:
    assert sorted(notice["kind"] for notice in plan["notices"]) == ["billing_stops", "left_the_manifests"]


def test_an_exported_sample_plans_to_nothing(clone: Path) -> None:
    run(f"provisioner -C {ONBOARDING} export exported", clone)
    said = run("provisioner -C exported plan --detailed-exitcode", clone)
    assert "No changes" in said
    assert "Warning" not in run("provisioner -C exported validate", clone)
