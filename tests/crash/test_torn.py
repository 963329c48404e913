"""After a crash or a disk error, the ledger and the portal contain the first commits of a run or are refused.

The tests kill a run at its end, while all commits are still in the write-ahead log. During the run, the
content after each commit is recorded.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from boundaries import apply, workspace
from crash_support import TWO_NEWCOMERS, boundaries, killed_at
from shell_support import tables

from provisioner.cli import run
from provisioner.embedded.tables import PORTAL_SCHEMA
from provisioner.errors import LedgerError
from provisioner.ledger.store import LEDGER_SCHEMA
from provisioner.storage.database import Connection
from provisioner.storage.schema import DatabaseSchema
from provisioner.storage.sqlite import SqliteDatabase

HEADER, FRAME = 32, 24 + 4096
"""Two sizes in bytes in a write-ahead log: its header, and one database page with its frame header."""

FILES: dict[str, DatabaseSchema] = {"ledger.db": LEDGER_SCHEMA, "portal.db": PORTAL_SCHEMA}


def content(connection: Connection) -> str:
    """Return a digest of the content of all tables."""
    words = hashlib.sha256()
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"):
        words.update(repr((table, connection.execute(f"SELECT * FROM {table}").fetchall())).encode())
    return words.hexdigest()


class Torn(NamedTuple):
    """A database file ``file`` whose commits are all in its write-ahead log ``log``.

    ``states`` has the digest of the content after each commit, by the size of the log at that moment.
    """

    file: Path
    log: bytes
    states: dict[int, str]

    def state_within(self, size: int) -> str:
        """Return the content digest after the last commit in the first ``size`` bytes of the log.

        The result is "" if no commit ends there.
        """
        return self.states.get(max((end for end in self.states if end <= size), default=0), "")

    def found(self, folder: Path, log: bytes) -> str:
        """Return the content digest that the program reads from the file and this log, copied to ``folder``.

        The result is "" if the database is empty.
        """
        file = folder / self.file.name
        shutil.copyfile(self.file, file)
        file.with_name(file.name + "-shm").unlink(missing_ok=True)
        file.with_name(file.name + "-wal").write_bytes(log)
        return SqliteDatabase(file).read(FILES[self.file.name], content) or ""


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of two newcomers after an undisturbed run."""
    folder = workspace(tmp_path_factory.mktemp("calm") / "firm", clients=TWO_NEWCOMERS)
    assert apply(folder) == 0
    return folder


@pytest.fixture(scope="module", params=FILES)
def torn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Torn:
    name: str = request.param
    base = tmp_path_factory.mktemp("torn")
    states = base / "states"

    def note(connection: sqlite3.Connection) -> None:
        (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
        if Path(path).name == name:
            with states.open("a") as file:
                file.write(f"{Path(path + '-wal').stat().st_size} {content(connection)}\n")

    folder = workspace(base / "firm", clients=TWO_NEWCOMERS)
    last = boundaries(workspace(base / "calm", clients=TWO_NEWCOMERS))
    # the last boundary at which the portal is open: closing it moves the log into the file
    while not (folder / f"{name}-wal").exists():
        shutil.rmtree(folder)
        states.unlink(missing_ok=True)
        assert killed_at(workspace(folder, clients=TWO_NEWCOMERS), last, note)[0]
        last -= 1
    log = (folder / f"{name}-wal").read_bytes()
    noted = [line.split() for line in states.read_text().splitlines()]
    return Torn(folder / name, log, {int(size): state for size, state in noted})


def test_every_prefix_of_the_log_is_a_prefix_of_the_commits(torn: Torn, tmp_path: Path) -> None:
    assert len(set(torn.states.values())) >= 5
    assert torn.found(tmp_path, torn.log) == torn.states[len(torn.log)]
    for place in range(HEADER, len(torn.log) + 1, FRAME):
        for size in (place, place + 1, place + 23, place + 24, place + 2061, place + FRAME - 1):
            if size <= len(torn.log):
                assert torn.found(tmp_path, torn.log[:size]) == torn.state_within(size), size
    for size in (0, 1, HEADER - 1):
        assert torn.found(tmp_path, torn.log[:size]) == "", size


def test_a_flipped_byte_in_the_log_ends_it_before_its_commit(torn: Torn, tmp_path: Path) -> None:
    for place in range(HEADER, len(torn.log), FRAME):
        for offset in (1, 5, 9, 17, 24, 24 + 100, FRAME - 1):
            log = bytearray(torn.log)
            log[place + offset] ^= 0x20
            assert torn.found(tmp_path, bytes(log)) == torn.state_within(place), place + offset


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_page_is_refused_before_anything_is_written(
    name: str, calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "firm"
    shutil.copytree(calm, folder)
    more = folder / "clients" / "roussel.yaml"
    shutil.copyfile(Path(__file__).parents[2] / "samples/onboarding/clients/menuiserie-roussel.yaml", more)
    whole = {file: (folder / file).read_bytes() for file in FILES}
    others = [folder / file for file in FILES if file != name]
    held = tables(*others)
    for page in range(0, len(whole[name]), 4096):
        damaged = bytearray(whole[name])
        damaged[page : page + 4096] = bytes(255 - byte for byte in damaged[page : page + 4096])
        (folder / name).write_bytes(damaged)
        capsys.readouterr()
        assert apply(folder) == 1, page
        said = capsys.readouterr().err
        assert f"{FILES[name].noun} {folder / name} is damaged" in said or "is not a" in said, (page, said)
        assert tables(*others) == held, page
        assert (folder / name).read_bytes() == damaged, page
        assert run(["-C", str(folder), "plan"]) in (0, 1), page


def test_a_value_that_the_program_never_writes_is_damage(
    calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One changed character in a stored value is found, although the database page stays well-formed."""
    folder = tmp_path / "firm"
    shutil.copytree(calm, folder)
    file = folder / "portal.db"
    was = file.read_bytes()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE company SET mode = 'clienu'")
        connection.commit()
    assert file.read_bytes() != was
    for command in (["plan"], ["apply", "--auto-approve"], ["export", str(tmp_path / "out")]):
        assert run(["-C", str(folder), *command]) == 1
        assert f"The portal {file} is damaged." in capsys.readouterr().err


def test_a_folder_without_write_ahead_log_is_refused_before_any_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without write-ahead log is refused, although SQLite itself would continue without the log."""

    class Logless(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("journal_mode = WAL", "journal_mode = DELETE"), *values)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Logless))
    path = tmp_path / "ledger.db"
    with pytest.raises(LedgerError, match="cannot be kept safely: its folder takes no write-ahead log"):
        SqliteDatabase(path).connect(LEDGER_SCHEMA)
    assert path.read_bytes() == b""
