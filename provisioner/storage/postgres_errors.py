"""The translation of PostgreSQL's errors into sentences for users and exceptions that callers handle."""

from __future__ import annotations

import re
from collections.abc import Sequence

import psycopg
from psycopg import errors

from provisioner.errors import ProvisionerError
from provisioner.storage.database import Busy, Unreachable
from provisioner.storage.postgres_connection import STATEMENT_SECONDS, NotConnected
from provisioner.storage.schema import DatabaseSchema

NOT_CONNECTED = (
    # a pattern for the error text of a refused connection, the sentence for users, and the remedy
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
        r"certificate|SSL|TLS",
        "No safe connection to the {noun} {place}: {words}.",
        "Check the certificates (PGSSLROOTCERT, PGSSLMODE).",
    ),
    (
        r"could not translate host name|Name or service not known|resolve",
        "The host of the {noun} {place} is not known.",
        "Check the {noun}'s url.",
    ),
)

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
    # sentence and remedy, by the prefix of the SQLSTATE
    "42501": (
        "The user of the {noun} {place} lacks a right there: {words}.",
        "Have the schema {schema} given to that user, or CREATE on the database for the first run.",
    ),
    "25006": ("The {noun} {place} cannot be written: it is read-only.", "Use the primary server."),
    "55P03": ("The {noun} {place} is busy: another program writes to it.", "Try again in a moment."),
    "57014": (
        "The {noun} {place} took longer than {statement} seconds for one statement.",
        "Try again in a moment, or ask whoever looks after the server.",
    ),
    "53100": (
        "The disk is full: the {noun} {place} could not be written.",
        "Free some space on the server, then run the same command again.",
    ),
}

AWAY = ("08", "57P")
"""The prefixes of the SQLSTATEs for a lost connection and for a server that starts up or shuts down."""

_CONNECTION = re.compile(r"^connection (failed|is bad): ")
_FATAL = "FATAL:"


def cause_of(problem: psycopg.Error) -> Exception:
    """Return ``problem`` as :class:`Busy` or :class:`Unreachable`; if neither applies, unchanged."""
    cause: Exception
    if isinstance(problem, errors.LockNotAvailable):
        cause = Busy(str(problem))
    elif _is_unreachable(problem):
        cause = Unreachable(str(problem))
    else:
        return problem
    cause.__cause__ = problem
    return cause


def sentence_of(
    problem: psycopg.Error, schema: DatabaseSchema, name: object, schema_name: str
) -> ProvisionerError:
    """Return the exception of the class ``schema.error`` for ``problem``, with a sentence and a remedy.
    ``name`` and ``schema_name`` are the names of the database and of its PostgreSQL schema.
    """
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    words = {
        "noun": schema.noun,
        "place": name,
        "schema": schema_name,
        "statement": STATEMENT_SECONDS,
        "secret": f"secret_env: or secret_file: under {schema.noun}:, "
        f"PROVISIONER_{schema.noun.upper()}_SECRET, PGPASSWORD or ~/.pgpass",
        "words": _words_of(lines) or type(problem).__name__,
    }
    sentence, remedy = _not_connected(lines) if isinstance(problem, NotConnected) else _failed(problem)
    return schema.error(sentence.format(**words), remedy.format(**words))


def _is_unreachable(problem: psycopg.Error) -> bool:
    return isinstance(problem, errors.IdleInTransactionSessionTimeout) or (
        isinstance(problem, psycopg.OperationalError)
        and (problem.sqlstate is None or problem.sqlstate.startswith(AWAY))
    )


def _words_of(lines: Sequence[str]) -> str:
    found = [line.partition(_FATAL)[2].strip() for line in lines if _FATAL in line] or lines
    return _CONNECTION.sub("", found[0]).rstrip(".") if found else ""


def _not_connected(lines: Sequence[str]) -> tuple[str, str]:
    for pattern, sentence, remedy in NOT_CONNECTED:
        if any(re.search(pattern, line) for line in lines):
            return sentence, remedy
    # FATAL means that a server answered, perhaps in a language other than English
    return REFUSED if any(_FATAL in line for line in lines) else CANNOT_BE_REACHED


def _failed(problem: psycopg.Error) -> tuple[str, str]:
    if _is_unreachable(problem):
        return LOST
    state = problem.sqlstate or ""
    found = (sentences for beginning, sentences in SENTENCES.items() if state.startswith(beginning))
    return next(found, CANNOT_BE_USED)
