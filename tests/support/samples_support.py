"""Copies of the samples as they are in a fresh clone, and functions that run shell commands in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ONBOARDING = "samples/onboarding"
NEXT_MONTH = "samples/next-month"


def copy_samples(destination: Path) -> Path:
    """Copy ``samples/`` to ``destination`` and link ``.venv`` to the environment of the tests.

    Returns ``destination``.
    """
    made_by_runs = shutil.ignore_patterns("portal.db*", "ledger.db*", "outbox")
    shutil.copytree(ROOT / "samples", destination / "samples", ignore=made_by_runs)
    (destination / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    return destination


def run(script: str, folder: Path, *, expected: int = 0) -> str:
    """Run a shell script and return its stdout and stderr. Fails if the exit code is not ``expected``."""
    done = _run(script, folder)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def answer(script: str, folder: Path) -> str:
    """Run a shell script and return its stdout. Fails if the exit code is not 0."""
    done = _run(script, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment_of(folder: Path) -> dict[str, str]:
    """Return environment variables without the terminal, the colours and the home folder of the tester."""
    return {"PATH": f"{folder}/.venv/bin:{os.environ['PATH']}", "HOME": str(folder), "LC_ALL": "C.UTF-8"}


def _run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment_of(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
