"""The embedded portal: a portal of record in one SQLite file, with every rule at its own border.

Every writer passes the same gate: the slice of the state that the rules ask for is read, the
step's fold is applied to it, the rules are asked, and only then is the row written. Versions
guard against lost updates, receipts make a repeated call harmless, and the portal keeps its own
clock for what ends with the month (R9, R15).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from provisioner.database import (
    Identity,
    connect,
    marks,
    portions,
    read,
    seen_at,
    stamp_of,
    stamped,
    told,
    transaction,
)
from provisioner.diagnostics import Diagnostic
from provisioner.errors import PortalError
from provisioner.files import read_bytes, write_private
from provisioner.model import (
    Address,
    AppState,
    Billing,
    BillingMode,
    Clock,
    Company,
    Grant,
    Operator,
    Production,
    Resource,
    State,
    Status,
    Terms,
    User,
    UserType,
    company_address,
    email_key,
    month_end,
    paris_date,
    user_address,
)
from provisioner.planning.steps import (
    CreateCompany,
    CreateUser,
    EditApps,
    EditCompanies,
    EditCompany,
    EditProfile,
    IllegalStep,
    ReopenUser,
    SetBilledCompany,
    SetBilling,
    Step,
    ValidateUser,
    address_of,
    after,
)
from provisioner.portals.base import Call, Capabilities, Receipt, Snapshot, T, Verdict, View
from provisioner.rules import Census

BATCH = 1_000
"""Calls a transaction: one commit for each costs ten times one for a hundred."""

INVITATION_DAYS = 30
"""How long an activation link works."""

KEY_BYTES = 32
"""The length of the key that activation links are derived with."""

_SCHEMA = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE term (kind TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, value));
CREATE TABLE company (
    number TEXT PRIMARY KEY, name TEXT NOT NULL, siren TEXT,
    mode TEXT CHECK (mode IN ('client', 'firm')), offer TEXT, billing_ends TEXT,
    version INTEGER NOT NULL, CHECK ((mode IS NULL) = (offer IS NULL)));
CREATE TABLE client_user (
    id TEXT PRIMARY KEY, email TEXT NOT NULL, email_key TEXT NOT NULL UNIQUE,
    first_name TEXT NOT NULL, last_name TEXT NOT NULL, phone TEXT,
    type TEXT NOT NULL CHECK (type IN ('administrator', 'standard')),
    billed TEXT NOT NULL REFERENCES company (number),
    production TEXT NOT NULL CHECK (production IN ('full', 'consultation')),
    status TEXT NOT NULL CHECK (status IN ('to_validate', 'active', 'closed')),
    version INTEGER NOT NULL);
CREATE INDEX client_user_billed ON client_user (billed);
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
CREATE TABLE receipt (key TEXT PRIMARY KEY, id TEXT NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID
"""

IDENTITY = Identity("portal", 0x70727074, 1, _SCHEMA, PortalError)

_USER_COLUMNS = "id, email, first_name, last_name, phone, type, billed, production, status, version"


def read_snapshot(path: Path, terms: Terms, clock: Clock) -> Snapshot:
    """The portal in one consistent view; a file that is not there yet is an empty portal under ``terms``."""
    today, seen = paris_date(clock()), seen_at(path)
    return read(path, IDENTITY, lambda connection: _snapshot(connection, seen, today)) or Snapshot(
        "", State(), terms
    )


class _View:
    """Parts of the portal, within one transaction."""

    def __init__(self, connection: sqlite3.Connection, path: Path, today: date) -> None:
        self._connection = connection
        self._today = today
        self.portal = _fact(connection, "id") or ""
        self.stamp = stamp_of(connection, seen_at(path))
        self.terms = _terms(connection)

    def users(self, *, ids: Collection[str] = (), emails: Collection[str] = ()) -> list[User]:
        """See :class:`~provisioner.portals.base.View`."""
        rows: dict[int, str] = {}
        for column, values in (("id", ids), ("email_key", emails)):
            for some in portions(sorted(values)):
                rows.update(
                    self._connection.execute(
                        f"SELECT rowid, id FROM client_user WHERE {column} IN ({marks(some)})", some
                    )
                )
        order = [rows[row] for row in sorted(rows)]
        found = {user.id: user for user in _some_users(self._connection, "id", order, self._today)}
        return [found[id_] for id_ in order]

    def companies(self, numbers: Collection[str]) -> dict[str, Company]:
        """See :class:`~provisioner.portals.base.View`."""
        return _some_companies(self._connection, sorted(numbers))


