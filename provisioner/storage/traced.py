"""SQL statements in the trace: the text of the statement without its values, and the number of rows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

from typing_extensions import override

from provisioner.diagnostics import count_of
from provisioner.trace import Exchange, exchange

MAX_STATEMENT = 300
"""The maximum number of characters of a statement in the trace."""

_PLACEHOLDERS = re.compile(r"\?(?:, ?\?)+")


def traced_statement(place: str, statement: str) -> AbstractContextManager[Exchange]:
    """Return a context manager that records a statement. ``place`` names the database, such as ``ledger``.

    All values travel as parameters, so the text of a statement has no secret and no personal data.
    """
    return exchange("sql", f"{place}: {_shortened(statement)}")


@lru_cache(maxsize=512)
def _shortened(statement: str) -> str:
    text = _PLACEHOLDERS.sub("?, …", " ".join(statement.split()))
    return text if len(text) <= MAX_STATEMENT else f"{text[:MAX_STATEMENT]}…"


def rows_in_words(number: int) -> str:
    """Return a form such as ``3 rows``; "" for a negative number, which means no rows read or written."""
    return "" if number < 0 else count_of(number, "row")


class TracedConnection(sqlite3.Connection):
    """A connection to an SQLite file that records each statement in the trace."""

    place = ""
    """The database's name in the trace."""

    @override
    def execute(self, statement: str, values: Any = (), /) -> TracedCursor:
        with traced_statement(self.place, statement) as done:
            cursor = self.cursor(TracedCursor)
            done.size = rows_in_words(cursor.run(statement, values))
        return cursor

    @override
    def executemany(self, statement: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        with traced_statement(self.place, statement) as done:
            cursor = super().executemany(statement, rows)
            done.size = rows_in_words(cursor.rowcount)
        return cursor


class TracedCursor(sqlite3.Cursor):
    """A cursor that reads all rows at once, so that the trace has their number and the time to read them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._rows: Iterator[Any] = iter(())

    def run(self, statement: str, values: Sequence[Any]) -> int:
        """Run the statement. Return the number of rows that it reads or writes, or -1 if it does neither."""
        super().execute(statement, values)
        if self.description is None:
            return self.rowcount
        rows = super().fetchall()
        self._rows = iter(rows)
        return len(rows)

    @override
    def fetchone(self) -> Any:
        return next(self._rows, None)

    @override
    def fetchall(self) -> list[Any]:
        return list(self._rows)

    @override
    def __next__(self) -> Any:
        return next(self._rows)
