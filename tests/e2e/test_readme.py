"""The README's quick start, and the tables of commands, exit codes, samples and tests, are complete."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from documents import blocks, commands, documents, section
from samples_support import NEXT_MONTH, ONBOARDING, ROOT, copy_samples, run

QUICK_START, TESTS = (block.text for block in blocks("README.md", "sh") if block.is_run)
COMMANDS = "provisioner/commands/README.md"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return copy_samples(tmp_path)


def letters(clone: Path) -> list[Path]:
    return sorted((clone / ONBOARDING / "outbox/new").iterdir())


def without_installation(block: str) -> str:
    return "\n".join(line for line in block.splitlines() if not re.search("-m venv|pip install", line))


def test_both_blocks_of_the_quick_start_install_what_they_need_into_a_venv() -> None:
    for block in (QUICK_START, TESTS):
        first, second, *_ = block.splitlines()
        assert first == "python3 -m venv .venv"
        assert second.startswith(".venv/bin/pip install ")
        assert block in section("README.md", "Quick start")
    assert "'.[test]'" in TESTS
    assert ".venv/bin/pytest" in TESTS


def test_the_quick_start_onboards_the_sample_and_a_second_run_does_nothing(clone: Path) -> None:
    main_job = without_installation(QUICK_START)
    first = run(main_job, clone)
    assert re.search(r"^Plan: 25 to add, 0 to change, 0 to close, 15 e-mails to send\.$", first, re.MULTILINE)
    sent = letters(clone)
    assert len(sent) == 15
    again = run(main_job, clone)
    assert "No changes" in again
    assert letters(clone) == sent


def test_each_row_of_the_samples_readme_is_in_the_plan(clone: Path) -> None:
    (story,) = blocks("samples/README.md", "console")
    outputs = [run(command.text, clone) for command in commands(story)]
    planned = outputs[2].lower()
    changes = section("samples/README.md", "Samples").partition("| what |")[2]
    rows = re.findall(r"^\| ([A-Z][^|]+) \|", changes, flags=re.MULTILINE)
    assert len(rows) > 12
    for row in rows:
        surname_or_company = row.partition(",")[0].split()[-1]
        assert surname_or_company.lower() in planned, row
    assert "No changes" in run(f"provisioner -C {NEXT_MONTH} plan", clone)


def test_continuous_integration_runs_the_tests_as_the_readme_does() -> None:
    found = re.search(r"^tests=\$\(awk '(.+)' README\.md\)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert found is not None
    extracted = subprocess.run(
        ["awk", found[1], "README.md"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert extracted.stdout == TESTS


def test_every_command_is_listed_and_nothing_else() -> None:
    from provisioner.cli import cli

    table = section(COMMANDS, "Commands")
    listed = re.findall(r"`([a-z-]+)", "".join(re.findall(r"^\|([^|]+)\|", table, flags=re.MULTILINE)))
    assert sorted(set(listed)) == sorted(cli.commands)


def test_every_exit_code_is_listed() -> None:
    from provisioner import errors

    known = [
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ProvisionerError)
    ]
    listed = {int(code) for code in re.findall(r"\| (\d+) \|", section(COMMANDS, "Exit codes"))}
    assert listed == {0, 2, *known}


@pytest.mark.parametrize("document", ["tests/README.md", "provisioner/README.md"])
def test_every_test_file_that_a_table_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    there = {path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"`(?:tests/)?((?:\w+/)?test_\w+\.py)`", text)
    assert len(named) > 15
    for name in named:
        assert name in there or any(path.endswith(f"/{name}") for path in there), name


def test_every_extra_that_is_named_exists() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = re.findall(
        r"\.\[([\w,-]+)\]", "".join(block.text for name in documents() for block in blocks(name))
    )
    assert len(named) > 4
    for name in ",".join(named).split(","):
        assert re.search(rf"^{name} = \[$", project, re.MULTILINE), name


def test_no_command_installs_the_other_provisioner_of_pypi() -> None:
    """No command of a document or of the program installs ``provisioner`` from PyPI.

    PyPI has a different program of that name.
    """
    program = [path.read_text(encoding="utf-8") for path in (ROOT / "provisioner").rglob("*.py")]
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in documents()]
    for line in "".join(program + texts).splitlines():
        assert not re.search(r"pipx? install\b.*[ ']provisioner\b", line), line
