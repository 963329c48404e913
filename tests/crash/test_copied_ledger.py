"""A ledger that was copied or restored from a backup while it owed letters sends no letter twice."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from boundaries import apply, mailed, workspace
from crash_support import TWO_NEWCOMERS, posting, received
from shell_support import Shell, tables
from smtp_support import Server, smtp_server

from provisioner.ledger.outbox import read_letters
from provisioner.operations import apply as apply_module
from provisioner.operations import deliver
from provisioner.storage.sqlite import SqliteDatabase

EMILY, JAMES = "emily.clarke@clarke-ceramics.com", "james.clarke@clarke-ceramics.com"


class Moment(NamedTuple):
    """Copies of the portal's and the ledger's databases, made after a commit to one of the two databases."""

    portal: Path
    ledger: Path

    @property
    def letters(self) -> dict[str, str]:
        """The mapping from the recipient of each letter in the outbox to the state of the letter."""
        return {posted.letter.recipient: posted.state for posted in read_letters(SqliteDatabase(self.ledger))}

    @property
    def rows(self) -> list[Any]:
        """The rows of the tables that decide whether a letter is sent."""
        held = tables(*self)
        return [
            held[name] for name in sorted(held) if name.endswith((":outbox", ":journal", ":letter_claim"))
        ]


class Watched(NamedTuple):
    """A complete run for two newcomers, with copies of its databases at each moment of the run."""

    folder: Path
    moments: list[Moment]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    base = tmp_path_factory.mktemp("watched")
    moments: list[Moment] = []
    connect = sqlite3.connect

    class Kept(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            done = super().execute(sql, *values)
            files = [base / "firm" / name for name in ("portal.db", "ledger.db")]
            if sql == "COMMIT" and all(file.exists() for file in files):
                moment = Moment(*(base / f"{file.stem}-{len(moments)}" for file in files))
                for file, copy in zip(files, moment, strict=True):
                    with closing(connect(file)) as reading, closing(connect(copy)) as writing:
                        reading.backup(writing)
                        # the run that held the lock has ended when the copy is used
                        writing.executescript("UPDATE lock SET expires = 1" if copy is moment.ledger else "")
                if not moments or moment.rows != moments[-1].rows:
                    moments.append(moment)
            return done

    with smtp_server() as server, pytest.MonkeyPatch.context() as patch:
        folder = posting(base / "firm", server, "hold")
        patch.setattr(sqlite3, "connect", lambda *words, **more: connect(*words, factory=Kept, **more))
        assert apply(folder) == 0
    assert received(server) == {EMILY: 1, JAMES: 1}
    unsent = Counter(tuple(moment.letters.values()) for moment in moments)
    assert {("owed", "owed"), ("connecting", "connecting"), ("body", "connecting")} <= unsent.keys(), unsent
    return Watched(folder, moments)


@pytest.fixture
def server() -> Iterator[Server]:
    with smtp_server() as server:
        yield server


def restored(run: Watched, folder: Path, server: Server, moment: Moment, portal: Path | None = None) -> Path:
    """Create a workspace like that of ``run``, with the ledger of ``moment`` and the database ``portal``.

    If ``portal`` is None, the workspace uses the portal of the complete run.
    """
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("*.db*"))
    shutil.copyfile(moment.ledger, folder / "ledger.db")
    settings = folder / "provisioner.yaml"
    lines = [
        f'  transport: "smtp://127.0.0.1:{server.port}"' if "transport:" in line else line
        for line in settings.read_text().splitlines()
    ]
    text = "\n".join(lines).replace("sqlite:///portal.db", f"sqlite:///{portal or run.folder / 'portal.db'}")
    settings.write_text(text)
    return folder


def require_settled(folder: Path, moment: Moment, code: int) -> None:
    """Assert that each letter was sent by this or another copy of the ledger, and that ``code`` is 0.

    If a letter had the state *body* at ``moment``, this letter has to be parked, and ``code`` has to be 7.
    """
    letters = {
        posted.letter.recipient: posted.state for posted in read_letters(SqliteDatabase(folder / "ledger.db"))
    }
    parked = {name for name, state in moment.letters.items() if state == "body"}
    assert letters == {name: "unknown" if name in parked else "sent" for name in letters}
    assert code == (7 if parked else 0)


def test_a_backup_of_any_moment_of_a_run_sends_nothing_again(
    run: Watched, server: Server, memory_path: Path
) -> None:
    for number, moment in enumerate(run.moments):
        folder = restored(run, memory_path / str(number), server, moment)
        require_settled(folder, moment, apply(folder))
    assert received(server) == {}


def test_of_two_copies_of_a_killed_run_one_sends_what_is_owed(run: Watched, memory_path: Path) -> None:
    """Each letter that a killed run owes is sent by exactly one of two copies of the run.

    The portal and the ledger are as the killed run left them.
    """
    for number, moment in enumerate(run.moments):
        if "owed" not in moment.letters.values() and "connecting" not in moment.letters.values():
            continue
        with smtp_server() as server:
            portal = memory_path / f"portal-{number}.db"
            shutil.copyfile(moment.portal, portal)
            for name in ("one", "two"):
                folder = restored(run, memory_path / f"{name}-{number}", server, moment, portal)
                require_settled(folder, moment, apply(folder))
        owed = [name for name, state in moment.letters.items() if state in ("owed", "connecting")]
        assert received(server) == dict.fromkeys(owed, 1)


def test_a_letter_another_copy_may_have_sent_is_parked_for_a_decision(
    memory_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Shell(workspace(memory_path / "first", clients=TWO_NEWCOMERS), capsys)
    first.edit("provisioner.yaml", "sqlite:///portal.db", f"sqlite:///{memory_path / 'portal.db'}")
    with monkeypatch.context() as patch:
        patch.setattr(apply_module, "deliver", lambda *words: deliver.DeliveryReport())
        assert first("apply", "--auto-approve").code == 0
    second, third = (
        Shell(Path(shutil.copytree(first.folder, memory_path / name)), capsys) for name in ("second", "third")
    )
    with monkeypatch.context() as patch:
        # as if killed before it reported the sent letters to the portal
        patch.setattr(deliver, "close_claims", lambda *words: None)
        assert first("mail", "send").code == 0
    for copy in (second, third):
        said = copy("mail", "send")
        assert (said.code, said.out) == (7, "0 e-mails sent.\n")
        assert f"{EMILY}: another copy of this ledger, or this one before it was restored, had it" in said.err
        assert said.err.count(f"provisioner mail settle {EMILY} --sent, or --resend") == 1
        assert "2 welcome e-mails are parked" in said.err
        assert "may or may not have arrived (another copy of this ledger, or this one before" in " ".join(
            copy("plan").out.split()
        )
        assert copy("mail", "send").out == "0 e-mails sent.\n"
        assert copy("mail", "settle", JAMES, "--sent").code == 0
        assert copy("mail", "settle", EMILY, "--resend").code == 0
    # of two copies that decide to resend, one sends
    assert [copy("mail", "send").out for copy in (second, third)] == ["1 e-mail sent.\n", "0 e-mails sent.\n"]
    assert [mailed(copy.folder) for copy in (first, second, third)] == [{EMILY: 1, JAMES: 1}, {EMILY: 1}, {}]
    assert third("mail", "status").out.count("another copy of this ledger sent it") == 1
    for copy in (first, second, third):
        assert copy("mail", "send").out == "0 e-mails sent.\n"
        assert {posted.state for posted in read_letters(SqliteDatabase(copy.folder / "ledger.db"))} == {
            "sent"
        }
