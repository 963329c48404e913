"""YAML made to hurt: a sentence in the end, in bounded memory and in little time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_support import BOMBS, SECONDS
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.diagnostics import SUMMARIES
from provisioner.manifest.document import read_document


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_ends_in_a_sentence_in_bounded_memory(bomb: str) -> None:
    content, code = BOMBS[bomb]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "hostile_support.py")],
        input=content, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    report = json.loads(done.stdout)
    # some builds of libyaml stop at a depth of their own, with a syntax error of their own
    assert {code, "yaml-syntax"} & set(report["codes"])
    assert all(report["sentences"])
    assert report["seconds"] < SECONDS


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_noise_ends_in_data_or_in_our_own_problems(content: bytes) -> None:
    document, problems = read_document("f.yaml", content)
    assert document is not None or problems
    assert all(problem.code in SUMMARIES for problem in problems)
