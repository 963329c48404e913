"""Hostile YAML gives data or diagnostics, within limits of memory and time (row 19)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from needs import need_package

from provisioner.codes import CODES
from provisioner.manifest.models import MODELS
from provisioner.manifest.validate import read_model
from provisioner.yaml_source.document import read_document

HERE = Path(__file__).parent


def test_hostile_files_are_refused_in_bounded_memory_and_time() -> None:
    """Hostile files are refused within limits of memory and time."""
    done = subprocess.run(
        [sys.executable, str(HERE.parent / "support" / "hostile_support.py")],
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    reports = json.loads(done.stdout)
    assert len(reports) > 50
    for bomb, report in reports.items():
        assert "ended" not in report, (bomb, done.stderr[-2000:])
        # some builds of libyaml have a lower limit of depth and report a syntax error
        assert {report["expected"], "yaml-syntax"} & set(report["codes"]), (bomb, report)
        assert all(report["sentences"]), bomb


def holds(content: bytes | str) -> None:
    """Assert that reading and validating the content give data or diagnostics, without an exception."""
    document, problems = read_document("f.yaml", content)
    assert document is not None or problems
    if document is not None:
        for model in MODELS.values():
            problems.extend(read_model(model, document).problems)
    assert all(problem.code in CODES and problem.detail for problem in problems)


@pytest.mark.generative
@given(st.binary(max_size=300))
def test_random_bytes_give_data_or_diagnostics(content: bytes) -> None:
    """Random bytes give data or diagnostics, not an exception."""
    holds(content)


@pytest.mark.generative
@given(st.text(max_size=300))
def test_random_characters_give_data_or_diagnostics(content: str) -> None:
    """Random characters give data or diagnostics, even lone surrogates, which UTF-8 cannot encode."""
    holds(content)


@pytest.mark.external
def test_fuzzed_files_give_data_or_diagnostics(tmp_path: Path) -> None:
    """Fuzzed files give data or diagnostics.

    The fuzzer atheris derives the files from the samples, guided by branch coverage.
    """
    need_package("atheris")
    (tmp_path / "corpus").mkdir()
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz_documents.py"), "20000", "corpus"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 20000 " in done.stderr
