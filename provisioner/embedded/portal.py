"""The embedded portal: a portal of record on SQLite or PostgreSQL, with every rule at its own border.

Every writer passes the same gate: the slice of the state that the rules ask for is read, the
step's fold is applied to it, the rules are asked, and only then is the row written. Versions
guard against lost updates, receipts make a repeated call harmless, and the portal keeps its own
clock for what ends with the month (R9, R15).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

from provisioner.diagnostics import Diagnostic
from provisioner.embedded.activation_links import Invitation, hash_of, invite
from provisioner.embedded.decide import (
    StoredReceipt,
    acquire_lease,
    applied,
    asking_for,
    billing_transfer,
    changed_by_himself,
    created_by_client,
    decide,
    fingerprint,
    next_version,
    refused,
    released,
    repeated,
)
from provisioner.embedded.host import About, AuthorisedCall, Lease, Page
from provisioner.embedded.leased import LeasedPortal, superseded
from provisioner.errors import PortalError
from provisioner.model import (
    Address,
    AppState,
    Billing,
    BillingMode,
    Clock,
    Company,
    Grant,
    Operator,
    PortalTerms,
    Production,
    Resource,
    State,
    Status,
    User,
    UserType,
    email_key,
    month_end,
    paris_date,
)
from provisioner.planning.steps import (
    CompanyStep,
    CreateUser,
    EditCompanies,
    EditProfile,
    SetBilledCompany,
)
from provisioner.portal import Call, Capabilities, Receipt, Snapshot, Verdict, read_only
from provisioner.rules import StateIndex
from provisioner.storage.database import (
    Connection,
    DatabaseSchema,
    Location,
    chunks,
    connect,
    content_stamp,
    file_fingerprint,
    file_identity,
    placeholders,
    read,
    reject_corrupt_rows,
    require_same,
    server_time,
    transaction,
    translate_errors,
)
from provisioner.workspace.files import read_bytes, write_private

BATCH = 1_000
"""Calls a transaction: one commit for each costs ten times one for a hundred."""

KEY_BYTES = 32
"""The length of the key that activation links are derived with."""

_SCHEMA = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE term (kind TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, value));
CREATE TABLE company (
    number TEXT PRIMARY KEY, name TEXT NOT NULL, siren TEXT,
    mode TEXT CHECK (mode IN ('client', 'firm')), offer TEXT, billing_ends TEXT,
    version INTEGER NOT NULL, seq BIGINT NOT NULL, changed BIGINT NOT NULL,
    CHECK ((mode IS NULL) = (offer IS NULL)));
CREATE UNIQUE INDEX company_seq ON company (seq);
CREATE TABLE client_user (
    id TEXT PRIMARY KEY, email TEXT NOT NULL, email_key TEXT NOT NULL UNIQUE,
    first_name TEXT NOT NULL, last_name TEXT NOT NULL, phone TEXT,
    type TEXT NOT NULL CHECK (type IN ('administrator', 'standard')),
    billed TEXT NOT NULL REFERENCES company (number),
    production TEXT NOT NULL CHECK (production IN ('full', 'consultation')),
    status TEXT NOT NULL CHECK (status IN ('to_validate', 'active', 'closed')),
    version INTEGER NOT NULL, seq BIGINT NOT NULL, changed BIGINT NOT NULL);
CREATE INDEX client_user_billed ON client_user (billed);
CREATE UNIQUE INDEX client_user_seq ON client_user (seq);
CREATE TABLE user_company (
    user_id TEXT NOT NULL REFERENCES client_user (id), number TEXT NOT NULL REFERENCES company (number),
    PRIMARY KEY (user_id, number)) WITHOUT ROWID;
CREATE TABLE app_grant (
    user_id TEXT NOT NULL REFERENCES client_user (id), app TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('requested', 'active', 'ending')), ends TEXT,
    PRIMARY KEY (user_id, app), CHECK ((state = 'ending') = (ends IS NOT NULL))) WITHOUT ROWID;
CREATE TABLE invitation (
    user_id TEXT PRIMARY KEY REFERENCES client_user (id), generation INTEGER NOT NULL,
    expires INTEGER NOT NULL, token_hash TEXT NOT NULL, used INTEGER NOT NULL DEFAULT 0);
CREATE TABLE receipt (
    key TEXT PRIMARY KEY, id TEXT NOT NULL, version INTEGER NOT NULL, ledger TEXT, asked TEXT) WITHOUT ROWID;
"""

