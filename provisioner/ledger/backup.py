"""The changes to a backup of the ledger, and the data of the ledger that the portal's backup needs."""

from __future__ import annotations

from typing import NamedTuple

from provisioner.ledger.outbox import OutboxState
from provisioner.ledger.store import read_fact
from provisioner.planning.steps import CreateUser, ValidateUser
from provisioner.storage.database import Connection

BACKUP = "backup"
"""The name of the fact that holds the time of the backup. The end of a run deletes this fact."""


class OpenWork(NamedTuple):
    """The letters and steps of a ledger that a run may still complete after the backup."""

    ledger: str
    portal: str
    letters: list[str]
    """The keys of the letters that may be sent after the backup."""
    steps: list[str]
    """The keys of the steps that can cause a letter and whose outcome is not recorded yet."""


def open_work(connection: Connection) -> OpenWork:
    """Return the letters and steps that a run may still complete after the backup."""
    in_delivery = (OutboxState.OWED, OutboxState.CONNECTING, OutboxState.BODY)
    letters = connection.execute("SELECT key FROM outbox WHERE state IN (?, ?, ?)", in_delivery)
    steps = connection.execute(
        "SELECT key FROM journal WHERE settled IS NULL AND action IN (?, ?)",
        (CreateUser.__name__, ValidateUser.__name__),
    )
    return OpenWork(
        read_fact(connection, "id"),
        read_fact(connection, "portal"),
        [key for (key,) in letters],
        [key for (key,) in steps],
    )


def mark_backup(connection: Connection, when: str) -> None:
    """Store the time of the backup in the copy, and delete the copy's lock, because no run uses the copy."""
    connection.execute("DELETE FROM lock")
    connection.execute(
        "INSERT INTO fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (BACKUP, when),
    )
