"""SQLite files and PostgreSQL schemas behave alike. Both execute the same statements."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from provisioner.errors import LedgerError
from provisioner.storage.database import (
    Connection,
    Database,
    reject_corrupt_rows,
    transaction,
)
from provisioner.storage.postgres import PostgresDatabase
from provisioner.storage.registry import database_at
from provisioner.storage.schema import DatabaseSchema
from provisioner.storage.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from postgres_support import PostgresServer

TABLES = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE shelf (seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, "user" TEXT, size INTEGER NOT NULL);
CREATE TABLE book (key TEXT NOT NULL REFERENCES shelf (key), title TEXT NOT NULL, PRIMARY KEY (key, title))
    WITHOUT ROWID
"""
OURS = DatabaseSchema("ledger", 0x70720001, 1, TABLES, LedgerError)
NEXT = DatabaseSchema(
    "ledger",
    0x70720001,
    2,
    TABLES.replace("size INTEGER NOT NULL", "size INTEGER NOT NULL, colour TEXT NOT NULL DEFAULT 'red'"),
    LedgerError,
    ("ALTER TABLE shelf ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'",),
)
OTHER = DatabaseSchema("portal", 0x70720002, 1, TABLES, LedgerError)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.external)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database that does not exist yet."""
    if request.param == "sqlite":
        return SqliteDatabase(tmp_path / "books.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.place()


@pytest.fixture
def shelves(database: Database) -> Iterator[Connection]:
    """A connection to a database with two rows in the table ``shelf``, not in alphabetical order."""
    with closing(database.connect(OURS)) as connection:
        with transaction(connection):
            connection.executemany(
                'INSERT INTO shelf (key, "user", size) VALUES (?, ?, ?)', [("b", "ann", 3), ("a", None, 5)]
            )
        yield connection


def sizes(connection: Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT key, size FROM shelf ORDER BY seq"))


# --- creation, layouts, refusals ---


def test_reading_a_missing_database_creates_nothing(database: Database, tmp_path: Path) -> None:
    assert database.read(OURS, sizes) is None
    assert list(tmp_path.iterdir()) == []
    assert database.read(OTHER, sizes) is None


def test_first_rows_are_written_with_the_tables(database: Database) -> None:
    def found(connection: Connection) -> None:
        connection.execute("INSERT INTO fact VALUES ('id', 'for life')")

    for _ in range(2):
        database.connect(OURS, found).close()
    facts = database.read(OURS, lambda connection: dict(connection.execute("SELECT * FROM fact")))
    assert facts is not None
    assert facts["id"] == "for life"


def test_missing_database_is_refused_unless_it_may_be_made(database: Database, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="There is no ledger"):
        database.connect(OURS, None)
    assert list(tmp_path.iterdir()) == []
    if isinstance(database, SqliteDatabase):
        database.path.touch()
        with pytest.raises(LedgerError, match="There is no ledger"):
            database.connect(OURS, None)
    assert database.read(OURS, sizes) is None
    database.connect(OURS).close()
    database.connect(OURS, None).close()


def test_failed_creation_leaves_no_database(database: Database) -> None:
    def fails(_: Connection) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.connect(OURS, fails)
    assert database.read(OURS, sizes) is None
    database.connect(OTHER).close()


def test_eight_simultaneous_creations_make_one_database(database: Database) -> None:
    made: list[int] = []
    begin = threading.Barrier(8)

    def make() -> None:
        begin.wait()
        database.connect(OURS, lambda _: made.append(1)).close()

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_database_of_another_schema_is_refused_and_unchanged(database: Database, shelves: Connection) -> None:
    for opened in (lambda: database.connect(OTHER), lambda: database.read(OTHER, sizes)):
        with pytest.raises(LedgerError, match=r"is not a portal|and no portal"):
            opened()
    assert sizes(shelves) == {"b": 3, "a": 5}


def test_foreign_tables_in_a_schema_are_refused(postgres: PostgresServer) -> None:
    database = postgres.place()
    with closing(postgres.session()) as session:
        session.execute(f"CREATE SCHEMA {database.schema}")
        assert database.read(OURS, sizes) is None
        session.execute(f"CREATE TABLE {database.schema}.fact (name TEXT, value TEXT)")
    with pytest.raises(LedgerError, match="holds something else, and no ledger") as caught:
        database.connect(OURS)
    assert "?schema=NAME" in caught.value.remedy


@pytest.mark.parametrize("layout", ["DELETE FROM fact", "UPDATE fact SET value = 'two'"])
def test_schema_without_layout_number_is_damaged(layout: str, postgres: PostgresServer) -> None:
    database = postgres.place()
    with closing(database.connect(OURS)) as connection:
        connection.execute(f"{layout} WHERE name = 'layout'")
    assert "is damaged" in refused(database).sentence


def test_newer_layout_is_refused(database: Database) -> None:
    database.connect(NEXT).close()
    for opened in (lambda: database.connect(OURS), lambda: database.read(OURS, sizes)):
        with pytest.raises(LedgerError, match="newer version"):
            opened()


@pytest.mark.parametrize("tables", [NEXT.tables, None])
def test_other_tables_under_the_same_number_are_refused(
    tables: str | None, database: Database, shelves: Connection
) -> None:
    with transaction(shelves):
        if tables is None:
            shelves.execute("DELETE FROM fact WHERE name = 'tables'")
    changed = replace(OURS, tables=tables or OURS.tables)
    for opened in (lambda: database.connect(changed), lambda: database.read(changed, sizes)):
        with pytest.raises(LedgerError, match="unreleased version of this program") as caught:
            opened()
        assert "remove it" in caught.value.remedy
    assert sizes(shelves) == {"b": 3, "a": 5}


def test_older_layout_is_migrated_by_the_next_writer(database: Database, shelves: Connection) -> None:
    def colours(connection: Connection) -> list[str]:
        return [colour for (colour,) in connection.execute("SELECT colour FROM shelf ORDER BY seq")]

    with pytest.raises(LedgerError, match="older version"):
        database.read(NEXT, colours)
    assert sizes(shelves) == {"b": 3, "a": 5}
    database.connect(NEXT).close()
    assert database.read(NEXT, colours) == ["red", "red"]
    assert database.read(NEXT, sizes) == {"b": 3, "a": 5}


# --- transactions ---


def test_writers_take_turns(database: Database, shelves: Connection) -> None:
    """Concurrent writers wait for each other, and each writer reads what the previous writer wrote.

    If they did not wait, some increments would be lost.
    """

    def increment() -> None:
        with closing(database.reopen(OURS)) as connection:
            for _ in range(10):
                with database.translate_errors(OURS), transaction(connection):
                    size = sizes(connection)["a"]
                    connection.execute("UPDATE shelf SET size = ? WHERE key = 'a'", (size + 1,))

    threads = [threading.Thread(target=increment) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes(shelves)["a"] == 45


def test_second_sqlite_writer_waits_before_it_reads(tmp_path: Path) -> None:
    """A second writer waits before it reads, because SQLite would refuse a write after an outdated read."""
    database = SqliteDatabase(tmp_path / "books.db")
    with closing(database.connect(OURS)) as first, closing(database.reopen(OURS)) as second:
        second.execute("PRAGMA busy_timeout = 0")
        busy = pytest.raises(LedgerError, match="is busy")
        with transaction(first), busy, database.translate_errors(OURS), transaction(second):
            pytest.fail("the second transaction began")


def test_opening_does_not_wait_for_a_writer(database: Database, shelves: Connection) -> None:
    with transaction(shelves):
        shelves.execute("UPDATE shelf SET size = 9")
        with closing(database.connect(OURS)) as another, database.translate_errors(OURS):
            assert sizes(another) == {"a": 5, "b": 3}


def test_reader_sees_one_instant_while_another_connection_writes(
    database: Database, shelves: Connection
) -> None:
    def twice(connection: Connection) -> tuple[dict[str, int], dict[str, int]]:
        before = sizes(connection)
        with transaction(shelves):
            shelves.execute("UPDATE shelf SET size = size + 1")
        return before, sizes(connection)

    assert database.read(OURS, twice) == ({"b": 3, "a": 5}, {"b": 3, "a": 5})
    assert database.read(OURS, sizes) == {"b": 4, "a": 6}


def test_failed_transaction_writes_nothing(database: Database, shelves: Connection) -> None:
    def write() -> None:
        with database.translate_errors(OURS), transaction(shelves):
            shelves.execute("UPDATE shelf SET size = 0")
            shelves.execute("INSERT INTO book VALUES ('nowhere', 'A title')")

    with pytest.raises(LedgerError):
        write()
    assert not shelves.in_transaction
    assert sizes(shelves) == {"b": 3, "a": 5}


def test_same_statements_give_same_results(database: Database, shelves: Connection) -> None:
    with transaction(shelves):
        shelves.executemany("INSERT INTO book VALUES (?, ?)", [("b", "100 % ?"), ("b", "a%s")])
        shelves.executemany("INSERT INTO book VALUES (?, ?)", [])
        ((seq,),) = shelves.execute(
            'INSERT INTO shelf (key, "user", size) VALUES (?, ?, ?) RETURNING seq', ("Z", "é", 1 << 40)
        ).fetchall()
        upsert = (
            "INSERT INTO shelf (key, size) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET size = "
            "CASE WHEN shelf.size > excluded.size THEN shelf.size ELSE excluded.size END"
        )
        shelves.execute(upsert, ("a", 1))
    assert seq == 3
    found = shelves.execute("SELECT group_concat(title, '; ') FROM book WHERE title LIKE '%100%'").fetchone()
    assert found == ("100 % ?",)
    assert sizes(shelves) == {"b": 3, "a": 5, "Z": 1 << 40}
    ordered = [key for (key,) in shelves.execute("SELECT key FROM shelf ORDER BY key")]
    assert ordered == ["Z", "a", "b"]
    assert shelves.execute("UPDATE shelf SET size = 0 WHERE size > ?", (3,)).rowcount == 2


def test_shared_time_is_close_to_the_real_time_and_never_decreases(
    database: Database, shelves: Connection
) -> None:
    first = database.shared_time(shelves, time.time)
    assert first > 1_700_000_000
    assert database.shared_time(shelves, time.time) >= first


# --- damage ---


def test_corrupt_value_is_reported_as_damage(database: Database, shelves: Connection) -> None:
    def decode(connection: Connection) -> int:
        ((text,),) = connection.execute("SELECT \"user\" FROM shelf WHERE key = 'b'").fetchall()
        with reject_corrupt_rows():
            return int(text)

    with pytest.raises(LedgerError, match=r"ledger .* is damaged"):
        database.read(OURS, decode)
    with pytest.raises(LedgerError, match=r"ledger .* is damaged"), database.translate_errors(OURS):
        decode(shelves)


# --- urls and files ---


def test_url_gives_its_database(tmp_path: Path) -> None:
    assert database_at("sqlite:///a/b.db", tmp_path) == SqliteDatabase(tmp_path / "a" / "b.db")
    assert database_at("sqlite:////srv/b.db", tmp_path) == SqliteDatabase(Path("/srv/b.db"))
    assert database_at("postgresql://u@h:1/d", tmp_path, "s") == PostgresDatabase(
        "postgresql://u@h:1/d", "", "s"
    )
    assert database_at("postgresql:///d?schema=x", tmp_path) == PostgresDatabase("postgresql:///d", "x")


def test_password_appears_in_no_text(tmp_path: Path) -> None:
    database = database_at("postgresql://u:hush%40%25@h/d?schema=x", tmp_path)
    assert database == PostgresDatabase("postgresql://u@h/d", "x", "hush@%")
    assert database_at("postgresql://u:%40@h/d", tmp_path, "as%40is") == PostgresDatabase(
        "postgresql://u@h/d", "", "as%40is"
    )
    assert "hush" not in f"{database} {database!r}"
    assert str(database) == "postgresql://u@h/d?schema=x"


def test_file_without_permission_is_reported_with_the_system_error(memory_path: Path) -> None:
    database = SqliteDatabase(memory_path / "books.db")
    database.connect(OURS).close()
    database.path.chmod(0)
    memory_path.chmod(0o755)
    with _unprivileged():
        for opened in (lambda: database.connect(OURS), lambda: database.read(OURS, sizes)):
            with pytest.raises(LedgerError, match="cannot be opened: Permission denied") as caught:
                opened()
            assert caught.value.remedy == "Check the permissions of the file and of its folder."


def test_file_on_a_read_only_file_system_is_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite cannot create the log beside the file, and does not say why. The system knows the reason."""
    # not in the folder of pytest, because only its owner can enter that
    with TemporaryDirectory() as folder:
        database = SqliteDatabase(Path(folder) / "books.db")
        database.connect(OURS).close()
        database.path.chmod(0o666)
        database.path.parent.chmod(0o555)
        mounted = {Path(folder): SimpleNamespace(f_flag=os.ST_RDONLY)}
        monkeypatch.setattr(os, "statvfs", mounted.__getitem__)
        with (
            _unprivileged(),
            pytest.raises(LedgerError, match="cannot be opened: Read-only file system") as caught,
            database.pinned(OURS),
        ):
            pass
        database.path.parent.chmod(0o755)
    assert caught.value.remedy.startswith("Make the file system writable, or copy the whole workspace to a ")


