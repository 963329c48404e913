"""The embedded portal: a portal of record in one SQLite file, with every rule at its own border.

Every writer passes the same gate: the slice of the state that the rules ask for is read, the
step's fold is applied to it, the rules are asked, and only then is the row written. Versions
guard against lost updates, receipts make a repeated call harmless, and the portal keeps its own
clock for what ends with the month (R9, R15).
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from provisioner.database import Identity, connect, read, told, transaction
from provisioner.errors import PortalError
from provisioner.model import (
    Address,
    AppState,
    Billing,
    BillingMode,
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
    email_key,
    month_end,
    paris_date,
    user_address,
)
from provisioner.planning.steps import (
    CreateCompany,
    CreateUser,
    EditApps,
    EditCompany,
    IllegalStep,
    ReopenUser,
    SetBilling,
    Step,
    ValidateUser,
    address_of,
    after,
)
from provisioner.portals.base import Call, Capabilities, Receipt, Snapshot, Verdict
from provisioner.rules import Census

BATCH = 100
"""Calls a transaction: one commit for each costs ten times one for a hundred."""

INVITATION_DAYS = 30
"""How long an activation link works."""

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

Clock = Callable[[], datetime]

_USER_COLUMNS = "id, email, first_name, last_name, phone, type, billed, production, status, version"


def read_snapshot(path: Path, terms: Terms, clock: Clock) -> Snapshot:
    """The portal in one consistent view; a file that is not there yet is an empty portal under ``terms``."""
    today = paris_date(clock())
    return read(path, IDENTITY, lambda connection: _snapshot(connection, today)) or Snapshot(
        "", State(), terms
    )


class ReadOnlyPortal:
    """The portal opened for planning: it can be looked at, and has no way to write."""

    def __init__(self, path: Path, terms: Terms, clock: Clock) -> None:
        self._path = path
        self._terms = terms
        self._clock = clock

    def snapshot(self) -> Snapshot:
        """See :meth:`~provisioner.portals.base.Portal.snapshot`."""
        return read_snapshot(self._path, self._terms, self._clock)

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """Refuses: planning never writes."""
        raise PortalError(
            "The portal is open for reading only.", "This is a defect of the program; report it."
        )

    def receipt(self, key: str) -> Receipt | None:
        """See :meth:`~provisioner.portals.base.Portal.receipt`."""
        return read(self._path, IDENTITY, lambda connection: _receipt(connection, key))

    def activation_link(self, user_id: str) -> str:
        """Nothing: links are made when a letter is sent."""
        return ""

    def capabilities(self) -> Capabilities:
        """See :meth:`~provisioner.portals.base.Portal.capabilities`."""
        return Capabilities(batch=BATCH)

    def close(self) -> None:
        """Nothing is held."""


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
            self._connection.execute("BEGIN")
            try:
                return _snapshot(self._connection, self._today())
            finally:
                self._connection.execute("ROLLBACK")

    def receipt(self, key: str) -> Receipt | None:
        """See :meth:`~provisioner.portals.base.Portal.receipt`."""
        with told(self._path, IDENTITY):
            return _receipt(self._connection, key)

    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        """One transaction for all calls; a refused one leaves its neighbours alone."""
        with self._writing() as connection:
            # the terms are read once: they cannot move inside the transaction
            terms = _terms(connection)
            return [self._execute(connection, call, terms) for call in calls]

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
            step = CreateUser(email_key(user.email), user)
            return self._execute(connection, Call("", step), _terms(connection))

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

    def activation_link(self, user_id: str) -> str:
        """See :meth:`~provisioner.portals.base.Portal.activation_link`."""
        now = int(self._clock().timestamp())
        with self._writing() as connection:
            user = _user(connection, user_id, self._today())
            base = _fact(connection, "public_url")
            row = connection.execute(
                "SELECT generation, expires, used FROM invitation WHERE user_id = ?", (user_id,)
            ).fetchone()
            if user is None or user.status is not Status.ACTIVE or not base or (row and row[2]):
                return ""
            generation, expires = (row[0], row[1]) if row else (0, 0)
            if expires <= now:
                generation += 1
                expires = now + int(timedelta(days=INVITATION_DAYS).total_seconds())
            token = self._token(user_id, generation, expires)
            if row is None or expires != row[1]:
                connection.execute(
                    "INSERT INTO invitation (user_id, generation, expires, token_hash) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (user_id) DO UPDATE SET generation = excluded.generation, "
                    "expires = excluded.expires, token_hash = excluded.token_hash",
                    (user_id, generation, expires, _hash(token)),
                )
            return f"{base.rstrip('/')}/{token}"

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

    def _token(self, user_id: str, generation: int, expires: int) -> str:
        import hmac

        words = f"{user_id}.{generation}.{expires}"
        signature = hmac.new(self._secret(), words.encode(), hashlib.sha256).hexdigest()
        return f"{words}.{signature[:40]}"

    def _secret(self) -> bytes:
        """The key that links are derived with, beside the file, so that no copy of the file has it."""
        if not self._key_path.exists():
            descriptor = os.open(self._key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(32))
                file.flush()
                os.fsync(descriptor)
        return self._key_path.read_bytes()

    def _today(self) -> date:
        return paris_date(self._clock())

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with told(self._path, IDENTITY), transaction(self._connection):
            yield self._connection

    def _execute(self, connection: sqlite3.Connection, call: Call, terms: Terms) -> Receipt:
        earlier = _receipt(connection, call.key) if call.key else None
        if earlier is not None:
            return earlier
        step = call.step
        found = self._find(connection, call)
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
        return self._write(connection, call.key, address_of(step), found, wanted, terms)

    def _by_other(self, user_id: str, edit: Callable[[User], User]) -> Receipt:
        """Another writer's edit, through the same gate."""
        with self._writing() as connection:
            user = _user(connection, user_id, self._today())
            if user is None or not user.is_open:
                return _refused("", "There is no open account with this id.")
            address = user_address(email_key(user.email))
            return self._write(connection, "", address, user, edit(user), _terms(connection))

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

    def _find(self, connection: sqlite3.Connection, call: Call) -> Resource | None:
        step = call.step
        if isinstance(step, CreateCompany | EditCompany | SetBilling):
            return _company(connection, step.company)
        if isinstance(step, CreateUser):
            return _user_by_email(connection, step.profile.email, self._today())
        return _user(connection, call.id, self._today())

    def _write(
        self,
        connection: sqlite3.Connection,
        key: str,
        address: Address,
        before: Resource | None,
        wanted: Resource,
        terms: Terms,
    ) -> Receipt:
        """Ask the rules of the slice they concern, then write the one resource."""
        slice_ = _slice(connection, before, wanted, self._today())
        if before is not None:
            # inside the slice the account goes by the name it is addressed by
            slice_ = _under(slice_, address, before)
        faults = Census(slice_, terms).place(address, wanted)
        if faults:
            return _refused(key, f"{faults[0].code}: {faults[0].detail}")
        wanted = replace(wanted, version=(before.version if before else 0) + 1)
        if isinstance(wanted, Company):
            _store_company(connection, wanted, is_new=before is None)
            number = ""
        else:
            was = before if isinstance(before, User) else None
            wanted = replace(wanted, id=was.id if was else os.urandom(16).hex())
            _store_user(connection, was, wanted)
            self._mark_billing(connection, was, wanted)
            number = wanted.id
        if key:
            connection.execute("INSERT INTO receipt VALUES (?, ?, ?)", (key, number, wanted.version))
        return Receipt(key, Verdict.APPLIED, number, wanted.version)

    def _mark_billing(self, connection: sqlite3.Connection, before: User | None, wanted: User) -> None:
        """R15: billing stops at month end once nobody open is billed to a company, and goes on otherwise."""
        left = before.billed if before is not None and before.is_open else ""
        joined = wanted.billed if wanted.is_open else ""
        if joined and joined != left:
            connection.execute("UPDATE company SET billing_ends = NULL WHERE number = ?", (joined,))
        if left and left != joined:
            connection.execute(
                "UPDATE company SET billing_ends = ? WHERE number = ? AND NOT EXISTS "
                "(SELECT 1 FROM client_user WHERE billed = ? AND status <> 'closed')",
                (month_end(self._today()).isoformat(), left, left),
            )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


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


