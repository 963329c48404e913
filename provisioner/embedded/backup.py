"""In a backup of the portal, claims the letters that a restored ledger must not send a second time."""

from __future__ import annotations

from collections.abc import Sequence

from provisioner.portal import SENT
from provisioner.storage.database import Connection, chunks, placeholders


def accounts_to_welcome(connection: Connection, steps: Sequence[str]) -> list[str]:
    """Return the ids of the accounts whose first letter the backup may still owe, or may come to owe.

    ``steps`` has the keys of the steps whose outcome the ledger has not recorded yet. The accounts are those
    that wait for validation, and those on which the portal has applied one of ``steps``.
    """
    found = [id_ for (id_,) in connection.execute("SELECT id FROM client_user WHERE status = 'to_validate'")]
    for some in chunks(steps):
        rows = connection.execute(f"SELECT id FROM receipt WHERE key IN ({placeholders(some)})", some)
        found += [id_ for (id_,) in rows]
    return found


def has_links(connection: Connection) -> bool:
    """Return True if the portal has made an activation link. Its key existed then."""
    return connection.execute("SELECT 1 FROM invitation LIMIT 1").fetchone() is not None


def claim_in_backup(connection: Connection, ledger: str, run: str, letters: Sequence[str]) -> None:
    """In the backup, claim ``letters`` for ``run``, which is an id that no run of the ledger has.

    A restored ledger then sets these letters to *unknown*, because they may have been sent after the backup.
    Claims of other ledgers do not change, and neither do the claims of letters that are recorded as sent.
    """
    connection.executemany(
        "INSERT INTO letter_claim (key, ledger, run) VALUES (?, ?, ?) "
        "ON CONFLICT (key) DO UPDATE SET run = excluded.run "
        "WHERE letter_claim.ledger = excluded.ledger AND letter_claim.run <> ?",
        [(key, ledger, run, SENT) for key in letters],
    )