_SHARED = """
CREATE TABLE letter_claim (key TEXT PRIMARY KEY, ledger TEXT NOT NULL, run TEXT NOT NULL);
CREATE TABLE lease (
    ledger TEXT PRIMARY KEY, owner TEXT NOT NULL, fence BIGINT NOT NULL, holder TEXT NOT NULL,
    expires BIGINT NOT NULL, seconds BIGINT NOT NULL);
CREATE TABLE api_client (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, secret_hash TEXT NOT NULL, role TEXT NOT NULL,
    scopes TEXT NOT NULL, created TEXT NOT NULL, disabled TEXT);
CREATE TABLE api_token (
    hash TEXT PRIMARY KEY, client TEXT NOT NULL REFERENCES api_client (id), scopes TEXT NOT NULL,
    expires BIGINT NOT NULL);
"""

_TO_VERSION_2 = """
ALTER TABLE company ADD COLUMN seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE company ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
UPDATE company SET seq = rowid, changed = 1;
CREATE UNIQUE INDEX company_seq ON company (seq);
ALTER TABLE client_user ADD COLUMN seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE client_user ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
UPDATE client_user SET seq = rowid, changed = 1;
CREATE UNIQUE INDEX client_user_seq ON client_user (seq);
ALTER TABLE receipt ADD COLUMN ledger TEXT;
ALTER TABLE receipt ADD COLUMN asked TEXT;
INSERT INTO fact (name, value) VALUES ('counter', '1');
"""
"""A receipt from before has no ledger and no fingerprint: it is good for whoever asks, whatever for."""

IDENTITY = DatabaseSchema(
    "portal", 0x70727074, 2, _SCHEMA + _SHARED, PortalError, migrations=(_TO_VERSION_2 + _SHARED,)
)

_COMPANY_COLUMNS = "number, name, siren, mode, offer, billing_ends, version"
_USER_COLUMNS = "id, email, first_name, last_name, phone, type, billed, production, status, version"


def read_snapshot(place: Location, terms: PortalTerms, clock: Clock) -> Snapshot:
    """The portal in one consistent view; a file that is not there yet is an empty portal under ``terms``."""
    today, seen = paris_date(clock()), file_fingerprint(place)
    return read(place, IDENTITY, lambda connection: _snapshot(connection, seen, today)) or Snapshot(
        "", State(), terms
    )


