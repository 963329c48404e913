"""Databases from versions before the first release are refused, whatever the number of their layout."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from shell_support import tables

from provisioner.embedded.tables import PORTAL_SCHEMA
from provisioner.errors import ProvisionerError
from provisioner.ledger.store import LEDGER_SCHEMA
from provisioner.storage.schema import DatabaseSchema

if TYPE_CHECKING:
    from postgres_support import PostgresServer
    from shell_support import Shell

LEDGER_1 = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE lock (
    one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, owner TEXT NOT NULL, host TEXT NOT NULL,
    pid INTEGER NOT NULL, born TEXT NOT NULL, command TEXT NOT NULL, since TEXT NOT NULL);
CREATE TABLE run (
    id INTEGER PRIMARY KEY, owner TEXT NOT NULL, command TEXT NOT NULL, digest TEXT NOT NULL,
    began TEXT NOT NULL, ended TEXT, outcome TEXT NOT NULL DEFAULT '');
CREATE TABLE managed (
    id TEXT PRIMARY KEY, user TEXT NOT NULL UNIQUE, email TEXT, phone TEXT, created INTEGER NOT NULL);
INSERT INTO fact VALUES ('portal', 'p'), ('stamp', 's');
INSERT INTO managed VALUES ('7', 'zoe@example.fr', 'zoe@example.fr', '', 1);
PRAGMA application_id = 1886538853;
PRAGMA user_version = 1
"""
LEDGER_2 = f"""{LEDGER_SCHEMA.tables};
INSERT INTO fact VALUES ('id', '0123456789abcdef0123456789abcdef');
PRAGMA application_id = 1886538853;
PRAGMA user_version = 2
"""
PORTAL_1 = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE term (kind TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, value));
CREATE TABLE company (
    number TEXT PRIMARY KEY, name TEXT NOT NULL, siren TEXT,
    mode TEXT CHECK (mode IN ('client', 'firm')), offer TEXT, billing_ends TEXT,
    version INTEGER NOT NULL, CHECK ((mode IS NULL) = (offer IS NULL)));
CREATE TABLE receipt (key TEXT PRIMARY KEY, id TEXT NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO fact VALUES ('id', 'p');
PRAGMA application_id = 1886548084;
PRAGMA user_version = 1
"""
PORTAL_2 = f"""{PORTAL_SCHEMA.tables}
INSERT INTO fact VALUES ('id', 'p'), ('counter', '0');
PRAGMA application_id = 1886548084;
PRAGMA user_version = 2
"""


@pytest.mark.parametrize(
    ("file", "script"),
    [
        ("ledger.db", LEDGER_1), ("ledger.db", LEDGER_2), ("portal.db", PORTAL_1), ("portal.db", PORTAL_2),
    ],
    ids=["ledger-1", "ledger-2", "portal-1", "portal-2"],
)  # fmt: skip
def test_a_file_of_an_unreleased_layout_is_refused_and_left_as_it_is(
    file: str, script: str, shell: Shell
) -> None:
    path = shell.folder / file
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    held, content = tables(path), path.read_bytes()
    for command in (["plan"], ["apply", "--auto-approve"]):
        said = shell(*command)
        assert said.code == 1
        assert f"The {file[:6]} {path} was made by an unreleased version of this program" in said.err
        assert "remove it, then run the same command again" in said.err
        if command == ["plan"]:
            assert path.read_bytes() == content
    assert tables(path) == held


@pytest.mark.parametrize("schema", [LEDGER_SCHEMA, PORTAL_SCHEMA], ids=["ledger", "portal"])
@pytest.mark.parametrize("layout", ["1", "2"])
def test_a_server_schema_of_an_unreleased_layout_is_refused(
    schema: DatabaseSchema, layout: str, postgres: PostgresServer
) -> None:
    database = postgres.place()
    with closing(postgres.session()) as session:
        session.execute(f"CREATE SCHEMA {database.schema}")
        session.execute(f"CREATE TABLE {database.schema}.fact (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        session.execute(
            f"INSERT INTO {database.schema}.fact VALUES "
            f"('application', '{schema.noun} {schema.application_id:08x}'), ('layout', '{layout}')"
        )
    for opened in (lambda: database.connect(schema), lambda: database.read(schema, lambda _: None)):
        with pytest.raises(ProvisionerError, match="was made by an unreleased version") as caught:
            opened()
        assert "remove it" in caught.value.remedy
