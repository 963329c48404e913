"""The embedded portal, on SQLite or PostgreSQL. It enforces every rule itself.

Each write has the same sequence: read the part of the state that the rules need, apply the step to it, check
the rules, and only then write the rows. Versions prevent lost updates, receipts make repeated calls
idempotent, and the portal's own clock determines the end of the month (R9, R15).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from threading import RLock

from typing_extensions import override

from provisioner.embedded.activation_links import Invitation, hash_of, invite
from provisioner.embedded.decide import (
    acquire_lease,
    created_by_client,
    released,
    with_contact,
    with_requested_app,
)
from provisioner.embedded.leased import LeasedPortal, superseded
from provisioner.embedded.portal_types import AuthorisedCall, Lease, Page, PortalInfo
from provisioner.embedded.tables import (
    BATCH,
    PORTAL_SCHEMA,
    bump_counter,
    companies_by_number,
    initialise,
    load_counter,
    load_fact,
    load_lease,
    load_page_of_companies,
    load_page_of_users,
    load_receipts,
    load_snapshot,
    load_terms,
    store_lease,
    store_terms,
    users_by_id,
)
from provisioner.embedded.unit_of_work import UnitOfWork
from provisioner.errors import PortalError
from provisioner.model import Clock, Company, Operator, PortalTerms, User, paris_date
from provisioner.portal import Call, Capabilities, Receipt, Snapshot
from provisioner.storage.database import Connection, Database, chunks, placeholders, transaction
from provisioner.workspace.files import read_bytes, write_private

KEY_BYTES = 32
"""The length in bytes of the key that signs activation links."""


class SqlPortal(LeasedPortal):
    """The embedded portal, opened by one operator for writing.

    If the database does not exist, it is created with ``terms``. If it does not exist and ``terms`` is None,
    an error is raised. All methods can be called from any thread, because a lock protects the shared
    connection.
    """

    def __init__(
        self, database: Database, operator: Operator, terms: PortalTerms | None, public_url: str, clock: Clock
    ) -> None:
        super().__init__(operator)
        self._database = database
        self._clock = clock
        self._turn = RLock()
        found = None if terms is None else partial(initialise, terms=terms, public_url=public_url)
        self._connection = database.connect(PORTAL_SCHEMA, found)
        self._file = database.file_identity()

    def reopen(self) -> SqlPortal:
        """Open the same portal on a new connection. Raises :class:`PortalError` if the file was replaced."""
        self._database.require_same(PORTAL_SCHEMA, self._file)
        return SqlPortal(self._database, self._operator, None, "", self._clock)

    @override
    def close(self) -> None:
        with self._turn:
            self._connection.close()

    @override
    def capabilities(self) -> Capabilities:
        return Capabilities(batch=BATCH)

    def about(self) -> PortalInfo:
        """Return the portal's identity and settings, and the operator for whom the portal is open."""
        with self.read_transaction() as connection:
            return PortalInfo(
                load_fact(connection, "id") or "",
                load_fact(connection, "stamp") or "",
                load_counter(connection),
                self._today(),
                self._operator,
                frozenset(),
                load_terms(connection),
                load_fact(connection, "public_url") or "",
            )

    @override
    def snapshot(self) -> Snapshot:
        with self.read_transaction() as connection:
            return load_snapshot(connection, self._today())

    @override
    def users(self, ids: Collection[str]) -> dict[str, User]:
        with self.read_transaction() as connection:
            return users_by_id(connection, ids, self._today())

    def page_of_companies(self, after: int = 0, limit: int = BATCH, since: int = 0) -> Page[Company]:
        """Return a page of at most ``limit`` companies, in the order of their creation.

        ``after`` is 0 for the first page, then ``Page.next`` of the page before. The pages contain only
        companies that changed after the change counter had the value ``since``.
        """
        with self.read_transaction() as connection:
            return load_page_of_companies(connection, after, limit, since)

    def page_of_users(self, after: int = 0, limit: int = BATCH, since: int = 0) -> Page[User]:
        """Return a page of at most ``limit`` users. The parameters are those of :meth:`page_of_companies`."""
        with self.read_transaction() as connection:
            return load_page_of_users(connection, after, limit, since, self._today())

    def company(self, number: str) -> Company | None:
        """Return the company with this dossier number, or None if there is no such company."""
        with self.read_transaction() as connection:
            return companies_by_number(connection, [number]).get(number)

    def user(self, user_id: str) -> User | None:
        """Return the user with this id, or None if there is no such user."""
        return self.users([user_id]).get(user_id)

    @override
    def work(self, jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        with self.write_transaction() as connection:
            unit = UnitOfWork(connection, self._today())
            unit.load([job.call for job in jobs])
            leases = {
                ledger: load_lease(connection, ledger)
                for ledger in sorted({job.ledger for job in jobs} - {""})
            }
            receipts = [unit.answer(job, leases.get(job.ledger)) for job in jobs]
            unit.store()
            for job in {job.ledger: job for job in jobs}.values():
                lease = leases.get(job.ledger)
                if lease is not None and lease.fence == job.fence:
                    self._prolong(connection, lease)
            return receipts

    @override
    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        with self.read_transaction() as connection:
            return load_receipts(connection, keys, ledger)

    def lease(self, ledger: str) -> Lease | None:
        """Return the latest lease of a ledger, even if it has expired; None if there has been no lease."""
        with self.read_transaction() as connection:
            return load_lease(connection, ledger)

    @override
    def take_lease(self, ledger: str, owner: str, holder: str, fence: int, seconds: int) -> Lease:
        with self.write_transaction() as connection:
            known = load_lease(connection, ledger)
            lease = acquire_lease(known, ledger, owner, holder, fence, self._shared_now(connection), seconds)
            store_lease(connection, lease, seconds)
            return lease

    @override
    def drop_lease(self, ledger: str, holder: str) -> None:
        with self.write_transaction() as connection:
            known = load_lease(connection, ledger)
            if known is not None and known.holder == holder:
                store_lease(connection, released(known, self._shared_now(connection)), 0)

    @override
    def claim_letters(
        self, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        holders: dict[str, str] = {}
        with self.write_transaction() as connection:
            if ledger:
                lease = load_lease(connection, ledger)
                if lease is None or lease.fence != fence:
                    raise superseded()
                self._prolong(connection, lease)
            connection.executemany(
                "INSERT INTO letter_claim (key, ledger, run) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING",
                [(key, ledger, run) for key in letters],
            )
            connection.executemany(
                "UPDATE letter_claim SET run = ? WHERE key = ? AND ledger = ? AND run = ?",
                [(run, key, ledger, before) for key, known in letters.items() for before in known],
            )
            for some in chunks(list(letters)):
                holders.update(
                    connection.execute(
                        "SELECT key, CASE WHEN ledger = ? THEN run ELSE '' END FROM letter_claim "
                        f"WHERE key IN ({placeholders(some)})",
                        (ledger, *some),
                    )
                )
        return holders

    def configure(self, terms: PortalTerms, public_url: str) -> None:
        """Set the firm's terms (catalogue, mail domains, staff) and the base URL of the activation links."""
        with self.write_transaction() as connection:
            if (terms, public_url) != (load_terms(connection), load_fact(connection, "public_url")):
                store_terms(connection, terms, public_url)
                bump_counter(connection)

    def client_creates_user(self, administrator_id: str, profile: User) -> Receipt:
        """Create the user ``profile`` for a client's administrator. The firm must validate the user (R11)."""
        with self.write_transaction() as connection:
            administrators = users_by_id(connection, [administrator_id], self._today())
            step = created_by_client(administrators.get(administrator_id), profile)
            if isinstance(step, Receipt):
                return step
            call = Call("", step)
            unit = UnitOfWork(connection, self._today())
            unit.load([call])
            receipt = unit.answer(AuthorisedCall(call, self._operator), None)
            unit.store()
            return receipt

    def user_changes_profile(
        self, user_id: str, *, email: str | None = None, phone: str | None = None
    ) -> Receipt:
        """Change a user's e-mail or phone, as on the page *Mon compte*. If a value is None, it is not
        changed. If ``phone`` is "", the phone is deleted.
        """
        return self._edit(user_id, lambda user: with_contact(user, email, phone))

    def client_requests_app(self, user_id: str, app: str) -> Receipt:
        """Record that a user requests ``app``, as in the Store. The firm decides on the request (R10)."""
        return self._edit(user_id, lambda user: with_requested_app(user, app))

    @override
    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        now = self._seconds()
        links = dict.fromkeys(user_ids, "")
        made: list[tuple[object, ...]] = []
        with self.write_transaction() as connection:
            secret = self._secret(connection)
            base = (load_fact(connection, "public_url") or "").rstrip("/")
            for before in _invitations(connection, list(links)) if base else ():
                token, invitation = invite(before, secret, now)
                links[invitation.user_id] = f"{base}/{token}"
                if invitation.hashed != before.hashed:
                    made.append(
                        (invitation.user_id, invitation.generation, invitation.expires, invitation.hashed)
                    )
            connection.executemany(
                "INSERT INTO invitation (user_id, generation, expires, token_hash) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (user_id) DO UPDATE SET generation = excluded.generation, "
                "expires = excluded.expires, token_hash = excluded.token_hash",
                made,
            )
        return links

    def invited(self, link: str) -> User | None:
        """Return the user of an activation link or of its token; None if the link is not valid."""
        with self.read_transaction() as connection:
            row = connection.execute(
                f"SELECT user_id FROM invitation WHERE {_WORKS}", (hash_of(link), self._seconds())
            ).fetchone()
            return users_by_id(connection, row, self._today()).get(row[0]) if row else None

    def consume(self, link: str) -> bool:
        """Mark an activation link as used. Return False if it is expired, revoked, unknown or used."""
        with self.write_transaction() as connection:
            used = connection.execute(
                f"UPDATE invitation SET used = 1 WHERE {_WORKS}", (hash_of(link), self._seconds())
            )
            return used.rowcount == 1

    def _secret(self, connection: Connection) -> bytes:
        file = self._database.side_file(".key")
        if file is not None:
            return _key_in(file)
        # a server's key is in the database, because its readers can read all that links protect anyway
        key = load_fact(connection, "link_key")
        if key is None:
            key = os.urandom(KEY_BYTES).hex()
            connection.execute("INSERT INTO fact (name, value) VALUES ('link_key', ?)", (key,))
        return bytes.fromhex(key)

    def _today(self) -> date:
        return paris_date(self._clock())

    def _seconds(self) -> int:
        return int(self._clock().timestamp())

    def _shared_now(self, connection: Connection) -> datetime:
        """Return the current time for leases, from a clock that the runs on all machines share."""
        seconds = self._database.shared_time(connection, lambda: self._clock().timestamp())
        return datetime.fromtimestamp(seconds, UTC)

    @contextmanager
    def read_transaction(self) -> Iterator[Connection]:
        """Run the block in a read transaction: its reads all see the same state of the tables."""
        with self._turn, self._database.translate_errors(PORTAL_SCHEMA):
            self._database.require_same(PORTAL_SCHEMA, self._file)
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """Run the block in a write transaction. A block that changes content must call ``bump_counter``."""
        with self._turn, self._database.translate_errors(PORTAL_SCHEMA):
            self._database.require_same(PORTAL_SCHEMA, self._file)
            with transaction(self._connection):
                yield self._connection

    def _prolong(self, connection: Connection, lease: Lease) -> None:
        if lease.holder:
            now = int(self._shared_now(connection).timestamp())
            connection.execute("UPDATE lease SET expires = ? + seconds WHERE ledger = ?", (now, lease.ledger))

    def _edit(self, user_id: str, edit: Callable[[User | None], User | Receipt]) -> Receipt:
        with self.write_transaction() as connection:
            unit = UnitOfWork(connection, self._today())
            unit.load_users([user_id])
            user = unit.user(user_id)
            wanted = edit(user)
            if isinstance(wanted, Receipt):
                return wanted
            unit.load_email_holders([wanted.email])
            receipt = unit.put("", user, wanted)
            unit.store()
            return receipt


def _key_in(file: Path) -> bytes:
    if not file.exists():
        # write it atomically: a run that is killed must not leave an empty file, because its key is no secret
        write_private(file, os.urandom(KEY_BYTES))
    key = read_bytes(file, KEY_BYTES)
    if len(key) != KEY_BYTES:
        raise PortalError(
            f"The key {file}, with which links are made, is damaged.", "Restore it from a backup."
        )
    return key


_WORKS = (
    "token_hash = ? AND used = 0 AND expires > ? "
    "AND user_id IN (SELECT id FROM client_user WHERE status = 'active')"
)
"""The SQL condition for a valid activation link. Its parameters are the link's hash and the current time."""


def _invitations(connection: Connection, ids: Sequence[str]) -> Iterator[Invitation]:
    for some in chunks(ids):
        for row in connection.execute(
            "SELECT id, coalesce(generation, 0), coalesce(expires, 0), coalesce(token_hash, '') "
            "FROM client_user LEFT JOIN invitation ON user_id = id "
            f"WHERE id IN ({placeholders(some)}) AND status = 'active' AND coalesce(used, 0) = 0",
            some,
        ).fetchall():
            yield Invitation(*row)
