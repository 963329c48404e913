"""Runs against a real service: killed clients, a killed service, a suspended client, several clients.

The portal is behind a real service, and the ledger is on this machine.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from boundaries import apply, mailed
from crash_support import ended, forked, killed_at, nothing_to_do, write_output_to
from http_support import RESET, Asked
from remote_support import Firm, faithful, firm, settle_workspace
from test_rest_faults import EMILY, JAMES, REQUESTS, require_done_once

from provisioner.cli import run
from provisioner.errors import LockLost


@pytest.fixture
def remote(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Firm]:
    with firm(memory_path / "firm", monkeypatch) as opened:
        yield opened


class Client:
    """A run in a separate process that the relay can kill."""

    def __init__(self, folder: Path) -> None:
        self.started = threading.Event()
        self.talk = folder.parent / "talk.txt"

        def work() -> int:
            write_output_to(self.talk)
            return apply(folder)

        self.pid = forked(work)
        self.started.set()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)


def killed_by_relay(remote: Firm, at: int, *, effect: bool) -> bool:
    """Kill a run at its request number ``at``. Return True if the run was killed, False if it ended before.

    If ``effect`` is True, the portal handles this request before the kill. The run never gets the response.
    """
    client: list[Client] = []
    ready = threading.Event()

    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        whole = answer() if effect or number != at else b""
        if number == at:
            ready.wait(20)
            client[0].signal(signal.SIGKILL)
            return [RESET]
        return whole

    remote.spoilt(spoil)
    client.append(Client(remote.folder))
    ready.set()
    code = ended(client[0].pid)
    assert code in (-signal.SIGKILL, 0)
    return code == -signal.SIGKILL


@pytest.mark.parametrize("at", range(1, REQUESTS + 1))
def test_run_killed_at_any_request_is_finished_by_running_again(
    at: int, remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is killed at any request is finished by running again.

    The kill comes after the portal has handled the request and before the run gets the response.
    """
    assert killed_by_relay(remote, at, effect=True)
    remote.spoilt(faithful)
    assert apply(remote.folder) == 0
    require_done_once(remote)
    assert nothing_to_do(remote.folder, capsys)


@pytest.mark.parametrize("at", [6, 10, 11, 12, 17, 18])
def test_run_killed_before_any_request_is_finished_by_running_again(
    at: int, remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is killed before the portal handles a request is finished by running again.

    The killed requests ask for the lease, for a step, for a claim or for links.
    """
    assert killed_by_relay(remote, at, effect=False)
    remote.spoilt(faithful)
    assert apply(remote.folder) == 0
    require_done_once(remote)


def test_run_killed_repeatedly_completes(remote: Firm, capsys: pytest.CaptureFixture[str]) -> None:
    """A run completes although earlier runs were killed, each of them one request later than the last."""
    at = 5
    while killed_by_relay(remote, at, effect=bool(at % 2)):
        at += 1
        assert at < 100
    remote.spoilt(faithful)
    assert apply(remote.folder) == 0
    require_done_once(remote)


@pytest.mark.parametrize("boundary", range(1, 60, 4))
def test_run_killed_between_ledger_writes_is_finished_by_running_again(
    boundary: int, remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run killed at a commit of the ledger or a renaming of a letter is finished by running again."""
    killed_at(remote.folder, boundary)
    assert apply(remote.folder) == 0
    assert remote.users == {EMILY: ("active", 1), JAMES: ("active", 1)}
    # a letter in doubt is held: never doubled
    assert max(remote.letters.values(), default=0) <= 1


# --- the service ends ---


@pytest.mark.parametrize("effect", [False, True])
@pytest.mark.parametrize("what", ["PUT /v1/leases", "POST /v1/users", "POST /v1/letter-claims"])
def test_run_waits_for_a_service_that_is_killed_and_restarted(
    what: str, effect: bool, remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run survives a restart of the service, because tokens, leases and receipts survive the restart."""
    over = threading.Event()

    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        if f"{asked.method} {asked.path}".startswith(what):
            with remote.lock:
                if not over.is_set():
                    if effect:
                        answer()
                    remote.served.kill()
                    remote.served.start()
                    over.set()
                    return [RESET]
        return answer()

    remote.spoilt(spoil)
    assert apply(remote.folder) == 0
    assert over.is_set()
    require_done_once(remote)


def test_run_whose_service_stays_down_is_finished_by_the_next_run(
    remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        if asked.method == "POST" and asked.path == "/v1/users" and remote.served.process is not None:
            with remote.lock:
                if remote.served.process.poll() is None:
                    answer()
                    remote.served.kill()
        try:
            return answer()
        except OSError:
            return [RESET]

    remote.spoilt(spoil)
    try:
        assert apply(remote.folder) == 7
        said = capsys.readouterr()
        assert "gave no usable answer" in said.err
    finally:
        remote.served.start()
    remote.spoilt(faithful)
    assert apply(remote.folder) == 0
    require_done_once(remote)
    assert nothing_to_do(remote.folder, capsys)


# --- a client that was only asleep ---


@pytest.mark.parametrize("what", ["POST /v1/users", "POST /v1/letter-claims", "PUT /v1/companies"])
def test_suspended_run_writes_nothing_after_another_took_over(
    what: str, remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    """A suspended run is refused after another run has taken its lock and has finished."""
    client: list[Client] = []
    ready, asleep, awake = threading.Event(), threading.Event(), threading.Event()

    def spoil(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes | Iterable[bytes]:
        if f"{asked.method} {asked.path}".startswith(what) and not asleep.is_set():
            ready.wait(20)
            client[0].signal(signal.SIGSTOP)
            asleep.set()
            awake.wait(60)
        return answer()

    remote.spoilt(spoil)
    client.append(Client(remote.folder))
    ready.set()
    assert asleep.wait(20)
    try:
        capsys.readouterr()
        assert run(["-C", str(remote.folder), "unlock"]) == 0
        said = capsys.readouterr()
        found = re.search(r"provisioner (?:-C \S+ )?unlock (\S+)", said.out + said.err)
        assert found, said
        assert run(["-C", str(remote.folder), "unlock", found[1]]) == 0
        assert apply(remote.folder) == 0
        require_done_once(remote)
    finally:
        awake.set()
        client[0].signal(signal.SIGCONT)
    assert ended(client[0].pid) == LockLost.exit_code
    require_done_once(remote)
    assert "taken" in client[0].talk.read_text()


# --- several machines ---


def test_eight_machines_without_a_shared_ledger_apply_each_step_once(
    memory_path: Path, remote: Firm, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight machines that each have their own ledger apply each step once and send each letter once."""
    folders = [settle_workspace(memory_path / f"machine {n}", remote.relay.url) for n in range(8)]

    def machine(folder: Path) -> Callable[[], int]:
        def work() -> int:
            write_output_to(folder / "talk.txt")
            return apply(folder)

        return work

    for _ in range(2):
        codes = [ended(pid) for pid in [forked(machine(folder)) for folder in folders]]
        assert set(codes) <= {0, 5, 7}, [(folder / "talk.txt").read_text() for folder in folders]
    assert remote.users == {EMILY: ("active", 1), JAMES: ("active", 1)}
    letters: Counter[str] = Counter()
    for folder in folders:
        letters += mailed(folder)
    assert letters == {EMILY: 1, JAMES: 1}
