"""The program as a process in unusual environments, with closed streams and on poor terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import subprocess
import sys
import termios
from array import array
from pathlib import Path

import pytest
from shell_support import BAKERY, ROOT, SAMPLES, Shell, process

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "LC_ALL=C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "LANG=C": {"LANG": "C"},
    "an unknown language": {"LANG": "xx_XX.utf8", "LC_ALL": "xx_XX.utf8"},
    "ascii streams": {"PYTHONIOENCODING": "ascii"},
    "latin streams, strictly": {"PYTHONIOENCODING": "latin-1:strict"},
    "TERM=dumb": {"TERM": "dumb"},
    "a home that is not": {"HOME": "/proc/nowhere"},
    "a home that cannot be written": {"HOME": "/proc", "TMPDIR": "/proc"},
    "a home without a name": {"HOME": ""},
    "a narrow screen": {"COLUMNS": "1", "LINES": "1"},
    "a width that is no number": {"COLUMNS": "wide"},
}

STREAMS = {
    "stdin closed": "<&-",
    "stdout closed": ">&-",
    "stderr closed": "2>&-",
    "all closed": "<&- >&- 2>&-",
    "stdout open for reading only": "1</dev/null",
    "a reader who leaves": "| head -1",
    "a reader of both who leaves": "2>&1 | head -1",
    "a reader who was never there": "2>&1 | true",
    "no room for the talk": "2>/dev/full",
}


def untroubled(done: subprocess.CompletedProcess[str]) -> None:
    for word in ("Traceback", "Exception", "Errno", "NoneType", ".py"):
        assert word not in done.stdout + done.stderr, done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def pending(shell: Shell) -> None:
    """Change one user in a manifest, and add a new user who gets a welcome e-mail."""
    shell.edit(BAKERY, "first_name: Claire", "first_name: Clara")
    path = shell.folder / BAKERY
    path.write_text(
        path.read_text() + "\n  - {email: lea@example.fr, first_name: Léa, last_name: Œuf, type: standard}\n"
    )


def done_once(shell: Shell, letters: int) -> None:
    assert shell("plan", "--detailed-exitcode").code == 0
    assert shell.letters() == letters + 1
    assert "2 steps done, 1 e-mail sent" in shell("history").out


@pytest.mark.parametrize("where", ENVIRONMENTS)
def test_a_poor_environment_changes_no_exit_code_and_gives_no_traceback(where: str, applied: Shell) -> None:
    pending(applied)
    letters = applied.letters()
    for script, expected in (
        ("provisioner plan --detailed-exitcode", 2),
        ("provisioner apply", 64),
        ("provisioner apply --auto-approve", 0),
    ):
        done = process(script, applied.folder, **ENVIRONMENTS[where])
        assert done.returncode == expected, done.stderr
        untroubled(done)
        # a character that cannot be shown is escaped, not left out
        assert "Claire" in done.stdout or "lea@example.fr" in done.stderr or expected == 64
    done_once(applied, letters)


@pytest.mark.parametrize("how", STREAMS)
def test_closed_streams_change_no_exit_code_and_stop_no_run(how: str, applied: Shell) -> None:
    """If a standard stream is closed or its reader has left, a run still makes all changes.

    The writes to the portal do not depend on the reader of the output.
    """
    pending(applied)
    letters = applied.letters()
    lost = how == "stdout open for reading only"
    for command, expected in (
        ("plan --detailed-exitcode", 1 if lost else 2),
        ("plan --no-such-option", 64),
        ("apply --auto-approve", 1 if lost else 0),
    ):
        done = process(f"provisioner {command} {STREAMS[how]}; exit ${{PIPESTATUS[0]}}", applied.folder)
        assert done.returncode == expected, (command, done.stderr)
        untroubled(done)
        if lost and expected == 1:
            assert "The answer could not be written" in done.stderr
    done_once(applied, letters)


def test_an_answer_that_cannot_be_written_is_an_error_after_the_work(applied: Shell) -> None:
    pending(applied)
    letters = applied.letters()
    for command in ("plan --json", "plan --detailed-exitcode", "--help", "apply --auto-approve"):
        done = process(f"provisioner {command} >/dev/full", applied.folder)
        assert done.returncode == 1, command
        assert done.stderr.endswith(
            "Error: The answer could not be written: No space left on device.\n  Check where stdout goes.\n"
        )
        untroubled(done)
    done_once(applied, letters)


def test_a_non_blocking_pipe_is_waited_for(applied: Shell) -> None:
    """If another program made the output pipe non-blocking, the program waits for a slow reader."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    running = subprocess.Popen(
        [sys.executable, "-m", "provisioner", "schema", "provisioner"],
        stdout=writer, stderr=subprocess.PIPE, text=True, cwd=applied.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(writer)
    waiting = array("i", [0])
    while waiting[0] < room and running.poll() is None:
        fcntl.ioctl(reader, termios.FIONREAD, waiting)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        answer = pipe.read()
    _, talk = running.communicate(timeout=60)
    assert (running.returncode, talk) == (0, "")
    assert len(answer) > room
    assert json.loads(answer)["title"] == "provisioner.yaml"