class ReadOnlyPortal:
    """The portal opened for planning: it can be looked at, and has no way to write."""

    def __init__(self, path: Path, terms: Terms, clock: Clock) -> None:
        self._path = path
        self._terms = terms
        self._clock = clock

    def snapshot(self) -> Snapshot:
        """See :meth:`~provisioner.portals.base.Portal.snapshot`."""
        return read_snapshot(self._path, self._terms, self._clock)

    def look(self, looker: Callable[[View], T | None]) -> T | None:
        """See :meth:`~provisioner.portals.base.Portal.look`."""
        today = paris_date(self._clock())
        return read(self._path, IDENTITY, lambda connection: looker(_View(connection, self._path, today)))

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """Refuses: planning never writes."""
        raise _read_only()

    def fit(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        """See :meth:`~provisioner.portals.base.Portal.fit`."""
        return desired, ()

    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> None:
        """Refuses: planning never writes."""
        raise _read_only()

    def let_go(self) -> None:
        """Nothing is held."""

    def claim(self, letters: Sequence[str]) -> frozenset[str]:
        """Refuses: planning never writes."""
        raise _read_only()

    def receipt(self, key: str, ledger: str) -> Receipt | None:
        """See :meth:`~provisioner.portals.base.Portal.receipt`."""
        return read(self._path, IDENTITY, lambda connection: _receipt(connection, key))

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """Nothing: links are made when a letter is sent."""
        return dict.fromkeys(user_ids, "")

    def capabilities(self) -> Capabilities:
        """See :meth:`~provisioner.portals.base.Portal.capabilities`."""
        return Capabilities(batch=BATCH)

    def close(self) -> None:
        """Nothing is held."""


def _read_only() -> PortalError:
    return PortalError("The portal is open for reading only.", "This is a defect of the program; report it.")


class SqlPortal:
    """The embedded portal, opened by one operator for writing; a missing file is made under ``terms``."""

    def __init__(self, path: Path, operator: Operator, terms: Terms, public_url: str, clock: Clock) -> None:
        self._path = path
        self._operator = operator
        self._clock = clock
        self._key_path = path.with_name(path.name + ".key")
        self._connection = connect(path, IDENTITY, lambda connection: _found(connection, terms, public_url))

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def capabilities(self) -> Capabilities:
        """See :meth:`~provisioner.portals.base.Portal.capabilities`."""
        return Capabilities(batch=BATCH)

    def snapshot(self) -> Snapshot:
        """See :meth:`~provisioner.portals.base.Portal.snapshot`."""
        with told(self._path, IDENTITY):
            seen = seen_at(self._path)
            self._connection.execute("BEGIN")
            try:
                return _snapshot(self._connection, seen, self._today())
            finally:
                self._connection.execute("ROLLBACK")

    def look(self, looker: Callable[[View], T | None]) -> T | None:
        """See :meth:`~provisioner.portals.base.Portal.look`."""
        with told(self._path, IDENTITY):
            self._connection.execute("BEGIN")
            try:
                return looker(_View(self._connection, self._path, self._today()))
            finally:
                self._connection.execute("ROLLBACK")

    def fit(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        """See :meth:`~provisioner.portals.base.Portal.fit`."""
        return desired, ()

    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> None:
        """See :meth:`~provisioner.portals.base.Portal.hold`."""

    def let_go(self) -> None:
        """See :meth:`~provisioner.portals.base.Portal.let_go`."""

    def claim(self, letters: Sequence[str]) -> frozenset[str]:
        """See :meth:`~provisioner.portals.base.Portal.claim`."""
        return frozenset(letters)

    def receipt(self, key: str, ledger: str) -> Receipt | None:
        """See :meth:`~provisioner.portals.base.Portal.receipt`."""
        with told(self._path, IDENTITY):
            return _receipt(self._connection, key)

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """One transaction for all calls; a refused one leaves its neighbours alone."""
        with self._writing() as connection:
            return self._execute(connection, calls)

    def configure(self, terms: Terms, public_url: str) -> None:
        """Bring the portal's catalogue, domains, staff and public address in line with the firm's."""
        with self._writing() as connection:
            _set_terms(connection, terms, public_url)

    def client_creates_user(self, administrator_id: str, profile: User) -> Receipt:
        """R11: a client administrator creates a user, billed to his own company, to be validated."""
        with self._writing() as connection:
            administrator = _user(connection, administrator_id, self._today())
            if administrator is None or not _creates_users(administrator):
                return _refused("", "R11: only an active administrator of a client creates users.")
            billed = administrator.billed
            user = replace(
                profile,
                billed=billed,
                companies=frozenset({billed}),
                type=UserType.STANDARD,
                status=Status.TO_VALIDATE,
            )
            (receipt,) = self._execute(connection, [Call("", CreateUser(email_key(user.email), user))])
            return receipt

    def user_changes_profile(
        self, user_id: str, *, email: str | None = None, phone: str | None = None
    ) -> Receipt:
        """*Mon compte*: a user changes his own e-mail or phone ("" for none)."""
        return self._by_other(
            user_id,
            lambda user: replace(
                user,
                email=user.email if email is None else email,
                phone=user.phone if phone is None else (phone or None),
            ),
        )

    def client_requests_app(self, user_id: str, app: str) -> Receipt:
        """The Store: an application the client asks for waits for the firm (R10)."""

        def request(user: User) -> User:
            if any(grant.app == app for grant in user.apps):
                return user
            return replace(user, apps=user.apps | {Grant(app, AppState.REQUESTED)})

        return self._by_other(user_id, request)

    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        """See :meth:`~provisioner.portals.base.Portal.activation_links`."""
        now = int(self._clock().timestamp())
        later = now + int(timedelta(days=INVITATION_DAYS).total_seconds())
        secret = self._secret()
        links = dict.fromkeys(user_ids, "")
        made: list[tuple[str, int, int, str]] = []
        with self._writing() as connection:
            base = (_fact(connection, "public_url") or "").rstrip("/")
            for user_id, generation, expires, known in _invited(connection, list(links)) if base else ():
                renewed = expires <= now
                words = (user_id, generation + renewed, later if renewed else expires)
                token = _token(secret, *words)
                links[user_id] = f"{base}/{token}"
                if (hashed := _hash(token)) != known:
                    made.append((*words, hashed))
            connection.executemany(
                "INSERT INTO invitation (user_id, generation, expires, token_hash) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (user_id) DO UPDATE SET generation = excluded.generation, "
                "expires = excluded.expires, token_hash = excluded.token_hash",
                made,
            )
        return links

    def consume(self, link: str) -> bool:
        """Use an activation link, once. False for a link that is used, expired, revoked or invented."""
        token = link.rstrip("/").rpartition("/")[2]
        now = int(self._clock().timestamp())
        with self._writing() as connection:
            used = connection.execute(
                "UPDATE invitation SET used = 1 WHERE token_hash = ? AND used = 0 AND expires > ? "
                "AND user_id IN (SELECT id FROM client_user WHERE status = 'active')",
                (_hash(token), now),
            )
            return used.rowcount == 1

    def _secret(self) -> bytes:
        """The key that links are derived with, beside the file, so that no copy of the file has it."""
        if not self._key_path.exists():
            # whole or not at all: a run killed in between must not leave an empty key, which anybody knows
            write_private(self._key_path, os.urandom(KEY_BYTES))
        key = read_bytes(self._key_path, KEY_BYTES)
        if len(key) != KEY_BYTES:
            raise PortalError(
                f"The key {self._key_path}, with which links are made, is damaged.",
                "Restore it from a backup.",
            )
        return key

    def _today(self) -> date:
        return paris_date(self._clock())

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with told(self._path, IDENTITY), transaction(self._connection), stamped(self._connection):
            yield self._connection

    def _execute(self, connection: sqlite3.Connection, calls: Sequence[Call]) -> list[Receipt]:
        desk = _Desk(connection, self._today())
        desk.lay_out(calls)
        receipts = [self._answer(desk, call) for call in calls]
        desk.store()
        return receipts

    def _answer(self, desk: _Desk, call: Call) -> Receipt:
        earlier = desk.receipts.get(call.key) if call.key else None
        if earlier is not None:
            return earlier
        step = call.step
        found = desk.find(call)
        if isinstance(step, CreateUser | CreateCompany):
            if found is not None:
                return _exists(call, step, found)
        elif found is None:
            return Receipt(call.key, Verdict.CONFLICT, problem=f"{address_of(step)} is not on this portal.")
        elif found.version != call.version:
            return _moved(call, step, found)
        refusal = self._refusal(step)
        if refusal is not None:
            return Receipt(call.key, *refusal)
        try:
            wanted = after(found, step)
        except IllegalStep as problem:
            return _refused(call.key, f"{problem.diagnostic.code}: {problem.diagnostic.detail}")
        return desk.move(call.key, found, wanted)

    def _by_other(self, user_id: str, edit: Callable[[User], User]) -> Receipt:
        """Another writer's edit, through the same gate."""
        with self._writing() as connection:
            desk = _Desk(connection, self._today())
            desk.lay_out_users([user_id])
            user = desk.user(user_id)
            if user is None or not user.is_open:
                return _refused("", "There is no open account with this id.")
            wanted = edit(user)
            desk.lay_out_rivals([wanted.email])
            receipt = desk.move("", user, wanted)
            desk.store()
            return receipt

    def _refusal(self, step: Step) -> tuple[Verdict, str, int, str] | None:
        """Rules about who acts (R7, R8) and when (R9)."""
        if isinstance(step, ValidateUser) and not self._operator.may_validate:
            return Verdict.FAILED, "", 0, "R7: this operator has no right to validate users."
        if isinstance(step, ReopenUser) and not self._operator.may_validate:
            return Verdict.FAILED, "", 0, "R8: this operator has no right to reopen accounts."
        if (
            isinstance(step, CreateUser)
            and step.profile.status is Status.ACTIVE
            and not self._operator.may_validate
        ):
            return Verdict.FAILED, "", 0, "R7: this operator may only create users who await validation."
        if isinstance(step, EditApps) and step.end and step.ends != month_end(self._today()):
            day = month_end(self._today()).isoformat()
            return Verdict.CONFLICT, "", 0, f"R9: the month has turned; an application now ends on {day}."
        return None


class _Desk:
    """What some calls concern, read at once; moved by the rules one resource at a time; written at once.

    Users lie there by their id. All of it happens inside one transaction, so that nothing moves meanwhile.
    """

    def __init__(self, connection: sqlite3.Connection, today: date) -> None:
        self.receipts: dict[str, Receipt] = {}
        self._connection = connection
        self._today = today
        self._terms = _terms(connection)
        self._census: Census | None = None
        self._known_companies: dict[str, Company] = {}
        self._known_users: dict[str, User] = {}
        self._by_email: dict[str, str] = {}
        self._companies: list[tuple[Company | None, Company]] = []
        self._users: list[tuple[User | None, User]] = []
        self._given: list[tuple[str, str, int]] = []
        self._touched: set[Address] = set()

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
            elif isinstance(step, CreateCompany | EditCompany | SetBilling):
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
        for some in portions(keys):
            rows = self._connection.execute(
                f"SELECT key, id, version FROM receipt WHERE key IN ({marks(some)})", some
            )
            for key, id_, version in rows:
                self.receipts[key] = Receipt(key, Verdict.APPLIED, id_, version)

    def user(self, user_id: str) -> User | None:
        """A user who was laid out, as he stands now."""
        return self._known_users.get(user_id)

    def find(self, call: Call) -> Resource | None:
        """What a call is about: what it would create, should that exist already, or what it would change."""
        step = call.step
        if isinstance(step, CreateCompany | EditCompany | SetBilling):
            return self._known_companies.get(step.company)
        if isinstance(step, CreateUser):
            return self.user(self._by_email.get(email_key(step.profile.email), ""))
        return self.user(call.id)

    def move(self, key: str, before: Resource | None, wanted: Resource) -> Receipt:
        """Ask the rules; then this is how the resource stands."""
        version = (before.version if before else 0) + 1
        if isinstance(wanted, Company):
            address = company_address(wanted.number)
            wanted = replace(wanted, version=version)
        else:
            id_ = before.id if isinstance(before, User) else os.urandom(16).hex()
            address = user_address(id_)
            wanted = replace(wanted, version=version, id=id_)
        census = self._census = self._census or Census(
            State(self._known_companies, self._known_users), self._terms
        )
        faults = census.place(address, wanted)
        if faults:
            census.place(address, before)
            return _refused(key, f"{faults[0].code}: {faults[0].detail}")
        if address in self._touched:
            self.store()
        self._touched.add(address)
        if isinstance(wanted, Company):
            self._known_companies[wanted.number] = wanted
            self._companies.append((before if isinstance(before, Company) else None, wanted))
            receipt = Receipt(key, Verdict.APPLIED, "", version)
        else:
            was = before if isinstance(before, User) else None
            if was is not None:
                self._by_email.pop(email_key(was.email), None)
            self._by_email[email_key(wanted.email)] = wanted.id
            self._known_users[wanted.id] = wanted
            self._users.append((was, wanted))
            receipt = Receipt(key, Verdict.APPLIED, wanted.id, version)
        if key:
            self.receipts[key] = receipt
            self._given.append((key, receipt.id, version))
        return receipt

    def store(self) -> None:
        """Write what has moved."""
        _store_companies(self._connection, self._companies)
        _store_users(self._connection, self._users)
        _mark_billing(self._connection, self._users, self._today)
        self._connection.executemany("INSERT INTO receipt VALUES (?, ?, ?)", self._given)
        for moved in (self._companies, self._users, self._given, self._touched):
            moved.clear()


def _invited(connection: sqlite3.Connection, ids: Sequence[str]) -> Iterator[tuple[str, int, int, str]]:
    """Who of these may set a password, with his invitation's generation, end and hash (or 0, 0 and "")."""
    for some in portions(ids):
        yield from connection.execute(
            "SELECT id, coalesce(generation, 0), coalesce(expires, 0), coalesce(token_hash, '') "
            "FROM client_user LEFT JOIN invitation ON user_id = id "
            f"WHERE id IN ({marks(some)}) AND status = 'active' AND coalesce(used, 0) = 0",
            some,
        ).fetchall()


def _token(secret: bytes, user_id: str, generation: int, expires: int) -> str:
    import hmac

    # joined by what no spam filter takes for the end of a word, or an id may read as an account number there
    words = f"{user_id}_{generation}_{expires}"
    return f"{words}_{hmac.digest(secret, words.encode(), 'sha256').hex()[:40]}"


def _hash(token: str) -> str:
    from hashlib import sha256

    return sha256(token.encode()).hexdigest()


def _creates_users(user: User) -> bool:
    return user.is_administrator and user.status is Status.ACTIVE


def _exists(call: Call, step: CreateUser | CreateCompany, found: Resource) -> Receipt:
    """What is to be created exists: just as wanted, or not."""
    if found == after(None, step):
        return Receipt(call.key, Verdict.ALREADY, getattr(found, "id", ""), found.version)
    if isinstance(found, User):
        problem = f"R1: {found.email} already belongs to another account, {found.name}."
    else:
        problem = f"R13: dossier number {found.number} already belongs to {found.name}."
    return Receipt(call.key, Verdict.CONFLICT, problem=problem)


def _moved(call: Call, step: Step, found: Resource) -> Receipt:
    """Somebody wrote since we read: to the very same effect, or not."""
    try:
        same = after(found, step) == found
    except IllegalStep:
        same = (
            isinstance(step, ReopenUser | ValidateUser) and getattr(found, "status", None) is Status.ACTIVE
        ) or (type(step).__name__ == "CloseUser" and getattr(found, "status", None) is Status.CLOSED)
    if same:
        return Receipt(call.key, Verdict.ALREADY, getattr(found, "id", ""), found.version)
    return Receipt(
        call.key, Verdict.CONFLICT, problem=f"{address_of(step)} was changed by somebody else meanwhile."
    )


def _refused(key: str, problem: str) -> Receipt:
    return Receipt(key, Verdict.FAILED, problem=problem)


def _some_companies(connection: sqlite3.Connection, numbers: Sequence[str]) -> dict[str, Company]:
    found: dict[str, Company] = {}
    for some in portions(numbers):
        rows = connection.execute(
            "SELECT number, name, siren, mode, offer, billing_ends, version FROM company "
            f"WHERE number IN ({marks(some)})",
            some,
        )
        found |= {company.number: company for company in map(_as_company, rows)}
    return found


def _snapshot(connection: sqlite3.Connection, seen: str, today: date) -> Snapshot:
    companies = {
        row[0]: _as_company(row)
        for row in connection.execute(
            "SELECT number, name, siren, mode, offer, billing_ends, version FROM company"
        )
    }
    users = {email_key(user.email): user for user in _users(connection, "", (), today)}
    state = State(companies, users)
    return Snapshot(_fact(connection, "id") or "", state, _terms(connection), stamp_of(connection, seen))


_BETWEEN, _WITHIN = "\x1e", "\x1f"
"""Between the entries of a list that SQLite joins, and within one; no name holds either."""


def _users(connection: sqlite3.Connection, where: str, values: Sequence[str], today: date) -> Iterator[User]:
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
            f"SELECT user_id, group_concat(app || '{_WITHIN}' || state || '{_WITHIN}' || ifnull(ends, ''), "
            f"'{_BETWEEN}') FROM app_grant WHERE {within} AND (ends IS NULL OR ends >= ?) GROUP BY user_id",
            (*values, today.isoformat()),
        )
    )
    # people have few different sets of companies and applications: each set is made once
    sets: dict[str, frozenset[str]] = {"": frozenset()}
    held: dict[str, frozenset[Grant]] = {"": frozenset()}
    rows = connection.execute(
        f"SELECT {_USER_COLUMNS} FROM client_user{' WHERE ' + where if where else ''}", values
    )
    for id_, email, first, last, phone, type_, billed, production, status, version in rows:
        mine = numbers.get(id_, "")
        companies = sets.get(mine)
        if companies is None:
            companies = sets[mine] = frozenset(mine.split(_BETWEEN))
        joined = given.get(id_, "")
        apps = held.get(joined)
        if apps is None:
            apps = held[joined] = frozenset(map(_as_grant, joined.split(_BETWEEN)))
        yield User(
            email, first, last, phone, _TYPES[type_], billed, companies, _PRODUCTIONS[production], apps,
            _STATUSES[status], id_, version,
        )  # fmt: skip


