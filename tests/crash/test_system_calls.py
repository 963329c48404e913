"""If a run is killed or its disk fails at a system call, the next run finishes the work.

System calls also occur between the boundaries of other tests. An undisturbed run under strace gives the list
of calls. For each call, one run is disturbed at that call, and a second run finishes the work.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from boundaries import apply, mailed, workspace
from crash_support import TWO_NEWCOMERS, Call, check_letters, nothing_to_do, posting, received, traced
from smtp_support import smtp_server

pytestmark = pytest.mark.external

LASTING = (
    "write", "writev", "pwrite64", "fsync", "fdatasync", "sendto", "sendmsg", "rename", "link", "unlink",
    "ftruncate",    "mkdir", "sync", "syncfs",
)  # fmt: skip
"""The system calls through which a run makes lasting changes."""

READING = ("openat", "read", "pread64")

DOCUMENTED = {0, 1, 3, 7}
"""The exit codes of a run whose disk fails: 0 (all done), 1 (an error), 3 (manifests unreadable), 7 (applied
in part)."""


def worth_hitting(calls: Iterable[Call], every: int) -> list[Call]:
    """Return the calls to disturb: all calls except page calls, and one out of ``every`` page calls.

    A page call reads or writes database pages, and a commit makes many page calls. Calls for SQLite's shared
    memory file (-shm) are left out, because that file contains no commits.
    """
    calls = [call for call in calls if "-shm" not in call.line]
    pages = [call for call in calls if call.name in ("pwrite64", "pread64")]
    return [call for call in calls if call not in pages] + pages[::every]


def keys_whole(folder: Path) -> bool:
    """Return True if the portal's secret key file is complete or missing."""
    key = folder / "portal.db.key"
    return not key.exists() or key.stat().st_size == 32


@pytest.mark.timeout(300)
def test_a_run_killed_at_any_system_call_is_finished_by_running_it_again(
    memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a run is killed at any write to the disk, the next run finishes the work.

    The letters are delivered into a maildir.
    """
    calm = workspace(memory_path / "calm", clients=TWO_NEWCOMERS)
    calls = worth_hitting(traced(calm, LASTING).calls, every=6)
    welcomed = mailed(calm)
    assert sorted(welcomed.values()) == [1, 1]
    hits = 0
    for call in calls:
        folder = workspace(memory_path / f"{call.name}-{call.nth}", clients=TWO_NEWCOMERS)
        killed = traced(folder, (call.name,), f"{call.name}:signal=SIGKILL:when={call.nth}")
        assert killed.hit or killed.code == 0, (call, killed.output)
        hits += killed.hit
        assert keys_whole(folder), call
        assert apply(folder) == 0, (call, capsys.readouterr())
        assert mailed(folder) == welcomed, call
        assert nothing_to_do(folder, capsys), call
        shutil.rmtree(folder)
    assert hits >= 50


@pytest.mark.timeout(300)
@pytest.mark.parametrize("policy", ["hold", "resend"])
def test_a_run_killed_at_any_system_call_of_its_mailing_loses_no_letter(
    policy: str, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a run is killed at any write or send while it delivers letters, no letter is lost.

    The letters are delivered to a mail server.
    """
    with smtp_server() as server:
        calls = traced(posting(memory_path / "calm", server, policy), LASTING).calls
    newcomers = set(received(server))
    assert len(newcomers) == 2
    hits = 0
    for call in mailing(calls, every=6 if policy == "hold" else 12):
        with smtp_server() as server:
            folder = posting(memory_path / f"{call.name}-{call.nth}", server, policy)
            killed = traced(folder, (call.name,), f"{call.name}:signal=SIGKILL:when={call.nth}")
            hits += killed.hit
            code = apply(folder)
        waiting = check_letters(folder, newcomers, received(server), policy)
        assert code == (7 if waiting else 0), call
        shutil.rmtree(folder)
    assert hits >= 25


def mailing(calls: Sequence[Call], every: int) -> list[Call]:
    """Return the calls from shortly before the first letter to shortly after the last letter."""
    [greeting] = [place for place, call in enumerate(calls) if '"EHLO' in call.line]
    [farewell] = [place for place, call in enumerate(calls) if '"QUIT' in call.line]
    return worth_hitting(calls[greeting - 10 : farewell + 40], every)


@pytest.mark.timeout(300)
def test_a_disk_that_fails_at_any_system_call_is_told_and_the_next_run_finishes(
    memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the disk fails at a system call, the run reports it, and the next run finishes the work.

    Every third call fails, alternately because the disk is full and because the disk is broken.
    """
    calm = workspace(memory_path / "calm", clients=TWO_NEWCOMERS)
    calls = [
        call
        for call in worth_hitting(traced(calm, LASTING + READING).calls, every=4)
        if str(calm) in call.line and "txt>" not in call.line
    ]
    welcomed = mailed(calm)
    hits = 0
    for number, call in enumerate(calls[::3]):
        fault = ("ENOSPC", "EIO")[number % 2]
        folder = workspace(memory_path / f"{call.name}-{call.nth}", clients=TWO_NEWCOMERS)
        failed = traced(folder, (call.name,), f"{call.name}:error={fault}:when={call.nth}")
        if not failed.hit:
            continue
        hits += 1
        assert failed.code in DOCUMENTED, (call, fault, failed)
        assert "Traceback" not in failed.output
        if failed.code == 1:
            assert "Error: " in failed.output, (call, fault, failed)
        assert keys_whole(folder), call
        assert apply(folder) == 0, (call, fault, failed, capsys.readouterr())
        assert mailed(folder) == welcomed, call
        assert nothing_to_do(folder, capsys), call
        shutil.rmtree(folder)
    assert hits >= 30


def test_a_disk_that_takes_no_log_is_told_before_anything_is_written(memory_path: Path) -> None:
    """If SQLite cannot create its write-ahead log, the run ends before it writes to the portal.

    A run that ignored this error would continue without a write-ahead log.
    """
    folder = workspace(memory_path / "firm", clients=TWO_NEWCOMERS)
    failed = traced(folder, ("fdatasync",), "fdatasync:error=EIO:when=1")
    assert failed.hit
    assert failed.code == 1
    assert f"the ledger {folder / 'ledger.db'} failed on the disk" in failed.output
    assert not (folder / "portal.db").exists()


def test_a_commit_is_on_the_disk_before_the_next_database_or_letter_is_written(
    memory_path: Path,
) -> None:
    """Each commit is synced to the disk before the other database or a letter is written.

    The order is: the intention in the ledger, the step on the portal, the result in the ledger, the letter.
    """
    calls = traced(workspace(memory_path / "firm", clients=TWO_NEWCOMERS), LASTING).calls
    unsynced = ""
    switches = 0
    for call in calls:
        book = re.search(r"(ledger|portal)\.db-wal>", call.line)
        if book and call.name == "pwrite64":
            assert unsynced in ("", book[1]), call
            switches += unsynced != book[1]
            unsynced = book[1]
        elif book and call.name == "fdatasync":
            unsynced = ""
        elif call.name == "rename":
            assert not unsynced, call
    assert switches >= 8
