"""The portal's rules over a state, as functions that yield what they find and decide nothing.

A :class:`StateIndex` is a state with the two indexes that the rules ask for, moved one resource at
a time; the planner, every portal and the tests use this one. Rules about who may act (R7, R8),
about time (R9, R15) and about requests (R10, R11) live with the steps that meet them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from provisioner.diagnostics import Diagnostic, error, plural
from provisioner.model import (
    PRODUCTION_APPS,
    Address,
    Company,
    PortalTerms,
    Resource,
    State,
    User,
    company_address,
    email_key,
    user_address,
)

_PRODUCTION_NAMES = frozenset(name for trio in PRODUCTION_APPS.values() for name in trio)


def mixed_production(key: str, user: User) -> Iterator[Diagnostic]:
    """R3: the trio is the field ``production``; no production application stands on its own."""
    for grant in sorted((grant for grant in user.apps if grant.app in _PRODUCTION_NAMES), key=str):
        yield error(
            "R3",
            f"{user.email} is given {grant.app!r} alone; production applications come as one whole trio.",
            "Use production: full or production: consultation instead.",
            address=str(user_address(key)),
        )


def billed_company(key: str, user: User) -> Iterator[Diagnostic]:
    """R4, R5: exactly one billed company, and it is among the user's companies."""
    if not user.billed:
        yield error("R4", f"{user.email} has no billed company.", address=str(user_address(key)))
    elif user.billed not in user.companies:
        yield error(
            "R5",
            f"{user.email} is billed to {user.billed} but has no access to it.",
            f"Add dossier {user.billed} to this user's companies.",
            address=str(user_address(key)),
        )


def known_companies(key: str, user: User, companies: Collection[str]) -> Iterator[Diagnostic]:
    """Folder access means access to companies that exist."""
    for number in sorted({number for number in (*user.companies, user.billed) if number not in companies}):
        if number:
            yield error(
                "unknown-company",
                f"{user.email} is given dossier {number}, which does not exist.",
                "Declare the dossier in a manifest, or correct its number.",
                address=str(user_address(key)),
            )


def catalogue(key: str, user: User, terms: PortalTerms) -> Iterator[Diagnostic]:
    """Applications are those of the firm's catalogue (A9)."""
    strange = (
        grant for grant in user.apps if grant.app not in terms.apps and grant.app not in _PRODUCTION_NAMES
    )
    for grant in sorted(strange, key=str):
        yield error(
            "unknown-app",
            f"{user.email} is given {grant.app!r}, which is not in the catalogue.",
            "Correct the name, or add the application to the catalogue.",
            address=str(user_address(key)),
        )


def firm_domain(key: str, user: User, terms: PortalTerms) -> Iterator[Diagnostic]:
    """R14: an address at the firm's own domains is never a client access."""
    domain = email_key(user.email).rpartition("@")[2]
    if domain in terms.email_domains:
        yield error(
            "R14",
            f"{user.email} is an address of the firm itself ({domain}).",
            "Give the client's own address.",
            address=str(user_address(key)),
        )


def offer_known(company: Company, terms: PortalTerms) -> Iterator[Diagnostic]:
    """Offers are those of the firm's catalogue (A9)."""
    if company.billing is not None and company.billing.offer not in terms.offers:
        yield error(
            "unknown-offer",
            f"Dossier {company.number} has offer {company.billing.offer!r}, which is not in the catalogue.",
            "Correct the name, or add the offer to the catalogue.",
            address=str(company_address(company.number)),
        )


