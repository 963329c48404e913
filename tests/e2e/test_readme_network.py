"""The README's commands and one changed line of provisioner.yaml set up each network portal.

On PostgreSQL, the line of the ledger changes as well.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from samples_support import ONBOARDING, ROOT, copy_samples, environment_of, run
from test_readme import blocks

if TYPE_CHECKING:
    from postgres_support import PostgresServer

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
NETWORK = TEXT[
    TEXT.index("## The same portal for several machines") : TEXT.index("## Several pipelines at once")
]
COMMANDS = [line.removeprefix("$ ") for block in blocks(NETWORK, "console") for line in block.splitlines()]
SETTINGS = blocks(NETWORK, "yaml")
APPLY = f"provisioner -C {ONBOARDING} apply --auto-approve"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return copy_samples(tmp_path)


@contextmanager
def serving(command: str, clone: Path) -> Iterator[str]:
    """Start the service with ``command`` on any free port. Yield the URL of the service."""
    talk = clone / "talk.txt"
    with talk.open("wb") as said:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command} --port 0"], cwd=clone, env=environment_of(clone),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", talk.read_text())):
            assert process.poll() is None, talk.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield found[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the port accepts connections."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


def change(clone: Path, before: str, after: str) -> None:
    """Replace ``before`` with ``after`` in the sample's provisioner.yaml."""
    path = clone / ONBOARDING / "provisioner.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), encoding="utf-8")


def require_the_main_job(clone: Path, log_in: str = ":") -> None:
    """Assert that one run applies the sample and that the next run finds no changes.

    The shell command ``log_in`` is executed before these runs.
    """
    said = run(f"{log_in}; {APPLY}; echo AGAIN; {APPLY}", clone)
    first, again = said.split("AGAIN\n")
    assert re.search(r"^Plan: 25 to add, 0 to change, 0 to close, 15 e-mails to send\.$", first, re.MULTILINE)
    assert again.startswith("No changes")
    assert len(list((clone / ONBOARDING / "outbox/new").iterdir())) == 15


def test_the_main_job_against_a_served_portal_takes_one_line(clone: Path) -> None:
    (serve,) = [command for command in COMMANDS if " serve " in command]
    (log_in,) = [command for command in COMMANDS if "api-client add" in command]
    written = re.search(r'url: "(http:[^"]+)"', SETTINGS[0])
    assert written is not None
    assert written[1] == "http://127.0.0.1:8080"
    with serving(serve, clone) as url:
        change(clone, "sqlite:///portal.db", url)
        require_the_main_job(clone, log_in)


def test_the_main_job_on_postgresql_takes_one_line_each(clone: Path, postgres: PostgresServer) -> None:
    (settings,) = [block for block in SETTINGS if "postgresql://" in block]
    assert len(re.findall(r'url: "postgresql://[^"?]+"', settings)) == 2
    for book in ("portal", "ledger"):
        change(clone, f"sqlite:///{book}.db", postgres.url(postgres.new_schema()))
    require_the_main_job(clone)


def test_the_main_job_on_a_scim_server_takes_one_line(clone: Path) -> None:
    (serve,) = [command for command in COMMANDS if command.startswith("scim2-server ")]
    (secret,) = [block for block in blocks(NETWORK, "console") if "$ export " in block]
    (settings,) = [block for block in SETTINGS if "scim+http" in block]
    assert len(settings.splitlines()) == 2
    (clone / "schemas").symlink_to(ROOT / "schemas", target_is_directory=True)
    port = free_port()
    server = subprocess.Popen(
        ["bash", "-c", f"exec {serve} --port {port}"], cwd=clone, env=environment_of(clone),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until_it_listens(port, server)
        change(clone, "sqlite:///portal.db", f"scim+http://127.0.0.1:{port}/v2")
        # the client of the served portal may still be set from the section before
        require_the_main_job(clone, f"export PROVISIONER_PORTAL_CLIENT=c_1\n{secret.replace('$ ', '')}:")
    finally:
        server.kill()
        server.wait()


def test_every_extra_that_is_named_exists() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = re.findall(r"^\$ pip install --quiet --editable '\.\[([^]]+)\]'", NETWORK, re.MULTILINE)
    assert len(named) == 3
    for name in ",".join(named).split(","):
        assert re.search(rf"^{name} = \[$", project, re.MULTILINE), name


def test_no_command_installs_the_other_provisioner_of_pypi() -> None:
    """No command of the README or of the program installs ``provisioner`` from PyPI.

    PyPI has a different program of that name.
    """
    program = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "provisioner").rglob("*.py"))
    for line in (TEXT + program).splitlines():
        assert not re.search(r"pip install\b.*[ ']provisioner\b", line), line
