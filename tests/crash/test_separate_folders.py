"""Runs with separate folders that share a portal do each step once.

The runs have separate ledgers or share a ledger. In one test, a run is suspended for a time.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections import Counter
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from boundaries import mailed, watch, workspace
from crash_support import CRASHED, TWO_NEWCOMERS, ended, forked, write_output_to
from postgres_support import PostgresServer
from remote_support import firm as served_firm
from scim_support import TOKEN, everything, server, tenant

from provisioner.cli import run
from provisioner.embedded.portal import SqlPortal
from provisioner.ledger.journal import read_entries, read_runs
from provisioner.ledger.lock import read_lock
from provisioner.ledger.snapshot import read_ledger
from provisioner.model import Operator, PortalTerms
from provisioner.storage.database import Database
from provisioner.storage.sqlite import SqliteDatabase

PROCESSES = 8


def firm(folder: Path, portal: str, ledger: str = "sqlite:///ledger.db") -> Path:
    """Create a workspace with two newcomers and the URLs ``portal`` and ``ledger``. Return its folder."""
    made = workspace(folder, clients=TWO_NEWCOMERS)
    settings = made / "provisioner.yaml"
    text = settings.read_text().replace('"sqlite:///portal.db"', f'"{portal}"')
    settings.write_text(text.replace('"sqlite:///ledger.db"', f'"{ledger}"'))
    return made


def together(folders: list[Path], *words: str) -> list[int]:
    """Apply in each folder, in parallel processes that start together, and return the exit codes."""
    reading, starting = os.pipe()

    def one(folder: Path) -> int:
        # all start together
        os.read(reading, 1)
        write_output_to(folder / "talk.txt")
        return run(["-C", str(folder), "apply", "--auto-approve", *words])

    appliers = [forked(partial(one, folder)) for folder in folders]
    os.write(starting, b"." * len(folders))
    codes = [ended(pid) for pid in appliers]
    os.close(reading)
    os.close(starting)
    return codes


def letters_in(folders: list[Path]) -> Counter[str]:
    """Return the number of letters that each newcomer has in all folders together."""
    found: Counter[str] = Counter()
    for folder in folders:
        found.update(mailed(folder))
    return found


def rows_of(database: Database, table: str) -> int:
    """Return the number of rows of a table of the portal."""
    portal = SqlPortal(database, Operator.PARTNER, PortalTerms(), "", _never)
    try:
        with portal.read_transaction() as connection:
            (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            return int(count)
    finally:
        portal.close()


def _never() -> datetime:
    raise AssertionError


def require_one_effect(database: Database, folders: list[Path]) -> None:
    """Assert that each account exists once, each step was done once, and each newcomer has one letter."""
    assert rows_of(database, "client_user") == 2
    assert rows_of(database, "receipt") == 4
    assert sorted(letters_in(folders).values()) == [1, 1]


def test_eight_appliers_with_separate_ledgers_do_each_step_once(
    memory_path: Path, postgres: PostgresServer
) -> None:
    """Runs that share only the portal do each step once, and each newcomer gets one letter.

    The portal is an SQLite file or a PostgreSQL database.
    """
    schema = postgres.place()
    for url, database in (
        (f"sqlite:///{memory_path / 'portal.db'}", SqliteDatabase(memory_path / "portal.db")),
        (str(schema), schema),
    ):
        folders = [firm(memory_path / f"{url[:6]}-{number}", url) for number in range(PROCESSES)]
        codes = together(folders)
        talk = [(folder / "talk.txt").read_text() for folder in folders]
        # 5: the portal had changed since that run planned, so it wrote nothing
        assert set(codes) <= {0, 5, 7}, talk
        assert 0 in codes
        require_one_effect(database, folders)
        assert set(together(folders)) == {0}
        require_one_effect(database, folders)


def test_eight_appliers_with_one_ledger_on_a_server_do_each_step_once(
    memory_path: Path, postgres: PostgresServer
) -> None:
    """Runs that share a portal and a ledger take turns, and each newcomer gets one letter."""
    portal, ledger = postgres.place(), postgres.place()
    folders = [firm(memory_path / str(number), str(portal), str(ledger)) for number in range(PROCESSES)]
    codes = together(folders, "--lock-timeout", "60")
    assert set(codes) == {0}, [(folder / "talk.txt").read_text() for folder in folders]
    require_one_effect(portal, folders)
    require_turns(ledger, folders)


def test_appliers_with_one_ledger_and_a_portal_behind_a_service_take_turns(
    memory_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs with separate folders take turns when the portal is behind HTTP."""
    ledger = postgres.place()
    with served_firm(memory_path / "served", monkeypatch) as remote:
        folders = [firm(memory_path / str(n), remote.served.url, str(ledger)) for n in range(PROCESSES)]
        codes = together(folders, "--lock-timeout", "60")
        assert set(codes) == {0}, [(folder / "talk.txt").read_text() for folder in folders]
        assert set(remote.users.values()) == {("active", 1)}
        assert len(remote.users) == 2
    require_turns(ledger, folders)


