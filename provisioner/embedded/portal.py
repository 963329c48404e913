"""The embedded portal: a portal of record on SQLite or PostgreSQL, with every rule at its own border.

Every writer passes the same gate: the slice of the state that the rules ask for is read, the
step's fold is applied to it, the rules are asked, and only then is the row written. Versions
guard against lost updates, receipts make a repeated call harmless, and the portal keeps its own
clock for what ends with the month (R9, R15).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from threading import RLock

from provisioner.embedded.activation_links import Invitation, hash_of, invite
from provisioner.embedded.decide import (
    acquire_lease,
    asking_for,
    changed_by_himself,
    created_by_client,
    released,
)
from provisioner.embedded.host import About, AuthorisedCall, Lease, Page
from provisioner.embedded.leased import LeasedPortal, superseded
from provisioner.embedded.tables import (
    BATCH,
    COMPANY_COLUMNS,
    PORTAL_SCHEMA,
    as_company,
    bump_counter,
    companies_by_number,
    initialise,
    load_counter,
    load_fact,
    load_lease,
    load_receipts,
    load_snapshot,
    load_terms,
    load_user,
    load_users,
    page_span,
    store_lease,
    store_terms,
    users_by_id,
)
from provisioner.embedded.unit_of_work import UnitOfWork
from provisioner.errors import PortalError
from provisioner.model import (
    Clock,
    Company,
    Operator,
    PortalTerms,
    User,
    paris_date,
)
from provisioner.portal import Call, Capabilities, Receipt, Snapshot
from provisioner.storage.database import (
    Connection,
    Database,
    chunks,
    content_stamp,
    placeholders,
    transaction,
)
from provisioner.workspace.files import read_bytes, write_private

KEY_BYTES = 32
"""The length of the key that activation links are derived with."""


class SqlPortal(LeasedPortal):
    """The embedded portal, opened by one operator for writing.

    A missing one is made under ``terms``, and refused without (None).

    It is a :class:`~provisioner.portal.Portal` and a :class:`~provisioner.embedded.host.PortalHost`. Every
    method may be called from any thread: there is one connection, and calls take turns on it.
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

    def again(self) -> SqlPortal:
        """The very same portal, opened once more. Raises :class:`PortalError`, also where it is gone."""
        self._database.require_same(PORTAL_SCHEMA, self._file)
        return SqlPortal(self._database, self._operator, None, "", self._clock)

    def close(self) -> None:
        """Let go of the file."""
        with self._turn:
            self._connection.close()

    def capabilities(self) -> Capabilities:
        """See :meth:`~provisioner.portal.Portal.capabilities`."""
        return Capabilities(batch=BATCH)

    def about(self) -> About:
        """See :class:`~provisioner.embedded.host.PortalHost`, also for all that follows."""
        with self.looking() as connection:
            return About(
                load_fact(connection, "id") or "",
                content_stamp(connection, "").strip(),
                load_counter(connection),
                self._today(),
                load_terms(connection),
                load_fact(connection, "public_url") or "",
            )

    def snapshot(self) -> Snapshot:
        """See :meth:`~provisioner.portal.Portal.snapshot`."""
        seen = self._database.file_fingerprint()
        with self.looking() as connection:
            return load_snapshot(connection, seen, self._today())

    def users(self, ids: Collection[str]) -> dict[str, User]:
        """See :meth:`~provisioner.portal.Portal.users`."""
        with self.looking() as connection:
            return users_by_id(connection, ids, self._today())

    def page_of_companies(self, after: int = 0, limit: int = BATCH, since: int = 0) -> Page[Company]:
        """In the order of their creation."""
        with self.looking() as connection:
            counter = load_counter(connection)
            last, more = page_span(connection, "company", after, limit, since)
            rows = connection.execute(
                f"SELECT {COMPANY_COLUMNS} FROM company WHERE seq > ? AND seq <= ? AND changed > ? "
                "ORDER BY seq",
                (after, last, since),
            ).fetchall()
            return Page(tuple(map(as_company, rows)), last if more else None, counter)

    def page_of_users(self, after: int = 0, limit: int = BATCH, since: int = 0) -> Page[User]:
        """In the order of their creation."""
        with self.looking() as connection:
            counter = load_counter(connection)
            last, more = page_span(connection, "client_user", after, limit, since)
            users = tuple(
                load_users(
                    connection, "seq > ? AND seq <= ? AND changed > ?", (after, last, since), self._today()
                )
            )
            return Page(users, last if more else None, counter)

    def company(self, number: str) -> Company | None:
        """As it stands."""
        with self.looking() as connection:
            return companies_by_number(connection, [number]).get(number)

    def user(self, user_id: str) -> User | None:
        """As he stands."""
        with self.looking() as connection:
            return load_user(connection, user_id, self._today())

    def work(self, jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        """One transaction for all; a refused job leaves its neighbours alone."""
        with self.keeping() as connection:
            desk = UnitOfWork(connection, self._today())
            desk.lay_out([job.call for job in jobs])
            leases = {
                ledger: load_lease(connection, ledger)
                for ledger in sorted({job.ledger for job in jobs} - {""})
            }
            receipts = [desk.answer(job, leases.get(job.ledger)) for job in jobs]
            desk.store()
            for job in {job.ledger: job for job in jobs}.values():
                lease = leases.get(job.ledger)
                if lease is not None and lease.fence == job.fence:
                    self._prolong(connection, lease)
            return receipts

    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        """See :meth:`~provisioner.portal.Portal.receipts`."""
        with self.looking() as connection:
            return load_receipts(connection, keys, ledger)

    def receipt(self, key: str, ledger: str) -> Receipt | None:
        """The same, of one."""
        return self.receipts([key], ledger).get(key)

    def lease(self, ledger: str) -> Lease | None:
        """The latest one of this ledger."""
        with self.looking() as connection:
            return load_lease(connection, ledger)

    def take_lease(self, ledger: str, owner: str, holder: str, fence: int, seconds: int) -> Lease:
        """See :func:`~provisioner.embedded.decide.acquire_lease`."""
        with self.keeping() as connection:
            known = load_lease(connection, ledger)
            lease = acquire_lease(known, ledger, owner, holder, fence, self._shared_now(connection), seconds)
            store_lease(connection, lease, seconds)
            return lease

    def drop_lease(self, ledger: str, holder: str) -> None:
        """Its number stays."""
        with self.keeping() as connection:
            known = load_lease(connection, ledger)
            if known is not None and known.holder == holder:
                store_lease(connection, released(known, self._shared_now(connection)), 0)

    def claim_letters(
        self, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        """From none to the first ledger that asks, and within it from run to run."""
        holders: dict[str, str] = {}
        with self.keeping() as connection:
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
        """Bring the portal's catalogue, domains, staff and public address in line with the firm's."""
        with self.keeping() as connection:
            if (terms, public_url) != (load_terms(connection), load_fact(connection, "public_url")):
                store_terms(connection, terms, public_url)
                bump_counter(connection)

    def client_creates_user(self, administrator_id: str, profile: User) -> Receipt:
        """R11: a client administrator creates a user, billed to his own company, to be validated."""
        with self.keeping() as connection:
            step = created_by_client(load_user(connection, administrator_id, self._today()), profile)
            if isinstance(step, Receipt):
                return step
            call = Call("", step)
            desk = UnitOfWork(connection, self._today())
            desk.lay_out([call])
            receipt = desk.answer(AuthorisedCall(call, self._operator), None)
            desk.store()
            return receipt

    def user_changes_profile(
        self, user_id: str, *, email: str | None = None, phone: str | None = None
    ) -> Receipt:
        """*Mon compte*: a user changes his own e-mail or phone ("" for none)."""
        return self._by_other(user_id, lambda user: changed_by_himself(user, email, phone))

    def client_requests_app(self, user_id: str, app: str) -> Receipt:
        """The Store: an application the client asks for waits for the firm (R10)."""
        return self._by_other(user_id, lambda user: asking_for(user, app))

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """See :meth:`~provisioner.portal.Portal.activation_links`."""
        now = int(self._clock().timestamp())
        links = dict.fromkeys(user_ids, "")
        made: list[tuple[object, ...]] = []
        with self.keeping() as connection:
            secret = self._secret(connection)
            base = (load_fact(connection, "public_url") or "").rstrip("/")
            for known in _invited(connection, list(links)) if base else ():
                token, kept = invite(known, secret, now)
                links[kept.user_id] = f"{base}/{token}"
                if kept.hashed != known.hashed:
                    made.append((kept.user_id, kept.generation, kept.expires, kept.hashed))
            connection.executemany(
                "INSERT INTO invitation (user_id, generation, expires, token_hash) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (user_id) DO UPDATE SET generation = excluded.generation, "
                "expires = excluded.expires, token_hash = excluded.token_hash",
                made,
            )
        return links

    def invited(self, link: str) -> User | None:
        """Whom it lets set a password."""
        with self.looking() as connection:
            row = connection.execute(
                f"SELECT user_id FROM invitation WHERE {_WORKS}", (hash_of(link), self._seconds())
            ).fetchone()
            return load_user(connection, row[0], self._today()) if row else None

    def consume(self, link: str) -> bool:
        """Use an activation link, once. False for a link that is used, expired, revoked or invented."""
        with self.keeping() as connection:
            used = connection.execute(
                f"UPDATE invitation SET used = 1 WHERE {_WORKS}", (hash_of(link), self._seconds())
            )
            return used.rowcount == 1

    def _secret(self, connection: Connection) -> bytes:
        """The key that links are derived with."""
        file = self._database.side_file(".key")
        if file is not None:
            return _key_in(file)
        # a user who may read the database of a server may read everything that the links protect
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
        """For leases, which runs on machines whose clocks differ grant each other."""
        seconds = self._database.shared_time(connection, lambda: self._clock().timestamp())
        return datetime.fromtimestamp(seconds, UTC)

    @contextmanager
    def looking(self) -> Iterator[Connection]:
        """The tables in one consistent view, for whoever keeps something beside the portal's content."""
        with self._turn, self._database.translate_errors(PORTAL_SCHEMA):
            self._database.require_same(PORTAL_SCHEMA, self._file)
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def keeping(self) -> Iterator[Connection]:
        """Likewise to write: one transaction, which by itself changes neither counter nor stamp."""
        with self._turn, self._database.translate_errors(PORTAL_SCHEMA):
            self._database.require_same(PORTAL_SCHEMA, self._file)
            with transaction(self._connection):
                yield self._connection

    def _prolong(self, connection: Connection, lease: Lease) -> None:
        """Whoever writes is alive."""
        if lease.holder:
            now = int(self._shared_now(connection).timestamp())
            connection.execute("UPDATE lease SET expires = ? + seconds WHERE ledger = ?", (now, lease.ledger))

    def _by_other(self, user_id: str, edit: Callable[[User | None], User | Receipt]) -> Receipt:
        """Another writer's edit, through the same gate."""
        with self.keeping() as connection:
            desk = UnitOfWork(connection, self._today())
            desk.lay_out_users([user_id])
            user = desk.user(user_id)
            wanted = edit(user)
            if isinstance(wanted, Receipt):
                return wanted
            desk.lay_out_rivals([wanted.email])
            receipt = desk.move("", user, wanted)
            desk.store()
            return receipt


def _key_in(file: Path) -> bytes:
    """The key in this file, which copies of the database do not include; made at the first use."""
    if not file.exists():
        # whole or not at all: a run killed in between must not leave an empty key, which anybody knows
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
"""Of a link that may still be used."""


def _invited(connection: Connection, ids: Sequence[str]) -> Iterator[Invitation]:
    """Who of these may set a password, with what is known of his link."""
    for some in chunks(ids):
        for row in connection.execute(
            "SELECT id, coalesce(generation, 0), coalesce(expires, 0), coalesce(token_hash, '') "
            "FROM client_user LEFT JOIN invitation ON user_id = id "
            f"WHERE id IN ({placeholders(some)}) AND status = 'active' AND coalesce(used, 0) = 0",
            some,
        ).fetchall():
            yield Invitation(*row)
