"""What the calls of one transaction read and write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import date

from provisioner.embedded.decide import (
    StoredReceipt,
    applied,
    decide,
    fingerprint,
    next_version,
    refused,
)
from provisioner.embedded.host import AuthorisedCall, Lease
from provisioner.embedded.tables import (
    bump_counter,
    companies_by_number,
    load_terms,
    set_billing_end,
    store_companies,
    store_users,
    users_where,
)
from provisioner.model import (
    Address,
    Company,
    Resource,
    State,
    User,
    email_key,
)
from provisioner.planning.steps import (
    CompanyStep,
    CreateUser,
    EditCompanies,
    EditProfile,
    SetBilledCompany,
)
from provisioner.portal import Call, Receipt, Verdict
from provisioner.rules import StateIndex
from provisioner.storage.database import (
    Connection,
    chunks,
    placeholders,
)


class UnitOfWork:
    """What some calls concern, read at once; moved by the rules one resource at a time; written at once.

    Users lie there by their id. All of it happens inside one transaction, so that nothing moves meanwhile.
    """

    def __init__(self, connection: Connection, today: date) -> None:
        self._connection = connection
        self._today = today
        self._terms = load_terms(connection)
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
        found = self._place(users_where(self._connection, "id", ids, self._today))
        self._lay_out_companies({number for user in found for number in user.companies})
        self._lay_out_people({user.billed for user in found})

    def lay_out_rivals(self, emails: Sequence[str]) -> None:
        """Whoever has these addresses (R1)."""
        keys = sorted({email_key(email) for email in emails} - self._by_email.keys())
        self._place(users_where(self._connection, "email_key", keys, self._today))

    def _lay_out_people(self, numbers: set[str]) -> None:
        """Companies, and the open users billed to them (R2)."""
        self._lay_out_companies(numbers)
        billed = users_where(self._connection, "status <> 'closed' AND billed", sorted(numbers), self._today)
        self._place(billed)

    def _lay_out_companies(self, numbers: set[str]) -> None:
        self._known_companies |= companies_by_number(
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
            self._counter = bump_counter(self._connection)
        store_companies(self._connection, self._companies, self._counter)
        store_users(self._connection, self._users, self._counter)
        set_billing_end(self._connection, self._users, self._today, self._counter)
        self._connection.executemany(
            "INSERT INTO receipt (key, id, version, ledger, asked) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET id = excluded.id, version = excluded.version, "
            "ledger = excluded.ledger, asked = excluded.asked",
            [(key, given.id, given.version, given.ledger, given.asked) for key, given in self._given.items()],
        )
        for moved in (self._companies, self._users, self._given, self._touched):
            moved.clear()
