"""The table of sabotages stays true; ``python -m tests.sabotage`` does them (row 30)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sabotage.__main__ import ROOT, ids
from sabotage.table import SABOTAGES, Sabotage


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=[sabotage.name for sabotage in SABOTAGES])
def test_a_sabotage_can_still_be_done_and_names_tests_that_exist(sabotage: Sabotage) -> None:
    """Row 30: a text that has moved on is found here, and not only once somebody runs them all."""
    text = (ROOT / "provisioner" / sabotage.file).read_text(encoding="utf-8")
    assert text.count(sabotage.old) == 1, "change tests/sabotage/table.py along with the program"
    compile(text.replace(sabotage.old, sabotage.new), sabotage.file, "exec")
    for test in ids(sabotage.tests):
        file, _, name = test.partition("::")
        assert f"def {name}" in Path(ROOT, file).read_text(encoding="utf-8")


def test_every_sabotage_has_a_name_of_its_own() -> None:
    assert set(Counter(sabotage.name for sabotage in SABOTAGES).values()) == {1}
