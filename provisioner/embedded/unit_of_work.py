"""The unit of work: the data that the calls of one transaction read and write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import date

from provisioner.embedded.decide import StoredReceipt, applied, decide, fingerprint, next_version, refused
from provisioner.embedded.portal_types import AuthorisedCall, Lease
from provisioner.embedded.tables import (
    bump_counter,
    companies_by_number,
    load_terms,
    set_billing_end,
    store_companies,
    store_users,
    users_where,
)
from provisioner.model import Address, Company, Resource, State, User, email_key
from provisioner.planning.steps import CompanyStep, CreateUser, EditCompanies, EditProfile, SetBilledCompany
from provisioner.portal import Call, Receipt, Verdict
from provisioner.rules import StateIndex
from provisioner.storage.database import Connection, chunks, placeholders


class UnitOfWork:
    """The resources that calls need: read together, changed one by one, and written together.

    Users are identified by their ids. One transaction isolates all reads and writes from other processes.
    """

    def __init__(self, connection: Connection, today: date) -> None:
        self._connection = connection
        self._today = today
        self._terms = load_terms(connection)
        self._index: StateIndex | None = None
        self._known_companies: dict[str, Company] = {}
        self._known_users: dict[str, User] = {}
        self._by_email: dict[str, str] = {}
        self._companies: list[tuple[Company | None, Company]] = []
        self._users: list[tuple[User | None, User]] = []
        self._receipts: dict[str, StoredReceipt] = {}
        self._new_receipts: dict[str, StoredReceipt] = {}
        self._touched: set[Address] = set()
        self._counter = 0

    def load(self, calls: Sequence[Call]) -> None:
        """Read the resources that the rules need for these calls, and the receipts stored for the calls."""
        self._load_receipts([call.key for call in calls if call.key])
        ids: list[str] = []
        emails: list[str] = []
        numbers: set[str] = set()
        billing: set[str] = set()
        for call in calls:
            step = call.step
            if isinstance(step, CreateUser):
                emails.append(step.profile.email)
                numbers |= step.profile.companies
                billing.add(step.profile.billed)
            elif isinstance(step, CompanyStep):
                numbers.add(step.company)
            else:
                ids.append(call.id)
                if isinstance(step, EditProfile):
                    emails.append(step.email)
                elif isinstance(step, EditCompanies):
                    numbers.update(step.add)
                elif isinstance(step, SetBilledCompany):
                    billing.add(step.billed)
        self._load_companies(numbers)
        self.load_users(ids)
        self.load_email_holders(emails)
        self._load_billed_users(billing)

    def load_users(self, ids: Sequence[str]) -> None:
        """Read these users, their companies, and all open users who are billed to the same companies."""
        found = self._add(users_where(self._connection, "id", ids, self._today))
        self._load_companies({number for user in found for number in user.companies})
        self._load_billed_users({user.billed for user in found})

    def load_email_holders(self, emails: Sequence[str]) -> None:
        """Read the users who have these e-mails (R1)."""
        keys = sorted({email_key(email) for email in emails} - self._by_email.keys())
        self._add(users_where(self._connection, "email_key", keys, self._today))

    def _load_billed_users(self, numbers: set[str]) -> None:
        self._load_companies(numbers)
        billed = users_where(self._connection, "status <> 'closed' AND billed", sorted(numbers), self._today)
        self._add(billed)

    def _load_companies(self, numbers: set[str]) -> None:
        self._known_companies |= companies_by_number(
            self._connection, sorted(numbers - self._known_companies.keys())
        )

    def _add(self, users: Iterable[User]) -> list[User]:
        added = []
        for user in users:
            added.append(user)
            self._known_users[user.id] = user
            self._by_email[email_key(user.email)] = user.id
        return added

    def _load_receipts(self, keys: Sequence[str]) -> None:
        for some in chunks(keys):
            rows = self._connection.execute(
                f"SELECT key, id, version, ledger, asked FROM receipt WHERE key IN ({placeholders(some)})",
                some,
            )
            self._receipts |= {key: StoredReceipt(*given) for key, *given in rows}

    def user(self, user_id: str) -> User | None:
        """Return the user with this id, with all changes so far; None if no user with this id was read."""
        return self._known_users.get(user_id)

    def answer(self, job: AuthorisedCall, lease: Lease | None) -> Receipt:
        """Apply one call and return its receipt. ``lease`` is the latest lease of its ledger, or None."""
        call = job.call
        found = self._find(call)
        stored = self._receipts.get(call.key) if call.key else None
        wanted = decide(job, lease.fence if lease else None, stored, found, self._today)
        if isinstance(wanted, Receipt):
            return wanted
        receipt = self.put(call.key, found, wanted)
        if call.key and receipt.verdict is Verdict.APPLIED:
            stored = StoredReceipt(receipt.id, receipt.version, job.ledger, fingerprint(call))
            self._receipts[call.key] = self._new_receipts[call.key] = stored
        return receipt

    def _find(self, call: Call) -> Resource | None:
        step = call.step
        if isinstance(step, CompanyStep):
            return self._known_companies.get(step.company)
        if isinstance(step, CreateUser):
            return self.user(self._by_email.get(email_key(step.profile.email), ""))
        return self.user(call.id)

    def put(self, key: str, before: Resource | None, wanted: Resource) -> Receipt:
        """Replace ``before`` (None for a new resource) with ``wanted``, and return the receipt of the call
        ``key``. If a rule forbids this, nothing is replaced, and the receipt is a refusal.
        """
        address, wanted = next_version(before, wanted, os.urandom(16).hex())
        index = self._index = self._index or StateIndex(
            State(self._known_companies, self._known_users), self._terms
        )
        violations = index.put(address, wanted)
        if violations:
            index.put(address, before)
            return refused(key, violations)
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
        """Write the changed resources and the new receipts to the database."""
        if self._touched and not self._counter:
            self._counter = bump_counter(self._connection)
        store_companies(self._connection, self._companies, self._counter)
        store_users(self._connection, self._users, self._counter)
        set_billing_end(self._connection, self._users, self._today, self._counter)
        self._connection.executemany(
            "INSERT INTO receipt (key, id, version, ledger, asked) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET id = excluded.id, version = excluded.version, "
            "ledger = excluded.ledger, asked = excluded.asked",
            [
                (key, given.id, given.version, given.ledger, given.asked)
                for key, given in self._new_receipts.items()
            ],
        )
        for changes in (self._companies, self._users, self._new_receipts, self._touched):
            changes.clear()
