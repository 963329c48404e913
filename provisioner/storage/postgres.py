"""Databases on a PostgreSQL server. Each database is stored in its own PostgreSQL schema.

A writer first locks the whole schema. Only one writer writes at a time, as with SQLite. This module imports
psycopg only when a database is opened, because psycopg is an optional dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlsplit

from typing_extensions import override

from provisioner.errors import install_hint
from provisioner.storage.database import Connection, CorruptValue, Database
from provisioner.storage.schema import FINGERPRINT, DatabaseSchema, statements

if TYPE_CHECKING:
    from provisioner.storage.postgres_connection import PostgresConnection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PostgresDatabase(Database):
    """A database in a schema on a PostgreSQL server."""

    url: str
    """The url without schema and password: ``postgresql://USER@HOST/DATABASE``."""
    schema: str = ""
    """The name of the PostgreSQL schema; if it is empty, :meth:`schema_name` returns a default name."""
    secret: str = field(default="", repr=False)
    """The password. If it is empty, libpq uses its usual sources (PGPASSWORD, ~/.pgpass)."""

    def __str__(self) -> str:
        return f"{self.url}?schema={self.schema}" if self.schema else self.url

    @override
    @classmethod
    def from_url(cls, url: str, root: Path, secret: str) -> PostgresDatabase:
        parts = urlsplit(url)
        user, _, server = parts.netloc.rpartition("@")
        name, _, password = user.partition(":")
        (schema,) = parse_qs(parts.query).get("schema", [""])
        bare = parts._replace(netloc=f"{name}@{server}" if name else server, query="", fragment="")
        # the url keeps its two slashes also if the host is empty, which means this machine
        return cls(f"postgresql://{bare.netloc}{bare.path}", schema, secret or unquote(password))

    def schema_name(self, schema: DatabaseSchema) -> str:
        """Return the PostgreSQL schema's name: ``self.schema`` or, if that is empty, the default name."""
        return self.schema or f"provisioner_{schema.noun}"

    @override
    def _open(self, schema: DatabaseSchema, *, making: bool) -> PostgresConnection:
        from provisioner.storage.postgres_connection import PostgresConnection

        connection = PostgresConnection(self.url, self.schema_name(schema), self.secret)
        if (encoding := connection.other_encoding) is not None:
            connection.close()
            raise schema.error(
                f"The database of the {schema.noun} {self} holds texts in {encoding}, which cannot write "
                "every name.",
                "Have one made that holds any: createdb --encoding=UTF8 --template=template0 NAME",
            )
        return connection

    @override
    def reopen(self, schema: DatabaseSchema) -> PostgresConnection:
        with self.translate_errors(schema):
            return self._open(schema, making=False)

    @override
    def read(self, schema: DatabaseSchema, reader: Callable[[Connection], T]) -> T | None:
        with self.translate_errors(schema), closing(self._open(schema, making=False)) as connection:
            connection.execute("BEGIN")
            return reader(connection) if self.has_tables(connection, schema) else None

    @override
    def pinned(self, schema: DatabaseSchema) -> AbstractContextManager[Callable[[Path], None]]:
        raise schema.error(
            f"The {schema.noun} {self} is in PostgreSQL, which has its own tools for backups.",
            f"Use {self.dump_command(schema)} while no run is at work (provisioner lock). "
            "If portal and ledger are in one database, dump both schemas with one pg_dump; "
            "otherwise dump the portal first, then the ledger.",
        )

    @override
    def dump_command(self, schema: DatabaseSchema) -> str:
        return f"pg_dump --schema={self.schema_name(schema)}"

    @override
    @contextmanager
    def translate_errors(self, schema: DatabaseSchema) -> Iterator[None]:
        try:
            import psycopg

            from provisioner.storage.postgres_errors import cause_of, sentence_of
        except ImportError as problem:
            raise schema.error(
                f"A {schema.noun} on PostgreSQL needs a part of this program that is not installed "
                f"({problem.name or 'psycopg'}).",
                install_hint("postgres"),
            ) from problem
        try:
            yield
        except CorruptValue as problem:
            raise schema.damaged(self) from problem
        except psycopg.Error as problem:
            raise sentence_of(problem, schema, self, self.schema_name(schema)) from cause_of(problem)

    @override
    def shared_time(self, connection: Connection, local: Callable[[], float]) -> float:
        (seconds,) = connection.execute(
            "SELECT CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"
        ).fetchone()
        return float(seconds)

    @override
    def session_of(self, connection: Connection) -> tuple[int, str]:
        return cast("PostgresConnection", connection).session()

    @override
    def has_session(self, connection: Connection, pid: int, began: str) -> bool:
        row = connection.execute(
            "SELECT CAST(extract(epoch FROM backend_start) AS TEXT) FROM pg_stat_activity WHERE pid = ?",
            (pid,),
        ).fetchone()
        # the server shows only the process IDs of other users' sessions, without their start times
        return row is not None and row[0] in (None, began)

    @override
    def is_cut_off(self, connection: Connection) -> bool:
        return cast("PostgresConnection", connection).is_cut_off()

    @override
    def layout(self, connection: Connection, schema: DatabaseSchema) -> int | None:
        name = self.schema_name(schema)
        tables = {
            table
            for (table,) in connection.execute(
                "SELECT relname FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid "
                "WHERE nspname = ? AND relkind IN ('r', 'p', 'v', 'm', 'f')",
                (name,),
            )
        }
        if not tables:
            return None
        facts: dict[str, str] = {}
        if "fact" in tables:
            facts = dict(
                # with the schema's name, because a schema without access rights would seem to lack this table
                connection.execute(
                    f"SELECT name, value FROM \"{name}\".fact WHERE name IN ('application', 'layout', ?)",
                    (FINGERPRINT,),
                )
            )
        if facts.get("application") != _application(schema):
            raise schema.error(
                f"The schema {name} of {self} holds something else, and no {schema.noun}.",
                f"Give the {schema.noun} a schema of its own: ?schema=NAME at the end of its url.",
            )
        written = facts.get("layout", "")
        if not written.isascii() or not written.isdigit():
            raise schema.damaged(self)
        schema.require_readable(self, int(written), facts.get(FINGERPRINT))
        return int(written)

    @override
    def define(self, connection: Connection, schema: DatabaseSchema, script: str) -> None:
        from provisioner.storage.postgres_connection import in_postgres_types

        name = self.schema_name(schema)
        there = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = ?", (name,)).fetchone()
        if there is None:
            # only if it is missing: a user that may write may lack the right to create schemas
            connection.execute(f'CREATE SCHEMA "{name}"')
        for statement in statements(script):
            connection.execute(in_postgres_types(statement))
        connection.executemany(
            "INSERT INTO fact (name, value) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [("application", _application(schema)), ("layout", str(schema.version))],
        )


def _application(schema: DatabaseSchema) -> str:
    return f"{schema.noun} {schema.application_id:08x}"