_TYPES = {member.value: member for member in UserType}
_PRODUCTIONS = {member.value: member for member in Production}
_STATUSES = {member.value: member for member in Status}


def _as_grant(joined: str) -> Grant:
    app, state, ends = joined.split(_WITHIN)
    return Grant(app, AppState(state), date.fromisoformat(ends) if ends else None)


def _as_company(row: Sequence[Any]) -> Company:
    number, name, siren, mode, offer, ends, version = row
    billing = Billing(BillingMode(mode), offer) if mode else None
    return Company(number, name, siren, billing, date.fromisoformat(ends) if ends else None, version)


def _user(connection: sqlite3.Connection, user_id: str, today: date) -> User | None:
    return next(_users(connection, "id = ?", (user_id,), today), None)


def _some_users(
    connection: sqlite3.Connection, column: str, values: Sequence[str], today: date
) -> Iterator[User]:
    """The users with one of these values there."""
    for some in portions(values):
        yield from _users(connection, f"{column} IN ({marks(some)})", some, today)


def _store_companies(connection: sqlite3.Connection, moves: Sequence[tuple[Company | None, Company]]) -> None:
    for statement, rows in (
        (
            "INSERT INTO company (name, siren, mode, offer, version, number) VALUES (?, ?, ?, ?, ?, ?)",
            [_company_row(company) for before, company in moves if before is None],
        ),
        (
            "UPDATE company SET name = ?, siren = ?, mode = ?, offer = ?, version = ? WHERE number = ?",
            [_company_row(company) for before, company in moves if before is not None],
        ),
    ):
        connection.executemany(statement, rows)


