"""The pre-commit hooks: those for changes to the program, and those that firms use for their manifests."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from needs import lack, need
from samples_support import ONBOARDING, ROOT, copy_samples

BIN = Path(sys.executable).parent
MANIFEST, OTHER = "clients/boulangerie-martin.yaml", "clients/garage-lefevre.yaml"


def read(name: str) -> Any:
    return yaml.load((ROOT / name).read_text(encoding="utf-8"), yaml.CSafeLoader)  # noqa: TID251  # no manifest


OWN_HOOKS = {hook["id"]: hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]}
FIRM_HOOKS = {hook["id"]: hook for hook in read(".pre-commit-hooks.yaml")}


def test_no_hook_of_the_repository_needs_the_network() -> None:
    assert [repo["repo"] for repo in read(".pre-commit-config.yaml")["repos"]] == ["local"]
    assert {hook["language"] for hook in OWN_HOOKS.values()} == {"system", "pygrep"}


@pytest.mark.external
@pytest.mark.parametrize("name", ["ruff-format", "ruff-check", "mypy", "lint-imports"])
def test_a_hook_of_the_repository_calls_a_tool_that_ci_runs_too(name: str) -> None:
    program, *words = shlex.split(OWN_HOOKS[name]["entry"])
    tool = program.removeprefix(".venv/bin/")
    assert tool != program
    assert (BIN / tool).exists()
    checks = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert re.search(rf'"{" ".join([tool, *(word for word in words if word[0] != "-")])}[ "]', checks)


@pytest.mark.external
@pytest.mark.parametrize(
    ("name", "text"), [("ruff-check", "import os\n"), ("ruff-format", '"""Text."""\n\nx = (1)\n')]
)
def test_a_hook_of_the_repository_refuses_a_file_that_ci_refuses(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    file = tmp_path / "odd.py"
    file.write_text(text)
    command = [*shlex.split(OWN_HOOKS[name]["entry"]), file.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    # pre-commit fails as well if a hook changes a file
    assert done.returncode != 0 or file.read_text() != text


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        ("plan: count owed letters as changes", False),
        ("tests/bench: count\n\nA body with lines of any length" + " and more" * 20, False),
        ("fixup! plan: count owed letters as changes", False),
        ("plan: " + "x" * 66, False),
        ("plan: " + "x" * 67, True),
        ("count owed letters as changes", True),
        ("wip", True),
        ("plan:", True),
        ("wip\n\nplan: count owed letters as changes", True),
    ],
)
def test_a_commit_subject_needs_an_area_and_fits_in_72_characters(message: str, refused: bool) -> None:
    hook = OWN_HOOKS["commit-subject"]
    assert hook["args"] == ["--multiline"]
    # the flags that pre-commit gives a pygrep hook with --multiline
    found = re.compile(hook["entry"], re.MULTILINE | re.DOTALL).search(message + "\n")
    assert bool(found) == refused


def run_firm_hooks(folder: Path, *changed: str) -> dict[str, tuple[int, str]]:
    """Run the hooks for firms in ``folder`` as pre-commit does. Return exit code and output of each."""
    done = {}
    for name, hook in FIRM_HOOKS.items():
        files = [file for file in changed if re.search(hook["files"], file)]
        if not files:
            continue
        command = shlex.split(hook["entry"]) + (files if hook.get("pass_filenames", True) else [])
        environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        done[name] = (result.returncode, result.stdout + result.stderr)
    return done


@pytest.fixture
def firm(tmp_path: Path) -> Path:
    return copy_samples(tmp_path) / ONBOARDING


def spoil(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_manifest_hook_reports_a_changed_manifest_and_not_another_one(firm: Path) -> None:
    spoil(firm / MANIFEST, "type: administrator", "type: admin")
    ((code, said),) = run_firm_hooks(firm, MANIFEST, "README.md").values()
    assert code == 3
    assert f"{MANIFEST}:" in said
    assert [code for code, _ in run_firm_hooks(firm, OTHER).values()] == [0]
    assert run_firm_hooks(firm, "README.md", "notes.yaml") == {}


def test_the_settings_hook_reports_every_manifest_that_a_changed_setting_breaks(firm: Path) -> None:
    assert [code for code, _ in run_firm_hooks(firm, "provisioner.yaml").values()] == [0]
    spoil(firm / "provisioner.yaml", "Scan, ", "")
    ((code, said),) = run_firm_hooks(firm, "provisioner.yaml").values()
    assert code == 3
    assert f"{MANIFEST}:" in said
    assert f"{OTHER}:" in said


def git(folder: Path, *words: str) -> str:
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.fr")
    done = subprocess.run(["git", *author, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def committed(folder: Path) -> Path:
    """Make a git repository of a folder, with one commit. Return the folder."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "test: add all files")
    return folder


@pytest.mark.slow
@pytest.mark.external
def test_pre_commit_installs_the_program_and_refuses_a_commit_of_a_firm(firm: Path, tmp_path: Path) -> None:
    need("git")
    program = shutil.which("pre-commit", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        lack("pre-commit is not installed: .venv/bin/pip install --editable '.[test-all]'")
    source = tmp_path / "program"
    for folder in ("provisioner", "schemas", "templates"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", ".pre-commit-hooks.yaml"):
        shutil.copy(ROOT / file, source)
    revision = git(committed(source), "rev-parse", "HEAD")
    hooks = [{"id": name} for name in FIRM_HOOKS]
    uses = {"repos": [{"repo": str(source), "rev": revision, "hooks": hooks}]}
    (firm / ".pre-commit-config.yaml").write_text(yaml.safe_dump(uses))
    committed(firm)
    environment = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "installed")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *words], cwd=firm, env=environment, capture_output=True, text=True)

    done = run("run", "--all-files")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Passed") == 2
    spoil(firm / MANIFEST, "type: administrator", "type: admin")
    git(firm, "add", "--all")
    done = run("run")
    assert done.returncode == 1
    assert f"{MANIFEST}:" in done.stdout
    assert "hook id: provisioner-manifests" in done.stdout
    assert "Skipped" in done.stdout
