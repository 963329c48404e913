"""Runs that are killed or whose disk fails, in a process of their own; and what they leave behind.

Two ways of hitting a run: at a *boundary*, which is before, within and after whatever cannot be
undone (a commit, a rename, a letter's body, its answer), wherever in the program it is done; and at
the n-th system call of a kind, which ``strace`` counts from outside and the program cannot know.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sqlite3
import subprocess
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from email import message_from_bytes
from pathlib import Path
from typing import NamedTuple

import pytest
from boundaries import apply, watch, workspace
from needs import need
from smtp_support import Server

# what a run imports only once it runs: not in each of the second processes
import provisioner.commands.apply
import provisioner.mail.maildir
import provisioner.mail.smtp
import provisioner.manifest.validate
import provisioner.render.text  # noqa: F401
from provisioner.cli import run
from provisioner.ledger.outbox import read_letters
from provisioner.ledger.snapshot import read_ledger
from provisioner.storage.database import Database
from provisioner.storage.sqlite import SqliteDatabase

TWO_NEWCOMERS = "clarke*.yaml"
"""One company with two administrators: four steps, two letters."""

SURPRISED = 99
"""The exit code of a child whose run ended with an exception instead of a sentence."""


def posting(
    folder: Path, server: Server, policy: str, *, connections: int = 1, clients: str = TWO_NEWCOMERS
) -> Path:
    """Newcomers whose letters go to this server."""
    return workspace(
        folder,
        transport=f"smtp://127.0.0.1:{server.port}",
        extra=f"\n  tls: none\n  connections: {connections}\n  on_unknown: {policy}",
        clients=clients,
    )


def received(server: Server) -> Counter[str]:
    """How many letters the server accepted for each recipient."""
    return Counter(message_from_bytes(message)["To"] for message in server.accepted)


def nothing_to_do(folder: Path, capsys: pytest.CaptureFixture[str], ledger: Database | None = None) -> bool:
    """The portal is as the manifests say, no letter is owed and no step in doubt."""
    capsys.readouterr()
    code = run(["-C", str(folder), "plan", "--detailed-exitcode"])
    return (
        code == 0
        and "No changes" in capsys.readouterr().out
        and read_ledger(ledger or SqliteDatabase(folder / "ledger.db")).unsettled == ()
    )


def check_letters(
    folder: Path, newcomers: set[str], arrived: Counter[str], policy: str, connections: int = 1
) -> int:
    """No letter is lost, and none is doubled but by a policy that says so; returns how many are parked."""
    letters = read_letters(SqliteDatabase(folder / "ledger.db"))
    parked = {posted.letter.recipient for posted in letters if posted.state == "unknown"}
    sent = {posted.letter.recipient for posted in letters if posted.state == "sent"}
    assert sent | parked == newcomers
    assert sent <= set(arrived)
    if policy == "hold":
        assert max(arrived.values(), default=1) == 1
    else:
        assert parked == set()
        assert set(arrived) == newcomers
        assert sum(arrived.values()) <= len(newcomers) + connections
    assert len(parked) <= connections
    return len(parked)


PR_SET_PDEATHSIG = 1
"""Linux's word for: with its parent it shall end."""


def forked(work: Callable[[], int]) -> int:
    """Start ``work`` in a second process, which ends with its exit code; returns the process's number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    code = SURPRISED
    # one that stands still would outlive a test that failed, and whoever reads what the tests say
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        code = work()
    except BaseException:  # noqa: BLE001  (told, and known by its exit code)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def talk_into(path: str | Path) -> None:
    """What this process says from now on goes into a file."""
    sys.stdout = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115  (until the process ends)
    sys.stderr = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115


def ended(pid: int) -> int:
    """The exit code of a process of ours, -9 for one that was killed."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def killed_at(
    folder: Path, boundary: int, on_commit: Callable[[sqlite3.Connection], None] | None = None
) -> tuple[bool, int]:
    """Run apply in a second process that is killed at a boundary.

    Returns whether it was killed, and how many boundaries it passed (in a run that was not).
    ``on_commit`` is called in the second process with each connection that has just committed.
    """
    reading, writing = os.pipe()
    passed = 0

    def checkpoint() -> None:
        nonlocal passed
        passed += 1
        if passed == boundary:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> int:
        watch(checkpoint, on_commit)
        talk_into(os.devnull)
        code = apply(folder)
        os.write(writing, str(passed).encode())
        return code

    pid = forked(work)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    code = ended(pid)
    assert code != SURPRISED
    return code == -signal.SIGKILL, int(told or 0)


def boundaries(folder: Path) -> int:
    """How many boundaries an undisturbed run passes."""
    killed, count = killed_at(folder, -1)
    assert not killed
    assert count > 20
    return count


class Call(NamedTuple):
    """The n-th system call of its name in a thread (so strace counts), and what it was about."""

    name: str
    nth: int
    line: str


class Traced(NamedTuple):
    """A run under strace: how it ended, what it said, and its system calls."""

    code: int
    talk: str
    calls: list[Call]
    hit: bool
    """It was killed, or a call about its workspace failed."""


def traced(folder: Path, names: Sequence[str], fault: str = "") -> Traced:
    """Run apply in a second process under strace, which injects a fault into one of its calls.

    ``fault`` is strace's: ``fsync:signal=SIGKILL:when=3``, ``write:error=ENOSPC:when=7``. The
    second process is a copy of this one, so that only the run itself is counted and not Python's start.
    """
    need("strace")
    waiting, go = os.pipe()
    ready, here = os.pipe()
    talk, log = folder / "talk.txt", folder / "calls.txt"

    def work() -> int:
        os.close(go)
        # where the system lets only a process's ancestors look into it: everybody may look into this one
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
        talk_into(talk)
        os.write(here, b".")
        os.read(waiting, 1)
        return apply(folder)

    pid = forked(work)
    os.close(waiting)
    os.close(here)
    # what it does to get there is not counted, however late strace comes
    os.read(ready, 1)
    os.close(ready)
    options = ["-y", *(["-e", f"inject={fault}"] if fault else [])]
    options += ["-e", f"trace={','.join(names)}", "-s", "8", "-o", str(log)]
    strace = subprocess.Popen(["strace", "-f", "-p", str(pid), *options], stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    said = strace.stderr.readline()
    os.write(go, b".")
    os.close(go)
    code = ended(pid)
    assert "attached" in said, said + strace.stderr.read()
    strace.stderr.close()
    strace.wait()
    text = log.read_text(errors="replace")
    # a module loaded late is counted too, and is no file of the workspace
    failed = any("(INJECTED)" in line and str(folder) in line for line in text.splitlines())
    hit = failed or code == -signal.SIGKILL
    return Traced(code, talk.read_text(errors="replace"), _calls(text), hit)


def _calls(text: str) -> list[Call]:
    seen: Counter[tuple[str, str]] = Counter()
    calls = []
    for line in text.splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if found:
            thread, name = found.groups()
            seen[thread, name] += 1
            calls.append(Call(name, seen[thread, name], line))
    return calls
