"""Runs that share a ledger do each step once, even if a run or a server is killed or suspended.

Each run has its own folder, as on its own machine; the runs share the portal and the ledger.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from boundaries import mailed, watch, workspace
from crash_support import (
    TWO_NEWCOMERS,
    boundaries,
    ended,
    forked,
    killed_at,
    nothing_to_do,
    received,
    write_output_to,
)
from hypothesis import given
from hypothesis import strategies as st
from smtp_support import SILENCE, smtp_server

from provisioner.cli import run
from provisioner.ledger.journal import read_entries, read_runs
from provisioner.ledger.lock import read_lock
from provisioner.ledger.outbox import read_letters
from provisioner.ledger.store import LEDGER_SCHEMA
from provisioner.storage.database import Database, transaction
from provisioner.storage.registry import database_at

if TYPE_CHECKING:
    from postgres_support import PostgresServer

PROCESSES = 8
ROUNDS = 2


class Shared(NamedTuple):
    """A portal and a ledger that several runs share."""

    base: Path
    portal: str
    ledger: str

    @property
    def database(self) -> Database:
        return database_at(self.ledger, self.base)

    def folder(self, name: str, transport: str = "", extra: str = "") -> Path:
        """Create the workspace of one run. By default, the letters of all runs go to one maildir."""
        return workspace(
            self.base / name, clients=TWO_NEWCOMERS, portal=self.portal, ledger=self.ledger,
            transport=transport or f"maildir:{self.base}/outbox", extra=extra,
        )  # fmt: skip

    def letters(self) -> Counter[str]:
        """Return the number of letters that each recipient has from all runs together."""
        return mailed(self.base)


Share = Callable[[], Shared]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.external)])
def share(request: pytest.FixtureRequest, memory_path: Path) -> Share:
    """Return a function that creates a new portal and a new ledger, in SQLite or on PostgreSQL."""
    numbers = count(1)
    server: PostgresServer | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")

    def make() -> Shared:
        base = memory_path / str(next(numbers))
        base.mkdir()
        ledger = server.url(server.new_schema()) if server else f"sqlite:///{base}/ledger.db"
        return Shared(base, f"sqlite:///{base}/portal.db", ledger)

    return make


@pytest.fixture
def apart(own_postgres: PostgresServer, memory_path: Path) -> Share:
    """Return a function that creates a new portal and a new ledger, both on PostgreSQL."""
    numbers = count(1)

    def make() -> Shared:
        base = memory_path / str(next(numbers))
        base.mkdir()
        return Shared(
            base, own_postgres.url(own_postgres.new_schema()), own_postgres.url(own_postgres.new_schema())
        )

    return make


@pytest.fixture(autouse=True)
def fast_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll the lock often, so that the tests are fast."""
    monkeypatch.setattr("provisioner.ledger.lock.POLL_SECONDS", 0.005)
    monkeypatch.setattr("provisioner.ledger.lock.RECONNECT_SECONDS", 0.02)


def apply(folder: Path, lock_timeout: str = "20") -> int:
    return run(["-C", str(folder), "apply", "--auto-approve", "--lock-timeout", lock_timeout])


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lapse(database: Database) -> None:
    """Make the lease of the ledger's lock expire at once."""
    with closing(database.connect(LEDGER_SCHEMA)) as connection, transaction(connection):
        connection.execute("UPDATE lock SET expires = 1")


@pytest.mark.usefixtures("capfd")
def test_eight_appliers_on_eight_machines_do_each_step_once(share: Share) -> None:
    """Eight runs that start together do each step once.

    Half of the runs wait for the lock. The other runs exit if the lock is held.
    """
    for _ in range(ROUNDS):
        shared = share()
        reading, starting = os.pipe()

        def one(folder: Path, lock_timeout: str, reading: int = reading) -> int:
            # all start together
            os.read(reading, 1)
            return apply(folder, lock_timeout)

        folders = [shared.folder(f"machine-{number}") for number in range(PROCESSES)]
        appliers = [
            forked(partial(one, folder, "60" if number % 2 else "0")) for number, folder in enumerate(folders)
        ]
        os.write(starting, b"." * PROCESSES)
        codes = [ended(pid) for pid in appliers]
        os.close(reading)
        os.close(starting)
        assert set(codes) <= {0, 6}
        assert 0 in codes
        assert sorted(shared.letters().values()) == [1, 1]
        database = shared.database
        done = [entry for made in read_runs(database, 20) for entry in read_entries(database, made.id)]
        assert Counter(entry.verdict for entry in done) == {"applied": 4}
        assert {posted.state for posted in read_letters(database)} == {"sent"}


