"""If a run is killed at any boundary, a second run reaches the desired state, with one welcome per newcomer.

A boundary is a point before or after a commit, a rename or a letter. For each boundary, one run in a second
process is killed there with SIGKILL and is then repeated.
"""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from boundaries import SAMPLES, apply, mailed, workspace
from crash_support import (
    TWO_NEWCOMERS,
    boundaries,
    check_letters,
    killed_at,
    nothing_to_do,
    posting,
    received,
)
from hypothesis import given
from hypothesis import strategies as st
from smtp_support import smtp_server

from provisioner.ledger.outbox import read_letters
from provisioner.storage.sqlite import SqliteDatabase

HALF = 2
"""Every second boundary is enough for the default tier.

Most boundaries after a commit and before the next one leave the same data behind.
"""


@pytest.fixture(scope="module")
def first_month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two newcomers, before its first ``apply``."""
    return workspace(tmp_path_factory.mktemp("first") / "firm", clients=TWO_NEWCOMERS)


@pytest.fixture(scope="module")
def next_month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole sample after ``apply``, with the manifests of the next month."""
    folder = workspace(tmp_path_factory.mktemp("next") / "firm")
    assert apply(folder) == 0
    shutil.rmtree(folder / "clients")
    shutil.copytree(SAMPLES / "next-month" / "clients", folder / "clients")
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("month", "every"),
    [
        ("first_month", HALF),
        pytest.param("first_month", 1, marks=pytest.mark.slow),
        pytest.param("next_month", 1, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_anywhere_is_finished_by_running_it_again(
    month: str,
    every: int,
    request: pytest.FixtureRequest,
    memory_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A second run finishes a run that was killed at any boundary. A third run has nothing to do."""
    start: Path = request.getfixturevalue(month)
    calm = memory_path / "calm"
    shutil.copytree(start, calm)
    last = boundaries(calm)
    welcomed = mailed(calm)
    assert set(welcomed.values()) == {1}
    assert welcomed > mailed(start)
    for boundary in range(1, last + 1, every):
        folder = memory_path / f"at-{boundary}"
        shutil.copytree(start, folder)
        killed, _ = killed_at(folder, boundary)
        assert killed, boundary
        assert apply(folder) == 0, (boundary, capsys.readouterr())
        assert mailed(folder) == welcomed, boundary
        assert nothing_to_do(folder, capsys), boundary
        shutil.rmtree(folder)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("policy", ["hold", "resend"])
@pytest.mark.parametrize("every", [HALF, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_while_mailing_loses_and_silently_doubles_no_letter(
    policy: str, every: int, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a run is killed while it sends letters, no letter is lost, and none is silently sent twice.

    One boundary is between the server's reply 250 and the commit that records the reply.
    """
    with smtp_server() as server:
        assert apply(posting(memory_path / "calm", server, policy)) == 0
    newcomers = set(received(server))
    parked = doubled = 0
    # the number of boundaries depends on how many letters share a commit
    for boundary in count(1, every):
        with smtp_server() as server:
            folder = posting(memory_path / f"at-{boundary}", server, policy)
            killed, _ = killed_at(folder, boundary)
            code = apply(folder)
        if not killed:
            break
        arrived = received(server)
        waiting = check_letters(folder, newcomers, arrived, policy)
        assert code == (7 if waiting else 0), boundary
        parked += waiting
        for recipient in (name for name, copies in arrived.items() if copies > 1):
            doubled += 1
            copies = [
                message for message in server.accepted if f"\r\nTo: {recipient}\r\n".encode() in message
            ]
            assert len(set(copies)) == 1, boundary
        assert nothing_to_do(folder, capsys) or waiting, boundary
        shutil.rmtree(folder)
    assert boundary > 40
    # the points where the outcome cannot be known are among them
    assert (parked >= 4 // every, doubled >= 4 // every) == (policy == "hold", policy == "resend")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("policy", "first"), [("hold", 1), ("resend", 3)])
def test_no_letter_is_lost_or_doubled_when_a_group_commit_is_killed(
    policy: str, first: int, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No letter is lost if a run is killed during a commit that several connections share.

    Under ``hold``, no letter is sent twice. Each of the two policies is tested at every fourth boundary, but
    not at the same ones. The last boundaries may not be reached, because the connections that share a commit
    differ from run to run.
    """
    connections = 3
    words: dict[str, Any] = {"connections": connections, "clients": "[bm]*.yaml"}
    with smtp_server() as server:
        last = boundaries(posting(memory_path / "calm", server, policy, **words))
    newcomers = set(received(server))
    assert len(newcomers) > connections
    for boundary in range(first, last + 1, 4):
        with smtp_server() as server:
            folder = posting(memory_path / f"at-{boundary}", server, policy, **words)
            killed, _ = killed_at(folder, boundary)
            assert killed or boundary > last // 2
            code = apply(folder)
        waiting = check_letters(folder, newcomers, received(server), policy, connections)
        assert code == (7 if waiting else 0), boundary
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def newcomers(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """The recipients of the welcomes of a run that is not killed, each with the count 1."""
    folder = workspace(tmp_path_factory.mktemp("calm") / "firm", clients=TWO_NEWCOMERS)
    assert apply(folder) == 0
    return mailed(folder)


@pytest.mark.slow
@pytest.mark.timeout(300)
@given(
    kills=st.lists(st.integers(1, 90), min_size=2, max_size=6),
    transport=st.sampled_from(["maildir", "hold", "resend"]),
)
def test_a_run_killed_again_and_again_is_finished_by_a_last_run(
    kills: list[int],
    transport: str,
    newcomers: Counter[str],
    memory_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A last run finishes the work of a run that was killed several times.

    Each earlier run is killed at a random boundary, or ends before the run reaches this boundary.
    """
    with TemporaryDirectory(dir=memory_path) as base, ExitStack() as block:
        folder = Path(base, "firm")
        if transport == "maildir":
            workspace(folder, clients=TWO_NEWCOMERS)
        else:
            server = block.enter_context(smtp_server())
            posting(folder, server, transport)
        for boundary in kills:
            killed_at(folder, boundary)
        code = apply(folder)
        block.close()  # the server has received everything by then
        if transport == "maildir":
            assert code == 0
            assert mailed(folder) == newcomers
            assert nothing_to_do(folder, capsys)
            return
        arrived = received(server)
        letters = read_letters(SqliteDatabase(folder / "ledger.db"))
        states = {posted.letter.recipient: posted.state for posted in letters}
        assert set(states) == set(newcomers)
        assert set(states.values()) <= {"sent", "unknown"}
        # at most once under hold, and at most once more under resend
        most = 1 if transport == "hold" else 2
        assert max(arrived.values(), default=0) <= most
        assert all(arrived[recipient] for recipient, state in states.items() if state == "sent")