class ReadOnlyPortal:
    """The portal opened for planning: it can be looked at, and has no way to write."""

    def __init__(self, place: Location, terms: PortalTerms, clock: Clock) -> None:
        self._place = place
        self._terms = terms
        self._clock = clock

    def snapshot(self) -> Snapshot:
        """See :meth:`~provisioner.portal.Portal.snapshot`."""
        return read_snapshot(self._place, self._terms, self._clock)

    def users(self, ids: Collection[str]) -> dict[str, User]:
        """See :meth:`~provisioner.portal.Portal.users`."""
        today = paris_date(self._clock())
        return read(self._place, IDENTITY, lambda connection: _users_by_id(connection, ids, today)) or {}

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """Refuses: planning never writes."""
        raise read_only()

    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        """See :meth:`~provisioner.portal.Portal.project`."""
        return desired, ()

    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        """Refuses: planning never writes."""
        raise read_only()

    def release(self) -> None:
        """Nothing is held."""

    def claim(self, run: str, letters: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        """Refuses: planning never writes."""
        raise read_only()

    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        """See :meth:`~provisioner.portal.Portal.receipts`."""
        return read(self._place, IDENTITY, lambda connection: _receipts(connection, keys, ledger)) or {}

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """Nothing: links are made when a letter is sent."""
        return dict.fromkeys(user_ids, "")

    def capabilities(self) -> Capabilities:
        """See :meth:`~provisioner.portal.Portal.capabilities`."""
        return Capabilities(batch=BATCH)

    def close(self) -> None:
        """Nothing is held."""


class SqlPortal(LeasedPortal):
    """The embedded portal, opened by one operator for writing.

    A missing one is made under ``terms``, and refused without (None).

    It is a :class:`~provisioner.portal.Portal` and a :class:`~provisioner.embedded.host.PortalHost`. Every
    method may be called from any thread: there is one connection, and calls take turns on it.
    """

    def __init__(
        self, place: Location, operator: Operator, terms: PortalTerms | None, public_url: str, clock: Clock
    ) -> None:
        super().__init__(operator)
        self.place = place
        """Where it lies."""
        self._clock = clock
        self._turn = RLock()
        found = None if terms is None else partial(_found, terms=terms, public_url=public_url)
        self._connection = connect(place, IDENTITY, found)
        self._file = file_identity(place)

    def again(self) -> SqlPortal:
        """The very same portal, opened once more. Raises :class:`PortalError`, also where it is gone."""
        require_same(self.place, IDENTITY, self._file)
        return SqlPortal(self.place, self._operator, None, "", self._clock)

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
                _fact(connection, "id") or "",
                content_stamp(connection, "").strip(),
                _counter(connection),
                self._today(),
                _terms(connection),
                _fact(connection, "public_url") or "",
            )

    def snapshot(self) -> Snapshot:
        """See :meth:`~provisioner.portal.Portal.snapshot`."""
        seen = file_fingerprint(self.place)
        with self.looking() as connection:
            return _snapshot(connection, seen, self._today())

    def users(self, ids: Collection[str]) -> dict[str, User]:
        """See :meth:`~provisioner.portal.Portal.users`."""
        with self.looking() as connection:
            return _users_by_id(connection, ids, self._today())

    def page_of_companies(self, after: int = 0, limit: int = BATCH, since: int = 0) -> Page[Company]:
        """In the order of their creation."""
        with self.looking() as connection:
            counter = _counter(connection)
            last, more = _span(connection, "company", after, limit, since)
            rows = connection.execute(
                f"SELECT {_COMPANY_COLUMNS} FROM company WHERE seq > ? AND seq <= ? AND changed > ? "
                "ORDER BY seq",
                (after, last, since),
            ).fetchall()
            return Page(tuple(map(_as_company, rows)), last if more else None, counter)

    def page_of_users(self, after: int = 0, limit: int = BATCH, since: int = 0) -> Page[User]:
        """In the order of their creation."""
        with self.looking() as connection:
            counter = _counter(connection)
            last, more = _span(connection, "client_user", after, limit, since)
            users = tuple(
                _users(
                    connection, "seq > ? AND seq <= ? AND changed > ?", (after, last, since), self._today()
                )
            )
            return Page(users, last if more else None, counter)

    def company(self, number: str) -> Company | None:
        """As it stands."""
        with self.looking() as connection:
            return _some_companies(connection, [number]).get(number)

    def user(self, user_id: str) -> User | None:
        """As he stands."""
        with self.looking() as connection:
            return _user(connection, user_id, self._today())

    def work(self, jobs: Sequence[AuthorisedCall]) -> list[Receipt]:
        """One transaction for all; a refused job leaves its neighbours alone."""
        with self.keeping() as connection:
            desk = _Desk(connection, self._today())
            desk.lay_out([job.call for job in jobs])
            leases = {
                ledger: _lease(connection, ledger) for ledger in sorted({job.ledger for job in jobs} - {""})
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
            return _receipts(connection, keys, ledger)

    def receipt(self, key: str, ledger: str) -> Receipt | None:
        """The same, of one."""
        return self.receipts([key], ledger).get(key)

    def lease(self, ledger: str) -> Lease | None:
        """The latest one of this ledger."""
        with self.looking() as connection:
            return _lease(connection, ledger)

    def take_lease(self, ledger: str, owner: str, holder: str, fence: int, seconds: int) -> Lease:
        """See :func:`~provisioner.embedded.decide.acquire_lease`."""
        with self.keeping() as connection:
            known = _lease(connection, ledger)
            lease = acquire_lease(known, ledger, owner, holder, fence, self._shared_now(connection), seconds)
            _keep_lease(connection, lease, seconds)
            return lease

    def drop_lease(self, ledger: str, holder: str) -> None:
        """Its number stays."""
        with self.keeping() as connection:
            known = _lease(connection, ledger)
            if known is not None and known.holder == holder:
                _keep_lease(connection, released(known, self._shared_now(connection)), 0)

    def claim_letters(
        self, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        """From none to the first ledger that asks, and within it from run to run."""
        holders: dict[str, str] = {}
        with self.keeping() as connection:
            if ledger:
                lease = _lease(connection, ledger)
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
            if (terms, public_url) != (_terms(connection), _fact(connection, "public_url")):
                _set_terms(connection, terms, public_url)
                _count(connection)

    def client_creates_user(self, administrator_id: str, profile: User) -> Receipt:
        """R11: a client administrator creates a user, billed to his own company, to be validated."""
        with self.keeping() as connection:
            step = created_by_client(_user(connection, administrator_id, self._today()), profile)
            if isinstance(step, Receipt):
                return step
            call = Call("", step)
            desk = _Desk(connection, self._today())
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
            base = (_fact(connection, "public_url") or "").rstrip("/")
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
            return _user(connection, row[0], self._today()) if row else None

    def consume(self, link: str) -> bool:
        """Use an activation link, once. False for a link that is used, expired, revoked or invented."""
        with self.keeping() as connection:
            used = connection.execute(
                f"UPDATE invitation SET used = 1 WHERE {_WORKS}", (hash_of(link), self._seconds())
            )
            return used.rowcount == 1

    def _secret(self, connection: Connection) -> bytes:
        """The key that links are derived with."""
        if isinstance(self.place, Path):
            return _key_beside(self.place)
        # whoever may read that database at all may read what the links are for
        key = _fact(connection, "link_key")
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
        if isinstance(self.place, Path):
            return self._clock()
        return datetime.fromtimestamp(server_time(self.place, connection), UTC)

    @contextmanager
    def looking(self) -> Iterator[Connection]:
        """The tables in one consistent view, for whoever keeps something beside the portal's content."""
        with self._turn, translate_errors(self.place, IDENTITY):
            require_same(self.place, IDENTITY, self._file)
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def keeping(self) -> Iterator[Connection]:
        """Likewise to write: one transaction, which by itself changes neither counter nor stamp."""
        with self._turn, translate_errors(self.place, IDENTITY):
            require_same(self.place, IDENTITY, self._file)
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
            desk = _Desk(connection, self._today())
            desk.lay_out_users([user_id])
            user = desk.user(user_id)
            wanted = edit(user)
            if isinstance(wanted, Receipt):
                return wanted
            desk.lay_out_rivals([wanted.email])
            receipt = desk.move("", user, wanted)
            desk.store()
            return receipt


def _key_beside(path: Path) -> bytes:
    """The key beside a file, so that no copy of the file has it; made at the first use."""
    file = path.with_name(path.name + ".key")
    if not file.exists():
        # whole or not at all: a run killed in between must not leave an empty key, which anybody knows
        write_private(file, os.urandom(KEY_BYTES))
    key = read_bytes(file, KEY_BYTES)
    if len(key) != KEY_BYTES:
        raise PortalError(
            f"The key {file}, with which links are made, is damaged.", "Restore it from a backup."
        )
    return key


class _Desk:
    """What some calls concern, read at once; moved by the rules one resource at a time; written at once.

    Users lie there by their id. All of it happens inside one transaction, so that nothing moves meanwhile.
    """

    def __init__(self, connection: Connection, today: date) -> None:
        self._connection = connection
        self._today = today
        self._terms = _terms(connection)
        self._census: StateIndex | None = None
        self._known_companies: dict[str, Company] = {}
        self._known_users: dict[str, User] = {}
        self._by_email: dict[str, str] = {}
        self._companies: list[tuple[Company | None, Company]] = []
        self._users: list[tuple[User | None, User]] = []
        self._answered: dict[str, StoredReceipt] = {}
        self._given: dict[str, StoredReceipt] = {}
        self._touched: set[Address] = set()
        self._counter = 0

    def lay_out(self, calls: Sequence[Call]) -> None:
        """Everything that the rules ask about when these calls are done, and what was answered before."""
        self._recall([call.key for call in calls if call.key])
        ids: list[str] = []
        emails: list[str] = []
        numbers: set[str] = set()
        peopled: set[str] = set()
        for call in calls:
            step = call.step
            if isinstance(step, CreateUser):
                emails.append(step.profile.email)
                numbers |= step.profile.companies
                peopled.add(step.profile.billed)
            elif isinstance(step, CompanyStep):
                numbers.add(step.company)
            else:
                ids.append(call.id)
                if isinstance(step, EditProfile):
                    emails.append(step.email)
                elif isinstance(step, EditCompanies):
                    numbers.update(step.add)
                elif isinstance(step, SetBilledCompany):
                    peopled.add(step.billed)
        self._lay_out_companies(numbers)
        self.lay_out_users(ids)
        self.lay_out_rivals(emails)
        self._lay_out_people(peopled)

    def lay_out_users(self, ids: Sequence[str]) -> None:
        """These users, their companies, and who else is billed to the one that they are billed to."""
        found = self._place(_some_users(self._connection, "id", ids, self._today))
        self._lay_out_companies({number for user in found for number in user.companies})
        self._lay_out_people({user.billed for user in found})

    def lay_out_rivals(self, emails: Sequence[str]) -> None:
        """Whoever has these addresses (R1)."""
        keys = sorted({email_key(email) for email in emails} - self._by_email.keys())
        self._place(_some_users(self._connection, "email_key", keys, self._today))

    def _lay_out_people(self, numbers: set[str]) -> None:
        """Companies, and the open users billed to them (R2)."""
        self._lay_out_companies(numbers)
        billed = _some_users(self._connection, "status <> 'closed' AND billed", sorted(numbers), self._today)
        self._place(billed)

    def _lay_out_companies(self, numbers: set[str]) -> None:
        self._known_companies |= _some_companies(
            self._connection, sorted(numbers - self._known_companies.keys())
        )

    def _place(self, users: Iterable[User]) -> list[User]:
        placed = []
        for user in users:
            placed.append(user)
            self._known_users[user.id] = user
            self._by_email[email_key(user.email)] = user.id
        return placed

    def _recall(self, keys: Sequence[str]) -> None:
        for some in chunks(keys):
            rows = self._connection.execute(
                f"SELECT key, id, version, ledger, asked FROM receipt WHERE key IN ({placeholders(some)})",
                some,
            )
            self._answered |= {key: StoredReceipt(*given) for key, *given in rows}

    def user(self, user_id: str) -> User | None:
        """A user who was laid out, as he stands now."""
        return self._known_users.get(user_id)

    def answer(self, job: AuthorisedCall, lease: Lease | None) -> Receipt:
        """What becomes of one call, after those before it."""
        call = job.call
        found = self._find(call)
        given = self._answered.get(call.key) if call.key else None
        wanted = decide(job, lease.fence if lease else None, given, found, self._today)
        if isinstance(wanted, Receipt):
            return wanted
        receipt = self.move(call.key, found, wanted)
        if call.key and receipt.verdict is Verdict.APPLIED:
            given = StoredReceipt(receipt.id, receipt.version, job.ledger, fingerprint(call))
            self._answered[call.key] = self._given[call.key] = given
        return receipt

    def _find(self, call: Call) -> Resource | None:
        """What a call is about: what it would create, should that exist already, or what it would change."""
        step = call.step
        if isinstance(step, CompanyStep):
            return self._known_companies.get(step.company)
        if isinstance(step, CreateUser):
            return self.user(self._by_email.get(email_key(step.profile.email), ""))
        return self.user(call.id)

    def move(self, key: str, before: Resource | None, wanted: Resource) -> Receipt:
        """Ask the rules; then this is how the resource stands."""
        address, wanted = next_version(before, wanted, os.urandom(16).hex())
        census = self._census = self._census or StateIndex(
            State(self._known_companies, self._known_users), self._terms
        )
        faults = census.place(address, wanted)
        if faults:
            census.place(address, before)
            return refused(key, faults)
        if address in self._touched:
            self.store()
        self._touched.add(address)
        if isinstance(wanted, Company):
            self._known_companies[wanted.number] = wanted
            self._companies.append((before if isinstance(before, Company) else None, wanted))
        else:
            was = before if isinstance(before, User) else None
            if was is not None:
                self._by_email.pop(email_key(was.email), None)
            self._by_email[email_key(wanted.email)] = wanted.id
            self._known_users[wanted.id] = wanted
            self._users.append((was, wanted))
        return applied(key, wanted)

    def store(self) -> None:
        """Write what has moved."""
        if self._touched and not self._counter:
            self._counter = _count(self._connection)
        _store_companies(self._connection, self._companies, self._counter)
        _store_users(self._connection, self._users, self._counter)
        _mark_billing(self._connection, self._users, self._today, self._counter)
        self._connection.executemany(
            "INSERT INTO receipt (key, id, version, ledger, asked) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET id = excluded.id, version = excluded.version, "
            "ledger = excluded.ledger, asked = excluded.asked",
            [(key, given.id, given.version, given.ledger, given.asked) for key, given in self._given.items()],
        )
        for moved in (self._companies, self._users, self._given, self._touched):
            moved.clear()


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


def _some_companies(connection: Connection, numbers: Sequence[str]) -> dict[str, Company]:
    found: dict[str, Company] = {}
    for some in chunks(numbers):
        rows = connection.execute(
            f"SELECT {_COMPANY_COLUMNS} FROM company WHERE number IN ({placeholders(some)})",
            some,
        )
        found |= {company.number: company for company in map(_as_company, rows)}
    return found


def _snapshot(connection: Connection, seen: str, today: date) -> Snapshot:
    companies = {
        row[0]: _as_company(row)
        for row in connection.execute(f"SELECT {_COMPANY_COLUMNS} FROM company ORDER BY seq")
    }
    users = {email_key(user.email): user for user in _users(connection, "", (), today)}
    state = State(companies, users)
    return Snapshot(_fact(connection, "id") or "", state, _terms(connection), content_stamp(connection, seen))


_BETWEEN, _WITHIN = "\x1e", "\x1f"
"""Between the entries of a list that SQLite joins, and within one; no name holds either."""


def _users(connection: Connection, where: str, values: Sequence[object], today: date) -> list[User]:
    """Users with their companies and applications, merged from three reads that SQLite joins by user."""
    within = f"user_id IN (SELECT id FROM client_user WHERE {where})" if where else "1 = 1"
    numbers: dict[str, str] = dict(
        connection.execute(
            f"SELECT user_id, group_concat(number, '{_BETWEEN}') FROM user_company WHERE {within} "
            "GROUP BY user_id",
            values,
        )
    )
    # an ending that has passed is over, whether or not anybody swept it away
    given: dict[str, str] = dict(
        connection.execute(
            f"SELECT user_id, group_concat(app || '{_WITHIN}' || state || '{_WITHIN}' || coalesce(ends, ''), "
            f"'{_BETWEEN}') FROM app_grant WHERE {within} AND (ends IS NULL OR ends >= ?) GROUP BY user_id",
            (*values, today.isoformat()),
        )
    )
    # people have few different sets of companies and applications: each set is made once
    sets: dict[str, frozenset[str]] = {"": frozenset()}
    held: dict[str, frozenset[Grant]] = {"": frozenset()}
    rows = connection.execute(
        f"SELECT {_USER_COLUMNS} FROM client_user{' WHERE ' + where if where else ''} ORDER BY seq", values
    )
    users = []
    with reject_corrupt_rows():
        for id_, email, first, last, phone, type_, billed, production, status, version in rows:
            mine = numbers.get(id_, "")
            companies = sets.get(mine)
            if companies is None:
                companies = sets[mine] = frozenset(mine.split(_BETWEEN))
            joined = given.get(id_, "")
            apps = held.get(joined)
            if apps is None:
                apps = held[joined] = frozenset(map(_as_grant, joined.split(_BETWEEN)))
            users.append(User(
                email, first, last, phone, _TYPES[type_], billed, companies, _PRODUCTIONS[production], apps,
                _STATUSES[status], id_, version,
            ))  # fmt: skip
    return users


_TYPES = {member.value: member for member in UserType}
_PRODUCTIONS = {member.value: member for member in Production}
_STATUSES = {member.value: member for member in Status}


def _as_grant(joined: str) -> Grant:
    app, state, ends = joined.split(_WITHIN)
    return Grant(app, AppState(state), date.fromisoformat(ends) if ends else None)


def _as_company(row: Sequence[Any]) -> Company:
    number, name, siren, mode, offer, ends, version = row
    with reject_corrupt_rows():
        billing = Billing(BillingMode(mode), offer) if mode else None
        return Company(number, name, siren, billing, date.fromisoformat(ends) if ends else None, version)


def _user(connection: Connection, user_id: str, today: date) -> User | None:
    return next(iter(_users(connection, "id = ?", (user_id,), today)), None)


def _users_by_id(connection: Connection, ids: Collection[str], today: date) -> dict[str, User]:
    return {user.id: user for user in _some_users(connection, "id", sorted(ids), today)}


def _some_users(connection: Connection, column: str, values: Sequence[str], today: date) -> Iterator[User]:
    """The users with one of these values there."""
    for some in chunks(values):
        yield from _users(connection, f"{column} IN ({placeholders(some)})", some, today)


def _span(connection: Connection, table: str, after: int, limit: int, since: int) -> tuple[int, bool]:
    """The last row of a page, and whether more follow."""
    rows = connection.execute(
        f"SELECT seq FROM {table} WHERE seq > ? AND changed > ? ORDER BY seq LIMIT ?",
        (after, since, limit + 1),
    ).fetchall()
    some = rows[:limit]
    return (some[-1][0] if some else after), len(rows) > limit


def _numbered(connection: Connection, table: str, rows: Iterable[tuple[object, ...]]) -> list[Any]:
    """New rows, with their places in the order of creation."""
    (last,) = connection.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()
    return [(*row, seq) for seq, row in enumerate(rows, start=last + 1)]


def _store_companies(
    connection: Connection, moves: Sequence[tuple[Company | None, Company]], counter: int
) -> None:
    if not moves:
        return
    new = [_company_row(company, counter) for before, company in moves if before is None]
    connection.executemany(
        "INSERT INTO company (name, siren, mode, offer, version, changed, number, seq) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        _numbered(connection, "company", new),
    )
    connection.executemany(
        "UPDATE company SET name = ?, siren = ?, mode = ?, offer = ?, version = ?, changed = ? "
        "WHERE number = ?",
        [_company_row(company, counter) for before, company in moves if before is not None],
    )


def _company_row(company: Company, counter: int) -> tuple[object, ...]:
    mode, offer = (str(company.billing.mode), company.billing.offer) if company.billing else (None, None)
    return company.name, company.siren, mode, offer, company.version, counter, company.number


def _store_users(connection: Connection, moves: Sequence[tuple[User | None, User]], counter: int) -> None:
    if not moves:
        return
    # changes first: a newcomer may have the address that somebody gives up
    connection.executemany(
        "UPDATE client_user SET email = ?, email_key = ?, first_name = ?, last_name = ?, phone = ?, "
        "type = ?, billed = ?, production = ?, status = ?, version = ?, changed = ? WHERE id = ?",
        [_user_row(user, counter) for before, user in moves if before is not None],
    )
    new = [_user_row(user, counter) for before, user in moves if before is None]
    connection.executemany(
        "INSERT INTO client_user (email, email_key, first_name, last_name, phone, type, billed, "
        "production, status, version, changed, id, seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        _numbered(connection, "client_user", new),
    )
    connection.executemany(
        "DELETE FROM user_company WHERE user_id = ? AND number = ?",
        [(user.id, number) for was, user in moves if was for number in was.companies - user.companies],
    )
    connection.executemany(
        "INSERT INTO user_company (user_id, number) VALUES (?, ?)",
        [
            (user.id, number)
            for was, user in moves
            for number in (user.companies - was.companies if was else user.companies)
        ],
    )
    # also sweeps away endings that have passed, which the reading left out
    regranted = [user for was, user in moves if was is None or was.apps != user.apps]
    connection.executemany("DELETE FROM app_grant WHERE user_id = ?", [(user.id,) for user in regranted])
    connection.executemany(
        "INSERT INTO app_grant (user_id, app, state, ends) VALUES (?, ?, ?, ?)",
        [
            (user.id, grant.app, str(grant.state), grant.ends.isoformat() if grant.ends else None)
            for user in regranted
            for grant in user.apps
        ],
    )


def _user_row(user: User, counter: int) -> tuple[object, ...]:
    return (
        user.email, email_key(user.email), user.first_name, user.last_name, user.phone, str(user.type),
        user.billed, str(user.production), str(user.status), user.version, counter, user.id,
    )  # fmt: skip


def _mark_billing(
    connection: Connection, moves: Sequence[tuple[User | None, User]], today: date, counter: int
) -> None:
    """R15: billing stops at month end once nobody open is billed to a company, and goes on otherwise."""
    passes = {passed for passed in (billing_transfer(*move) for move in moves) if len(set(passed)) == 2}
    connection.executemany(
        "UPDATE company SET billing_ends = NULL, changed = ? WHERE number = ? AND billing_ends IS NOT NULL",
        [(counter, joined) for _, joined in passes],
    )
    ends = month_end(today).isoformat()
    connection.executemany(
        "UPDATE company SET billing_ends = ?, changed = ? WHERE number = ? "
        "AND (billing_ends IS NULL OR billing_ends <> ?) AND NOT EXISTS "
        "(SELECT 1 FROM client_user WHERE billed = ? AND status <> 'closed')",
        [(ends, counter, left, ends, left) for left, _ in passes],
    )


def _counter(connection: Connection) -> int:
    return int(_fact(connection, "counter") or "0")


def _count(connection: Connection) -> int:
    """One more write that changes something: the counter as it now stands, and another stamp.

    A stamp is drawn by chance, so that no two contents ever share one, not even after a backup was restored.
    """
    counter = _counter(connection) + 1
    connection.executemany(
        "INSERT INTO fact (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [("counter", str(counter)), ("stamp", os.urandom(16).hex())],
    )
    return counter


def _lease(connection: Connection, ledger: str) -> Lease | None:
    row = connection.execute(
        "SELECT owner, fence, expires, holder FROM lease WHERE ledger = ?", (ledger,)
    ).fetchone()
    if row is None:
        return None
    owner, fence, expires, holder = row
    return Lease(ledger, owner, fence, datetime.fromtimestamp(expires, UTC), holder)


def _keep_lease(connection: Connection, lease: Lease, seconds: int) -> None:
    connection.execute(
        "INSERT INTO lease (ledger, owner, fence, holder, expires, seconds) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (ledger) DO UPDATE SET owner = excluded.owner, fence = excluded.fence, "
        "holder = excluded.holder, expires = excluded.expires, seconds = excluded.seconds",
        (lease.ledger, lease.owner, lease.fence, lease.holder, int(lease.expires.timestamp()), seconds),
    )


def _fact(connection: Connection, name: str) -> str | None:
    row = connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else None


def _receipts(connection: Connection, keys: Sequence[str], ledger: str) -> dict[str, Receipt]:
    return {
        key: repeated(key, StoredReceipt(*words), ledger)
        for some in chunks(keys)
        for key, *words in connection.execute(
            f"SELECT key, id, version, ledger FROM receipt WHERE key IN ({placeholders(some)})", some
        )
    }


def _terms(connection: Connection) -> PortalTerms:
    kinds: dict[str, set[str]] = {"offer": set(), "app": set(), "domain": set(), "staff": set()}
    with reject_corrupt_rows():
        for kind, value in connection.execute("SELECT kind, value FROM term"):
            kinds[kind].add(value)
    return PortalTerms(*(frozenset(kinds[kind]) for kind in ("offer", "app", "domain", "staff")))


def _found(connection: Connection, terms: PortalTerms, public_url: str) -> None:
    """What a portal has from its first moment: an identity for life, and the firm's terms."""
    connection.execute("INSERT INTO fact (name, value) VALUES ('id', ?)", (os.urandom(16).hex(),))
    _set_terms(connection, terms, public_url)


def _set_terms(connection: Connection, terms: PortalTerms, public_url: str) -> None:
    connection.execute("DELETE FROM term")
    for kind, values in (
        ("offer", terms.offers),
        ("app", terms.apps),
        ("domain", terms.email_domains),
        ("staff", terms.staff),
    ):
        connection.executemany(
            "INSERT INTO term (kind, value) VALUES (?, ?)", [(kind, value) for value in sorted(values)]
        )
    connection.execute("DELETE FROM fact WHERE name = 'public_url'")
    connection.execute("INSERT INTO fact (name, value) VALUES ('public_url', ?)", (public_url,))
