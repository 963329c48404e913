"""Tables of ours on a PostgreSQL server, in a schema of their own.

The statements are those of SQLite; the few words that differ are translated here. Writers take one lock for
the whole schema first, so that one writes at a time, as on SQLite. A connection that was lost between two
transactions is made anew; one that was lost within a transaction is told, since nobody knows how a commit
ended whose answer never came.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.pq import TransactionStatus

from provisioner.errors import UPGRADE_HINT, ProvisionerError
from provisioner.storage.schema import (
    Connection,
    CorruptValue,
    DatabaseSchema,
    PostgresSchema,
    statements,
    transaction,
)

CONNECT_SECONDS = 10
"""How long a server may take to let us in."""

STATEMENT_SECONDS = 120
"""How long one statement may take."""

LOCK_SECONDS = 30
"""How long a writer waits for another one to finish its transaction."""

IDLE_SECONDS = 20
"""How long a transaction may stand still; less than others wait, so that a program that was stopped in the
middle of one does not hold up everybody."""

READER_SECONDS = 900
"""The same for a transaction that only reads."""

SAFE_MODES = ("require", "verify-ca", "verify-full")
"""Under these PGSSLMODEs nothing is said in clear."""

SETTINGS = f"""
SET statement_timeout = '{STATEMENT_SECONDS}s';
SET lock_timeout = '{LOCK_SECONDS}s';
SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s';
SET client_min_messages = 'error';
SET standard_conforming_strings = on;
SELECT set_config('idle_session_timeout', '0', false)
    WHERE current_setting('idle_session_timeout', true) IS NOT NULL;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
"""Whatever the server's usual promise: a commit that returned has reached the disk, and between transactions
a portal or a mail server may take its time. Older servers know no idle sessions."""

UNREACHED = (
    # what the server or the library says before anybody is let in: sentence, remedy
    (
        r"authentication method requirement",
        "The server of the {noun} {place} asks for the password in clear, and the connection may be open.",
        "Ask for a safe connection: PGSSLMODE=verify-full (or require)",
    ),
    (
        r"password authentication failed|no password supplied|authentication failed",
        "The {noun}'s server refuses the password of {place}.",
        "Check the user, and the password: {secret}.",
    ),
    (r"role .* does not exist", "The server of {place} knows no such user.", "Check the {noun}'s url."),
    (
        r"database .* does not exist",
        "The server has no database for the {noun} {place}.",
        "Check the {noun}'s url, or have the database made: createdb NAME",
    ),
    (
        r"no pg_hba\.conf entry|permission denied for database",
        "The server does not let this user in to the {noun} {place}.",
        "Ask whoever looks after the server.",
    ),
    (
        r"certificate|SSL|TLS",
        "No safe connection to the {noun} {place}: {words}.",
        "Check the certificates (PGSSLROOTCERT, PGSSLMODE).",
    ),
    (
        r"could not translate host name|Name or service not known|resolve",
        "The host of the {noun} {place} is not known.",
        "Check the {noun}'s url.",
    ),
    (
        r"too many clients|remaining connection slots",
        "The server of the {noun} {place} has no connection left.",
        "Try again in a moment.",
    ),
    (r"starting up|shutting down|recovery mode", "The server of the {noun} {place} is starting or stopping.",
     "Try again in a moment."),
)  # fmt: skip

REFUSED = (
    "The server of the {noun} {place} refuses the connection: {words}.",
    "Check the user, the database and the password ({secret}), or try again in a moment.",
)
CANNOT_BE_REACHED = (
    "The server of the {noun} {place} cannot be reached: {words}.",
    "Check that it runs and that its host and port are right, then run the same command again.",
)
LOST = (
    "The connection to the {noun} {place} was lost.",
    "Run the same command again: what is done is kept, what is not is taken up.",
)
CANNOT_BE_USED = (
    "The {noun} {place} cannot be used: {words}.",
    "Check the database, or restore a backup.",
)

