"""A backup made at any moment of a run: no step is lost, and no letter is lost or silently sent again."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from boundaries import apply, workspace
from crash_support import ended, forked, posting, received, write_output_to
from shell_support import CLAIRE, Shell
from smtp_support import Server, smtp_server

from provisioner.embedded.activation_links import hash_of
from provisioner.embedded.portal import SqlPortal
from provisioner.embedded.read_only import ReadOnlyPortal
from provisioner.embedded.tables import BATCH
from provisioner.ledger.outbox import read_letters
from provisioner.ledger.snapshot import read_ledger
from provisioner.model import Operator
from provisioner.operations import apply as apply_module
from provisioner.operations.backup import back_up
from provisioner.operations.deliver import DeliveryReport
from provisioner.operations.open import utc_now
from provisioner.portal import Capabilities
from provisioner.storage.schema import DatabaseSchema
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import TERMS
from provisioner.workspace import files
from provisioner.workspace.settings import load_workspace

EMILY, JAMES = "emily.clarke@clarke-ceramics.com", "james.clarke@clarke-ceramics.com"
NEWCOMERS = {EMILY, JAMES}


def accounts(portal: Path) -> set[str]:
    """Return the e-mails of the accounts in a portal's database."""
    return set(ReadOnlyPortal(SqliteDatabase(portal), TERMS, utc_now).snapshot().state.users)


def letters(ledger: Path) -> dict[str, str]:
    """Return the state of the letter to each recipient."""
    return {posted.letter.recipient: posted.state for posted in read_letters(SqliteDatabase(ledger))}


# --- a backup at each commit of a run that goes on to its end ---


