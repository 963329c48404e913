"""YAML made to hurt: data or a sentence in the end, in bounded memory and time (row 19)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.diagnostics import SUMMARIES
from provisioner.manifest.models import MODELS
from provisioner.manifest.validate import read_model
from provisioner.yaml_source.document import read_document

HERE = Path(__file__).parent
IN_CI = bool(os.environ.get("CI"))


def test_every_bomb_ends_in_a_sentence_in_bounded_memory_and_time() -> None:
    """Row 19."""
    done = subprocess.run(
        [sys.executable, str(HERE / "hostile_support.py")], capture_output=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    reports = json.loads(done.stdout)
    assert len(reports) > 50
    for bomb, report in reports.items():
        assert "ended" not in report, (bomb, done.stderr[-2000:])
        # some builds of libyaml stop at a depth of their own, with a syntax error of their own
        assert {report["expected"], "yaml-syntax"} & set(report["codes"]), (bomb, report)
        assert all(report["sentences"]), bomb


def holds(content: bytes | str) -> None:
    """Whatever it is, it is read or told in our own words, and so is what the schema makes of it."""
    document, problems = read_document("f.yaml", content)
    assert document is not None or problems
    if document is not None:
        for model in MODELS.values():
            problems.extend(read_model(model, document).problems)
    assert all(problem.code in SUMMARIES and problem.detail for problem in problems)


@settings(max_examples=10_000 if IN_CI else 300)
@given(st.binary(max_size=300))
def test_noise_ends_in_data_or_in_our_own_problems(content: bytes) -> None:
    """Row 19."""
    holds(content)


@settings(max_examples=10_000 if IN_CI else 300)
@given(st.text(max_size=300))
def test_noise_of_characters_ends_in_data_or_in_our_own_problems(content: str) -> None:
    """Row 19; half characters among them, which no bytes can spell."""
    holds(content)


def test_what_a_fuzzer_finds_ends_in_data_or_in_our_own_problems(tmp_path: Path) -> None:
    """Row 19: inputs that atheris makes of the samples, looking for branches not taken yet."""
    if find_spec("atheris") is None:
        sentence = "atheris is not installed: pip install atheris"
        if IN_CI and sys.platform == "linux" and platform.machine() == "x86_64":
            pytest.fail(sentence)
        pytest.skip(sentence)
    (tmp_path / "corpus").mkdir()
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz_documents.py"), "20000" if IN_CI else "2000", "corpus"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 2000" in done.stderr
