"""The libraries that the program declares do its work: with one of their functions broken, commands fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from samples_support import ROOT

RUN = """
import sys
import {module}
def broken(*arguments, **options):
    raise RuntimeError("broken on purpose")
{broken}
from provisioner.cli import run
code = run(sys.argv[1:])
print(sorted(name for name in ("pydantic", "yaml") if name in sys.modules))
sys.exit(code)
"""

BROKEN = {
    "nothing": "",
    "pydantic": "pydantic.BaseModel.model_validate = classmethod(broken)",
    "yaml": "yaml.CSafeLoader.get_event = yaml.SafeLoader.get_event = broken",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "firm"
    shutil.copytree(ROOT / "samples" / "onboarding", folder)
    return folder


def run_with_broken(library: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    module = library if library != "nothing" else "os"
    script = RUN.format(module=module, broken=BROKEN[library])
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_pydantic_and_yaml_are_imported_by_commands_that_read_manifests(
    workspace: Path, command: str
) -> None:
    done = run_with_broken("nothing", "-C", str(workspace), command)
    assert done.returncode == 0, done.stderr
    assert "['pydantic', 'yaml']" in done.stdout


@pytest.mark.parametrize("command", ["validate", "plan"])
@pytest.mark.parametrize("library", ["pydantic", "yaml"])
def test_commands_fail_when_the_library_is_broken(workspace: Path, command: str, library: str) -> None:
    done = run_with_broken(library, "-C", str(workspace), command)
    assert done.returncode != 0
    assert "broken on purpose" in done.stderr
