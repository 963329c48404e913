"""The declared libraries do the work: if one function of a library fails, the commands fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples_support import ROOT
from smtp_support import Server, smtp_server

SCRIPT = """
import sys
{broken}
from provisioner.cli import run
code = run(sys.argv[1:])
print(sorted({libraries} & sys.modules.keys()))
sys.exit(code)
"""

FAIL = """
def fail(*arguments, **options):
    raise RuntimeError("broken on purpose")
"""

BROKEN = {
    "pydantic": "import pydantic\npydantic.BaseModel.model_validate = classmethod(fail)",
    "yaml": "import yaml\nyaml.CSafeLoader.get_event = yaml.SafeLoader.get_event = fail",
    "jinja2": "import jinja2\njinja2.Template.render = fail",
    "aiosmtplib": "import aiosmtplib\naiosmtplib.SMTP.data = fail",
}

COMMANDS = {"validate": ["validate"], "plan": ["plan"], "apply": ["apply", "--auto-approve"]}


@pytest.fixture
def server() -> Iterator[Server]:
    with smtp_server() as running:
        yield running


@pytest.fixture
def workspace(tmp_path: Path, server: Server) -> Path:
    folder = tmp_path / "firm"
    shutil.copytree(ROOT / "samples" / "onboarding", folder)
    settings = folder / "provisioner.yaml"
    text = settings.read_text(encoding="utf-8")
    transport = f'"smtp://127.0.0.1:{server.port}"\n  tls: none'
    settings.write_text(text.replace('"maildir:outbox"', transport), encoding="utf-8")
    return folder


def run(workspace: Path, command: str, broken: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a child process. If ``broken`` names a library, one of its functions always fails."""
    change = f"{FAIL}\n{BROKEN[broken]}" if broken else ""
    script = SCRIPT.format(broken=change, libraries=set(BROKEN))
    return subprocess.run(
        [sys.executable, "-c", script, "-C", str(workspace), *COMMANDS[command]],
        capture_output=True, text=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_reading_commands_import_pydantic_and_yaml(workspace: Path, command: str) -> None:
    done = run(workspace, command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['pydantic', 'yaml']"


def test_apply_over_smtp_imports_every_library(workspace: Path, server: Server) -> None:
    done = run(workspace, "apply")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(sorted(BROKEN))
    assert server.accepted


@pytest.mark.parametrize(
    ("library", "command"),
    [
        *((library, command) for library in ("pydantic", "yaml") for command in COMMANDS),
        ("jinja2", "apply"),
        ("aiosmtplib", "apply"),
    ],
)
def test_commands_fail_with_a_broken_library(
    workspace: Path, server: Server, library: str, command: str
) -> None:
    done = run(workspace, command, library)
    assert done.returncode != 0
    assert "broken on purpose" in done.stderr
    assert not server.accepted
