"""After Ctrl-C at any point, the ledger is consistent, and the program shows the command to run next.

The tests stop real processes, each on its own terminal. A process is stopped at a boundary or after it has
shown a certain text. If the same command is repeated, it finishes the run.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiosmtplib import SMTP
from boundaries import apply, mailed, watch, workspace
from shell_support import ROOT
from smtp_support import SILENCE, Server, smtp_server
from terminal import COLUMNS, CTRL_C, Shown, in_terminal, screen

from provisioner.commands import apply as apply_module
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.outbox import read_letters
from provisioner.ledger.snapshot import read_ledger
from provisioner.operations import apply as run_module
from provisioner.operations import session as session_module
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.terminal.console import Console
from provisioner.terminal.progress import counting, counting_line

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def one_client(folder: Path) -> Path:
    return workspace(folder, clients="clarke*.yaml")


def command(folder: Path) -> list[str]:
    return ["-C", str(folder), "apply", "--auto-approve"]


def require_stopped(shown: Shown, folder: Path) -> None:
    """Assert that the run ended with exit code 8, a message and the command to run next."""
    assert shown.code == 8, shown
    assert "Stopp" in shown.text
    assert f"To finish: provisioner -C {folder} apply" in shown.text.replace("\r\n", "")
    assert "Traceback" not in shown.text


def require_finished(folder: Path) -> None:
    """Assert that a second run does the rest and that each new user has one welcome e-mail."""
    assert apply(folder) == 0
    assert set(mailed(folder).values()) == {1}
    assert len(mailed(folder)) == 2
    assert read_ledger(SqliteDatabase(folder / "ledger.db")).unsettled == ()
    assert {posted.state for posted in read_letters(SqliteDatabase(folder / "ledger.db"))} == {"sent"}


def stopped_at(folder: Path, boundary: int, *numbers: int) -> tuple[bool, Shown]:
    """Run ``apply`` and send it the signals ``numbers``, the first signal at ``boundary``.

    Each further signal is sent one boundary later. Return two values: True if the run reached ``boundary``,
    and what its terminal showed.
    """
    fired = folder / "fired"

    def prepare() -> None:
        passed = 0

        def checkpoint() -> None:
            nonlocal passed
            passed += 1
            if 0 <= passed - boundary < len(numbers):
                fired.touch()
                os.kill(os.getpid(), numbers[passed - boundary])

        watch(checkpoint)

    shown = in_terminal(command(folder), prepare=prepare)
    return fired.exists(), shown


@pytest.mark.timeout(300)
@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_stopped_at_any_boundary_reports_it_and_can_be_finished(every: int, tmp_path: Path) -> None:
    for boundary in count(1, every):
        folder = one_client(tmp_path / f"at-{boundary}")
        fired, shown = stopped_at(folder, boundary, SIGNALS[boundary % 2])
        if not fired:
            assert shown.code == 0
            break
        require_stopped(shown, folder)
        require_finished(folder)
        shutil.rmtree(folder)
    assert boundary > 40


@pytest.mark.timeout(300)
@pytest.mark.parametrize("every", [5, pytest.param(2, marks=pytest.mark.slow)])
def test_a_second_ctrl_c_ends_at_once_and_leaves_a_consistent_ledger(every: int, tmp_path: Path) -> None:
    for boundary in count(1, every):
        folder = one_client(tmp_path / f"at-{boundary}")
        fired, shown = stopped_at(folder, boundary, signal.SIGINT, signal.SIGINT)
        if not fired:
            break
        require_stopped(shown, folder)
        require_finished(folder)
        shutil.rmtree(folder)
    assert boundary > 40


WORK = (
    "load_workspace", "plan_workspace", "show_text", "load_sender", "check_templates", "open_portal_for",
    "verify_precondition", "record_adoptions", "unconverged_changes", "deliver", "_conclude",
)  # fmt: skip
"""The functions that ``apply`` calls, in order."""

MODULES = (apply_module, run_module, session_module)


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_stopped_within_any_function_reports_it(name: str, when: str, tmp_path: Path) -> None:
    folder = one_client(tmp_path / "firm")

    def prepare() -> None:
        module = next(module for module in MODULES if hasattr(module, name))
        work: Callable[..., object] = getattr(module, name)

        def interrupted(*words: object, **names: object) -> object:
            if when == "before":
                os.kill(os.getpid(), signal.SIGINT)
            done = work(*words, **names)
            if when == "after":
                os.kill(os.getpid(), signal.SIGINT)
            return done

        setattr(module, name, interrupted)

    require_stopped(in_terminal(command(folder), prepare=prepare), folder)
    require_finished(folder)


TOO_SOON = """
import os, signal, sys
part, how = sys.argv.pop(1), sys.argv.pop(1)

