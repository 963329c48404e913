"""The portal's rules about a state (its companies and users), as functions that only report violations.

A :class:`StateIndex` is a state with the indexes that the rules need. The manifest checks, the planner,
every portal and the tests use it. The rules about rights (R7, R8), time (R9, R15) and requests (R10, R11)
are not in this module: they are in the code of the steps to which they apply.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import lru_cache

from provisioner.diagnostics import Diagnostic, error, plural
from provisioner.model import (
    PRODUCTION_APPS,
    Address,
    Company,
    Grant,
    PortalTerms,
    Resource,
    State,
    User,
    company_address,
    email_key,
    user_address,
)
from provisioner.spelling import did_you_mean

_PRODUCTION = frozenset(app.casefold() for trio in PRODUCTION_APPS.values() for app in trio)


def is_production(app: str) -> bool:
    """Return True if ``app`` is the name of one of the six production applications, ignoring case."""
    return app.casefold() in _PRODUCTION


def app_violations(key: str, user: User, terms: PortalTerms) -> Iterator[tuple[str, Diagnostic]]:
    """Yield (name, violation) for each application of ``user`` that violates R3 or A9, sorted by name."""
    for app in _unlisted(user.apps, terms.apps):
        yield app, app_violation(user.email, app, terms.apps, str(user_address(key)))


def app_violation(owner: str, app: str, catalogue: Collection[str], address: str = "") -> Diagnostic:
    """Return the violation for the forbidden application ``app`` of ``owner``, a user or a manifest key.

    The rule is R3 if the application is a production application, otherwise A9. ``catalogue`` lists the
    applications that ``owner`` can have. ``address`` is the address of the user, or "" for a manifest key.
    """
    if is_production(app):
        return error(
            "R3",
            f'{owner} has "{app}" among apps; production applications come as one whole trio.',
            "Write production: full or production: consultation instead.",
            address=address,
        )
    return error(
        "unknown-app",
        f'{owner} has "{app}", which the catalogue does not have.{did_you_mean(app, catalogue)}',
        choice("apps", catalogue),
        address=address,
    )


@lru_cache(maxsize=4096)
def _unlisted(apps: frozenset[Grant], catalogue: frozenset[str]) -> tuple[str, ...]:
    return tuple(
        sorted({grant.app for grant in apps if grant.app not in catalogue or is_production(grant.app)})
    )


def choice(what: str, words: Collection[str]) -> str:
    """Return the remedy for an unknown name. The catalogue has the names ``words`` under the key ``what``."""
    known = ", ".join(sorted(words))
    if not known:
        return f"Add it under catalogue: {what}: in provisioner.yaml, which has none."
    return f"The {what} are: {known}. Correct the name, or add it under catalogue: in provisioner.yaml."


def billed_company(key: str, user: User) -> Iterator[Diagnostic]:
    """Yield a violation if the user has no billed company (R4) or has no access to that company (R5)."""
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
    """Yield a violation for each company of the user that is not among the existing ``companies``."""
    for number in sorted({number for number in (*user.companies, user.billed) if number not in companies}):
        if number:
            yield error(
                "unknown-company",
                f"{user.email} is given dossier {number}, which does not exist.",
                "Declare the dossier in a manifest, or correct its number.",
                address=str(user_address(key)),
            )


def firm_address(key: str, user: User, terms: PortalTerms) -> Iterator[Diagnostic]:
    """Yield a violation if the e-mail is a staff member's (R1) or in a mail domain of the firm (R14)."""
    own_key = email_key(user.email)
    if own_key in terms.staff:
        yield error(
            "R1",
            f"{user.email} belongs to a member of the firm's staff.",
            "Give the client's own address; firm: staff: in provisioner.yaml lists the firm's.",
            address=str(user_address(key)),
        )
    domain = own_key.rpartition("@")[2]
    if domain in terms.email_domains:
        yield error(
            "R14",
            f"{user.email} is an address of the firm itself ({domain}).",
            "Give the client's own address; firm: email_domains: in provisioner.yaml lists the firm's.",
            address=str(user_address(key)),
        )


def offer_known(company: Company, terms: PortalTerms) -> Iterator[Diagnostic]:
    """Yield a violation if the company's offer is not in the firm's catalogue (A9)."""
    if company.billing is not None and (offer := company.billing.offer) not in terms.offers:
        yield error(
            "unknown-offer",
            f'Dossier {company.number} has the offer "{offer}", which the catalogue does not have.'
            f"{did_you_mean(offer, terms.offers)}",
            choice("offers", terms.offers),
            address=str(company_address(company.number)),
        )


COMPANY_RULES: tuple[Callable[[Company, PortalTerms], Iterator[Diagnostic]], ...] = (offer_known,)
"""The rules that need only one company and the firm's terms."""

