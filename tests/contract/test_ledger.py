"""The ledger on SQLite and PostgreSQL: lock, journal, outbox, accounts, and damage to any of them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provisioner.errors import LedgerError, Locked, LockLost, ProvisionerError, UsageError
from provisioner.ledger.journal import Intent, LedgerEffect, has_run, read_entries, read_runs
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.lock import LockInfo, read_lock
from provisioner.ledger.outbox import TRANSITIONS, IllegalTransition, OutboxState, read_letters
from provisioner.ledger.process import host_name, is_alive
from provisioner.ledger.snapshot import read_ledger, read_ledger_id
from provisioner.ledger.store import LEDGER_SCHEMA
from provisioner.mail.message import Letter
from provisioner.model import Managed, user_address
from provisioner.planning.plan import PlannedLetter
from provisioner.portal import Receipt, Verdict
from provisioner.storage.database import Database, transaction
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import NOW

if TYPE_CHECKING:
    from postgres_support import PostgresServer
    from shell_support import Shell


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.external)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database that does not exist yet."""
    if request.param == "sqlite":
        return SqliteDatabase(tmp_path / "ledger.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.place()


@pytest.fixture(autouse=True)
def fast_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the intervals of polling the lock and of checking the connection, to make the tests fast."""
    monkeypatch.setattr("provisioner.ledger.lock.POLL_SECONDS", 0.005)
    monkeypatch.setattr("provisioner.storage.lease.CONNECTION_CHECK_SECONDS", 0.005)


@contextmanager
def opened(database: Database, lease: float = 60) -> Iterator[Ledger]:
    ledger = Ledger(database, lambda: datetime.now(UTC), lease)
    try:
        yield ledger
    finally:
        ledger.close()


def _assert_locked(ledger: Ledger, by: str = "locked by") -> None:
    with pytest.raises(Locked, match=by), ledger.lock.hold("x"):
        raise AssertionError


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- journal, accounts, outbox ---


def test_journal_accounts_and_letters_are_read_as_written(database: Database) -> None:
    letter = PlannedLetter(user_address("ann@example.fr"), "ann@example.fr", "fr", {"first_name": "Ann"})
    effect = LedgerEffect("ann@example.fr", "ann@example.fr", "", created=True, letter=letter)
    with opened(database) as ledger, ledger.lock.hold("apply"):
        ledger.bind_portal("p")
        first = ledger.journal.begin("apply", "d" * 64)
        ledger.journal.intend(
            [
                Intent("k1", "user:ann@example.fr", "CreateUser", effect),
                Intent("k2", "company:1", "X", LedgerEffect()),
            ]
        )
        assert [entry.key for entry in read_ledger(database).unsettled] == ["k1", "k2"]
        ledger.journal.settle(
            [Receipt("k1", Verdict.APPLIED, "7"), Receipt("k2", Verdict.FAILED, problem="no")], "p"
        )
        ledger.adopt({"bob@example.fr": Managed("8", "bob@example.fr", "", created=False)})
        ledger.adopt({"bob@example.fr": Managed("8", None, "+331", created=True)})
        ledger.adopt({"bob@example.fr": Managed("8", None, "+332", created=False)})
        ledger.journal.end("done")
        assert ledger.journal.creations() == {"user:ann@example.fr": 1}
        second = ledger.journal.begin("apply", "e" * 64)
    assert second > first
    assert has_run(database, second)
    assert not has_run(database, second + 1)
    assert [(run.id, run.outcome) for run in read_runs(database, 9)] == [(second, ""), (first, "done")]
    assert [(entry.key, entry.verdict) for entry in read_entries(database, first)] == [
        ("k1", "applied"), ("k2", "failed"),
    ]  # fmt: skip
    snapshot = read_ledger(database)
    assert snapshot.portal == "p"
    assert snapshot.id == read_ledger_id(database) != ""
    assert snapshot.managed == {
        "ann@example.fr": Managed("7", "ann@example.fr", "", created=True),
        "bob@example.fr": Managed("8", None, "+332", created=True),
    }
    (owed,) = snapshot.open_letters
    assert (owed.letter.recipient, owed.letter.language) == ("ann@example.fr", "fr")
    assert owed.letter.context == {"first_name": "Ann"}


def test_texts_that_databases_refuse_are_stored_escaped(database: Database) -> None:
    """Texts that a database would refuse are stored with escapes.

    The texts are a mail server's refusal, a portal's reason, and a portal's id of an account.
    """
    with opened(database) as ledger, ledger.lock.hold("apply"):
        run = ledger.journal.begin("apply", "d")
        ledger.journal.intend([Intent(key, "user:ann", "X", LedgerEffect("ann")) for key in ("k1", "k2")])
        ledger.journal.settle(
            [Receipt("k1", Verdict.FAILED, problem="no\0 \ud800"), Receipt("k2", Verdict.ALREADY, "7\0")], "p"
        )
        ledger.outbox.enqueue("ann", "7", Letter("k", "ann@example.fr", "fr", {}, NOW))
        ledger.outbox.begin_delivery(["k"])
        ledger.outbox.mark(["k"], OutboxState.FAILED, "550 no such\0 user")
        assert [entry.problem for entry in read_entries(database, run)] == [r"no\0 \ud800", ""]
        assert ledger.snapshot().managed["ann"].id == r"7\0"
        assert [posted.detail for posted in ledger.outbox.letters()] == [r"550 no such\0 user"]


def test_system_names_that_are_not_utf_8_are_stored_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names from the system that are not valid UTF-8 are stored with escapes.

    The names are those of a system account, a machine and a plan file.
    """
    database = SqliteDatabase(tmp_path / "ledger.db")
    monkeypatch.setenv("LOGNAME", "ren\udce9")
    monkeypatch.setattr("socket.gethostname", lambda: "h\udcf4te")
    with opened(database) as ledger, ledger.lock.hold("apply pl\udcffan.json"):
        ledger.journal.begin("apply pl\udcffan.json", "d")
        assert _holder(database)[1:3] == (r"ren\udce9", r"h\udcf4te")
        assert _holder(database).command == read_runs(database, 1)[0].command == r"apply pl\udcffan.json"
        assert ledger.lock.owner.startswith(r"ren\udce9 on h\udcf4te")


def test_accounts_may_swap_their_user_names(database: Database) -> None:
    """Accounts can swap their user names. An account that the program created stays marked as created.

    The ledger forgets an account that loses its user name to another account and gets no new user name.
    """
    ann, bob, eve, other = (Managed(id_, None, None, created=id_ == "1") for id_ in "1234")
    with opened(database) as ledger, ledger.lock.hold("apply"):
        ledger.adopt({"ann": ann, "bob": bob, "eve": eve})
        ledger.adopt({"bob": ann._replace(created=False), "ann": bob, "eve": other})
        assert ledger.snapshot().managed == {"bob": ann, "ann": bob, "eve": other}


def test_thousands_of_accounts_are_stored_in_a_few_statements(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of accounts are stored in a few statements.

    Each statement is a round trip to the server, and other runs wait for the end of the transaction.
    """
    from provisioner.storage.postgres_connection import PostgresConnection

    executed: list[str] = []
    run = PostgresConnection._run
    with opened(postgres.place()) as ledger, ledger.lock.hold("apply"):

        def counted(self: PostgresConnection, statement: str, values: Sequence[object]) -> object:
            executed.append(statement)
            return run(self, statement, values)

        monkeypatch.setattr(PostgresConnection, "_run", counted)
        ledger.adopt({f"u{number}": Managed(str(number), None, None, created=False) for number in range(999)})
        assert len(executed) < 15
        assert len(ledger.snapshot().managed) == 999


def test_letters_are_listed_in_the_order_in_which_they_were_owed(database: Database) -> None:
    with opened(database) as ledger, ledger.lock.hold("mail"):
        for name in ("zoe", "ann", "zoe", "max"):
            ledger.outbox.enqueue(
                f"{name}@example.fr", name, Letter(name, f"{name}@example.fr", "fr", {}, NOW)
            )
        ledger.outbox.begin_delivery(["ann"])
        ledger.outbox.mark(["ann"], OutboxState.BODY)
        assert [posted.user_id for posted in ledger.outbox.letters(OutboxState.OWED)] == ["zoe", "max"]
        assert [posted.user_id for posted in ledger.outbox.reset_interrupted()] == ["ann"]
    assert [(posted.user_id, posted.state, posted.attempts) for posted in read_letters(database)] == [
        ("zoe", "owed", 0), ("ann", "unknown", 1), ("max", "owed", 0),
    ]  # fmt: skip


def test_the_claimants_of_a_letter_are_kept_until_the_portal_answers(database: Database) -> None:
    with opened(database) as ledger:
        runs = []
        for _ in range(3):
            with ledger.lock.hold("mail"):
                ledger.outbox.enqueue("ann@example.fr", "7", Letter("ann", "ann@example.fr", "fr", {}, NOW))
                ledger.outbox.begin_delivery(["ann"])
                ledger.outbox.release_claims()
                runs.append(ledger.outbox.claimant)
        with ledger.lock.hold("mail"):
            (posted,) = ledger.outbox.letters(OutboxState.OWED)
            assert (posted.claims, posted.attempts) == (tuple(runs), 3)
            ledger.outbox.begin_delivery(["ann"])
            ledger.outbox.record_claims({"ann": "another"}, [("ann", OutboxState.UNKNOWN, "why")])
            ledger.outbox.resend("ann")
            (posted,) = ledger.outbox.letters(OutboxState.OWED)
            assert (posted.claims, posted.detail, posted.resent) == (("another",), "why", True)
            assert ledger.outbox.sent_claims() == {}
            ledger.outbox.begin_delivery(["ann"])
            ledger.outbox.mark(["ann"], OutboxState.SENT)
            assert ledger.outbox.sent_claims() == {"ann": ("another", ledger.outbox.claimant)}
            ledger.outbox.end_claims(["ann"])
            assert ledger.outbox.sent_claims() == {}


WAYS: dict[OutboxState, list[OutboxState]] = {
    OutboxState.OWED: [],
    OutboxState.CONNECTING: [OutboxState.CONNECTING],
    **{
        state: [OutboxState.CONNECTING, state]
        for state in (OutboxState.BODY, OutboxState.SENT, OutboxState.FAILED, OutboxState.UNKNOWN)
    },
}
"""For each state, the states that a new letter takes in turn to reach that state."""


@pytest.mark.parametrize("before", OutboxState)
def test_a_letter_takes_only_the_transitions_of_the_table(before: OutboxState, tmp_path: Path) -> None:
    with opened(SqliteDatabase(tmp_path / "ledger.db")) as ledger, ledger.lock.hold("mail"):
        for after in OutboxState:
            ledger.outbox.enqueue("ann", "7", Letter(after, "ann@example.fr", "fr", {}, NOW))
            for state in WAYS[before]:
                ledger.outbox.mark([after], state)
            if after in TRANSITIONS[before]:
                ledger.outbox.mark([after], after)
            else:
                with pytest.raises(IllegalTransition, match=f"letter {after}: {before} ▸ {after}"):
                    ledger.outbox.mark([after], after)
        found = {entry.letter.key: entry.state for entry in ledger.outbox.letters()}
        assert found == {after: after if after in TRANSITIONS[before] else before for after in OutboxState}


def test_an_illegal_transition_moves_no_letter_of_its_commit(database: Database) -> None:
    with opened(database) as ledger, ledger.lock.hold("mail"):
        ledger.outbox.enqueue("ann", "7", Letter("ann", "ann@example.fr", "fr", {}, NOW))
        marks = [("ann", OutboxState.CONNECTING, ""), ("bob", OutboxState.CONNECTING, "")]
        with pytest.raises(IllegalTransition, match="bob: not in the outbox ▸ connecting"):
            ledger.outbox.record(marks)
        assert [entry.state for entry in ledger.outbox.letters()] == [OutboxState.OWED]


# --- the lock ---


def test_each_acquisition_has_a_higher_fence_and_the_ledger_keeps_its_id(database: Database) -> None:
    fences, ids = [], set()
    for _ in range(2):
        with opened(database) as ledger:
            for _ in range(2):
                with ledger.lock.hold("apply"):
                    holder = read_lock(database)
                    assert holder is not None
                    assert holder.fence == ledger.lock.fence
                    fences.append(ledger.lock.fence)
                    ids.add(ledger.id)
                    assert str(os.getpid()) in ledger.lock.owner
                assert read_lock(database) is None
    assert fences == [1, 2, 3, 4]
    assert ids == {read_ledger_id(database)}


def test_a_held_lock_is_refused_naming_its_holder_and_granted_once_free(database: Database) -> None:
    with opened(database) as first, opened(database) as second:
        said: list[str] = []
        with first.lock.hold("apply"):
            _assert_locked(second, f"process {os.getpid()}, apply")
            with pytest.raises(Locked), second.lock.hold("x", 0.3, on_wait=said.append):
                raise AssertionError
        assert len(said) == 1
        with second.lock.hold("x"):
            second.bind_portal("p")


def test_the_heartbeat_renews_the_lease_of_a_working_run(database: Database) -> None:
    with opened(database, lease=0.3) as first, opened(database) as second, first.lock.hold("apply"):
        began = _holder(database)
        until(lambda: _holder(database).expires > began.expires + 300)
        _assert_locked(second)
        first.bind_portal("p")


def test_a_long_write_does_not_lose_the_lock(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes longer than the lease does not lose the lock.

    The heartbeat cannot renew the lease during the transaction. The write itself therefore renews the lease.
    """
    monkeypatch.setattr("provisioner.ledger.lock.Lock._renew", lambda *_: None)
    with opened(database, lease=0.03) as ledger, ledger.lock.hold("apply"):
        before = _holder(database)
        with ledger._store.writing():
            began = time.monotonic()
            until(lambda: time.monotonic() > began + 0.03)
        assert _holder(database).expires > before.expires


def test_waiting_for_a_write_of_the_holder_reports_the_holder(postgres: PostgresServer) -> None:
    database = postgres.place()
    with opened(database) as first, opened(database) as second, first.lock.hold("apply"):
        second._store.connection.execute("SET lock_timeout = '10ms'")
        with first._store.writing():
            _assert_locked(second)


def test_a_stopped_holder_is_succeeded_once_its_lease_has_run_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the lease of a stopped holder has expired, another run gets the lock.

    Later writes of the stopped holder are refused. Its heartbeat does not take the lock back.
    """
    monkeypatch.setattr("provisioner.ledger.lock.Lock._renew", lambda *_: None)
    with opened(database, lease=0.2) as first, opened(database) as second:
        with first.lock.hold("apply"):
            first.bind_portal("p")
            with second.lock.hold("apply", timeout=20):
                second.journal.begin("apply", "d")
                _beat_once(first)
                assert _holder(database).fence == second.lock.fence == first.lock.fence + 1
                _assert_write_refused(first)
                second.journal.end("done")
            _assert_write_refused(first)
        assert [run.outcome for run in read_runs(database, 9)] == ["done"]
        assert read_lock(database) is None


def _beat_once(ledger: Ledger) -> None:
    """Execute the statement with which the heartbeat renews the lease. Assert that it changes no row."""
    with closing(ledger._store.database.connect(LEDGER_SCHEMA)) as connection, transaction(connection):
        renewed = connection.execute(
            "UPDATE lock SET expires = 0 WHERE id = ?", (ledger._store.lock_id,)
        ).rowcount
    assert renewed == 0


def _assert_write_refused(ledger: Ledger) -> None:
    with pytest.raises(LockLost):
        ledger.adopt({"x": Managed("1", None, None, created=False)})


def _holder(database: Database) -> LockInfo:
    holder = read_lock(database)
    assert holder is not None
    return holder


def test_a_heartbeat_ends_once_its_lock_was_taken(database: Database) -> None:
    with opened(database, lease=0.05) as first, opened(database) as second, first.lock.hold("apply"):
        taken = second.lock.remove(_holder(database).id)
        with second.lock.hold("mail"):
            held = _holder(database)
            assert taken.fence + 1 == held.fence
            until(_one_heartbeat_is_left)
            assert _holder(database) == held
        _assert_write_refused(first)


def _one_heartbeat_is_left() -> bool:
    return sum(thread.name == "heartbeat" for thread in threading.enumerate()) <= 1


HOLD = (
    "import sys, time; from datetime import datetime, UTC; from pathlib import Path; "
    "from provisioner.storage.registry import database_at; from provisioner.ledger.ledger import Ledger; "
    "ledger = Ledger(database_at(sys.argv[1], Path('/')), lambda: datetime.now(UTC)); "
    "held = ledger.lock.hold('apply'); held.__enter__(); print('held', flush=True); time.sleep(600)"
)


def _url(database: Database) -> str:
    return f"sqlite:///{database}" if isinstance(database, SqliteDatabase) else str(database)


class _KillOnClose:
    """An object whose method ``close`` kills a process, for :func:`contextlib.closing`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.close = process.kill


def test_a_killed_holder_is_succeeded_before_its_lease_runs_out(database: Database) -> None:
    """If the holder of the lock is killed, another run gets the lock before the lease expires.

    On PostgreSQL, the closed connection shows the death of the holder, even on another machine.
    """
    process = subprocess.Popen([sys.executable, "-c", HOLD, _url(database)], stdout=subprocess.PIPE)
    with process, closing(_KillOnClose(process)):
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with opened(database) as ledger:
            if not isinstance(database, SqliteDatabase):
                # looks like another machine's lock
                with closing(database.connect(LEDGER_SCHEMA)) as connection, transaction(connection):
                    connection.execute("UPDATE lock SET host = 'elsewhere', process_start = '', pid = 1")
            _assert_locked(ledger)
            # no parent collects its exit status, as in a container whose first process collects only its own
            process.send_signal(signal.SIGKILL)
            before = _holder(database)
            with ledger.lock.hold("apply", timeout=20):
                assert ledger.lock.fence == before.fence + 1
                assert time.time() * 1000 < before.expires


def test_a_process_number_of_another_pid_namespace_is_not_checked(tmp_path: Path) -> None:
    """The process number of a holder in another PID namespace is not checked.

    Example: a container shares a folder and the host name with its host, but has other process numbers.
    """
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    database = SqliteDatabase(tmp_path / "ledger.db")
    with opened(database) as first, opened(database) as second, first.lock.hold("apply"):
        for start, taken in ("1 pid:[1]", False), ("1", True):
            with transaction(first._store.connection):
                first._store.connection.execute(
                    "UPDATE lock SET pid = ?, process_start = ?", (gone.pid, start)
                )
            if taken:
                with second.lock.hold("x"):
                    pass
            else:
                _assert_locked(second)


def test_on_windows_no_process_gets_a_signal_to_see_whether_it_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Windows, ``os.kill(pid, 0)`` would send Ctrl-C to the holder. The holder counts as alive."""
    signals: list[object] = []
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", "win32")
        patched.setattr(os, "kill", lambda *arguments: signals.append(arguments))
        assert is_alive(host_name(), os.getpid(), "")
    assert signals == []


def test_a_waiting_run_may_lose_its_connections(postgres: PostgresServer) -> None:
    """A holder that loses its connections keeps the lock.

    The holder reconnects before another run can take the lock.
    """
    database = postgres.place()
    with opened(database) as first, opened(database) as second, first.lock.hold("apply"):
        (timeout,) = first._store.connection.execute("SHOW idle_session_timeout").fetchone()
        assert timeout == "0"
        worker, heartbeat = database.session_of(first._store.connection)[0], _holder(database).session_pid
        for backend in (worker, heartbeat):
            _cut_off(postgres, backend)
            _assert_locked(second)
        assert _holder(database).session_pid not in (worker, heartbeat)
        first.bind_portal("p")


def test_the_holder_and_a_waiting_run_outlive_a_server_restart(
    own_postgres: PostgresServer,
) -> None:
    database = own_postgres.place()
    with opened(database) as first, opened(database) as second:
        waits = threading.Event()

        def wait() -> None:
            with second.lock.hold("apply", 60, lambda _: waits.set()):
                second.journal.begin("apply", "d")

        thread = threading.Thread(target=wait)
        with first.lock.hold("apply"):
            thread.start()
            assert waits.wait(20)
            before = _holder(database).session_pid
            own_postgres.restart()
            until(lambda: _holder(database).session_pid != before)
            first.bind_portal("p")
        thread.join()
    assert len(read_runs(database, 9)) == 1


def _cut_off(postgres: PostgresServer, backend: int) -> None:
    with closing(postgres.session()) as session:
        assert session.execute(f"SELECT pg_terminate_backend({backend}, 5000)").fetchone() == (True,)


def test_unlock_needs_the_exact_id_of_the_lock(database: Database) -> None:
    with opened(database) as first, opened(database) as second:
        with pytest.raises(UsageError, match="Nobody holds"):
            second.lock.remove("abc")
        with first.lock.hold("apply"):
            held = _holder(database)
            with pytest.raises(UsageError, match=f"The lock is {held.id}, not abc"):
                second.lock.remove("abc")
            assert second.lock.remove(held.id) == held
            _assert_write_refused(first)


# --- commands ---


def test_lock_shows_who_holds_it(shell: Shell) -> None:
    import json

    assert shell("lock").out == "Nobody holds the lock.\n"
    assert json.loads(shell("lock", "--json").out) == {"ledger": "", "held": False}
    database = SqliteDatabase(shell.folder / "ledger.db")
    with opened(database) as ledger, ledger.lock.hold("apply"):
        held = _holder(database)
        said = shell("lock")
        assert said.code == 0
        assert f"process {os.getpid()}, apply" in said.out
        for words in (held.id, held.since, held.until, "fence    1"):
            assert words in said.out
        assert f"provisioner unlock {held.id}" in said.err
        found = json.loads(shell("lock", "--json").out)
        assert (found["held"], found["id"], found["fence"], found["ledger"]) == (True, held.id, 1, ledger.id)
        assert (found["expires"], found["pid"], found["command"]) == (held.until, os.getpid(), "apply")
        assert shell("apply", "--auto-approve").code == 6
        assert shell("unlock", "abc").code == 64
        assert "nothing more than what it has in hand" in shell("unlock", held.id).out
    assert shell("lock").out == "Nobody holds the lock.\n"


def test_lock_says_that_its_holder_has_ended(shell: Shell) -> None:
    url = _url(SqliteDatabase(shell.folder / "ledger.db"))
    process = subprocess.Popen([sys.executable, "-c", HOLD, url], stdout=subprocess.PIPE)
    with process, closing(_KillOnClose(process)):
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert "has ended" not in shell("lock").err
        process.send_signal(signal.SIGKILL)
        process.wait()
    said = shell("lock")
    assert said.out.startswith("Held by ")
    assert said.err == "The process of that run has ended, so the next run takes the lock at once.\n"
    assert shell("mail", "send").code == 0


def test_an_unlocked_run_reports_it_once(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose lock was removed reports the removal once.

    The lock is removed between the steps and the letters, and no other run takes the lock.
    """
    from provisioner.operations.deliver import deliver

    database = SqliteDatabase(shell.folder / "ledger.db")

    def unlocked(*_: object) -> object:
        with opened(database) as other:
            other.lock.remove(_holder(database).id)
        return deliver(*_)  # type: ignore[arg-type]

    monkeypatch.setattr("provisioner.operations.apply.deliver", unlocked)
    said = shell("apply", "--auto-approve")
    assert said.code == 6
    assert "Stopped after 32 steps.\n" in said.err
    assert said.err.count("was taken away") == said.err.count("by provisioner unlock or by another run") == 1


def test_a_lock_timeout_that_is_not_a_number_is_refused(shell: Shell) -> None:
    said = shell("apply", "--auto-approve", "--lock-timeout", "nan")
    assert said.code == 64
    assert "nan" in said.err
    assert not (shell.folder / "ledger.db").exists()


def test_history_refuses_the_number_of_a_run_that_does_not_exist(applied: Shell) -> None:
    for words in (["history", "999999999"], ["history", "2", "--json"]):
        said = applied(*words)
        assert said.code == 64
        assert "There is no run" in said.err
    assert applied("history", "1").code == 0


# --- damage ---

EFFECT = '{"created":true,"email":"ann@example.fr","letter":null,"phone":null,"user":"ann@example.fr"}'

BROKEN_EFFECTS = {
    "no JSON": "[",
    "another type": "[]",
    "a field too few": EFFECT.replace('"phone":null,', ""),
    "a field too many": EFFECT.replace("{", '{"x":1,', 1),
    "a field of another type": EFFECT.replace("true", "1"),
    "a key twice": EFFECT.replace("{", '{"created":true,', 1),
    "a number that JSON does not have": EFFECT.replace("true", "NaN"),
    "a letter without its fields": EFFECT.replace('"letter":null', '"letter":{"language":"fr"}'),
    "nested too deeply": "[" * 100_000,
}


@pytest.mark.parametrize("change", ["", *BROKEN_EFFECTS])
def test_a_stored_effect_is_read_strictly(change: str, database: Database) -> None:
    with opened(database) as ledger, ledger.lock.hold("apply"):
        ledger.journal.begin("apply", "d")
        ledger.journal.intend([Intent("k", "user:ann@example.fr", "CreateUser", LedgerEffect("x"))])
        with ledger._store.writing() as connection:
            connection.execute("UPDATE journal SET effect = ?", (BROKEN_EFFECTS.get(change, EFFECT),))
        if change:
            with pytest.raises(LedgerError, match="is damaged"):
                ledger.journal.settle([Receipt("k", Verdict.APPLIED, "7")], "p")
        else:
            ledger.journal.settle([Receipt("k", Verdict.APPLIED, "7")], "p")
        assert bool(ledger.snapshot().unsettled) == bool(change)
        assert bool(ledger.snapshot().managed) != bool(change)


DAMAGES = {
    "the lock's age": "INSERT INTO lock VALUES (1, 'x', 'o', 'h', 1, '', 'c', 'yesterday', 1, 0, 0, '')",
    "the number of runs": "UPDATE fact SET value = 'many' WHERE name = 'fence'",
    "a letter": "UPDATE outbox SET context = '}{', state = 'unknown'",
    "a letter's value": "UPDATE outbox SET context = '{\"first_name\":1}', state = 'unknown'",
    "a letter's key twice": 'UPDATE outbox SET context = \'{"a":"","a":""}\', state = \'unknown\'',
    "a letter's state": "UPDATE outbox SET state = 'lost'",
    "a letter's date": "UPDATE outbox SET dated = 'soon', state = 'unknown'",
    "an entry": "UPDATE journal SET settled = NULL, verdict = '', effect = '[' WHERE seq = 1",
    "an entry's fields": "UPDATE journal SET settled = NULL, verdict = '', effect = '{}' WHERE seq = 1",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_value_is_reported_on_the_way_to_a_write(damage: str, applied: Shell) -> None:
    with closing(sqlite3.connect(applied.folder / "ledger.db")) as connection:
        connection.execute(DAMAGES[damage])
        connection.commit()
    applied.edit("clients/boulangerie-martin.yaml", "first_name: Claire", "first_name: Clara")
    reported = 0
    for words in (
        ["lock"], ["unlock"], ["mail", "status"], ["mail", "send"],
        ["mail", "settle", "claire.martin@boulangerie-martin.fr", "--sent"], ["apply", "--auto-approve"],
    ):  # fmt: skip
        said = applied(*words)
        assert said.code in (0, 1, 7, 64), said
        reported += f"The ledger {applied.folder / 'ledger.db'} is damaged." in said.err
    assert reported >= 1


def test_a_portal_and_a_ledger_do_not_share_a_schema(postgres: PostgresServer) -> None:
    from provisioner.embedded.tables import PORTAL_SCHEMA as PORTAL

    database = postgres.place()
    with opened(database), pytest.raises(ProvisionerError, match="holds something else, and no portal"):
        database.connect(PORTAL)
    assert isinstance(LedgerError("x"), ProvisionerError)
