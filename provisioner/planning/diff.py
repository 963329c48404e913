"""The comparison of two states: the changes between them, and the welcome letters to send for the changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from provisioner.diagnostics import Source
from provisioner.model import (
    Address,
    Resource,
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
    """Yield a change for each resource of ``desired`` that differs from ``current`` or is not in it.

    ``reasons`` gives the reason for a change, ``source_of`` the position of a resource in a manifest.
    The companies come first, sorted by number. The users follow, sorted by billed company and user key.
    """
    companies = [key for key, it in desired.companies.items() if _differ(current.companies.get(key), it)]
    users = [key for key, user in desired.users.items() if _differ(current.users.get(key), user)]
    addresses = [
        *map(company_address, sorted(companies)),
        *map(user_address, sorted(users, key=lambda key: (desired.users[key].billed, key))),
    ]
    for address in addresses:
        after = desired.get(address)
        assert after is not None
        yield Change(address, current.get(address), after, reasons.get(address, ""), source_of(address))


def _differ(before: Resource | None, after: Resource) -> bool:
    # an unchanged resource is usually the same object, and "is not" is ten times as fast as "!="
    return before is not after and before != after


def letters_for(
    changes: tuple[Change, ...], desired: State, welcomes: Mapping[str, Welcome], firm: str
) -> Iterator[PlannedLetter]:
    """Yield a letter for each user in ``welcomes`` whose account is activated by one of the ``changes``."""
    for change in changes:
        after = change.after
        if not isinstance(after, User) or change.address.key not in welcomes or not _activates(change):
            continue
        company = desired.companies.get(after.billed)
        context = letter_context(
            after.first_name, after.last_name, after.email, company.name if company else after.billed, firm
        )
        yield PlannedLetter(change.address, after.email, welcomes[change.address.key].language, context)


def letter_context(first_name: str, last_name: str, email: str, company: str, firm: str) -> dict[str, str]:
    """Return the variables for a letter. ``company`` is the company's name, ``firm`` is the firm's name."""
    return {
        "first_name": first_name,
        "last_name": last_name,
        "email": email,
        "company": company,
        "firm": firm,
    }


def _activates(change: Change) -> bool:
    """Return True if this change allows the user to log in for the first time."""
    before, after = change.before, change.after
    if not isinstance(after, User) or after.status is not Status.ACTIVE:
        return False
    return before is None or (isinstance(before, User) and before.status is Status.TO_VALIDATE)