USER_RULES: tuple[Callable[[str, User, PortalTerms], Iterator[Diagnostic]], ...] = (firm_address,)
"""The rules that need only one user, the key of this user and the firm's terms."""


class StateIndex:
    """A mutable state with the indexes that the rules need.

    :meth:`put` changes one resource and returns the violations that the change causes. It does not report
    existing violations that are unrelated to the change.
    """

    def __init__(self, state: State, terms: PortalTerms) -> None:
        self.companies: dict[str, Company] = dict(state.companies)
        self.users: dict[str, User] = dict(state.users)
        self._terms = terms
        self._holders_by_email: dict[str, set[str]] | None = None
        self._tally: dict[str, list[int]] = {}
        for key, user in self.users.items():
            self._count(key, user, +1)

    @property
    def state(self) -> State:
        """A copy of the state with all changes so far."""
        return State(dict(self.companies), dict(self.users))

    def get(self, address: Address) -> Resource | None:
        """Return the resource at an address, or None if there is none."""
        return self.companies.get(address.key) if address.kind == "company" else self.users.get(address.key)

    def billed_counts(self, number: str) -> tuple[int, int]:
        """Return how many open users are billed to a company, and how many of them are administrators."""
        people, administrators = self._tally.get(number, (0, 0))
        return people, administrators

    def put(self, address: Address, resource: Resource | None) -> list[Diagnostic]:
        """Set the resource at an address (None deletes it) and return the violations that this causes."""
        if address.kind == "company":
            return self._put_company(address.key, resource if isinstance(resource, Company) else None)
        return self._put_user(address.key, resource if isinstance(resource, User) else None)

    def _put_company(self, number: str, company: Company | None) -> list[Diagnostic]:
        if company is None:
            self.companies.pop(number, None)
            return []
        self.companies[number] = company
        return [violation for rule in COMPANY_RULES for violation in rule(company, self._terms)]

    def _put_user(self, key: str, user: User | None) -> list[Diagnostic]:
        before = self.users.get(key)
        if before is not None:
            self._count(key, before, -1)
        if user is None:
            self.users.pop(key, None)
            violations: list[Diagnostic] = []
        else:
            self.users[key] = user
            self._count(key, user, +1)
            violations = list(self._user_violations(key, user))
        touched = {administrator_standing(before), administrator_standing(user)}
        if len(touched) == 2:
            for number in sorted({standing[0] for standing in touched if standing}):
                violations.extend(self.missing_administrator(number))
        return violations

    def _count(self, key: str, user: User, sign: int) -> None:
        if self._holders_by_email is not None:
            holders = self._holders_by_email.setdefault(email_key(user.email), set())
            (holders.add if sign > 0 else holders.discard)(key)
        if user.is_open:
            tally = self._tally.setdefault(user.billed, [0, 0])
            tally[0] += sign
            tally[1] += sign if user.is_administrator else 0

    def _user_violations(self, key: str, user: User) -> Iterator[Diagnostic]:
        yield from self._email_taken(key, user)
        yield from billed_company(key, user)
        yield from known_companies(key, user, self.companies)
        yield from (violation for _, violation in app_violations(key, user, self._terms))
        for rule in USER_RULES:
            yield from rule(key, user, self._terms)

    def _holders(self) -> dict[str, set[str]]:
        """Return the account keys by :func:`email_key` of their e-mail. The first call builds the index."""
        if self._holders_by_email is None:
            self._holders_by_email = {}
            for key, user in self.users.items():
                self._holders_by_email.setdefault(email_key(user.email), set()).add(key)
        return self._holders_by_email

    def _email_taken(self, key: str, user: User) -> Iterator[Diagnostic]:
        others = sorted(self._holders().get(email_key(user.email), set()) - {key})
        if others:
            holder = self.users[others[0]]
            closed = ", a closed account" if not holder.is_open else ""
            yield error(
                "R1",
                f"{user.email} already belongs to {holder.name}{closed}.",
                "Use another address, or declare the existing account instead.",
                address=str(user_address(key)),
            )

    def missing_administrator(self, number: str) -> Iterator[Diagnostic]:
        """Yield a violation if open users are billed to a company but none is an administrator (R2)."""
        people, administrators = self._tally.get(number, (0, 0))
        if people > 0 and administrators == 0:
            company = self.companies.get(number)
            title = f"{company.name} ({number})" if company else f"Company {number}"
            yield error(
                "R2",
                f"{title} has {people} {plural(people, 'user')} billed to it and no open "
                "administrator among them.",
                "Write type: administrator for one of them.",
                address=str(company_address(number)),
            )


def administrator_standing(resource: Resource | None) -> tuple[str, bool] | None:
    """Return (billed company, is administrator) of an open user, for R2, or None for other resources."""
    if isinstance(resource, User) and resource.is_open:
        return resource.billed, resource.is_administrator
    return None