SENTENCES = {
    # by the beginning of SQLSTATE
    "42501": (
        "The user of the {noun} {place} lacks a right there: {words}.",
        "Have the schema {schema} given to him, or CREATE on the database for the first run.",
    ),
    "25006": ("The {noun} {place} cannot be written: it is read-only.", "Use the primary server."),
    "55P03": ("The {noun} {place} is busy: another program writes to it.", "Try again in a moment."),
    "57014": (
        "The {noun} {place} took longer than {statement} seconds for one statement.",
        "Try again in a moment, or ask whoever looks after the server.",
    ),
    "40": ("The {noun} {place} is busy: another program writes to it.", "Try again in a moment."),
    "53100": (
        "The disk is full: the {noun} {place} could not be written.",
        "Free some space on the server, then run the same command again.",
    ),
    "53": ("The server of the {noun} {place} is overloaded: {words}.", "Try again in a moment."),
    "58": ("Reading or writing the {noun} {place} failed on the server's disk.", "Check the server."),
    "XX": ("The {noun} {place} is damaged: {words}.", "Restore it from a backup."),
    "42P01": ("The {noun} {place} is damaged: {words}.", "Restore it from a backup."),
    "42703": ("The {noun} {place} is damaged: {words}.", "Restore it from a backup."),
}

AWAY = ("08", "57P")
"""How the SQLSTATE of a server begins that goes away, or is not there yet."""

