"""Backups of a ledger and a portal in SQLite files. Runs can continue during a backup.

The two copies show the same instant, because no run can write to the ledger while the contents of both
databases are pinned. So they look like the databases of a run that was killed at that instant: the ledger
contains each step before the portal does, and each step that it records as applied is on the portal.

But a run can continue after the backup, and send letters that are still owed in the backup. Therefore, in the
copy of the portal, these letters are claimed by a run that does not exist. If both copies are restored, the
ledger finds these claims and parks the letters instead of sending them a second time. If only the ledger is
restored, it finds the claims of the original portal, which name the runs that really sent the letters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from provisioner.embedded.backup import accounts_to_welcome, claim_in_backup, has_links
from provisioner.embedded.tables import PORTAL_SCHEMA
from provisioner.errors import LedgerError, ProvisionerError, WorkspaceError
from provisioner.ledger.backup import OpenWork, mark_backup, open_work
from provisioner.ledger.outbox import letter_key
from provisioner.ledger.snapshot import read_ledger_id
from provisioner.ledger.store import LEDGER_SCHEMA
from provisioner.model import Clock
from provisioner.operations.open import ledger_location, portal_database
from provisioner.storage.database import Connection, Database, transaction
from provisioner.storage.schema import DatabaseSchema
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.workspace.files import new_folder, read_bytes, write_private
from provisioner.workspace.settings import Workspace

LEDGER_FILE, PORTAL_FILE = "ledger.db", "portal.db"
KEY_SUFFIX = ".key"
"""The suffix of a file beside the portal's database. The file has the key that signs activation links."""

MAX_KEY_BYTES = 1024


class Backup(NamedTuple):
    """The result of a backup."""

    files: list[str]
    """The names of the copies."""
    notes: list[str]
    """What the backup lacks, and how to save it, in sentences for users."""


def back_up(workspace: Workspace, destination: Path, clock: Clock) -> Backup:
    """Copy the ledger and the portal into the new folder ``destination``.

    A portal on a server is not copied. Raises :class:`LedgerError` if there is no ledger, or if the ledger is
    in PostgreSQL.
    """
    ledger, portal = ledger_location(workspace), portal_database(workspace)
    notes = []
    if portal is None:
        url = workspace.settings.portal.url
        notes.append(f"The portal {url} is not a file here: back it up where it is kept.")
    elif command := portal.dump_command(PORTAL_SCHEMA):
        notes.append(
            f"The portal {portal} is not in this backup, because it is in PostgreSQL. Dump it too, while no "
            "run is at work (provisioner lock) and no letter is owed (provisioner mail status): "
            f"{command}. If a run begins before that dump is made, keep the order: dump the portal first, "
            "then back up the ledger again."
        )
        portal = None
    with _pinned(ledger, portal) as (copy_ledger, copy_portal), new_folder(destination) as folder:
        copy = folder / LEDGER_FILE
        with _blame(destination, copy, ledger, LEDGER_SCHEMA):
            copy_ledger(copy)
            with _opened(copy, LEDGER_SCHEMA) as connection:
                work = open_work(connection)
                mark_backup(connection, clock().isoformat(timespec="seconds"))
        if portal is not None and copy_portal is not None:
            copy = folder / PORTAL_FILE
            with _blame(destination, copy, portal, PORTAL_SCHEMA):
                copy_portal(copy)
                with _opened(copy, PORTAL_SCHEMA) as connection:
                    _claim_open_letters(connection, work)
                    needs_key = has_links(connection)
            # the copy of the portal has no link whose key is not in the file yet, because the key comes first
            key = portal.side_file(KEY_SUFFIX)
            if key is not None and key.exists():
                content = read_bytes(key, MAX_KEY_BYTES)
                with _blame(destination, copy, portal, PORTAL_SCHEMA):
                    write_private(folder / (PORTAL_FILE + KEY_SUFFIX), content)
            elif needs_key:
                notes.append(
                    f"The key of the activation links, {key}, is missing, so it is not in this backup. Links "
                    "that were sent still work, but a letter that is sent again gets a new link, and the "
                    "earlier link stops working. If you have the file, put it back, then back up again."
                )
        return Backup(sorted(file.name for file in folder.iterdir()), notes)


Copy = Callable[[Path], None]


@contextmanager
def _pinned(ledger: Database, portal: Database | None) -> Iterator[tuple[Copy, Copy | None]]:
    """Pin both databases at one instant. Yield two functions, which copy the ledger and the portal."""
    pins = ledger.pinned(LEDGER_SCHEMA), portal.pinned(PORTAL_SCHEMA) if portal is not None else None
    if not read_ledger_id(ledger):
        raise LedgerError(
            f"There is no ledger {ledger} yet, so nothing was backed up.",
            "The first provisioner apply makes it. To copy a portal that other workspaces use: "
            'sqlite3 portal.db ".backup FILE"',
        )
    with ExitStack() as stack:
        with (
            ledger.translate_errors(LEDGER_SCHEMA),
            closing(ledger.connect(LEDGER_SCHEMA, None)) as connection,
            # the write lock of the ledger: a run that would write now waits
            transaction(connection),
        ):
            copies = [stack.enter_context(pin) for pin in pins if pin is not None]
        yield copies[0], copies[1] if copies[1:] else None


@contextmanager
def _blame(destination: Path, copy: Path, database: Database, schema: DatabaseSchema) -> Iterator[None]:
    """In errors about ``copy``, name what the user knows: the damaged original, or else ``destination``."""
    try:
        yield
    except ProvisionerError as problem:
        if problem.sentence == schema.damaged(copy).sentence:
            raise schema.damaged(database) from problem
        cause = problem.__cause__ or problem
        reason = getattr(cause, "strerror", None) or str(cause).replace(str(copy), copy.name).rstrip(".")
        raise WorkspaceError(
            f"The backup into {destination} failed while the {schema.noun} was copied: {reason}.",
            "Check the disk of that folder and the space left there, then run the same command again.",
        ) from problem


@contextmanager
def _opened(file: Path, schema: DatabaseSchema) -> Iterator[Connection]:
    """Check that a copy is not damaged, and yield a connection to it in a write transaction."""
    database = SqliteDatabase(file)
    with (
        database.translate_errors(schema),
        closing(database.connect(schema, None)) as connection,
        transaction(connection),
    ):
        yield connection


def _claim_open_letters(connection: Connection, work: OpenWork) -> None:
    """Claim, in the name of a run that does not exist, the letters that may be sent after the backup."""
    first = [letter_key(work.portal, id_) for id_ in accounts_to_welcome(connection, work.steps)]
    claim_in_backup(connection, work.ledger, f"backup-{os.urandom(6).hex()}", [*work.letters, *first])
