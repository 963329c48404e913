"""The tables of the embedded portal, and the conversion of their rows to objects and back.

A function that planning never calls imports the classes it needs inside its body, to save start-up time.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from provisioner.errors import PortalError
from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Company,
    Grant,
    PortalTerms,
    Production,
    State,
    Status,
    User,
    UserType,
    email_key,
    month_end,
)
from provisioner.portal import Receipt, Snapshot
from provisioner.storage.database import Connection, chunks, placeholders, reject_corrupt_rows
from provisioner.storage.schema import DatabaseSchema

if TYPE_CHECKING:
    from provisioner.embedded.portal_types import Lease, Page

BATCH = 1_000
"""The maximum number of calls in one transaction. A commit for each call would be ten times slower."""

_TABLES = """
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
    key TEXT PRIMARY KEY, id TEXT NOT NULL, version INTEGER NOT NULL, ledger TEXT NOT NULL,
    asked TEXT NOT NULL) WITHOUT ROWID;
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

PORTAL_SCHEMA = DatabaseSchema("portal", 0x70727074, 1, _TABLES, PortalError)

_COMPANY_COLUMNS = "number, name, siren, mode, offer, billing_ends, version"
_USER_COLUMNS = "id, email, first_name, last_name, phone, type, billed, production, status, version"


def companies_by_number(connection: Connection, numbers: Sequence[str]) -> dict[str, Company]:
    """Return a mapping from dossier number to company. Numbers of no company are omitted."""
    found: dict[str, Company] = {}
    for some in chunks(numbers):
        rows = connection.execute(
            f"SELECT {_COMPANY_COLUMNS} FROM company WHERE number IN ({placeholders(some)})",
            some,
        )
        found |= {company.number: company for company in map(_as_company, rows)}
    return found


def load_snapshot(connection: Connection, today: date) -> Snapshot:
    """Return the whole portal: all companies and users, the firm's terms, and the portal's id and stamp."""
    companies = {
        row[0]: _as_company(row)
        for row in connection.execute(f"SELECT {_COMPANY_COLUMNS} FROM company ORDER BY seq")
    }
    users = {email_key(user.email): user for user in _load_users(connection, "", (), today)}
    state = State(companies, users)
    facts = load_fact(connection, "id"), load_fact(connection, "stamp")
    return Snapshot(facts[0] or "", state, load_terms(connection), facts[1] or "")


_BETWEEN, _WITHIN = "\x1e", "\x1f"
"""The separators in the result of ``group_concat``: between entries, and between the fields of an entry."""


def _load_users(connection: Connection, where: str, values: Sequence[object], today: date) -> list[User]:
    """Return the users that meet the SQL condition ``where`` with its ``values``; if it is "", all users."""
    within = f"user_id IN (SELECT id FROM client_user WHERE {where})" if where else "1 = 1"
    numbers: dict[str, str] = dict(
        connection.execute(
            f"SELECT user_id, group_concat(number, '{_BETWEEN}') FROM user_company WHERE {within} "
            "GROUP BY user_id",
            values,
        )
    )
    # skip an application whose last day has passed: it has ended, although its row still exists
    given: dict[str, str] = dict(
        connection.execute(
            f"SELECT user_id, group_concat(app || '{_WITHIN}' || state || '{_WITHIN}' || coalesce(ends, ''), "
            f"'{_BETWEEN}') FROM app_grant WHERE {within} AND (ends IS NULL OR ends >= ?) GROUP BY user_id",
            (*values, today.isoformat()),
        )
    )
    # make each different set only once, because many users have the same companies and applications
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


def users_by_id(connection: Connection, ids: Collection[str], today: date) -> dict[str, User]:
    """Return a mapping from id to user. Ids of no user are omitted."""
    return {user.id: user for user in users_where(connection, "id", sorted(ids), today)}


def users_where(connection: Connection, column: str, values: Sequence[str], today: date) -> Iterator[User]:
    """Yield the users whose value in ``column`` is one of ``values``."""
    for some in chunks(values):
        yield from _load_users(connection, f"{column} IN ({placeholders(some)})", some, today)


def load_page_of_companies(connection: Connection, after: int, limit: int, since: int) -> Page[Company]:
    """Return a page of companies; :meth:`SqlPortal.page_of_companies` explains the parameters."""
    from provisioner.embedded.portal_types import Page

    counter = load_counter(connection)
    last, more = _page_span(connection, "company", after, limit, since)
    rows = connection.execute(
        f"SELECT {_COMPANY_COLUMNS} FROM company WHERE seq > ? AND seq <= ? AND changed > ? ORDER BY seq",
        (after, last, since),
    ).fetchall()
    return Page(tuple(map(_as_company, rows)), last if more else None, counter)


def load_page_of_users(connection: Connection, after: int, limit: int, since: int, today: date) -> Page[User]:
    """Return a page of users; :meth:`SqlPortal.page_of_companies` explains the parameters."""
    from provisioner.embedded.portal_types import Page

    counter = load_counter(connection)
    last, more = _page_span(connection, "client_user", after, limit, since)
    users = _load_users(connection, "seq > ? AND seq <= ? AND changed > ?", (after, last, since), today)
    return Page(tuple(users), last if more else None, counter)


