"""The changes to a backup of the portal that keep a restored ledger from sending a letter a second time."""

from __future__ import annotations

from collections.abc import Sequence

from provisioner.portal import SENT
from provisioner.storage.database import Connection, chunks, placeholders


def accounts_to_welcome(connection: Connection, steps: Sequence[str]) -> list[str]:
    """Return the ids of the accounts that may get their first letter after the backup.

    These are the accounts that wait for validation, and those of ``steps``: the keys of steps that the portal
    has applied and the ledger has not recorded yet.
    """
    found = [id_ for (id_,) in connection.execute("SELECT id FROM client_user WHERE status = 'to_validate'")]
    for some in chunks(steps):
        rows = connection.execute(f"SELECT id FROM receipt WHERE key IN ({placeholders(some)})", some)
        found += [id_ for (id_,) in rows]
    return found


def claim_in_backup(connection: Connection, ledger: str, run: str, letters: Sequence[str]) -> None:
    """Claim ``letters`` in the backup for ``run``, a run that does not exist.

    A restored ledger then parks these letters as *unknown*, because they may have been sent after the backup.
    Letters that are recorded as sent and letters of other ledgers keep their claims.
    """
    connection.executemany(
        "INSERT INTO letter_claim (key, ledger, run) VALUES (?, ?, ?) "
        "ON CONFLICT (key) DO UPDATE SET run = excluded.run "
        "WHERE letter_claim.ledger = excluded.ledger AND letter_claim.run <> ?",
        [(key, ledger, run, SENT) for key in letters],
    )