def _company_row(company: Company) -> tuple[object, ...]:
    mode, offer = (str(company.billing.mode), company.billing.offer) if company.billing else (None, None)
    return company.name, company.siren, mode, offer, company.version, company.number


def _store_users(connection: sqlite3.Connection, moves: Sequence[tuple[User | None, User]]) -> None:
    # changes first: a newcomer may have the address that somebody gives up
    connection.executemany(
        "UPDATE client_user SET email = ?, email_key = ?, first_name = ?, last_name = ?, phone = ?, "
        "type = ?, billed = ?, production = ?, status = ?, version = ? WHERE id = ?",
        [_user_row(user) for before, user in moves if before is not None],
    )
    connection.executemany(
        "INSERT INTO client_user (email, email_key, first_name, last_name, phone, type, billed, "
        "production, status, version, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_user_row(user) for before, user in moves if before is None],
    )
    connection.executemany(
        "DELETE FROM user_company WHERE user_id = ? AND number = ?",
        [(user.id, number) for was, user in moves if was for number in was.companies - user.companies],
    )
    connection.executemany(
        "INSERT INTO user_company VALUES (?, ?)",
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
        "INSERT INTO app_grant VALUES (?, ?, ?, ?)",
        [
            (user.id, grant.app, str(grant.state), grant.ends.isoformat() if grant.ends else None)
            for user in regranted
            for grant in user.apps
        ],
    )