class Named:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGINT)

class Early:
    def find_spec(self, name, path=None, target=None):
        if name == part:
            exec(how)

sys.meta_path.insert(0, Early())
from provisioner.__main__ import main
main()
"""
"""A program that imports the command line and runs the code ``how`` when it imports the module ``part``.

The code sends SIGINT to the program.
"""


@pytest.mark.parametrize("part", ["click", "provisioner.commands.plan"])
@pytest.mark.parametrize("how", ["os.kill(os.getpid(), signal.SIGINT)", "class Entry: name = Named()"])
def test_ctrl_c_while_the_program_is_imported(part: str, how: str, tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text(TOO_SOON)
    said = subprocess.run(
        [sys.executable, "-m", "early", part, how, "-C", str(tmp_path), "plan"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (said.returncode, said.stdout) == (8, "")
    assert "Stopped" in said.stderr
    assert "Traceback" not in said.stderr


def test_ctrl_c_at_the_question_writes_nothing(tmp_path: Path) -> None:
    folder = one_client(tmp_path / "firm")
    shown = in_terminal(["-C", str(folder), "apply"], keys=[("Only 'yes' is accepted: ", CTRL_C)])
    require_stopped(shown, folder)
    assert "Stopped; nothing was written." in shown.text
    assert "what is done" not in shown.text
    assert not (folder / "portal.db").exists()
    assert not (folder / "ledger.db").exists()


def test_ctrl_c_while_waiting_for_another_run(tmp_path: Path) -> None:
    folder = one_client(tmp_path / "firm")
    ledger = Ledger(SqliteDatabase(folder / "ledger.db"), lambda: datetime.now(UTC))
    with ledger.lock.hold("apply"):
        shown = in_terminal(
            [*command(folder), "--lock-timeout", "60"], keys=[("Waiting for the ledger: locked by", CTRL_C)]
        )
    ledger.close()
    require_stopped(shown, folder)
    assert not (folder / "portal.db").exists()
    require_finished(folder)


def through(folder: Path, server: Server) -> Path:
    """Create a workspace with one client, whose two letters go to this mail server."""
    return workspace(
        folder,
        transport=f"smtp://127.0.0.1:{server.port}",
        extra="\n  tls: none\n  connections: 1",
        clients="clarke*.yaml",
    )


def stop_once_a_body_has_left() -> None:
    """Make this process send SIGINT to itself when it begins to send the body of the first letter."""
    data = SMTP.data
    sent: list[bytes] = []

    async def watched(client: SMTP, content: bytes, **options: Any) -> Any:
        sent.append(content)
        if len(sent) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return await data(client, content, **options)

    SMTP.data = watched  # type: ignore[assignment]


def test_ctrl_c_finishes_the_current_letter_and_sends_none_twice(tmp_path: Path) -> None:
    with smtp_server() as server:
        folder = through(tmp_path / "firm", server)
        require_stopped(in_terminal(command(folder), prepare=stop_once_a_body_has_left), folder)
        states = [posted.state for posted in read_letters(SqliteDatabase(folder / "ledger.db"))]
        assert sorted(states) == ["owed", "sent"]
        shown = in_terminal(["-C", str(folder), "mail", "send"], prepare=stop_once_a_body_has_left)
        assert shown.code == 8
        assert f"To send the rest: provisioner -C {folder} mail send" in shown.text.replace("\r\n", "")
        assert in_terminal(["-C", str(folder), "mail", "send"]).code == 0
    recipients = Counter(message_from_bytes(message)["To"] for message in server.accepted)
    assert sorted(recipients.values()) == [1, 1]


def test_a_second_ctrl_c_parks_the_letter_that_a_silent_server_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with smtp_server({"body": SILENCE}) as server:
        folder = through(tmp_path / "firm", server)
        shown = in_terminal(
            command(folder), keys=[("Stopping after", CTRL_C)], prepare=stop_once_a_body_has_left
        )
        require_stopped(shown, folder)
    said = [" ".join(shown.text.split())]
    settings = folder / "provisioner.yaml"
    settings.write_text(settings.read_text().replace(f"smtp://127.0.0.1:{server.port}", "maildir:outbox"))
    for code in (7, 0):
        assert apply(folder) == code
        said.append(capsys.readouterr().err)
    states = [posted.state for posted in read_letters(SqliteDatabase(folder / "ledger.db"))]
    assert sorted(states) == ["sent", "unknown"]
    assert [text.count("1 welcome e-mail is parked") for text in said] == [1, 1, 1]
    assert all(" mail settle USER --sent, or --resend" in text for text in said)
    assert [text.count("E-mail not sent (unknown)") for text in said] == [0, 1, 0]


# --- what a terminal shows meanwhile ---


def test_the_counting_line_is_removed_before_the_answer(tmp_path: Path) -> None:
    folder = one_client(tmp_path / "firm")
    shown = in_terminal(command(folder), environment={"NO_COLOR": "1"})
    assert shown.code == 0
    assert not re.search(r"\x1b\[[0-9;]*m", shown.text)
    assert "Applying 0 of 4 (0 %), time left -:--:--" in shown.text
    assert "Sending 0 of 2 (0 %), time left -:--:--" in shown.text
    final = screen(shown.text)
    assert all(len(line) < COLUMNS for line in final)
    assert not [line for line in final if line.startswith(("Applying", "Sending"))]
    assert final[-3:] == [
        "Plan: 3 to add, 0 to change, 0 to close, 2 e-mails to send.",
        "Applied: 4 steps done, 2 e-mails sent.",
        "",
    ]
    assert shown.text.rindex("\x1b[?25h") > shown.text.rindex("\x1b[?25l"), "the cursor is shown again"


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}])
def test_without_a_counting_line_there_is_one_line_a_step(
    environment: dict[str, str], tmp_path: Path
) -> None:
    folder = one_client(tmp_path / "firm")
    shown = in_terminal(command(folder), environment={**environment, "NO_COLOR": "1"})
    assert shown.code == 0
    lines = shown.text.split("\r\n")
    assert "\r" not in "".join(lines)
    assert "\x1b" not in shown.text
    assert [line.partition(" ")[0] for line in lines if line.startswith("[")] == [
        *(f"[{number}/4]" for number in range(1, 5)),
        *(f"[{number}/2]" for number in range(1, 3)),
    ]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (79, "Applying 5,000 of 13,638 (37 %), time left 1:11:59"),
        (30, "Applying 5,000 of 13,638 (37"),
    ],
)
def test_the_counting_line_shows_the_count_and_the_time_left(width: int, expected: str) -> None:
    now = 0.0
    stream = StringIO()
    line = counting_line(stream, width, clock=lambda: now)
    line.start()
    task = line.add_task("Applying", total=13_638)
    for second in range(1, 31):
        now = float(second)
        line.update(task, completed=4_940 + 2 * second)
    line.stop()
    shown = [text.strip() for text in re.split(r"\r\x1b\[2K|\n", stream.getvalue())]
    assert expected in shown


def test_reading_counts_on_a_terminal_and_is_silent_elsewhere() -> None:
    drawn = "Reading 7 of 10 (70 %), time left -:--:--"
    for bar, quiet, expected in ((True, 0, drawn), (True, 60, ""), (False, 0, "")):
        stream = StringIO()
        with counting(Console(StringIO(), stream, bar=bar), "Reading", quiet=quiet) as report:
            report(7, 10)
            assert screen(stream.getvalue())[0] == expected
        assert set(screen(stream.getvalue())) == {""}


def test_rich_is_imported_on_a_terminal_alone(tmp_path: Path) -> None:
    program = (
        "import sys; from provisioner.cli import run; code = run(sys.argv[1:]); "
        "print('rich' in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command(one_client(tmp_path / "firm"))],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.endswith("False\n")
