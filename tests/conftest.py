"""Guards: no test reaches the person's home, terminal settings or secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings
from shell_support import Shell, copy_sample

if TYPE_CHECKING:
    from postgres_support import PostgresServer

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
# for tests/sabotage and tests/mutate.py: any failure will do, however long its example is
searching = (Phase.explicit, Phase.reuse, Phase.generate)
settings.register_profile("first", deadline=None, derandomize=True, database=None, phases=searching)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True)
def nobody_s_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and an environment without colours or CI."""
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    for name in ("NO_COLOR", "COLUMNS", "CI", "TERM"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where hundreds of syncs cost nothing; on the disk where there is none."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path, prefix="provisioner-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres() -> PostgresServer:
    """A PostgreSQL server, one a process of the tests; it is running, and may be killed and restarted."""
    from postgres_support import the_server

    return the_server()


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The program in a copy of the onboarding sample."""
    return Shell(copy_sample(tmp_path / "firm"), capsys)


@pytest.fixture
def applied(shell: Shell) -> Shell:
    """The same, applied."""
    assert shell("apply", "--auto-approve").code == 0
    return shell