def _user_row(user: User) -> tuple[object, ...]:
    return (
        user.email, email_key(user.email), user.first_name, user.last_name, user.phone, str(user.type),
        user.billed, str(user.production), str(user.status), user.version, user.id,
    )  # fmt: skip


def _mark_billing(
    connection: sqlite3.Connection, moves: Sequence[tuple[User | None, User]], today: date
) -> None:
    """R15: billing stops at month end once nobody open is billed to a company, and goes on otherwise."""
    joined, left = set(), set()
    for before, user in moves:
        was = before.billed if before is not None and before.is_open else ""
        is_ = user.billed if user.is_open else ""
        if was != is_:
            left.add(was)
            joined.add(is_)
    connection.executemany(
        "UPDATE company SET billing_ends = NULL WHERE number = ?", [(number,) for number in joined]
    )
    ends = month_end(today).isoformat()
    connection.executemany(
        "UPDATE company SET billing_ends = ? WHERE number = ? AND NOT EXISTS "
        "(SELECT 1 FROM client_user WHERE billed = ? AND status <> 'closed')",
        [(ends, number, number) for number in left],
    )


def _fact(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else None


def _receipt(connection: sqlite3.Connection, key: str) -> Receipt | None:
    row = connection.execute("SELECT id, version FROM receipt WHERE key = ?", (key,)).fetchone()
    return Receipt(key, Verdict.APPLIED, row[0], row[1]) if row else None


def _terms(connection: sqlite3.Connection) -> Terms:
    kinds: dict[str, set[str]] = {"offer": set(), "app": set(), "domain": set(), "staff": set()}
    for kind, value in connection.execute("SELECT kind, value FROM term"):
        kinds[kind].add(value)
    return Terms(*(frozenset(kinds[kind]) for kind in ("offer", "app", "domain", "staff")))


def _found(connection: sqlite3.Connection, terms: Terms, public_url: str) -> None:
    """What a portal has from its first moment: an identity for life, and the firm's terms."""
    connection.execute("INSERT INTO fact VALUES ('id', ?)", (os.urandom(16).hex(),))
    _set_terms(connection, terms, public_url)


def _set_terms(connection: sqlite3.Connection, terms: Terms, public_url: str) -> None:
    connection.execute("DELETE FROM term")
    for kind, values in (
        ("offer", terms.offers),
        ("app", terms.apps),
        ("domain", terms.email_domains),
        ("staff", terms.staff),
    ):
        connection.executemany("INSERT INTO term VALUES (?, ?)", [(kind, value) for value in sorted(values)])
    connection.execute("DELETE FROM fact WHERE name = 'public_url'")
    connection.execute("INSERT INTO fact VALUES ('public_url', ?)", (public_url,))