_WORDS = (
    (re.compile(r"\bgroup_concat\(", re.IGNORECASE), "string_agg("),
    (re.compile(r"\bifnull\(", re.IGNORECASE), "coalesce("),
)
_TABLE_WORDS = (
    (re.compile(r"\bINTEGER PRIMARY KEY\b"), "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
    (re.compile(r"\bINTEGER\b"), "BIGINT"),
    # the same order everywhere, whatever the server's language
    (re.compile(r"\bTEXT\b"), 'TEXT COLLATE "C"'),
    (re.compile(r"\bWITHOUT ROWID\b"), ""),
)
_COUNTED = ("INSERT", "UPDATE", "DELETE")

BEGIN_WRITING = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
"""Whatever the server's usual level: on a higher one a writer would not see what happened while he waited."""

_CONNECTION = re.compile(r"^connection (failed|is bad): ")
"""What the library puts before the words of the one below it."""
_FATAL = "FATAL:"
"""Before the server's own words, where the connection ends with them."""

T = TypeVar("T")


class Unreached(psycopg.OperationalError):
    """There never was a connection: no server, or one that did not let us in."""


class PostgresConnection:
    """One connection that takes SQLite's statements. Not for two threads at once."""

    def __init__(self, place: PostgresSchema, identity: DatabaseSchema) -> None:
        self._place = place
        self._schema = place.schema_of(identity)
        self._lock = _lock_number(self._schema)
        self._changes = 0
        self._backend: tuple[int, str] | None = None
        self._wire = self._reach()
        # a pooler in between may not say
        encoding = self._wire.info.parameter_status("server_encoding")
        if encoding not in ("UTF8", None):
            self.close()
            raise identity.error(
                f"The database of the {identity.noun} {place} holds texts in {encoding}, which cannot write "
                "every name.",
                "Have one made that holds any: createdb --encoding=UTF8 --template=template0 NAME",
            )

    @property
    def total_changes(self) -> int:
        """See :class:`~provisioner.storage.schema.Connection`."""
        return self._changes

    @property
    def in_transaction(self) -> bool:
        """See :class:`~provisioner.storage.schema.Connection`."""
        return self._wire.info.transaction_status in (
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
            TransactionStatus.ACTIVE,
        )

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        """See :class:`~provisioner.storage.schema.Connection`."""
        if self.in_transaction:
            return self._run(statement, values)
        if self._wire.broken or self._wire.closed:
            self._wire = self._reach()
            return self._run(statement, values)
        try:
            return self._run(statement, values)
        except psycopg.OperationalError:
            if not self._wire.broken or not statement.startswith(("BEGIN", "SELECT")):
                raise
        # the server went away while nothing was begun, so nothing is lost
        self._wire = self._reach()
        return self._run(statement, values)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        """See :class:`~provisioner.storage.schema.Connection`."""
        listed = list(rows)
        if len(listed) == 1:
            self._run(statement, listed[0])
        elif listed:
            cursor = self._wire.cursor()
            cursor.executemany(_translated(statement), listed)
            self._count(statement, cursor.rowcount)
            # many are sent in one go, after which the server's watch over idle transactions stands still
            self._wire.execute("SELECT 1")

    def backend(self) -> tuple[int, str]:
        """See :func:`backend_of`; asked for once a connection."""
        if self._backend is None:
            row = self.execute(
                "SELECT pid, CAST(extract(epoch FROM backend_start) AS TEXT) FROM pg_stat_activity "
                "WHERE pid = pg_backend_pid()"
            ).fetchone()
            assert row is not None
            self._backend = (int(row[0]), str(row[1]))
        return self._backend

    def is_cut_off(self) -> bool:
        """See :func:`is_cut_off`."""
        try:
            self._wire.pgconn.consume_input()
        except psycopg.OperationalError:
            return True
        return False

    def close(self) -> None:
        """See :class:`~provisioner.storage.schema.Connection`."""
        with suppress(psycopg.Error):
            self._wire.close()

    def _run(self, statement: str, values: Sequence[Any]) -> psycopg.Cursor[Any]:
        if statement == "BEGIN IMMEDIATE":
            return self._begin_writing()
        if statement == "BEGIN":
            # whoever only reads holds up nobody, and may think for longer
            return self._wire.execute(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
                f"SET LOCAL idle_in_transaction_session_timeout = '{READER_SECONDS}s'"
            )
        cursor = self._wire.execute(_translated(statement), tuple(values))
        self._count(statement, cursor.rowcount)
        return cursor

    def _begin_writing(self) -> psycopg.Cursor[Any]:
        try:
            # in one go: whoever has the lock sees what the one before him wrote
            return self._wire.execute(f"{BEGIN_WRITING}; SELECT pg_advisory_xact_lock({self._lock})")
        except errors.FeatureNotSupported as problem:
            # what a standby does not support is a transaction that writes
            raise errors.ReadOnlySqlTransaction(str(problem)) from problem

    def _count(self, statement: str, rows: int) -> None:
        if rows > 0 and statement.startswith(_COUNTED):
            self._changes += rows

    def _reach(self) -> psycopg.Connection[Any]:
        words: dict[str, Any] = {"password": self._place.secret} if self._place.secret else {}
        if os.environ.get("PGSSLMODE") not in SAFE_MODES and "PGREQUIREAUTH" not in os.environ:
            # whoever stands in between can have the encryption left out, and then ask for the password
            words["require_auth"] = "!password"
        try:
            wire = psycopg.connect(
                self._place.url,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS,
                application_name="provisioner",
                client_encoding="utf8",
                # a machine that is gone without a word is noticed within a minute
                keepalives_idle=20,
                keepalives_interval=10,
                keepalives_count=3,
                tcp_user_timeout=60_000,
                **words,
            )
        except psycopg.OperationalError as problem:
            raise Unreached(str(problem)) from problem
        try:
            path = sql.SQL("SET search_path TO {}").format(sql.Identifier(self._schema)).as_string(wire)
            wire.execute(f"{path}; {SETTINGS}".encode())
        except BaseException:
            wire.close()
            raise
        self._backend = None
        return wire


def connect(
    place: PostgresSchema, identity: DatabaseSchema, found: Callable[[Connection], None] | None
) -> PostgresConnection:
    """See :func:`provisioner.storage.database.connect`."""
    with translate_errors(place, identity):
        connection = PostgresConnection(place, identity)
        try:
            # seen at one instant; whoever finds it as it is to be waits for no writer
            connection.execute("BEGIN")
            current = _layout(connection, place, identity) == identity.version
            connection.execute("ROLLBACK")
            if not current:
                with transaction(connection):
                    layout = _layout(connection, place, identity)
                    if layout is not None:
                        _migrate(connection, identity, layout)
                    elif found is None:
                        raise identity.error(
                            f"There is no {identity.noun} {place}.", f"Check the {identity.noun}'s url."
                        )
                    else:
                        _lay_out(connection, place, identity)
                        found(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def reopen(place: PostgresSchema, identity: DatabaseSchema) -> PostgresConnection:
    """See :func:`provisioner.storage.database.reopen`."""
    with translate_errors(place, identity):
        return PostgresConnection(place, identity)


def read(place: PostgresSchema, identity: DatabaseSchema, reader: Callable[[Connection], T]) -> T | None:
    """See :func:`provisioner.storage.database.read`."""
    with translate_errors(place, identity):
        connection = PostgresConnection(place, identity)
        try:
            connection.execute("BEGIN")
            layout = _layout(connection, place, identity)
            if layout is None:
                return None
            if layout < identity.version:
                raise identity.error(
                    f"The {identity.noun} {place} was written by an older version of this program.",
                    "Whoever writes to it next brings it up to date: provisioner apply",
                )
            return reader(connection)
        finally:
            connection.close()


@contextmanager
def translate_errors(place: PostgresSchema, identity: DatabaseSchema) -> Iterator[None]:
    """See :func:`provisioner.storage.database.translate_errors`."""
    try:
        yield
    except CorruptValue as problem:
        raise _damaged(place, identity) from problem
    except psycopg.Error as problem:
        raise _sentence(place, identity, problem) from problem


def is_busy(problem: BaseException | None) -> bool:
    """See :func:`provisioner.storage.sqlite.is_busy`."""
    return isinstance(problem, errors.LockNotAvailable)


def is_unreachable(problem: BaseException | None) -> bool:
    """See :func:`provisioner.storage.database.is_unreachable`."""
    return isinstance(problem, errors.IdleInTransactionSessionTimeout) or (
        isinstance(problem, psycopg.OperationalError)
        and (problem.sqlstate is None or problem.sqlstate.startswith(AWAY))
    )


def is_cut_off(connection: Connection) -> bool:
    """The server has hung up. Asks it nothing."""
    assert isinstance(connection, PostgresConnection)
    return connection.is_cut_off()


def backend_of(connection: Connection) -> tuple[int, str]:
    """Who serves this connection: the process on the server, and when it began."""
    assert isinstance(connection, PostgresConnection)
    return connection.backend()


def is_served(connection: Connection, pid: int, began: str) -> bool:
    """The server still has that connection: its program has not gone, or the server has not noticed yet."""
    row = connection.execute(
        "SELECT CAST(extract(epoch FROM backend_start) AS TEXT) FROM pg_stat_activity WHERE pid = ?", (pid,)
    ).fetchone()
    # of another user's connections only their numbers are shown
    return row is not None and row[0] in (None, began)


@lru_cache(maxsize=512)
def _translated(statement: str) -> str:
    for pattern, word in _WORDS:
        statement = pattern.sub(word, statement)
    return statement.replace("%", "%%").replace("?", "%s")


def _in_our_words(statement: str) -> str:
    """A statement that lays out tables, in the server's types."""
    for pattern, word in _TABLE_WORDS:
        statement = pattern.sub(word, statement)
    return statement


def _lock_number(schema: str) -> int:
    """The number of the lock that whoever writes to this schema takes."""
    digest = hashlib.sha256(f"provisioner {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _layout(connection: PostgresConnection, place: PostgresSchema, identity: DatabaseSchema) -> int | None:
    """Which layout is there; None where nothing is. What is not ours, or newer, is refused."""
    schema = place.schema_of(identity)
    tables = {
        name
        for (name,) in connection.execute(
            "SELECT relname FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid "
            "WHERE nspname = ? AND relkind IN ('r', 'p', 'v', 'm', 'f')",
            (schema,),
        )
    }
    if not tables:
        return None
    facts: dict[str, str] = {}
    if "fact" in tables:
        facts = dict(
            # named in full: a schema that may not be used would pass for one without this table
            connection.execute(
                f"SELECT name, value FROM \"{schema}\".fact WHERE name IN ('application', 'layout')"
            )
        )
    if facts.get("application") != _application(identity):
        raise identity.error(
            f"The schema {schema} of {place} holds something else, and no {identity.noun}.",
            f"Give the {identity.noun} a schema of its own: ?schema=NAME at the end of its url.",
        )
    written = facts.get("layout", "")
    if not written.isascii() or not written.isdigit():
        raise _damaged(place, identity)
    layout = int(written)
    if layout > identity.version:
        raise identity.error(
            f"The {identity.noun} {place} was written by a newer version of this program.",
            UPGRADE_HINT,
        )
    return layout


def _application(identity: DatabaseSchema) -> str:
    return f"{identity.noun} {identity.application_id:08x}"


def _lay_out(connection: PostgresConnection, place: PostgresSchema, identity: DatabaseSchema) -> None:
    schema = place.schema_of(identity)
    there = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = ?", (schema,)).fetchone()
    if there is None:
        # asked for only where it is needed: whoever may write need not have the right to make schemas
        connection.execute(f'CREATE SCHEMA "{schema}"')
    for statement in statements(identity.schema):
        connection.execute(_in_our_words(statement))
    connection.executemany(
        "INSERT INTO fact VALUES (?, ?)",
        [("application", _application(identity)), ("layout", str(identity.version))],
    )


def _migrate(connection: PostgresConnection, identity: DatabaseSchema, layout: int) -> None:
    if layout == identity.version:
        return
    for script in identity.migrations[layout - 1 :]:
        for statement in statements(script):
            connection.execute(_in_our_words(statement))
    connection.execute("UPDATE fact SET value = ? WHERE name = 'layout'", (str(identity.version),))


def _damaged(place: PostgresSchema, identity: DatabaseSchema) -> ProvisionerError:
    return identity.error(f"The {identity.noun} {place} is damaged.", "Restore it from a backup.")


def _sentence(place: PostgresSchema, identity: DatabaseSchema, problem: psycopg.Error) -> ProvisionerError:
    said = [line.strip() for line in str(problem).splitlines() if line.strip()]
    words = {
        "noun": identity.noun,
        "place": place,
        "schema": place.schema_of(identity),
        "statement": STATEMENT_SECONDS,
        "secret": f"secret_env: or secret_file: under {identity.noun}:, "
        f"PROVISIONER_{identity.noun.upper()}_SECRET, PGPASSWORD or ~/.pgpass",
        "words": _words_of(said) or type(problem).__name__,
    }
    sentence, remedy = _unreached(said) if isinstance(problem, Unreached) else _failed(problem)
    return identity.error(sentence.format(**words), remedy.format(**words))


def _words_of(said: Sequence[str]) -> str:
    """What the server said; or else the library, of the first address that it tried."""
    told = [line.partition(_FATAL)[2].strip() for line in said if _FATAL in line] or said
    return _CONNECTION.sub("", told[0]).rstrip(".") if told else ""


def _unreached(said: Sequence[str]) -> tuple[str, str]:
    for pattern, sentence, remedy in UNREACHED:
        if any(re.search(pattern, line) for line in said):
            return sentence, remedy
    # it answered, in a language of its own
    return REFUSED if any(_FATAL in line for line in said) else CANNOT_BE_REACHED


def _failed(problem: psycopg.Error) -> tuple[str, str]:
    if is_unreachable(problem):
        return LOST
    state = problem.sqlstate or ""
    found = (told_as for beginning, told_as in SENTENCES.items() if state.startswith(beginning))
    return next(found, CANNOT_BE_USED)