@contextmanager
def _unprivileged() -> Iterator[None]:
    """Run the block without the rights of root, because root can open any file."""
    if is_root := os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


# --- PostgreSQL ---


def refused(database: Database) -> LedgerError:
    with pytest.raises(LedgerError) as caught:
        database.read(OURS, sizes)
    assert caught.value.remedy
    return caught.value


def test_refused_password_is_reported(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from postgres_support import GUARDED, PASSWORD

    guarded = postgres.url(user=GUARDED)
    monkeypatch.delenv("PGPASSWORD", raising=False)
    assert "refuses the password" in refused(PostgresDatabase(guarded)).sentence
    wrong = refused(PostgresDatabase(guarded, "", "hush-hush"))
    assert "refuses the password" in wrong.sentence
    assert "PROVISIONER_LEDGER_SECRET" in wrong.remedy
    assert "hush-hush" not in f"{wrong.sentence} {wrong.remedy} {wrong.__cause__!r}"
    assert PostgresDatabase(guarded, "", PASSWORD).read(OURS, sizes) is None
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert PostgresDatabase(guarded).read(OURS, sizes) is None


def test_missing_server_user_or_database_is_reported(postgres: PostgresServer) -> None:
    assert "has no database" in refused(PostgresDatabase(postgres.url(database="nowhere"))).sentence
    assert "knows no such user" in refused(PostgresDatabase(postgres.url(user="unknown"))).sentence
    assert "is not known" in refused(PostgresDatabase("postgresql://u@nowhere.invalid/d")).sentence
    for nowhere in ("postgresql://u@127.0.0.1:1/d", "postgresql:///d?host=/nowhere"):
        assert "cannot be reached: connection to" in refused(PostgresDatabase(nowhere)).sentence


def test_refusal_in_another_language_is_not_reported_as_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    refusal = "authentification par mot de passe échouée pour l'utilisateur « ann »"

    def connect(*_: object, **__: object) -> None:
        raise psycopg.OperationalError(
            f'connection failed: connection to server at "127.0.0.1", port 5432 failed: FATAL:  {refusal}'
        )

    monkeypatch.setattr(psycopg, "connect", connect)
    found = refused(PostgresDatabase("postgresql://ann@127.0.0.1/d"))
    assert found.sentence.endswith(f"refuses the connection: {refusal}.")
    assert "PROVISIONER_LEDGER_SECRET" in found.remedy


def test_database_without_utf8_is_refused(postgres: PostgresServer) -> None:
    with closing(postgres.session()) as session:
        session.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' STRATEGY file_copy")
    found = refused(PostgresDatabase(postgres.url(database="latin")))
    assert "texts in LATIN1" in found.sentence
    assert "createdb --encoding=UTF8" in found.remedy


def test_standby_is_reported_as_read_only(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby server answers a writing transaction with SQLSTATE 0A000 and is reported as read-only."""
    database = postgres.place()
    with closing(database.connect(OURS)) as connection:
        recovering = "DO $$ BEGIN RAISE EXCEPTION SQLSTATE '0A000'; END $$"
        monkeypatch.setattr("provisioner.storage.postgres_connection.BEGIN_WRITING", recovering)
        with pytest.raises(LedgerError, match="it is read-only") as caught:
            _write_a_fact(connection, database)
    assert caught.value.remedy == "Use the primary server."


def test_missing_tls_is_reported_if_it_is_required(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "require")
    found = refused(PostgresDatabase(postgres.url()))
    assert "No safe connection" in found.sentence
    assert "PGSSLROOTCERT" in found.remedy


def test_password_is_never_sent_in_clear(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is never sent in clear text, even if the server or an attacker requests this."""
    from postgres_support import FRANK, PASSWORD

    monkeypatch.delenv("PGSSLMODE", raising=False)
    found = refused(PostgresDatabase(postgres.url(user=FRANK), "", PASSWORD))
    assert "asks for the password in clear" in found.sentence
    assert "PGSSLMODE=" in found.remedy


def test_text_columns_use_the_c_collation(postgres: PostgresServer) -> None:
    database = postgres.place()
    with closing(database.connect(OURS)) as connection:
        found = connection.execute(
            "SELECT DISTINCT collation_name FROM information_schema.columns "
            "WHERE table_schema = ? AND data_type = 'text'",
            (database.schema,),
        ).fetchall()
    assert found == [("C",)]


def test_error_in_the_reader_is_not_reported_as_damage(database: Database, shelves: Connection) -> None:
    def defective(connection: Connection) -> int:
        return int("no number")

    with pytest.raises(ValueError, match="no number"):
        database.read(OURS, defective)


def test_missing_right_is_reported(postgres: PostgresServer) -> None:
    database = postgres.place()
    stranger = PostgresDatabase(postgres.url(user="stranger"), database.schema)
    with pytest.raises(LedgerError, match="lacks a right there: permission denied for database"):
        stranger.connect(OURS)
    database.connect(OURS).close()
    assert "lacks a right there: permission denied" in refused(stranger).sentence
    with closing(postgres.session()) as session:
        session.execute(f"GRANT USAGE ON SCHEMA {database.schema} TO stranger")
        session.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {database.schema} TO stranger")
    assert stranger.read(OURS, sizes) == {}
    with closing(stranger.connect(OURS)) as connection, pytest.raises(LedgerError, match="lacks a right"):
        _write_a_fact(connection, stranger)


def test_existing_schema_needs_no_right_to_create_one(postgres: PostgresServer) -> None:
    database = postgres.place()
    with closing(postgres.session()) as session:
        session.execute(f"CREATE SCHEMA {database.schema} AUTHORIZATION stranger")
    PostgresDatabase(postgres.url(user="stranger"), database.schema).connect(OURS).close()
    assert database.read(OURS, sizes) == {}


def test_missing_psycopg_is_reported_with_the_extra(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    for module in ("postgres_errors", "postgres_connection"):
        monkeypatch.delitem(sys.modules, f"provisioner.storage.{module}", raising=False)
    with pytest.raises(LedgerError, match="needs a part of this program") as caught:
        postgres.place().read(OURS, sizes)
    assert "[postgres]" in caught.value.remedy


def test_connection_lost_between_transactions_is_reopened(postgres: PostgresServer) -> None:
    with closing(postgres.place().connect(OURS)) as connection:
        for statement in ("SELECT 1", "BEGIN", "BEGIN IMMEDIATE"):
            _cut_off(postgres)
            connection.execute(statement)
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def test_connection_lost_within_a_transaction_is_reported_not_retried(
    postgres: PostgresServer,
) -> None:
    database = postgres.place()

    def write(name: str, cut_before: str) -> None:
        with database.translate_errors(OURS):
            for statement in ("BEGIN IMMEDIATE", f"INSERT INTO fact VALUES ('{name}', '')", "COMMIT"):
                if statement.startswith(cut_before):
                    _cut_off(postgres)
                connection.execute(statement)

    with closing(database.connect(OURS)) as connection:
        for number, statement in enumerate(("INSERT", "COMMIT")):
            with pytest.raises(LedgerError, match="was lost"):
                write(str(number), statement)
        write("2", "BEGIN")
    facts = database.read(OURS, lambda opened: dict(opened.execute("SELECT * FROM fact")))
    assert facts is not None
    assert facts.keys() - {"application", "layout", "tables"} == {"2"}


def test_server_restart_is_reported_once_and_then_works(own_postgres: PostgresServer) -> None:
    database = own_postgres.place()
    with closing(database.connect(OURS)) as connection:
        with transaction(connection):
            connection.execute("INSERT INTO fact VALUES ('a', 'b')")
        own_postgres.kill()
        try:
            with (
                pytest.raises(LedgerError, match=r"cannot be reached|was lost"),
                database.translate_errors(OURS),
            ):
                connection.execute("BEGIN IMMEDIATE")
        finally:
            own_postgres.start()
        with database.translate_errors(OURS):
            assert connection.execute("SELECT value FROM fact WHERE name = 'a'").fetchone() == ("b",)


def test_writer_that_waits_too_long_reports_a_busy_database(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres.place()
    with closing(database.connect(OURS)) as first, closing(database.reopen(OURS)) as second:
        second.execute("SET lock_timeout = '10ms'")
        with transaction(first), pytest.raises(LedgerError, match="is busy"):
            _write_a_fact(second, database)
        # the failed attempt leaves no open transaction
        _write_a_fact(second, database)


def test_writer_sees_what_was_committed_while_it_waited(postgres: PostgresServer) -> None:
    """A writer sees what was committed while it waited, whatever isolation level is the default."""
    database = postgres.place()
    seen: list[dict[str, str]] = []

    def look() -> None:
        with transaction(second):
            seen.append(dict(second.execute("SELECT * FROM fact")))

    with closing(database.connect(OURS)) as first, closing(database.reopen(OURS)) as second:
        second.execute("SET default_transaction_isolation = 'repeatable read'")
        second.execute("SET default_transaction_read_only = on")
        thread = threading.Thread(target=look)
        with transaction(first):
            first.execute("INSERT INTO fact VALUES ('a', 'b')")
            thread.start()
            while not first.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                assert thread.is_alive()
        thread.join()
    assert [found.get("a") for found in seen] == ["b"]


def _write_a_fact(connection: Connection, database: Database) -> None:
    with database.translate_errors(OURS), transaction(connection):
        connection.execute("INSERT INTO fact VALUES ('a', 'b')")


def _cut_off(server: PostgresServer) -> None:
    with closing(server.session()) as session:
        session.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'provisioner' AND datname = current_database()"
        )