def _snapshot(connection: sqlite3.Connection, today: date) -> Snapshot:
    companies = {
        row[0]: _as_company(row)
        for row in connection.execute(
            "SELECT number, name, siren, mode, offer, billing_ends, version FROM company"
        )
    }
    users = {email_key(user.email): user for user in _users(connection, "", (), today)}
    return Snapshot(_fact(connection, "id") or "", State(companies, users), _terms(connection))


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


def _user_by_email(connection: sqlite3.Connection, email: str, today: date) -> User | None:
    return next(_users(connection, "email_key = ?", (email_key(email),), today), None)


def _company(connection: sqlite3.Connection, number: str) -> Company | None:
    row = connection.execute(
        "SELECT number, name, siren, mode, offer, billing_ends, version FROM company WHERE number = ?",
        (number,),
    ).fetchone()
    return _as_company(row) if row else None


def _slice(connection: sqlite3.Connection, before: Resource | None, wanted: Resource, today: date) -> State:
    """The part of the state that the rules ask about when this resource moves."""
    if isinstance(wanted, Company):
        return State({wanted.number: before} if isinstance(before, Company) else {}, {})
    was = before if isinstance(before, User) else None
    numbers = set(wanted.companies) | {wanted.billed}
    companies = {number: company for number in numbers if (company := _company(connection, number))}
    users: dict[str, User] = {}
    if (holder := _user_by_email(connection, wanted.email, today)) is not None:
        users[email_key(holder.email)] = holder
    # who else is billed to the companies he joins and leaves matters only if his standing there moves
    standing = (wanted.billed, wanted.type, wanted.is_open)
    if was is None or (was.billed, was.type, was.is_open) != standing:
        for number in {wanted.billed, was.billed if was else wanted.billed}:
            for user in _billed_to(connection, number, today):
                users[email_key(user.email)] = user
    if was is not None:
        users[email_key(was.email)] = was
    return State(companies, users)