def test_appliers_with_one_ledger_take_turns_on_a_portal_without_leases(
    memory_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that share a ledger take turns on a SCIM server.

    The server has neither leases nor claims, but the ledger has both.
    """
    monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", TOKEN)
    ledger, url = postgres.place(), tenant(server("scim"))
    folders = [firm(memory_path / str(n), f"scim+{url}", str(ledger)) for n in range(PROCESSES // 2)]
    codes = together(folders, "--lock-timeout", "60")
    assert set(codes) == {0}, [(folder / "talk.txt").read_text() for folder in folders]
    assert len(everything(url, "Users")) == 2
    assert len(everything(url, "Groups")) == 1
    require_turns(ledger, folders)


def require_turns(ledger: Database, folders: list[Path]) -> None:
    """Assert that each step was done once and each newcomer has one letter."""
    done = [entry.verdict for made in read_runs(ledger, 20) for entry in read_entries(ledger, made.id)]
    assert Counter(done) == {"applied": 4}
    assert sorted(letters_in(folders).values()) == [1, 1]


def stopped_after(folder: Path, number: int) -> tuple[int, bool]:
    """Run ``apply`` in a process that suspends itself after the commit with this ``number``.

    Return the process ID and True. If the process ended before this commit, return its exit code and False.
    """
    committed = 0

    def on_commit(_: sqlite3.Connection) -> None:
        nonlocal committed
        committed += 1
        if committed == number:
            os.kill(os.getpid(), signal.SIGSTOP)

    def work() -> int:
        watch(lambda: None, on_commit)
        write_output_to(folder / "talk.txt")
        return run(["-C", str(folder), "apply", "--auto-approve"])

    pid = forked(work)
    _, status = os.waitpid(pid, os.WUNTRACED)
    return (pid, True) if os.WIFSTOPPED(status) else (os.waitstatus_to_exitcode(status), False)


@pytest.mark.timeout(120)
def test_a_stopped_run_writes_nothing_once_another_took_its_place(
    memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A suspended run writes nothing after another run has taken its place.

    The run is suspended after a commit. Then its lock is removed by ``unlock``, another run is completed, and
    the suspended run continues.
    """
    woken: Counter[int] = Counter()
    fenced = 0
    for number in range(2, 1000):
        folder = firm(memory_path / str(number), "sqlite:///portal.db")
        pid, stopped = stopped_after(folder, number)
        if not stopped:
            assert pid == 0
            break
        holder = read_lock(SqliteDatabase(folder / "ledger.db"))
        if holder is not None:
            assert run(["-C", str(folder), "unlock", holder.id]) == 0
        assert run(["-C", str(folder), "apply", "--auto-approve"]) == 0, (number, capsys.readouterr())
        os.kill(pid, signal.SIGCONT)
        code = ended(pid)
        talk = (folder / "talk.txt").read_text()
        assert code != CRASHED, (number, talk)
        assert code in (0, 6), (number, talk)
        # it may have had nothing left to write
        assert code == 6 or talk.endswith("Applied: 4 steps done, 2 e-mails sent.\n"), (number, talk)
        woken[code] += 1
        fenced += "taken this one's place on the portal" in talk
        require_one_effect(SqliteDatabase(folder / "portal.db"), [folder])
        assert read_ledger(SqliteDatabase(folder / "ledger.db")).unsettled == ()
    assert woken[6] >= 10
    assert fenced >= 2
