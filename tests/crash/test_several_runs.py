"""Several runs at once on one machine: each step is done once, each welcome is sent once."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from boundaries import mailed, workspace
from crash_support import TWO_NEWCOMERS, ended, forked

from provisioner.cli import run
from provisioner.ledger.journal import read_entries, read_runs
from provisioner.ledger.ledger import Ledger
from provisioner.storage.sqlite import SqliteDatabase

SAMPLES = Path(__file__).parents[2] / "samples"
PROCESSES = 8
ROUNDS = 20


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "provisioner", "-C", str(folder), *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip


def test_eight_appliers_do_each_step_once_and_send_each_welcome_once(tmp_path: Path) -> None:
    folder = tmp_path / "firm"
    shutil.copytree(SAMPLES / "onboarding", folder, ignore=shutil.ignore_patterns("*.db*", "outbox"))
    running = [start(folder, "apply", "--auto-approve", "--lock-timeout", "60") for _ in range(PROCESSES)]
    for process in running:
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
    assert len(list((folder / "outbox" / "new").iterdir())) == 15
    done = [run.outcome for run in read_runs(SqliteDatabase(folder / "ledger.db"), 20)]
    assert sum(outcome.startswith("32 steps done, 15 e-mails sent") for outcome in done) == 1
    assert all(outcome.startswith(("32 steps", "0 steps done, 0 e-mails")) for outcome in done)


@pytest.mark.slow
def test_eight_appliers_twenty_times_do_each_step_once(
    memory_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """If eight runs start at once, each step is done once and each letter is sent once.

    Half of the runs wait for the lock. The other runs exit if the lock is held.
    """
    for turn in range(ROUNDS):
        folder = workspace(memory_path / str(turn), clients=TWO_NEWCOMERS)
        reading, starting = os.pipe()

        def one(lock_timeout: str, folder: Path = folder, reading: int = reading) -> int:
            # all start together
            os.read(reading, 1)
            return run(["-C", str(folder), "apply", "--auto-approve", "--lock-timeout", lock_timeout])

        appliers = [forked(partial(one, "60" if number % 2 else "0")) for number in range(PROCESSES)]
        os.write(starting, b"." * PROCESSES)
        codes = [ended(pid) for pid in appliers]
        os.close(reading)
        os.close(starting)
        assert set(codes) <= {0, 6}, capfd.readouterr()
        assert 0 in codes
        assert sorted(mailed(folder).values()) == [1, 1]
        book = folder / "ledger.db"
        done = [
            entry
            for made in read_runs(SqliteDatabase(book), 20)
            for entry in read_entries(SqliteDatabase(book), made.id)
        ]
        assert Counter(entry.verdict for entry in done) == {"applied": 4}
        with closing(sqlite3.connect(folder / "portal.db")) as portal:
            assert portal.execute("SELECT count(*) FROM client_user").fetchone() == (2,)
            assert portal.execute("SELECT count(*) FROM receipt").fetchone() == (4,)
        shutil.rmtree(folder)


def test_several_processes_that_create_a_file_at_once_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that create the same database file at once wait for each other.

    SQLite itself does not wait while another process turns the write-ahead log on.
    """
    file = tmp_path / "ledger.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waited: list[float] = []

        def pause(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                other.execute("ROLLBACK")

        monkeypatch.setattr("time.sleep", pause)
        Ledger(SqliteDatabase(file), lambda: datetime.now(UTC)).close()
    assert len(waited) == 3


def test_without_a_lock_timeout_the_second_run_names_the_holder(tmp_path: Path) -> None:
    folder = tmp_path / "firm"
    shutil.copytree(SAMPLES / "onboarding", folder, ignore=shutil.ignore_patterns("*.db*", "outbox"))
    held = Ledger(SqliteDatabase(folder / "ledger.db"), lambda: datetime.now(UTC))
    with held.lock.hold("apply"):
        second = start(folder, "apply", "--auto-approve")
        _, err = second.communicate(timeout=60)
        assert second.returncode == 6
        assert "locked by" in err
        assert f"provisioner -C {folder} unlock" in err
    held.close()
    assert not (folder / "portal.db").exists()


def test_the_lock_of_a_killed_run_is_taken_over_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "firm"
    shutil.copytree(SAMPLES / "onboarding", folder, ignore=shutil.ignore_patterns("*.db*", "outbox"))
    script = (
        "import os, signal, sys; from pathlib import Path; from datetime import datetime, UTC; "
        "from provisioner.ledger.ledger import Ledger; "
        "from provisioner.storage.sqlite import SqliteDatabase; "
        "ledger = Ledger(SqliteDatabase(Path(sys.argv[1])), lambda: datetime.now(UTC)); "
        "held = ledger.lock.hold('apply'); held.__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(folder / "ledger.db")], check=False)
    assert killed.returncode == -9
    after = start(folder, "apply", "--auto-approve")
    _, err = after.communicate(timeout=60)
    assert after.returncode == 0, err