def _page_span(connection: Connection, table: str, after: int, limit: int, since: int) -> tuple[int, bool]:
    rows = connection.execute(
        f"SELECT seq FROM {table} WHERE seq > ? AND changed > ? ORDER BY seq LIMIT ?",
        (after, since, limit + 1),
    ).fetchall()
    some = rows[:limit]
    return (some[-1][0] if some else after), len(rows) > limit


def _numbered(connection: Connection, table: str, rows: Iterable[tuple[object, ...]]) -> list[Any]:
    (last,) = connection.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()
    return [(*row, seq) for seq, row in enumerate(rows, start=last + 1)]


def store_companies(
    connection: Connection, moves: Sequence[tuple[Company | None, Company]], counter: int
) -> None:
    """Insert or update companies. ``moves`` contains a pair for each company: before (None if new) and after
    the change. ``counter`` is the current change counter.
    """
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


def store_users(connection: Connection, moves: Sequence[tuple[User | None, User]], counter: int) -> None:
    """Insert or update users, and store to which companies and applications they have access. The parameters
    have the same meaning as in :func:`store_companies`.
    """
    if not moves:
        return
    # update before inserting, because a new user may get the e-mail that an existing user gives up
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
    # this also deletes the applications whose last day has passed, which were not read
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


def set_billing_end(
    connection: Connection, moves: Sequence[tuple[User | None, User]], today: date, counter: int
) -> None:
    """Update ``billing_ends`` of the companies that open users in ``moves`` leave or join (R15).

    A company that a user leaves gets the end of this month, unless another open user is billed to it. A
    company that a user joins gets NULL.
    """
    from provisioner.embedded.decide import billing_transfer

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


def load_counter(connection: Connection) -> int:
    """Return the change counter: the number of writes that have changed the content so far."""
    return int(load_fact(connection, "counter") or "0")


def bump_counter(connection: Connection) -> int:
    """Increment the change counter, store a new random stamp, and return the counter. After a backup is
    restored, the counter repeats earlier values. The random stamp never repeats a value.
    """
    counter = load_counter(connection) + 1
    connection.executemany(
        "INSERT INTO fact (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [("counter", str(counter)), ("stamp", os.urandom(16).hex())],
    )
    return counter


def load_lease(connection: Connection, ledger: str) -> Lease | None:
    """Return the latest lease of a ledger, or None if the ledger never had a lease."""
    from provisioner.embedded.portal_types import Lease

    row = connection.execute(
        "SELECT owner, fence, expires, holder FROM lease WHERE ledger = ?", (ledger,)
    ).fetchone()
    if row is None:
        return None
    owner, fence, expires, holder = row
    return Lease(ledger, owner, fence, datetime.fromtimestamp(expires, UTC), holder)


def store_lease(connection: Connection, lease: Lease, seconds: int) -> None:
    """Insert or replace the lease of a ledger. Each later write of the run renews it for ``seconds``."""
    connection.execute(
        "INSERT INTO lease (ledger, owner, fence, holder, expires, seconds) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (ledger) DO UPDATE SET owner = excluded.owner, fence = excluded.fence, "
        "holder = excluded.holder, expires = excluded.expires, seconds = excluded.seconds",
        (lease.ledger, lease.owner, lease.fence, lease.holder, int(lease.expires.timestamp()), seconds),
    )


def load_fact(connection: Connection, name: str) -> str | None:
    """Return the value of the fact ``name``, or None if the table ``fact`` does not contain it."""
    row = connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else None


def load_receipts(connection: Connection, keys: Sequence[str], ledger: str) -> dict[str, Receipt]:
    """Return the receipts that are stored for these keys, by key. The verdict is *already* if the call was
    applied for a ledger other than ``ledger``.
    """
    from provisioner.embedded.decide import StoredReceipt, repeated

    return {
        key: repeated(key, StoredReceipt(*words), ledger)
        for some in chunks(keys)
        for key, *words in connection.execute(
            f"SELECT key, id, version, ledger FROM receipt WHERE key IN ({placeholders(some)})", some
        )
    }


def load_terms(connection: Connection) -> PortalTerms:
    """Return the firm's terms: its catalogue, mail domains and staff addresses."""
    kinds: dict[str, set[str]] = {"offer": set(), "app": set(), "domain": set(), "staff": set()}
    with reject_corrupt_rows():
        for kind, value in connection.execute("SELECT kind, value FROM term"):
            kinds[kind].add(value)
    return PortalTerms(*(frozenset(kinds[kind]) for kind in ("offer", "app", "domain", "staff")))


def initialise(connection: Connection, terms: PortalTerms, public_url: str) -> None:
    """Write the first rows of a new portal: its permanent id, the firm's terms, and ``public_url``."""
    connection.execute("INSERT INTO fact (name, value) VALUES ('id', ?)", (os.urandom(16).hex(),))
    store_terms(connection, terms, public_url)


def store_terms(connection: Connection, terms: PortalTerms, public_url: str) -> None:
    """Replace the firm's terms and ``public_url``, the base URL of the activation links."""
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
