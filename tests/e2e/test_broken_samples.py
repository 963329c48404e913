"""Each folder of samples/broken has one kind of mistake; tests/golden/broken has the expected problems."""

from __future__ import annotations

from pathlib import Path

import pytest
from manifest_support import compare_with_golden, problems_of, rendered

from provisioner.codes import CODES
from provisioner.errors import ManifestsInvalid

SAMPLES = Path(__file__).parents[2] / "samples" / "broken"
GOLDEN = Path(__file__).parents[1] / "golden" / "broken"
SITUATIONS = sorted(folder.name for folder in SAMPLES.iterdir() if folder.is_dir())


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_problems_of_each_broken_sample_match_its_golden_file(situation: str) -> None:
    problems = problems_of(SAMPLES / situation)
    code = ManifestsInvalid.exit_code if any(problem.is_error for problem in problems) else 0
    text = rendered(SAMPLES / situation, problems)
    compare_with_golden(GOLDEN / f"{situation}.txt", f"{text}\nexit {code}\n")


@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_problem_has_a_place_a_sentence_and_a_known_code(situation: str) -> None:
    problems = problems_of(SAMPLES / situation)
    assert problems
    for problem in problems:
        assert problem.code in CODES
        assert problem.source is not None
        assert (SAMPLES / situation / problem.source.file).is_file()
        assert problem.detail.endswith((".", "?"))


def test_no_golden_file_is_left_over() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == SITUATIONS
