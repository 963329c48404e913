"""The READMEs are true: their commands are run, their links and names are looked up."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from samples_support import NEXT_MONTH, ONBOARDING, ROOT, copy_samples, run

README = (ROOT / "README.md").read_text(encoding="utf-8")
STORY = (ROOT / "samples" / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return copy_samples(tmp_path)


def letters(clone: Path) -> list[Path]:
    return sorted((clone / ONBOARDING / "outbox/new").iterdir())


def test_the_quick_start_is_exactly_two_blocks() -> None:
    quick_start = README[README.index("## Quick start") : README.index("## The commands")]
    assert len(blocks(README, "sh")) == 2
    assert blocks(quick_start, "sh") == blocks(README, "sh")
    assert not blocks(STORY, "sh")


def test_both_blocks_install_what_they_need_into_a_venv() -> None:
    for block in blocks(README, "sh"):
        first, second, *_ = block.splitlines()
        assert first == "python3 -m venv .venv"
        assert second.startswith(".venv/bin/pip install ")
    assert "'.[test]'" in blocks(README, "sh")[1]
    assert ".venv/bin/pytest" in blocks(README, "sh")[1]


def test_the_quick_start_onboards_the_sample_and_a_second_run_does_nothing(clone: Path) -> None:
    main_job = "\n".join(
        line
        for line in blocks(README, "sh")[0].splitlines()
        if "-m venv" not in line and "pip install" not in line
    )
    first = run(main_job, clone)
    assert re.search(r"^Plan: 25 to add, 0 to change, 0 to close, 15 e-mails to send\.$", first, re.MULTILINE)
    sent = letters(clone)
    assert len(sent) == 15
    again = run(main_job, clone)
    assert "No changes" in again
    assert letters(clone) == sent


def test_the_commands_of_the_samples_readme_have_its_results(clone: Path) -> None:
    (story,) = blocks(STORY, "console")
    commands = [line.removeprefix("$ ") for line in story.splitlines()]
    outputs = [run(command, clone) for command in commands]
    planned = outputs[2].lower()
    for row in re.findall(r"^\| ([A-Z][^|]+) \|", STORY, flags=re.MULTILINE):
        surname_or_company = row.partition(",")[0].split()[-1]
        assert surname_or_company.lower() in planned, row
    assert "No changes" in run(f"provisioner -C {NEXT_MONTH} plan", clone)


def test_the_plan_in_the_readme_is_the_plan_of_the_sample(clone: Path) -> None:
    run(f"provisioner -C {ONBOARDING} apply --auto-approve", clone)
    run(f"provisioner -C {ONBOARDING} simulate close ines.caron@boulangerie-martin.fr", clone)
    planned = run(f"provisioner -C {NEXT_MONTH} plan", clone)
    # the parts shown have no dates, which differ from run to run
    for part in blocks(README, "text")[0].split("…\n"):
        assert all(paragraph in planned for paragraph in part.split("\n\n")), part


def test_continuous_integration_runs_the_tests_as_the_readme_does() -> None:
    found = re.search(r"^tests=\$\(awk '(.+)' README\.md\)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert found is not None
    extracted = subprocess.run(
        ["awk", found[1], "README.md"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert extracted.stdout == blocks(README, "sh")[1]


def test_every_command_is_listed_and_nothing_else() -> None:
    from provisioner.cli import cli

    table = README[README.index("## The commands") : README.index("## What the plan says")]
    listed = re.findall(r"`([a-z-]+)", "".join(re.findall(r"^\|([^|]+)\|", table, flags=re.MULTILINE)))
    verbs = [word for word in listed if word not in ("status", "send", "settle")]
    assert sorted(set(verbs)) == sorted(cli.commands)


def test_every_exit_code_is_listed() -> None:
    from provisioner import errors

    known = [
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ProvisionerError)
    ]
    table = README[README.index("## Exit codes") : README.index("## In CI")]
    listed = {int(code) for code in re.findall(r"\| (\d+) \|", table)}
    assert listed == {0, 2, *known}


@pytest.mark.parametrize("file", ["README.md", "samples/README.md"])
def test_every_link_leads_somewhere(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / file).parent.joinpath(target).exists(), target
