"""Shared fixtures. They keep tests away from the home folder and terminal settings of the real user."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings
from shell_support import ROOT, Shell, copy_sample

if TYPE_CHECKING:
    from postgres_support import PostgresServer

collect_ignore = ["example_driver"]
"""A package of its own, which tests/e2e/test_example_driver.py installs and tests."""

MEMORY = Path("/dev/shm")
ROOM = 2**30
if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
    # a file system in memory makes thousands of syncs cheap, also in child processes
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
# for tests/mutate.py: any failing example is enough, shrinking is skipped
searching = (Phase.explicit, Phase.reuse, Phase.generate)
settings.register_profile("first", deadline=None, derandomize=True, database=None, phases=searching)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True)
def empty_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a temporary home folder. Removes the environment variables for colours, terminal and CI."""
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    for name in ("NO_COLOR", "COLUMNS", "CI", "TERM"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture(autouse=True, scope="session")
def templates_compiled_once() -> None:
    """Compile the shipped templates once per test process instead of once per run of the program."""
    from provisioner.mail import template_sandbox

    shipped = {file.name: file.read_text("utf-8") for file in (ROOT / "templates" / "mail").glob("*.j2")}
    fresh = template_sandbox.environment
    compiled = {html: fresh(shipped, autoescape=html) for html in (False, True)}
    for name in shipped:
        compiled[name.endswith(template_sandbox.HTML_SUFFIX)].get_template(name)

    def environment(sources: Mapping[str, str], *, autoescape: bool) -> template_sandbox.Sandbox:
        return compiled[autoescape] if sources == shipped else fresh(sources, autoescape=autoescape)

    template_sandbox.environment = environment


@pytest.fixture
def memory_path(tmp_path: Path) -> Path:
    """Return a temporary folder for hundreds of workspaces. It is in memory if the system allows it."""
    return tmp_path


@pytest.fixture(scope="session")
def postgres() -> PostgresServer:
    """Return the PostgreSQL server of this test process. Tests may kill and restart it."""
    from postgres_support import the_server

    return the_server()


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return the program in a copy of the onboarding sample."""
    return Shell(copy_sample(tmp_path / "firm"), capsys)


@pytest.fixture
def applied(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Return the program in a copy of the onboarding sample, after ``apply``."""
    once = tmp_path_factory.getbasetemp() / "applied"
    if once.exists():
        shutil.copytree(once, shell.folder, dirs_exist_ok=True)
    else:
        assert shell("apply", "--auto-approve").code == 0
        shutil.copytree(shell.folder, once)
    return shell