def _billed_to(connection: sqlite3.Connection, number: str, today: date) -> Iterable[User]:
    return _users(connection, "billed = ? AND status <> 'closed'", (number,), today)


def _under(state: State, address: Address, resource: Resource) -> State:
    if not isinstance(resource, User):
        return state
    users = {key: user for key, user in state.users.items() if user.id != resource.id}
    return State(state.companies, {**users, address.key: resource})


def _store_company(connection: sqlite3.Connection, company: Company, *, is_new: bool) -> None:
    mode, offer = (str(company.billing.mode), company.billing.offer) if company.billing else (None, None)
    if is_new:
        connection.execute(
            "INSERT INTO company (number, name, siren, mode, offer, version) VALUES (?, ?, ?, ?, ?, ?)",
            (company.number, company.name, company.siren, mode, offer, company.version),
        )
    else:
        connection.execute(
            "UPDATE company SET name = ?, siren = ?, mode = ?, offer = ?, version = ? WHERE number = ?",
            (company.name, company.siren, mode, offer, company.version, company.number),
        )


def _store_user(connection: sqlite3.Connection, before: User | None, user: User) -> None:
    row = (
        user.email, email_key(user.email), user.first_name, user.last_name, user.phone, str(user.type),
        user.billed, str(user.production), str(user.status), user.version, user.id,
    )  # fmt: skip
    if before is None:
        connection.execute(
            "INSERT INTO client_user (email, email_key, first_name, last_name, phone, type, billed, "
            "production, status, version, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
    else:
        connection.execute(
            "UPDATE client_user SET email = ?, email_key = ?, first_name = ?, last_name = ?, phone = ?, "
            "type = ?, billed = ?, production = ?, status = ?, version = ? WHERE id = ?",
            row,
        )
    held = before.companies if before else frozenset()
    connection.executemany(
        "DELETE FROM user_company WHERE user_id = ? AND number = ?",
        [(user.id, number) for number in held - user.companies],
    )
    connection.executemany(
        "INSERT INTO user_company VALUES (?, ?)", [(user.id, number) for number in user.companies - held]
    )
    if before is None or before.apps != user.apps:
        # also sweeps away endings that have passed, which the reading left out
        connection.execute("DELETE FROM app_grant WHERE user_id = ?", (user.id,))
        connection.executemany(
            "INSERT INTO app_grant VALUES (?, ?, ?, ?)",
            [(user.id, g.app, str(g.state), g.ends.isoformat() if g.ends else None) for g in user.apps],
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
