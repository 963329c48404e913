"""What both kinds of databases promise, with the same statements: SQLite's files and PostgreSQL's schemas."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
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


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A place where nothing is yet."""
    if request.param == "sqlite":
        return SqliteDatabase(tmp_path / "books.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.place()


@pytest.fixture
def shelves(place: Database) -> Iterator[Connection]:
    """Two shelves, the second one first in the alphabet."""
    with closing(place.connect(OURS)) as connection:
        with transaction(connection):
            connection.executemany(
                'INSERT INTO shelf (key, "user", size) VALUES (?, ?, ?)', [("b", "ann", 3), ("a", None, 5)]
            )
        yield connection


def sizes(connection: Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT key, size FROM shelf ORDER BY seq"))


# --- made, found, refused ---


def test_reading_makes_nothing(place: Database, tmp_path: Path) -> None:
    assert place.read(OURS, sizes) is None
    assert list(tmp_path.iterdir()) == []
    assert place.read(OTHER, sizes) is None


def test_what_a_new_one_holds_is_there_from_its_first_commit_on(place: Database) -> None:
    def found(connection: Connection) -> None:
        connection.execute("INSERT INTO fact VALUES ('id', 'for life')")

    for _ in range(2):
        place.connect(OURS, found).close()
    facts = place.read(OURS, lambda connection: dict(connection.execute("SELECT * FROM fact")))
    assert facts is not None
    assert facts["id"] == "for life"


def test_one_that_is_to_be_there_is_refused_where_it_is_not(place: Database, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="There is no ledger"):
        place.connect(OURS, None)
    assert list(tmp_path.iterdir()) == []
    if isinstance(place, SqliteDatabase):
        place.path.touch()
        with pytest.raises(LedgerError, match="There is no ledger"):
            place.connect(OURS, None)
    assert place.read(OURS, sizes) is None
    place.connect(OURS).close()
    place.connect(OURS, None).close()


def test_one_that_fails_to_be_made_is_not_there_at_all(place: Database) -> None:
    def fails(_: Connection) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        place.connect(OURS, fails)
    assert place.read(OURS, sizes) is None
    place.connect(OTHER).close()


def test_eight_who_make_it_at_once_make_one(place: Database) -> None:
    made: list[int] = []
    begin = threading.Barrier(8)

    def make() -> None:
        begin.wait()
        place.connect(OURS, lambda _: made.append(1)).close()

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_another_kind_of_ours_is_refused_and_left_alone(place: Database, shelves: Connection) -> None:
    for opened in (lambda: place.connect(OTHER), lambda: place.read(OTHER, sizes)):
        with pytest.raises(LedgerError, match=r"is not a portal|and no portal"):
            opened()
    assert sizes(shelves) == {"b": 3, "a": 5}


def test_what_somebody_else_keeps_in_a_schema_is_left_alone(postgres: PostgresServer) -> None:
    place = postgres.place()
    with closing(postgres.session()) as session:
        session.execute(f"CREATE SCHEMA {place.schema}")
        assert place.read(OURS, sizes) is None
        session.execute(f"CREATE TABLE {place.schema}.fact (name TEXT, value TEXT)")
    with pytest.raises(LedgerError, match="holds something else, and no ledger") as caught:
        place.connect(OURS)
    assert "?schema=NAME" in caught.value.remedy


@pytest.mark.parametrize("layout", ["DELETE FROM fact", "UPDATE fact SET value = 'two'"])
def test_a_schema_that_does_not_say_its_layout_is_damaged(layout: str, postgres: PostgresServer) -> None:
    place = postgres.place()
    with closing(place.connect(OURS)) as connection:
        connection.execute(f"{layout} WHERE name = 'layout'")
    assert "is damaged" in refused(place).sentence


def test_a_newer_layout_is_refused(place: Database) -> None:
    place.connect(NEXT).close()
    for opened in (lambda: place.connect(OURS), lambda: place.read(OURS, sizes)):
        with pytest.raises(LedgerError, match="newer version"):
            opened()


@pytest.mark.parametrize("tables", [NEXT.tables, None])
def test_other_tables_under_the_same_number_are_refused(
    tables: str | None, place: Database, shelves: Connection
) -> None:
    with transaction(shelves):
        if tables is None:
            shelves.execute("DELETE FROM fact WHERE name = 'tables'")
    changed = replace(OURS, tables=tables or OURS.tables)
    for opened in (lambda: place.connect(changed), lambda: place.read(changed, sizes)):
        with pytest.raises(LedgerError, match="unreleased version of this program") as caught:
            opened()
        assert "remove it" in caught.value.remedy
    assert sizes(shelves) == {"b": 3, "a": 5}


def test_an_older_layout_is_replaced_by_whoever_writes(place: Database, shelves: Connection) -> None:
    def colours(connection: Connection) -> list[str]:
        return [colour for (colour,) in connection.execute("SELECT colour FROM shelf ORDER BY seq")]

    if isinstance(place, SqliteDatabase):
        shelves.close()
        before = place.path.read_bytes()
        assert place.read(NEXT, colours) == ["red", "red"]
        assert place.path.read_bytes() == before
    else:
        with pytest.raises(LedgerError, match="older version"):
            place.read(NEXT, colours)
    place.connect(NEXT).close()
    assert place.read(NEXT, colours) == ["red", "red"]
    assert place.read(NEXT, sizes) == {"b": 3, "a": 5}


# --- written and read ---


def test_writers_come_one_after_the_other(place: Database, shelves: Connection) -> None:
    """Each reads what the one before him wrote; otherwise some of these steps would be lost."""

    def climb() -> None:
        with closing(place.reopen(OURS)) as connection:
            for _ in range(10):
                with place.translate_errors(OURS), transaction(connection):
                    size = sizes(connection)["a"]
                    connection.execute("UPDATE shelf SET size = ? WHERE key = 'a'", (size + 1,))

    threads = [threading.Thread(target=climb) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes(shelves)["a"] == 45


def test_whoever_opens_it_waits_for_no_writer(place: Database, shelves: Connection) -> None:
    with transaction(shelves):
        shelves.execute("UPDATE shelf SET size = 9")
        with closing(place.connect(OURS)) as another, place.translate_errors(OURS):
            assert sizes(another) == {"a": 5, "b": 3}


def test_a_reader_sees_one_instant_whatever_is_written_meanwhile(
    place: Database, shelves: Connection
) -> None:
    def twice(connection: Connection) -> tuple[dict[str, int], dict[str, int]]:
        before = sizes(connection)
        with transaction(shelves):
            shelves.execute("UPDATE shelf SET size = size + 1")
        return before, sizes(connection)

    assert place.read(OURS, twice) == ({"b": 3, "a": 5}, {"b": 3, "a": 5})
    assert place.read(OURS, sizes) == {"b": 4, "a": 6}


def test_a_transaction_that_fails_leaves_nothing(place: Database, shelves: Connection) -> None:
    def write() -> None:
        with place.translate_errors(OURS), transaction(shelves):
            shelves.execute("UPDATE shelf SET size = 0")
            shelves.execute("INSERT INTO book VALUES ('nowhere', 'A title')")

    with pytest.raises(LedgerError):
        write()
    assert not shelves.in_transaction
    assert sizes(shelves) == {"b": 3, "a": 5}


def test_the_statements_are_the_same(place: Database, shelves: Connection) -> None:
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
    assert shelves.execute("SELECT ifnull(\"user\", '-') FROM shelf WHERE key = 'a'").fetchone() == ("-",)
    assert sizes(shelves) == {"b": 3, "a": 5, "Z": 1 << 40}
    ordered = [key for (key,) in shelves.execute("SELECT key FROM shelf ORDER BY key")]
    assert ordered == ["Z", "a", "b"]
    assert shelves.execute("UPDATE shelf SET size = 0 WHERE size > ?", (3,)).rowcount == 2


def test_the_clock_is_the_one_that_everybody_there_shares(place: Database, shelves: Connection) -> None:
    first = place.shared_time(shelves, time.time)
    assert first > 1_700_000_000
    assert place.shared_time(shelves, time.time) >= first


def test_a_file_is_seen_to_move_and_a_schema_says_so_itself(place: Database, shelves: Connection) -> None:
    before = place.file_fingerprint()
    with transaction(shelves):
        shelves.execute("UPDATE shelf SET size = 1")
    assert (place.file_fingerprint() != before) == isinstance(place, SqliteDatabase)


# --- damage, and what is none ---


def test_a_value_that_nobody_wrote_is_told_as_damage_of_the_place(
    place: Database, shelves: Connection
) -> None:
    def decode(connection: Connection) -> int:
        ((text,),) = connection.execute("SELECT \"user\" FROM shelf WHERE key = 'b'").fetchall()
        with reject_corrupt_rows():
            return int(text)

    with pytest.raises(LedgerError, match=r"ledger .* is damaged"):
        place.read(OURS, decode)
    with pytest.raises(LedgerError, match=r"ledger .* is damaged"), place.translate_errors(OURS):
        decode(shelves)


# --- where a place is ---


def test_a_url_leads_to_its_place(tmp_path: Path) -> None:
    assert database_at("sqlite:///a/b.db", tmp_path) == SqliteDatabase(tmp_path / "a" / "b.db")
    assert database_at("sqlite:////srv/b.db", tmp_path) == SqliteDatabase(Path("/srv/b.db"))
    assert database_at("postgresql://u@h:1/d", tmp_path, "s") == PostgresDatabase(
        "postgresql://u@h:1/d", "", "s"
    )
    assert database_at("postgresql:///d?schema=x", tmp_path) == PostgresDatabase("postgresql:///d", "x")


def test_a_password_is_in_no_url_and_no_words(tmp_path: Path) -> None:
    place = database_at("postgresql://u:hush%40%25@h/d?schema=x", tmp_path)
    assert place == PostgresDatabase("postgresql://u@h/d", "x", "hush@%")
    assert database_at("postgresql://u:%40@h/d", tmp_path, "as%40is") == PostgresDatabase(
        "postgresql://u@h/d", "", "as%40is"
    )
    assert "hush" not in f"{place} {place!r}"
    assert str(place) == "postgresql://u@h/d?schema=x"


def test_a_file_of_somebody_else_is_told_with_what_the_system_says(memory_path: Path) -> None:
    place = SqliteDatabase(memory_path / "books.db")
    place.connect(OURS).close()
    place.path.chmod(0)
    memory_path.chmod(0o755)
    with _somebody_else():
        for opened in (lambda: place.connect(OURS), lambda: place.read(OURS, sizes)):
            with pytest.raises(LedgerError, match="cannot be opened: Permission denied") as caught:
                opened()
            assert caught.value.remedy == "Check the permissions of the file and of its folder."


@contextmanager
def _somebody_else() -> Iterator[None]:
    """Root may open what he likes."""
    if is_root := os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


# --- PostgreSQL's own troubles ---


def refused(place: Database) -> LedgerError:
    with pytest.raises(LedgerError) as caught:
        place.read(OURS, sizes)
    assert caught.value.remedy
    return caught.value


def test_whoever_is_not_let_in_is_told_why(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_server_or_a_database_that_is_not_there_is_told(postgres: PostgresServer) -> None:
    assert "has no database" in refused(PostgresDatabase(postgres.url(database="nowhere"))).sentence
    assert "knows no such user" in refused(PostgresDatabase(postgres.url(user="nobody"))).sentence
    assert "is not known" in refused(PostgresDatabase("postgresql://u@nowhere.invalid/d")).sentence
    for nowhere in ("postgresql://u@127.0.0.1:1/d", "postgresql:///d?host=/nowhere"):
        assert "cannot be reached: connection to" in refused(PostgresDatabase(nowhere)).sentence


def test_a_server_that_refuses_in_its_own_language_was_reached(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_database_that_cannot_hold_every_name_is_refused(postgres: PostgresServer) -> None:
    with closing(postgres.session()) as session:
        session.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' STRATEGY file_copy")
    found = refused(PostgresDatabase(postgres.url(database="latin")))
    assert "texts in LATIN1" in found.sentence
    assert "createdb --encoding=UTF8" in found.remedy


def test_a_standby_is_told_as_read_only(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it does not support what we ask for."""
    place = postgres.place()
    with closing(place.connect(OURS)) as connection:
        recovering = "DO $$ BEGIN RAISE EXCEPTION SQLSTATE '0A000'; END $$"
        monkeypatch.setattr("provisioner.storage.postgres_connection.BEGIN_WRITING", recovering)
        with pytest.raises(LedgerError, match="it is read-only") as caught:
            _write_a_fact(connection, place)
    assert caught.value.remedy == "Use the primary server."


def test_a_connection_that_should_be_safe_and_is_not_is_told(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "require")
    found = refused(PostgresDatabase(postgres.url()))
    assert "No safe connection" in found.sentence
    assert "PGSSLROOTCERT" in found.remedy


def test_no_password_is_said_in_clear(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 23: the server, or somebody who plays it, asks for just that."""
    from postgres_support import FRANK, PASSWORD

    monkeypatch.delenv("PGSSLMODE", raising=False)
    found = refused(PostgresDatabase(postgres.url(user=FRANK), "", PASSWORD))
    assert "asks for the password in clear" in found.sentence
    assert "PGSSLMODE=" in found.remedy


def test_texts_are_in_the_same_order_whatever_the_server_speaks(postgres: PostgresServer) -> None:
    place = postgres.place()
    with closing(place.connect(OURS)) as connection:
        found = connection.execute(
            "SELECT DISTINCT collation_name FROM information_schema.columns "
            "WHERE table_schema = ? AND data_type = 'text'",
            (place.schema,),
        ).fetchall()
    assert found == [("C",)]


def test_a_defect_of_the_program_is_not_told_as_damage(place: Database, shelves: Connection) -> None:
    def defective(connection: Connection) -> int:
        return int("no number")

    with pytest.raises(ValueError, match="no number"):
        place.read(OURS, defective)


def test_whoever_lacks_a_right_is_told_which(postgres: PostgresServer) -> None:
    place = postgres.place()
    stranger = PostgresDatabase(postgres.url(user="stranger"), place.schema)
    with pytest.raises(LedgerError, match="lacks a right there: permission denied for database"):
        stranger.connect(OURS)
    place.connect(OURS).close()
    assert "lacks a right there: permission denied" in refused(stranger).sentence
    with closing(postgres.session()) as session:
        session.execute(f"GRANT USAGE ON SCHEMA {place.schema} TO stranger")
        session.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {place.schema} TO stranger")
    assert stranger.read(OURS, sizes) == {}
    with closing(stranger.connect(OURS)) as connection, pytest.raises(LedgerError, match="lacks a right"):
        _write_a_fact(connection, stranger)


def test_a_schema_that_was_given_needs_no_right_to_make_one(postgres: PostgresServer) -> None:
    place = postgres.place()
    with closing(postgres.session()) as session:
        session.execute(f"CREATE SCHEMA {place.schema} AUTHORIZATION stranger")
    PostgresDatabase(postgres.url(user="stranger"), place.schema).connect(OURS).close()
    assert place.read(OURS, sizes) == {}


def test_without_the_extra_there_is_a_sentence(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    for module in ("postgres_errors", "postgres_connection"):
        monkeypatch.delitem(sys.modules, f"provisioner.storage.{module}", raising=False)
    with pytest.raises(LedgerError, match="needs a part of this program") as caught:
        postgres.place().read(OURS, sizes)
    assert "[postgres]" in caught.value.remedy


def test_a_connection_lost_between_transactions_is_made_anew(postgres: PostgresServer) -> None:
    with closing(postgres.place().connect(OURS)) as connection:
        for statement in ("SELECT 1", "BEGIN", "BEGIN IMMEDIATE"):
            _cut_off(postgres)
            connection.execute(statement)
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def test_a_connection_lost_within_a_transaction_is_told_and_nothing_is_done_twice(
    postgres: PostgresServer,
) -> None:
    place = postgres.place()

    def write(name: str, cut_before: str) -> None:
        with place.translate_errors(OURS):
            for statement in ("BEGIN IMMEDIATE", f"INSERT INTO fact VALUES ('{name}', '')", "COMMIT"):
                if statement.startswith(cut_before):
                    _cut_off(postgres)
                connection.execute(statement)

    with closing(place.connect(OURS)) as connection:
        for number, statement in enumerate(("INSERT", "COMMIT")):
            with pytest.raises(LedgerError, match="was lost"):
                write(str(number), statement)
        write("2", "BEGIN")
    facts = place.read(OURS, lambda opened: dict(opened.execute("SELECT * FROM fact")))
    assert facts is not None
    assert facts.keys() - {"application", "layout", "tables"} == {"2"}


def test_a_server_that_died_is_told_and_forgiven_once_it_is_back(postgres: PostgresServer) -> None:
    place = postgres.place()
    with closing(place.connect(OURS)) as connection:
        with transaction(connection):
            connection.execute("INSERT INTO fact VALUES ('a', 'b')")
        postgres.kill()
        try:
            with (
                pytest.raises(LedgerError, match=r"cannot be reached|was lost"),
                place.translate_errors(OURS),
            ):
                connection.execute("BEGIN IMMEDIATE")
        finally:
            postgres.start()
        with place.translate_errors(OURS):
            assert connection.execute("SELECT value FROM fact WHERE name = 'a'").fetchone() == ("b",)


def test_whoever_waits_too_long_for_another_writer_is_told(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = postgres.place()
    with closing(place.connect(OURS)) as first, closing(place.reopen(OURS)) as second:
        second.execute("SET lock_timeout = '10ms'")
        with transaction(first), pytest.raises(LedgerError, match="is busy"):
            _write_a_fact(second, place)
        # and is in the middle of nothing
        _write_a_fact(second, place)


def test_whoever_waited_to_write_sees_what_was_written_meanwhile(postgres: PostgresServer) -> None:
    """Row 8: also where the server would usually show him what was there before he waited."""
    place = postgres.place()
    seen: list[dict[str, str]] = []

    def look() -> None:
        with transaction(second):
            seen.append(dict(second.execute("SELECT * FROM fact")))

    with closing(place.connect(OURS)) as first, closing(place.reopen(OURS)) as second:
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


def _write_a_fact(connection: Connection, place: Database) -> None:
    with place.translate_errors(OURS), transaction(connection):
        connection.execute("INSERT INTO fact VALUES ('a', 'b')")


def _cut_off(server: PostgresServer) -> None:
    with closing(server.session()) as session:
        session.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'provisioner'"
        )
