"""Checks of the table of sabotages (``python -m tests.sabotage``). Each sabotage removes one safeguard.

The table stays short, and all functions and tests that it names exist.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sabotage.table import MOST, SABOTAGES, Sabotage, seen_by

TESTS = Path(__file__).resolve().parents[1]

APPLY_ALL = "from sabotage.table import SABOTAGES\nfor sabotage in SABOTAGES.values(): sabotage.apply()"


def test_the_table_is_short() -> None:
    assert 0 < len(SABOTAGES) <= MOST


def test_a_name_is_used_once() -> None:
    taken = next(iter(SABOTAGES.values()))
    with pytest.raises(ValueError, match="two sabotages"):
        seen_by(taken.file, taken.test)(taken.apply)


@pytest.mark.parametrize("sabotage", SABOTAGES.values(), ids=list(SABOTAGES))
def test_each_sabotage_has_a_reason_and_its_tests_exist(sabotage: Sabotage) -> None:
    assert sabotage.reason.endswith(".")
    tree = ast.parse((TESTS / sabotage.file).read_text("utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not sabotage.test or sabotage.test in names


def test_each_sabotage_finds_what_it_replaces() -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, "-c", APPLY_ALL], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "code"), [("no-limits", 0), ("no-such-sabotage", 70)])
def test_the_environment_names_the_sabotage_of_a_process(name: str, code: int) -> None:
    path = os.pathsep.join([str(TESTS / "sabotage" / "hook"), str(TESTS)])
    program = "from provisioner.planning.guard import guard; print(guard.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path, "PROVISIONER_SABOTAGE": name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert done.stdout.strip() == ("" if code else "sabotage.table")