@pytest.mark.parametrize("environment", ["LC_ALL=C", "ascii streams"])
def test_problems_are_shown_on_an_ascii_terminal(environment: str, tmp_path: Path) -> None:
    """Problems are shown on an ASCII terminal, even if the name of the folder has an accent."""
    words = ENVIRONMENTS[environment]
    done = process("provisioner plan", SAMPLES / "broken" / "many-at-once", **words)
    assert done.returncode == 3
    untroubled(done)
    folder = tmp_path / "été"
    folder.mkdir()
    done = process("provisioner plan", folder, **words)
    assert done.returncode == 1
    assert "No provisioner.yaml in" in done.stderr
    untroubled(done)


def test_a_removed_current_folder_gives_no_traceback(applied: Shell, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    pending(applied)
    letters = applied.letters()
    for script, expected in (
        ("provisioner plan --detailed-exitcode", 2),
        ('"$PYTHON" -m provisioner plan', 1),
        ('"$PYTHON" -m provisioner init', 1),
        ("provisioner plan --out plan.json", 1),
        ("provisioner apply plan.json", 1),
        ("provisioner export out", 1),
        ("provisioner --version", 0),
        ("provisioner apply --auto-approve", 0),
    ):
        done = process(f'mkdir -p "{gone}"; cd "{gone}"; rmdir "{gone}"; {script}', applied.folder)
        assert done.returncode == expected, (script, done.stderr)
        untroubled(done)
    done_once(applied, letters)


def test_an_empty_environment_is_enough_to_plan(applied: Shell) -> None:
    done = process('exec env -i PYTHONPATH="$PYTHONPATH" "$PYTHON" -m provisioner plan', applied.folder)
    assert done.returncode == 0, done.stderr
    untroubled(done)


def on_a_terminal(folder: Path, typed: str, **environment: str) -> tuple[int, str]:
    """Run ``apply`` on a terminal and type ``typed`` at the question. Return the exit code and the output."""
    master, slave = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "provisioner", "-C", str(folder), "apply"],
        stdin=slave, stdout=slave, stderr=slave, cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    os.close(slave)
    screen = b""
    with os.fdopen(master, "r+b", buffering=0) as terminal:
        while True:
            try:
                more = terminal.read(65536)
            except OSError:  # the other side is closed
                break
            if not more:
                break
            screen += more
            if typed and b"Only 'yes' is accepted" in screen:
                terminal.write(typed.encode())
                typed = ""
    return running.wait(60), screen.decode()


@pytest.mark.parametrize(
    ("environment", "typed", "expected"),
    [
        ({"TERM": "dumb"}, "yes\n", 0),
        ({"TERM": "dumb"}, "Yes\n", 8),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "\x04", 8),
        ({"TERM": "xterm", "CI": "true"}, "", 64),
        ({}, "no\n", 8),
    ],
    ids=["yes on a dumb one", "Yes is not yes", "end of file", "a terminal in CI", "no"],
)
def test_a_poor_terminal_is_asked_and_gets_no_escapes(
    environment: dict[str, str], typed: str, expected: int, applied: Shell
) -> None:
    pending(applied)
    code, screen = on_a_terminal(applied.folder, typed, **environment)
    assert code == expected, screen
    assert "Traceback" not in screen
    if environment.get("TERM") == "dumb" or "NO_COLOR" in environment:
        assert not re.search(r"\x1b\[[0-9;]*m", screen)
    assert (applied("plan", "--detailed-exitcode").code == 0) is (expected == 0)
