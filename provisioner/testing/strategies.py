"""Hypothesis strategies for whole values: companies, users, and states that obey the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from hypothesis import strategies as st

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
)
from provisioner.testing.people import TERMS

plain_names = st.sampled_from(["Claire", "Henri", "Inès", "Sophie", "Jean-Luc", "Zoé"])
days = st.dates(date(2000, 1, 1), date(2100, 12, 31))
versions = st.integers(0, 2**40)


def terms() -> st.SearchStrategy[PortalTerms]:
    """Generate the terms of the sample firm. All states that this module generates obey these terms."""
    return st.just(TERMS)


def companies(names: st.SearchStrategy[str] = plain_names) -> st.SearchStrategy[dict[str, Company]]:
    """Generate a mapping with one to four companies. Its keys are the numbers of the companies."""
    numbers = st.lists(st.sampled_from(["000001", "000002", "000003", "000004"]), min_size=1, unique=True)
    return numbers.flatmap(lambda found: st.tuples(*(_company(n, names) for n in found))).map(
        lambda found: {company.number: company for company in found}
    )


def _company(number: str, names: st.SearchStrategy[str]) -> st.SearchStrategy[Company]:
    billing = st.builds(Billing, st.sampled_from(BillingMode), st.sampled_from(sorted(TERMS.offers)))
    return st.builds(
        Company,
        number=st.just(number),
        name=names,
        siren=st.none() | st.sampled_from(["732829320", "814003026"]),
        billing=st.none() | billing,
        billing_ends=st.none() | days,
        version=versions,
    )


@st.composite
def users(
    draw: st.DrawFn,
    companies: Mapping[str, Company],
    names: st.SearchStrategy[str] = plain_names,
    *,
    max_size: int = 6,
) -> dict[str, User]:
    """Generate a mapping with at most ``max_size`` users. Its keys are made by :func:`email_key`.

    The users belong to ``companies`` and obey the rules R1 to R6.
    """
    found: dict[str, User] = {}
    for index in range(draw(st.integers(0, max_size))):
        user = draw(_users(index, sorted(companies), names))
        if user.is_open and not _has_administrator(found, user.billed):
            user = _with_type(user, UserType.ADMINISTRATOR)
        found[email_key(user.email)] = user
    return found


def _has_administrator(users: Mapping[str, User], billed: str) -> bool:
    return any(user.is_open and user.is_administrator and user.billed == billed for user in users.values())


def _with_type(user: User, type: UserType) -> User:
    return replace(user, type=type)


@st.composite
def _users(draw: st.DrawFn, index: int, numbers: list[str], names: st.SearchStrategy[str]) -> User:
    billed = draw(st.sampled_from(numbers))
    return User(
        email=f"{draw(st.sampled_from(['ann', 'Bob', 'cid']))}.{index}@example.fr",
        first_name=draw(names),
        last_name=draw(names),
        phone=draw(st.none() | st.sampled_from(["+33612345678", "+442079460000"])),
        type=draw(st.sampled_from(UserType)),
        billed=billed,
        companies=frozenset(draw(st.sets(st.sampled_from(numbers)))) | {billed},
        production=draw(st.sampled_from(Production)),
        apps=frozenset(draw(st.lists(_grants(), unique_by=lambda grant: grant.app, max_size=4))),
        status=draw(st.sampled_from(Status)),
        id=f"u{index}",
        version=draw(versions),
    )


def _grants() -> st.SearchStrategy[Grant]:
    apps = st.sampled_from(sorted(TERMS.apps))
    standing = st.sampled_from([AppState.ACTIVE, AppState.REQUESTED])
    return st.one_of(st.builds(Grant, apps, standing), st.builds(Grant, apps, st.just(AppState.ENDING), days))


@st.composite
def states(draw: st.DrawFn, names: st.SearchStrategy[str] = plain_names) -> State:
    """Generate the state of a whole portal that obeys the rules R1 to R6 and R14."""
    held = draw(companies(names))
    return State(held, draw(users(held, names)))