def test_a_killed_run_is_succeeded_before_its_lease_runs_out(share: Share) -> None:
    """The next run takes the lease of a killed run before the lease expires.

    The first run is killed while it waits for a mail server.
    """
    shared = share()
    with smtp_server({"greeting": SILENCE}) as server:
        first = shared.folder("first", f"smtp://127.0.0.1:{server.port}", "\n  tls: none")
        process = subprocess.Popen(
            [sys.executable, "-m", "provisioner", "-C", str(first), "apply", "--auto-approve"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until(lambda: server.connections)
        finally:
            process.kill()
            process.wait()
    before = read_lock(shared.database)
    assert before is not None
    assert apply(shared.folder("second")) == 0
    assert time.time() * 1000 < before.expires
    assert sorted(shared.letters().values()) == [1, 1]


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("capfd")
def test_a_stopped_and_succeeded_run_writes_nothing_once_it_continues(share: Share) -> None:
    """A suspended run writes nothing after another run has taken its place.

    The run is suspended after a commit. It continues after its lease has expired and another run has applied.
    """
    refused = parked = 0
    for commit in count(1):
        shared = share()
        with smtp_server() as server:
            posting = f"smtp://127.0.0.1:{server.port}", "\n  tls: none\n  connections: 1"
            stopped = stopped_after(shared.folder("first", *posting), commit)
            if stopped is None:
                break
            lapse(shared.database)
            code = apply(shared.folder("second", *posting))
            os.kill(stopped, signal.SIGCONT)
            late = ended(stopped)
        letters = {posted.letter.recipient: posted.state for posted in read_letters(shared.database)}
        unknown = {recipient for recipient, state in letters.items() if state == "unknown"}
        # a letter whose body it was about to send may still arrive: that one is parked and reported
        assert code == (7 if unknown else 0), commit
        assert late in (0, 6), commit
        assert set(letters.values()) <= {"sent", "unknown"}, commit
        arrived = received(server)
        assert max(arrived.values()) == 1, commit
        assert set(letters) - unknown <= set(arrived) <= set(letters), commit
        assert len(letters) == 2, commit
        database = shared.database
        done = [entry.verdict for made in read_runs(database, 9) for entry in read_entries(database, made.id)]
        assert done.count("applied") == 4, (commit, done)
        refused += late == 6
        parked += len(unknown)
        shutil.rmtree(shared.base)
    assert commit > 10
    assert refused > 5
    assert 1 <= parked <= 4


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("capfd")
def test_a_run_stopped_within_a_write_blocks_no_other_run(
    apart: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is suspended within a transaction blocks no other run.

    The database server disconnects the suspended run and rolls back its transaction.
    """
    from provisioner.storage import postgres_connection as postgres

    usual = f"idle_in_transaction_session_timeout = '{postgres.IDLE_SECONDS}s'"
    assert usual in postgres.SETTINGS
    monkeypatch.setattr(
        postgres,
        "SETTINGS",
        postgres.SETTINGS.replace(usual, usual.replace(f"{postgres.IDLE_SECONDS}s", "200ms")),
    )
    refused = 0
    for boundary in range(9, 50, 10):
        shared = apart()
        stopped = stopped_at(shared.folder("first"), boundary)
        assert stopped is not None
        lapse(shared.database)
        assert apply(shared.folder("second")) == 0, boundary
        os.kill(stopped, signal.SIGCONT)
        late = ended(stopped)
        # 1 or 7: it was at its end and the second run had nothing to do, so the lock was free
        assert late in (1, 6, 7), boundary
        refused += late == 6
        assert sorted(shared.letters().values()) == [1, 1], boundary
        shutil.rmtree(shared.base)
    assert refused > 1


def stopped_at(folder: Path, boundary: int) -> int | None:
    """Run ``apply`` in a process that suspends itself at a boundary.

    Return the process ID, or None if the process ended before this boundary.
    """
    return _stopped(folder, boundary, lambda count: watch(count))


def stopped_after(folder: Path, commit: int) -> int | None:
    """Run ``apply`` in a process that suspends itself after the commit with the number ``commit``.

    Return the process ID, or None if the process ended before this commit.
    """
    return _stopped(folder, commit, lambda count: watch(lambda: None, lambda _: count()))


def _stopped(folder: Path, number: int, watched: Callable[[Callable[[], None]], None]) -> int | None:
    passed = 0

    def checkpoint() -> None:
        nonlocal passed
        passed += 1
        if passed == number:
            os.kill(os.getpid(), signal.SIGSTOP)

    def work() -> int:
        watched(checkpoint)
        write_output_to(os.devnull)
        return apply(folder)

    pid = forked(work)
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return pid
    assert os.waitstatus_to_exitcode(status) == 0
    return None


@pytest.mark.timeout(300)
def test_a_run_killed_anywhere_is_finished_by_another_machine(
    apart: Share, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is killed at any boundary is finished by a run on another machine.

    The test uses every second boundary, because each commit on PostgreSQL has two boundaries.
    """
    last = boundaries(apart().folder("calm"))
    for boundary in range(1, last + 1, 2):
        shared = apart()
        killed, _ = killed_at(shared.folder("first"), boundary)
        assert killed, boundary
        second = shared.folder("second")
        assert apply(second) == 0, (boundary, capsys.readouterr())
        assert sorted(shared.letters().values()) == [1, 1], boundary
        assert nothing_to_do(second, capsys, shared.database), boundary
        shutil.rmtree(shared.base)


@pytest.mark.timeout(300)
def test_a_server_killed_during_a_run_loses_and_doubles_nothing(
    apart: Share, own_postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the database server is killed during a run, no step and no letter is lost or done twice.

    The server is killed and started again at every third boundary.
    """
    failed = 0
    for boundary in count(1, 3):
        shared = apart()
        folder = shared.folder("first")
        reached, code = disturbed_at(folder, boundary, own_postgres.restart)
        if not reached:
            break
        failed += code != 0
        assert code in (0, 1, 7), boundary
        assert apply(folder) == 0, (boundary, capsys.readouterr())
        assert sorted(shared.letters().values()) == [1, 1], boundary
        assert nothing_to_do(folder, capsys, shared.database), boundary
        shutil.rmtree(shared.base)
    assert boundary > 20
    assert failed > 3


def disturbed_at(folder: Path, boundary: int, disturb: Callable[[], None]) -> tuple[bool, int]:
    """Run ``apply`` in a second process. At a boundary, the process waits while ``disturb`` runs.

    Return two values: True if the process reached the boundary, and the exit code of the process.
    """
    reading, reporting = os.pipe()
    waiting, releasing = os.pipe()
    passed = 0

    def checkpoint() -> None:
        nonlocal passed
        passed += 1
        if passed == boundary:
            os.write(reporting, b".")
            os.read(waiting, 1)

    def work() -> int:
        # with these ends closed here, this process does not wait on when the test fails
        os.close(releasing)
        os.close(reading)
        watch(checkpoint)
        write_output_to(os.devnull)
        return apply(folder)

    pid = forked(work)
    os.close(reporting)
    reached = os.read(reading, 1) == b"."
    if reached:
        disturb()
        os.write(releasing, b".")
    for end in (reading, waiting, releasing):
        os.close(end)
    return reached, ended(pid)


@pytest.mark.timeout(300)
@given(kills=st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=2, max_size=4))
def test_runs_and_servers_killed_again_and_again_reach_the_same_end(
    kills: list[tuple[int, bool]],
    apart: Share,
    own_postgres: PostgresServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After any series of killed runs and killed servers, the last run completes all steps and letters.

    In each earlier run, the run or its database server is killed at a boundary.
    """
    shared = apart()
    for number, (boundary, server_dies) in enumerate(kills):
        folder = shared.folder(f"machine-{number}")
        if server_dies:
            disturbed_at(folder, boundary, own_postgres.restart)
        else:
            killed_at(folder, boundary)
    last = shared.folder("last")
    assert apply(last) == 0, capsys.readouterr()
    assert sorted(shared.letters().values()) == [1, 1]
    assert nothing_to_do(last, capsys, shared.database)


@pytest.mark.timeout(300)
def test_a_commit_whose_answer_is_lost_is_neither_lost_nor_doubled(
    apart: Share, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the connection breaks before the answer to a commit, the commit is neither lost nor repeated."""
    for commit in count(1, 2):
        shared = apart()
        folder = shared.folder("first")
        code = ended(forked(partial(_applied_with_a_lost_answer, folder, commit)))
        if code == 0:
            break
        assert code in (1, 7), commit
        assert apply(folder) == 0, (commit, capsys.readouterr())
        assert sorted(shared.letters().values()) == [1, 1], commit
        assert nothing_to_do(folder, capsys, shared.database), commit
        shutil.rmtree(shared.base)
    assert commit > 5


def _applied_with_a_lost_answer(folder: Path, commit: int) -> int:
    import psycopg

    wire: Any = psycopg.Connection
    original, passed = wire.execute, 0

    def execute(mine: Any, statement: Any, *words: Any) -> Any:
        nonlocal passed
        done = original(mine, statement, *words)
        passed += statement == "COMMIT"
        if passed == commit and statement == "COMMIT":
            os.close(mine.fileno())
            # the library meets it as a connection that has gone
            original(mine, "SELECT 1")
        return done

    wire.execute = execute
    write_output_to(os.devnull)
    return apply(folder)
