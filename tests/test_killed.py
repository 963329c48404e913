"""Killed at any step boundary and run again: the portal is as desired, and every newcomer is welcomed once.

The first run of each test is a dry trace that counts the boundaries; then one run for each of
them is killed there with SIGKILL, in a process of its own, and finished by running it again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import warnings
from collections import Counter
from email import message_from_bytes
from pathlib import Path

import pytest
from boundaries import apply, mailed, watch, workspace
from smtp_support import PIPELINING, Server, smtp_server

from provisioner.cli import run
from provisioner.ledger import read_books, read_letters


def killed_at(folder: Path, boundary: int) -> tuple[bool, int]:
    """Run apply in a second process that is killed at a boundary.

    Returns whether it was killed, and how many boundaries it passed (in a run that was not).
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _child(folder, boundary, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True, 0
    return False, int(told or 0)


def _child(folder: Path, boundary: int, writing: int) -> None:
    passed = 0

    def checkpoint() -> None:
        nonlocal passed
        passed += 1
        if passed == boundary:
            os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        watch(checkpoint)
        with open(os.devnull, "w") as nowhere:
            sys.stdout = sys.stderr = nowhere
            code = apply(folder)
        os.write(writing, str(passed).encode())
    finally:
        os._exit(code)


def boundaries(folder: Path) -> int:
    killed, count = killed_at(folder, -1)
    assert not killed
    assert count > 20
    return count


@pytest.mark.timeout(300)
def test_a_run_killed_anywhere_is_finished_by_running_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = workspace(tmp_path / "calm", clients="[bm]*.yaml")
    count = boundaries(calm)
    welcomed = mailed(calm)
    assert set(welcomed.values()) == {1}
    for boundary in range(1, count + 1):
        folder = workspace(tmp_path / f"at-{boundary}", clients="[bm]*.yaml")
        killed, _ = killed_at(folder, boundary)
        assert killed, boundary
        assert apply(folder) == 0, (boundary, capsys.readouterr())
        assert mailed(folder) == welcomed, boundary
        capsys.readouterr()
        assert run(["-C", str(folder), "plan", "--detailed-exitcode"]) == 0
        assert "No changes" in capsys.readouterr().out
        assert read_books(folder / "ledger.db").unsettled == ()
        shutil.rmtree(folder)


def posting(folder: Path, server: Server, policy: str) -> Path:
    """One client of the sample, whose letters go to this server."""
    return workspace(
        folder,
        transport=f"smtp://127.0.0.1:{server.port}",
        extra=f"\n  tls: none\n  connections: 1\n  on_unknown: {policy}",
        clients="clarke*.yaml",
    )


def received(server: Server) -> Counter[str]:
    return Counter(message_from_bytes(message)["To"] for message in server.accepted)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("policy", ["hold", "resend"])
def test_a_run_killed_while_mailing_loses_no_letter_and_doubles_none_silently(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with smtp_server() as server:
        calm = posting(tmp_path / "calm", server, policy)
        count = boundaries(calm)
        newcomers = set(received(server))
    for boundary in range(1, count + 1):
        with smtp_server() as server:
            folder = posting(tmp_path / f"at-{boundary}", server, policy)
            assert killed_at(folder, boundary)[0]
            code = apply(folder)
            letters = read_letters(folder / "ledger.db")
        arrived = received(server)
        parked = {posted.letter.recipient for posted in letters if posted.state == "unknown"}
        sent = {posted.letter.recipient for posted in letters if posted.state == "sent"}
        assert sent | parked == newcomers, boundary
        assert sent <= set(arrived), boundary
        if policy == "hold":
            assert max(arrived.values()) == 1, boundary
            assert code == (7 if parked else 0), boundary
        else:
            assert parked == set(), boundary
            assert set(arrived) == newcomers, boundary
            assert sum(arrived.values()) <= len(newcomers) + 1, boundary
        capsys.readouterr()
        shutil.rmtree(folder)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("policy", "first"), [("hold", 1), ("resend", 3)])
def test_killed_while_several_connections_share_their_commits_no_letter_is_lost_or_silently_doubled(
    policy: str, first: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 15, with group commit and pipelining: every fourth boundary, others for each policy.

    How the connections meet differs from run to run, so the last boundaries may not be reached.
    """
    connections = 3

    def posting(folder: Path, server: Server) -> Path:
        return workspace(
            folder,
            transport=f"smtp://127.0.0.1:{server.port}",
            extra=f"\n  tls: none\n  connections: {connections}\n  on_unknown: {policy}",
            clients="[bm]*.yaml",
        )

    with smtp_server(PIPELINING) as server:
        count = boundaries(posting(tmp_path / "calm", server))
        newcomers = set(received(server))
    assert len(newcomers) > connections
    for boundary in range(first, count + 1, 4):
        with smtp_server(PIPELINING) as server:
            folder = posting(tmp_path / f"at-{boundary}", server)
            killed, _ = killed_at(folder, boundary)
            assert killed or boundary > count // 2
            code = apply(folder)
            letters = read_letters(folder / "ledger.db")
        arrived = received(server)
        parked = {posted.letter.recipient for posted in letters if posted.state == "unknown"}
        sent = {posted.letter.recipient for posted in letters if posted.state == "sent"}
        assert sent | parked == newcomers, boundary
        assert sent <= set(arrived), boundary
        assert len(parked) <= connections, boundary
        if policy == "hold":
            assert max(arrived.values()) == 1, boundary
            assert code == (7 if parked else 0)
        else:
            assert (parked, code) == (set(), 0), boundary
            assert sum(arrived.values()) <= len(newcomers) + connections, boundary
        capsys.readouterr()
        shutil.rmtree(folder)