class Watched(NamedTuple):
    """A complete run for two newcomers, with a backup at each commit to the portal or the ledger."""

    folder: Path
    backups: list[Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    base = tmp_path_factory.mktemp("watched")
    backups: list[Path] = []
    connect = sqlite3.connect
    busy = False

    class Kept(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            nonlocal busy
            done = super().execute(sql, *values)
            made = all((base / "firm" / f"{name}.db-wal").exists() for name in ("portal", "ledger"))
            if sql == "COMMIT" and made and not busy:
                busy = True
                backups.append(base / f"backup-{len(backups)}")
                back_up(load_workspace(base / "firm"), backups[-1], utc_now)
                busy = False
            return done

    with smtp_server() as server, pytest.MonkeyPatch.context() as patch:
        folder = posting(base / "firm", server, "hold")
        patch.setattr(sqlite3, "connect", lambda *words, **more: connect(*words, factory=Kept, **more))
        assert apply(folder) == 0
    assert received(server) == dict.fromkeys(NEWCOMERS, 1)
    states = {tuple(letters(backup / "ledger.db").values()) for backup in backups}
    assert {("owed", "owed"), ("connecting", "connecting"), ("sent", "sent")} <= states
    assert any(read_ledger(SqliteDatabase(backup / "ledger.db")).unsettled for backup in backups)
    return Watched(folder, backups)


@pytest.fixture
def server() -> Iterator[Server]:
    with smtp_server() as server:
        yield server


def restored(run: Watched, folder: Path, server: Server, backup: Path, *names: str) -> Path:
    """Create a workspace like that of ``run``, but with the files ``names`` of the backup."""
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    for name in names:
        (folder / name).unlink(missing_ok=True)
        if (backup / name).exists():
            shutil.copyfile(backup / name, folder / name)
    settings = folder / "provisioner.yaml"
    lines = [
        f'  transport: "smtp://127.0.0.1:{server.port}"' if "transport:" in line else line
        for line in settings.read_text().splitlines()
    ]
    settings.write_text("\n".join(lines))
    return folder


PAIR = ("ledger.db", "portal.db", "portal.db.key")


def test_a_restored_pair_does_every_step_and_sends_no_letter_silently_again(
    run: Watched, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run went on after the backup and sent all letters; then both databases are restored.

    Accounts that the backup contains get no second letter: it is recorded as sent, or it is parked and named.
    Accounts that the backup lacks are created again, and the plan warns of their second letter.
    """
    for number, backup in enumerate(run.backups):
        known = accounts(backup / "portal.db") if (backup / "portal.db").exists() else set()
        with smtp_server() as server:
            firm = Shell(restored(run, memory_path / str(number), server, backup, *PAIR), capsys)
            said = firm("apply", "--auto-approve")
        states = letters(firm.folder / "ledger.db")
        parked = {name for name, state in states.items() if state == "unknown"}
        assert states.keys() == NEWCOMERS
        assert set(states.values()) <= {"sent", "unknown"}
        assert said.code == (7 if parked else 0)
        assert received(server) == dict.fromkeys(NEWCOMERS - known, 1)
        assert parked <= known
        assert all(name in said.err for name in parked)
        assert "Ledger restored from a backup" in " ".join(said.out.split())
        plan = firm("plan", "--detailed-exitcode")
        assert plan.code == 0
        assert accounts(firm.folder / "portal.db") == NEWCOMERS
        assert read_ledger(SqliteDatabase(firm.folder / "ledger.db")).unsettled == ()


def test_a_parked_letter_of_a_restored_pair_is_sent_once_it_is_decided(
    run: Watched, server: Server, memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = next(b for b in run.backups if letters(b / "ledger.db") == dict.fromkeys(NEWCOMERS, "owed"))
    firm = Shell(restored(run, memory_path / "firm", server, backup, *PAIR), capsys)
    assert firm("apply", "--auto-approve").code == 7
    assert received(server) == {}
    assert firm("mail", "settle", EMILY, "--resend").code == 0
    assert firm("mail", "settle", JAMES, "--sent").code == 0
    assert firm("mail", "send").code == 0
    assert received(server) == {EMILY: 1}
    assert "restored" not in firm("plan").out


def test_a_restored_ledger_beside_the_original_portal_sends_nothing_again(
    run: Watched, server: Server, memory_path: Path
) -> None:
    for number, backup in enumerate(run.backups):
        folder = restored(run, memory_path / str(number), server, backup, "ledger.db")
        body = {name for name, state in letters(backup / "ledger.db").items() if state == "body"}
        assert apply(folder) == (7 if body else 0)
        assert {name for name, state in letters(folder / "ledger.db").items() if state == "unknown"} == body
    assert received(server) == {}


def test_a_letter_for_an_account_validated_after_the_backup_is_parked(shell: Shell, tmp_path: Path) -> None:
    bakery = shell.folder / "clients/boulangerie-martin.yaml"
    user = (
        "  - {email: eve@example.fr, first_name: Eve, last_name: Petit, type: standard, activation: later}\n"
    )
    bakery.write_text(bakery.read_text() + user)
    assert shell("apply", "--auto-approve").code == 0
    sent = shell.letters()
    bakery.write_text(bakery.read_text().replace(", activation: later", ""))
    assert shell("backup", tmp_path / "backup").code == 0
    assert shell("apply", "--auto-approve").code == 0
    assert shell.letters() == sent + 1
    for name in PAIR:
        for suffix in ("", "-wal", "-shm"):
            (shell.folder / (name + suffix)).unlink(missing_ok=True)
        shutil.copyfile(tmp_path / "backup" / name, shell.folder / name)
    said = shell("apply", "--auto-approve")
    assert said.code == 7
    assert "provisioner mail settle eve@example.fr --sent, or --resend" in said.err
    assert shell.letters() == sent + 1


def test_without_claims_a_restored_ledger_parks_what_it_owed(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A portal without claims, such as a SCIM server, cannot say which letters were sent after the backup."""
    clarke = shell.folder / "clients/clarke-ceramics.yaml"
    later = clarke.read_text()
    clarke.unlink()
    monkeypatch.setattr(SqlPortal, "claim", lambda _, run, letters: dict.fromkeys(letters, run))
    monkeypatch.setattr(SqlPortal, "capabilities", lambda _: Capabilities(batch=BATCH, claims=False))
    with monkeypatch.context() as patch:
        patch.setattr(apply_module, "deliver", lambda *words: DeliveryReport())
        assert shell("apply", "--auto-approve").code == 0
    assert shell("backup", tmp_path / "backup").code == 0
    assert shell("mail", "send").code == 0
    sent = shell.letters()
    assert sent == 13
    shutil.copyfile(tmp_path / "backup" / "ledger.db", shell.folder / "ledger.db")
    clarke.write_text(later)
    said = shell("apply", "--auto-approve")
    assert said.code == 7
    assert said.err.count("the ledger was restored from a backup, and the letter may have been sent") == sent
    # the two accounts that this run creates get their letters
    assert shell.letters() == sent + 2
    claire = "claire.martin@boulangerie-martin.fr"
    assert shell("mail", "settle", claire, "--resend").code == 0
    assert shell("mail", "send").out == "1 e-mail sent.\n"
    assert shell("mail", "send").out == "0 e-mails sent.\n"


# --- both databases are copied as of one instant ---


def require_one_instant(backup: Path) -> None:
    """Assert that the ledger intended each receipt, and that each step it records as applied has one."""
    with closing(sqlite3.connect(backup / "portal.db")) as portal:
        receipts = {key for (key,) in portal.execute("SELECT key FROM receipt")}
    with closing(sqlite3.connect(backup / "ledger.db")) as ledger:
        intended = {key for (key,) in ledger.execute("SELECT key FROM journal")}
        applied = {key for (key,) in ledger.execute("SELECT key FROM journal WHERE verdict = 'applied'")}
    assert applied <= receipts <= intended


def test_backups_during_a_run_are_of_one_instant_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace(tmp_path / "firm")
    talk = tmp_path / "talk.txt"

    def work() -> int:
        write_output_to(talk)
        return apply(folder)

    pid = forked(work)
    shell = Shell(folder, capsys)
    made = []
    for number in range(10_000):
        over = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        backup = tmp_path / f"backup-{number}"
        said = shell("backup", backup)
        if said.code == 0:
            made.append(backup)
        else:
            # before the run has made both databases
            assert (said.code, made) == (1, [])
            assert said.err.startswith(("Error: There is no ledger", "Error: There is no portal"))
            assert not backup.exists()
        if over:
            break
    assert ended(pid) == 0, talk.read_text()
    assert made
    for backup in made:
        require_one_instant(backup)


def test_no_run_writes_to_the_ledger_between_the_two_copies(
    applied: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the second database is pinned, a write to the ledger has to wait; after that it does not."""
    tried: list[bool] = []
    has_tables = SqliteDatabase.has_tables

    def pinning(database: SqliteDatabase, connection: Any, schema: DatabaseSchema) -> bool:
        if schema.noun == "portal" and connection.in_transaction and not tried:
            with closing(sqlite3.connect(applied.folder / "ledger.db", timeout=0)) as other:
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    other.execute("BEGIN IMMEDIATE")
                tried.append(True)
        return has_tables(database, connection, schema)

    monkeypatch.setattr(SqliteDatabase, "has_tables", pinning)
    assert applied("backup", tmp_path / "backup").code == 0
    assert tried


# --- the folder of the backup ---


def test_backup_is_private_and_names_its_files(applied: Shell, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        said = applied("backup", tmp_path / "deep" / "backup")
    finally:
        os.umask(old)
    folder = tmp_path / "deep" / "backup"
    assert (said.code, said.err) == (0, "")
    assert said.out == f"Backed up into {folder}: ledger.db, portal.db, portal.db.key.\n"
    assert sorted(file.name for file in folder.iterdir()) == ["ledger.db", "portal.db", "portal.db.key"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["backup"]


def test_backup_changes_nothing_in_the_workspace(applied: Shell, tmp_path: Path) -> None:
    before, rows = sorted(applied.print_of()), applied.tables()
    assert applied("backup", tmp_path / "backup").code == 0
    assert (sorted(applied.print_of()), applied.tables()) == (before, rows)
    assert "restored" not in applied("plan").out


def test_apply_without_changes_ends_the_warning_of_a_restored_ledger(applied: Shell, tmp_path: Path) -> None:
    assert applied("backup", tmp_path / "backup").code == 0
    for name in PAIR:
        shutil.copyfile(tmp_path / "backup" / name, applied.folder / name)
    assert "Ledger restored from a backup" in " ".join(applied("plan").out.split())
    # a part of the plan does not show that the whole ledger is right
    assert applied("apply", "--auto-approve", "--target", f"user:{CLAIRE}").code == 0
    assert "restored" in applied("plan").out
    said = applied("apply")
    assert (said.code, said.out.splitlines()[-1]) == (0, "Applied: 0 steps done, 0 e-mails sent.")
    assert "restored" not in applied("plan").out


def test_backup_replaces_nothing(applied: Shell, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert applied("backup", tmp_path / "empty").code == 0
    before = {file: file.read_bytes() for file in (tmp_path / "empty").iterdir()}
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    folder = "not an empty folder"
    for taken, kind in {"empty": folder, "file": "a file, not a folder", "link": folder}.items():
        for command in ("backup", "export"):
            said = applied(command, tmp_path / taken)
            assert said.code == 64
            assert f"{tmp_path / taken} is {kind}." in said.err
    assert {file: file.read_bytes() for file in (tmp_path / "empty").iterdir()} == before
    assert (tmp_path / "file").read_text() == "mine"


def full(*_: object, **__: object) -> None:
    raise OSError(28, os.strerror(28))


def full_database(words: str, name: str) -> None:
    problem = sqlite3.OperationalError(words)
    problem.sqlite_errorname = name
    raise problem


@pytest.mark.parametrize("where", ["folder", "database", "log", "key", "sync"])
def test_failed_backup_leaves_nothing(
    applied: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    made: dict[str, Callable[[], None]] = {
        "folder": lambda: monkeypatch.setattr("tempfile.mkdtemp", full),
        "key": lambda: monkeypatch.setattr("tempfile.mkstemp", full),
        "sync": lambda: monkeypatch.setattr(files, "sync_folder", full),
    }
    copied: list[bool] = []
    if where in ("database", "log"):

        class Full(sqlite3.Connection):
            def backup(self, *words: Any, **more: Any) -> None:
                if where == "database":
                    full_database("database or disk is full", "SQLITE_FULL")
                super().backup(*words, **more)
                copied.append(True)

            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                # opening the copy: the shared memory of its log does not fit on the disk
                if copied and "journal_mode" in sql:
                    full_database("disk I/O error", "SQLITE_IOERR_SHMSIZE")
                return super().execute(sql, *values)

        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *words, **more: connect(*words, factory=Full, **more))
    else:
        made[where]()
    said = applied("backup", tmp_path / "out" / "backup")
    monkeypatch.undo()
    assert (said.code, said.out) == (1, "")
    reasons = {"database": "database or disk is full", "log": "disk I/O error"}
    backup = tmp_path / "out" / "backup"
    assert f"{reasons.get(where, 'No space left on device')}.\n" in said.err
    assert str(backup) in said.err
    # neither the temporary folder nor the databases in use
    assert ".provisioner-" not in said.err
    assert str(applied.folder) not in said.err
    if where not in ("folder", "sync"):
        assert f"The backup into {backup} failed" in said.err
    assert list((tmp_path / "out").iterdir()) == []


def test_without_a_ledger_there_is_nothing_to_back_up(shell: Shell, tmp_path: Path) -> None:
    said = shell("backup", tmp_path / "backup")
    assert said.code == 1
    assert f"There is no ledger {shell.folder / 'ledger.db'} yet, so nothing was backed up." in said.err
    assert not (shell.folder / "ledger.db").exists()
    assert not (tmp_path / "backup").exists()


def test_busy_ledger_and_damaged_portal_get_a_sentence(
    applied: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provisioner.storage.sqlite.BUSY_SECONDS", 0)
    with closing(sqlite3.connect(applied.folder / "ledger.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        said = applied("backup", tmp_path / "backup")
    assert said.code == 1
    assert "is busy: another program writes to it." in said.err
    content = bytearray((applied.folder / "portal.db").read_bytes())
    content[4096 * 3 : 4096 * 4] = bytes(4096)
    (applied.folder / "portal.db").write_bytes(content)
    said = applied("backup", tmp_path / "backup")
    assert said.code == 1
    assert f"The portal {applied.folder / 'portal.db'} is damaged" in said.err
    assert list(tmp_path.glob("*backup*")) == []


@pytest.mark.parametrize("portal", ["sqlite:///portal.db", "postgresql://ann@127.0.0.1:1/access"])
def test_ledger_in_postgres_is_left_to_pg_dump(applied: Shell, tmp_path: Path, portal: str) -> None:
    applied.edit("provisioner.yaml", "sqlite:///portal.db", portal)
    applied.edit("provisioner.yaml", "sqlite:///ledger.db", "postgresql://ann@127.0.0.1:1/access")
    said = applied("backup", tmp_path / "backup")
    assert said.code == 1
    assert "The ledger postgresql://ann@127.0.0.1:1/access is in PostgreSQL" in said.err
    assert "pg_dump --schema=provisioner_ledger" in said.err
    assert "first, then the ledger" in said.err
    assert not (tmp_path / "backup").exists()


def test_portal_in_postgres_is_left_to_pg_dump(applied: Shell, tmp_path: Path) -> None:
    applied.edit("provisioner.yaml", "sqlite:///portal.db", "postgresql://ann@127.0.0.1:1/access")
    said = applied("backup", tmp_path / "backup")
    assert (said.code, said.out) == (0, f"Backed up into {tmp_path / 'backup'}: ledger.db.\n")
    words = " ".join(said.err.split())
    assert "The portal postgresql://ann@127.0.0.1:1/access is not in this backup" in words
    assert "no letter is owed (provisioner mail status): pg_dump --schema=provisioner_portal." in words
    assert "dump the portal first, then back up the ledger again" in words
    assert letters(tmp_path / "backup" / "ledger.db")


def test_portal_on_the_network_is_left_to_its_server(applied: Shell, tmp_path: Path) -> None:
    applied.edit("provisioner.yaml", "sqlite:///portal.db", "https://portal.example.fr")
    said = applied("backup", tmp_path / "backup")
    assert said.code == 0
    assert said.out == f"Backed up into {tmp_path / 'backup'}: ledger.db.\n"
    assert "The portal https://portal.example.fr is not a file here" in said.err
    assert letters(tmp_path / "backup" / "ledger.db")


def test_a_missing_key_is_reported_if_the_portal_has_links(applied: Shell, tmp_path: Path) -> None:
    key = applied.folder / "portal.db.key"
    key.unlink()
    said = applied("backup", tmp_path / "backup")
    assert (said.code, said.out) == (0, f"Backed up into {tmp_path / 'backup'}: ledger.db, portal.db.\n")
    assert f"The key of the activation links, {key}, is missing" in said.err
    with closing(sqlite3.connect(applied.folder / "portal.db")) as portal, portal:
        portal.execute("DELETE FROM invitation")
    assert applied("backup", tmp_path / "none").err == ""


def test_without_its_key_a_portal_replaces_a_link_that_is_made_again(applied: Shell) -> None:
    """This is what the report about a missing key says."""
    (applied.folder / "portal.db.key").unlink()
    with closing(sqlite3.connect(applied.folder / "portal.db")) as database:
        (user,), (first,) = zip(
            *database.execute("SELECT user_id, token_hash FROM invitation LIMIT 1"), strict=True
        )
    portal = SqlPortal(SqliteDatabase(applied.folder / "portal.db"), Operator.PARTNER, None, "", utc_now)
    with closing(portal):
        (again,) = portal.activation_links([user]).values()
    assert hash_of(again) != first


def test_links_made_before_the_backup_work_on_the_restored_portal(applied: Shell, tmp_path: Path) -> None:
    def links(folder: Path) -> dict[str, str]:
        portal = SqlPortal(SqliteDatabase(folder / "portal.db"), Operator.PARTNER, None, "", utc_now)
        with closing(portal):
            ids = [user.id for user in portal.snapshot().state.users.values()]
            return dict(portal.activation_links(ids))

    before = links(applied.folder)
    assert any(before.values())
    assert applied("backup", tmp_path / "backup").code == 0
    assert links(tmp_path / "backup") == before