class StateIndex:
    """A state, indexed for the rules, that moves one resource at a time.

    ``place`` returns the rules that the move breaks; a fault that was there before and that the
    move does not concern is not reported.
    """

    def __init__(self, state: State, terms: PortalTerms) -> None:
        self.companies: dict[str, Company] = dict(state.companies)
        self.users: dict[str, User] = dict(state.users)
        self._terms = terms
        self._holders: dict[str, set[str]] = {}
        self._tally: dict[str, list[int]] = {}
        for key, user in self.users.items():
            self._count(key, user, +1)

    @property
    def state(self) -> State:
        """A copy of the state as it stands."""
        return State(dict(self.companies), dict(self.users))

    def get(self, address: Address) -> Resource | None:
        """The resource at an address, or None."""
        return self.companies.get(address.key) if address.kind == "company" else self.users.get(address.key)

    def billed_counts(self, number: str) -> tuple[int, int]:
        """How many open users are billed to a company, and how many of them are administrators (R2)."""
        people, administrators = self._tally.get(number, (0, 0))
        return people, administrators

    def place(self, address: Address, resource: Resource | None) -> list[Diagnostic]:
        """Put a resource at its address (None removes it) and return what that breaks."""
        if address.kind == "company":
            return self._place_company(address.key, resource if isinstance(resource, Company) else None)
        return self._place_user(address.key, resource if isinstance(resource, User) else None)

    def faults(self) -> Iterator[Diagnostic]:
        """Every broken rule of the whole state, R1 to R14."""
        for company in self.companies.values():
            yield from self._company_faults(company)
            yield from self._without_administrator(company.number)
        for key, user in self.users.items():
            yield from self._user_faults(key, user)

    def _place_company(self, number: str, company: Company | None) -> list[Diagnostic]:
        if company is None:
            self.companies.pop(number, None)
            return []
        self.companies[number] = company
        return list(self._company_faults(company))

    def _place_user(self, key: str, user: User | None) -> list[Diagnostic]:
        before = self.users.get(key)
        if before is not None:
            self._count(key, before, -1)
        if user is None:
            self.users.pop(key, None)
            faults: list[Diagnostic] = []
        else:
            self.users[key] = user
            self._count(key, user, +1)
            faults = list(self._user_faults(key, user))
        touched = {administrator_standing(before), administrator_standing(user)}
        if len(touched) == 2:
            for number in sorted({standing[0] for standing in touched if standing}):
                faults.extend(self._without_administrator(number))
        return faults

    def _count(self, key: str, user: User, sign: int) -> None:
        holders = self._holders.setdefault(email_key(user.email), set())
        (holders.add if sign > 0 else holders.discard)(key)
        if user.is_open:
            tally = self._tally.setdefault(user.billed, [0, 0])
            tally[0] += sign
            tally[1] += sign if user.is_administrator else 0

    def _company_faults(self, company: Company) -> Iterator[Diagnostic]:
        yield from offer_known(company, self._terms)

    def _user_faults(self, key: str, user: User) -> Iterator[Diagnostic]:
        yield from self._email_taken(key, user)
        yield from mixed_production(key, user)
        yield from billed_company(key, user)
        yield from known_companies(key, user, self.companies)
        yield from catalogue(key, user, self._terms)
        yield from firm_domain(key, user, self._terms)

    def _email_taken(self, key: str, user: User) -> Iterator[Diagnostic]:
        """R1: one account an e-mail in the whole portal, closed accounts and staff included."""
        mail_key = email_key(user.email)
        others = sorted(self._holders.get(mail_key, set()) - {key})
        if others:
            holder = self.users[others[0]]
            closed = ", a closed account" if not holder.is_open else ""
            yield error(
                "R1",
                f"{user.email} already belongs to {holder.name}{closed}.",
                "Use another address, or declare the existing account instead.",
                address=str(user_address(key)),
            )
        elif mail_key in self._terms.staff:
            yield error(
                "R1",
                f"{user.email} belongs to a member of the firm's staff.",
                "Use the client's own address.",
                address=str(user_address(key)),
            )

    def _without_administrator(self, number: str) -> Iterator[Diagnostic]:
        """R2: among the open users billed to a company, at least one is an administrator."""
        people, administrators = self._tally.get(number, [0, 0])
        if people > 0 and administrators == 0:
            company = self.companies.get(number)
            name = f" ({company.name})" if company else ""
            yield error(
                "R2",
                f"Company {number}{name} would have {people} {plural(people, 'user')} "
                "billed to it and no administrator.",
                "Make one of its users an administrator first.",
                address=str(company_address(number)),
            )


def administrator_standing(resource: Resource | None) -> tuple[str, bool] | None:
    """What a user counts for under R2: the company, and whether as its administrator."""
    if isinstance(resource, User) and resource.is_open:
        return resource.billed, resource.is_administrator
    return None
