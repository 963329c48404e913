"""What differs between two states, and the letters that the difference earns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from provisioner.diagnostics import Source
from provisioner.model import (
    Address,
    State,
    Status,
    User,
    Welcome,
    company_address,
    user_address,
)
from provisioner.planning.plan import Change, PlannedLetter


def changes_between(
    current: State,
    desired: State,
    reasons: Mapping[Address, str],
    source_of: Callable[[Address], Source | None],
) -> Iterator[Change]:
    """Every resource that differs: companies by number, then users by company and key."""
    for number in sorted(desired.companies):
        company = current.companies.get(number)
        if company is not desired.companies[number] and company != desired.companies[number]:
            address = company_address(number)
            yield Change(
                address, company, desired.companies[number], reasons.get(address, ""), source_of(address)
            )
    differing = [
        key
        for key, user in desired.users.items()
        if current.users.get(key) is not user and current.users.get(key) != user
    ]
    for key in sorted(differing, key=lambda key: (desired.users[key].billed, key)):
        address = user_address(key)
        yield Change(
            address,
            current.users.get(key),
            desired.users[key],
            reasons.get(address, ""),
            source_of(address),
        )


def letters_for(
    changes: tuple[Change, ...], desired: State, welcomes: Mapping[str, Welcome], firm: str
) -> Iterator[PlannedLetter]:
    """One welcome for each user that these changes activate and that ``welcomes`` names."""
    for change in changes:
        after = change.after
        if not isinstance(after, User) or change.address.key not in welcomes or not _activates(change):
            continue
        company = desired.companies.get(after.billed)
        yield PlannedLetter(
            change.address,
            after.email,
            welcomes[change.address.key].language,
            letter_context(after, company.name if company else after.billed, firm),
        )


class Person(Protocol):
    """The recipient of a letter: an account of the portal, or a user of the manifests."""

    @property
    def first_name(self) -> str:
        """The first name."""
        ...

    @property
    def last_name(self) -> str:
        """The last name."""
        ...

    @property
    def email(self) -> str:
        """The log-in."""
        ...


def letter_context(person: Person, company: str, firm: str) -> dict[str, str]:
    """The values that the template of a letter can use; ``company`` and ``firm`` are names."""
    return {
        "first_name": person.first_name,
        "last_name": person.last_name,
        "email": person.email,
        "company": company,
        "firm": firm,
    }


def _activates(change: Change) -> bool:
    before, after = change.before, change.after
    if not isinstance(after, User) or after.status is not Status.ACTIVE:
        return False
    return before is None or (isinstance(before, User) and before.status is Status.TO_VALIDATE)
