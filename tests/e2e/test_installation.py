"""The quick start as README shows it, in a fresh copy of the repository, with packages from the index."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from documents import IGNORED, blocks
from samples_support import ONBOARDING, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.external]

LEFT_OUT = shutil.ignore_patterns(*IGNORED, "__pycache__", ".*_cache", "*.db*", "*.egg-info")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository in which the first block of README was run."""
    copy = tmp_path_factory.mktemp("clone") / "provisioner"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    bash(blocks("README.md", "sh")[0].text, copy)
    return copy


def bash(script: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, stdin=subprocess.DEVNULL,
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_quick_start_works_in_a_fresh_copy(clone: Path) -> None:
    assert len(list((clone / ONBOARDING / "outbox/new").iterdir())) == 15


def test_an_installed_program_has_the_templates_and_schemas_without_the_source(clone: Path) -> None:
    """``pip install .``, which pipx and a container use, copies what an editable installation reads here."""
    elsewhere = clone.parent / "elsewhere"
    elsewhere.mkdir()
    pip = f"{clone}/.venv/bin/pip install --quiet --no-deps --force-reinstall {clone}"
    program = f"{clone}/.venv/bin/provisioner"
    bash(f"{pip}\nmv {clone}/templates {clone}/schemas {elsewhere}", clone)
    commands = ("init firm", "-C firm apply --auto-approve", "schema client")
    said = bash("\n".join(f"{program} {command}" for command in commands), elsewhere)
    assert "1 e-mail sent." in said
    assert (ROOT / "schemas/client.schema.json").read_text(encoding="utf-8") in said
