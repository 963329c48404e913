"""Several runs at once on one machine: one effect each, one welcome each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from provisioner.ledger import read_runs

SAMPLES = Path(__file__).parent.parent / "samples"
PROCESSES = 8


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "provisioner", "-C", str(folder), *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip


@pytest.mark.parametrize("turn", range(3))
def test_eight_appliers_make_each_change_once_and_mail_each_newcomer_once(turn: int, tmp_path: Path) -> None:
    folder = tmp_path / "firm"
    shutil.copytree(SAMPLES / "onboarding", folder, ignore=shutil.ignore_patterns("*.db*", "outbox"))
    running = [start(folder, "apply", "--auto-approve", "--lock-timeout", "60") for _ in range(PROCESSES)]
    for process in running:
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
    assert len(list((folder / "outbox" / "new").iterdir())) == 15
    done = [run.outcome for run in read_runs(folder / "ledger.db", 20)]
    assert sum(outcome.startswith("32 steps done, 15 e-mails sent") for outcome in done) == 1
    assert all(outcome.startswith(("32 steps", "0 steps done, 0 e-mails")) for outcome in done)


def test_without_patience_the_second_run_says_who_holds_the_ledger(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from provisioner.ledger import Ledger

    folder = tmp_path / "firm"
    shutil.copytree(SAMPLES / "onboarding", folder, ignore=shutil.ignore_patterns("*.db*", "outbox"))
    ledger = Ledger(folder / "ledger.db", lambda: datetime.now(UTC))
    with ledger.locked("apply"):
        second = start(folder, "apply", "--auto-approve")
        _, err = second.communicate(timeout=60)
        assert second.returncode == 6
        assert "locked by" in err
        assert "provisioner unlock" in err
    ledger.close()
    assert not (folder / "portal.db").exists()


def test_a_lock_whose_holder_died_is_succeeded_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "firm"
    shutil.copytree(SAMPLES / "onboarding", folder, ignore=shutil.ignore_patterns("*.db*", "outbox"))
    script = (
        "import os, signal, sys; from pathlib import Path; from datetime import datetime, UTC; "
        "from provisioner.ledger import Ledger; "
        "ledger = Ledger(Path(sys.argv[1]), lambda: datetime.now(UTC)); "
        "ledger._acquire('apply', 0); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(folder / "ledger.db")], check=False)
    assert killed.returncode == -9
    after = start(folder, "apply", "--auto-approve")
    _, err = after.communicate(timeout=60)
    assert after.returncode == 0, err
