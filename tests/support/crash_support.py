"""Helpers that run the program in a second process with a fault, and helpers that check the result.

The fault kills the process or makes its disk fail. The fault occurs at a *boundary* or at a system
call. The boundaries are the moments before and after each effect that cannot be undone: a commit, a rename,
the body of a letter, and the answer to the letter. A system call is chosen by its name and its number, as
``strace`` counts the calls.
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

# what a run imports lazily: imported once here instead of in each second process
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
"""The manifest of one company with two administrators. Applying it takes four steps and two letters."""

CRASHED = 99
"""The exit code of a second process whose run ended with an exception."""


def posting(
    folder: Path, server: Server, policy: str, *, connections: int = 1, clients: str = TWO_NEWCOMERS
) -> Path:
    """Create a workspace whose letters go to ``server``. ``policy`` is the setting ``on_unknown``."""
    return workspace(
        folder,
        transport=f"smtp://127.0.0.1:{server.port}",
        extra=f"\n  tls: none\n  connections: {connections}\n  on_unknown: {policy}",
        clients=clients,
    )


def received(server: Server) -> Counter[str]:
    """Return the number of letters that the server accepted for each recipient."""
    return Counter(message_from_bytes(message)["To"] for message in server.accepted)


def nothing_to_do(folder: Path, capsys: pytest.CaptureFixture[str], ledger: Database | None = None) -> bool:
    """Return True if the portal matches the manifests and the ledger owes no letter and no step."""
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
    """Assert that no letter is lost, and that a letter arrives twice only with the policy *resend*.

    Return the number of letters of which it is unknown whether they were sent.
    """
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
"""The option of Linux's ``prctl`` that sends a signal to a process when its parent process ends."""


def forked(work: Callable[[], int]) -> int:
    """Run ``work`` in a second process, which exits with the result of ``work``. Return the process ID."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    code = CRASHED
    # a stopped process would outlive a failed test
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        code = work()
    except BaseException:  # noqa: BLE001  (printed, and recognised by the exit code)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def write_output_to(path: str | Path) -> None:
    """Append all further output of this process to a file."""
    sys.stdout = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115  (until the process ends)
    sys.stderr = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115


def ended(pid: int) -> int:
    """Wait until a second process ends. Return its exit code, or -9 if it was killed."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def killed_at(
    folder: Path, boundary: int, on_commit: Callable[[sqlite3.Connection], None] | None = None
) -> tuple[bool, int]:
    """Run ``apply`` in a second process that is killed at a boundary.

    Return two values: True if the process was killed, and the number of boundaries that it passed (0 if it
    was killed). ``on_commit`` is called in the second process with each connection that has just committed.
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
        write_output_to(os.devnull)
        code = apply(folder)
        os.write(writing, str(passed).encode())
        return code

    pid = forked(work)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        count = pipe.read()
    code = ended(pid)
    assert code != CRASHED
    return code == -signal.SIGKILL, int(count or 0)


def boundaries(folder: Path) -> int:
    """Return the number of boundaries of a run that is not killed."""
    killed, count = killed_at(folder, -1)
    assert not killed
    assert count > 20
    return count


class Call(NamedTuple):
    """A system call in strace's output. ``nth`` counts the calls with the same name in the same thread."""

    name: str
    nth: int
    line: str


class Traced(NamedTuple):
    """A run under strace: its exit code, its output and its system calls."""

    code: int
    output: str
    calls: list[Call]
    hit: bool
    """True if the run was killed, or if strace injected an error into a call on a file of the workspace."""


def traced(folder: Path, names: Sequence[str], fault: str = "") -> Traced:
    """Run ``apply`` in a second process under strace, which injects a fault into one system call.

    ``fault`` is in strace's notation: ``fsync:signal=SIGKILL:when=3``, ``write:error=ENOSPC:when=7``. The
    second process is forked from this process, because the system calls of Python's start must not be
    counted.
    """
    need("strace")
    waiting, go = os.pipe()
    ready, here = os.pipe()
    talk, log = folder / "talk.txt", folder / "calls.txt"

    def work() -> int:
        os.close(go)
        # some systems let only ancestors trace a process: this one may be traced by any
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
        write_output_to(talk)
        os.write(here, b".")
        os.read(waiting, 1)
        return apply(folder)

    pid = forked(work)
    os.close(waiting)
    os.close(here)
    # the calls before this point are not counted, however late strace attaches
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
    # a module imported late is counted too, but is not a file of the workspace
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
