"""The managed accounts: each user's portal id, and the e-mail and phone that were last applied."""

from __future__ import annotations

from collections.abc import Sequence

from provisioner.model import Managed
from provisioner.storage.database import Connection, chunks, placeholders


def accounts_where(connection: Connection, where: str, values: Sequence[str]) -> dict[str, Managed]:
    """Return the accounts that match the SQL condition ``where``, by the user's key in the manifests."""
    rows = connection.execute(f'SELECT id, "user", email, phone, created FROM managed WHERE {where}', values)
    return {user: Managed(id_, email, phone, bool(created)) for id_, user, email, phone, created in rows}


def accounts_by_id(connection: Connection, ids: Sequence[str]) -> dict[str, Managed]:
    """Return the accounts with these portal ids, by portal id."""
    return {
        known.id: known
        for some in chunks(ids)
        for known in accounts_where(connection, f"id IN ({placeholders(some)})", some).values()
    }


def store_accounts(connection: Connection, records: Sequence[tuple[str, Managed]]) -> None:
    """Store accounts. Each item of ``records`` is the key of a user and the account of this user.

    An account that is stored as created by provisioner stays so, even if ``created`` is False in its record.
    """
    # a user name may pass from one account to another, so only the last record with a name keeps it
    holders: dict[str, Managed] = {}
    for user, record in records:
        holders.pop(user, None)
        holders[user] = record
    latest = {record.id: (user, record) for user, record in holders.items()}
    created: set[str] = set()
    for ids in chunks(list(latest)):
        rows = connection.execute(
            f"SELECT id FROM managed WHERE created = 1 AND id IN ({placeholders(ids)})", ids
        )
        created.update(id_ for (id_,) in rows)
    # all old rows are deleted before any row is inserted, because two accounts may swap their names;
    # thousands of accounts take only a few statements, because other runs wait for this transaction
    for column, values in (("id", list(latest)), ('"user"', list(holders))):
        for some in chunks(values):
            connection.execute(f"DELETE FROM managed WHERE {column} IN ({placeholders(some)})", some)
    connection.executemany(
        'INSERT INTO managed (id, "user", email, phone, created) VALUES (?, ?, ?, ?, ?)',
        [
            (id_, user, record.email, record.phone, int(record.created or id_ in created))
            for id_, (user, record) in latest.items()
        ],
    )
