"""The parts of a plan that all output formats show: summary, risks, changes by company, sections.

The texts contain unchanged values from outside, as in ``describe``. Each format must make the texts safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import NamedTuple

from provisioner.diagnostics import count_of
from provisioner.model import AppState, Company, Grant, Notice, NoticeKind, Status, User
from provisioner.planning.plan import Action, Change, Plan
from provisioner.render.describe import (
    TYPES,
    Names,
    format_companies,
    format_day,
    format_language,
    format_person,
)

NO_CHANGES = "No changes. The portal is as the manifests say."
NOBODY_SEES_MORE = "No new administrator, no further company for anybody, no account closed or reopened."
LISTED = 20
"""The maximum number of entries of a list that are shown; the counts always include all entries."""
LISTS_ALL = "provisioner plan --json lists them all"


class Risk(NamedTuple):
    """A kind of change that a reviewer must not overlook.

    ``headline`` is a count such as "2 accounts close". ``meaning`` explains it. ``entries`` lists the cases.
    """

    headline: str
    meaning: str
    entries: tuple[str, ...]


class Section(NamedTuple):
    """A titled list of facts that is shown in addition to the changes, such as the letters to send."""

    title: str
    entries: tuple[str, ...]


class CompanyChanges(NamedTuple):
    """The changes to one company, and to the users who will be billed to this company after the plan."""

    number: str
    changes: tuple[Change, ...]


NOTICE_TITLES: tuple[tuple[NoticeKind, str], ...] = (
    (NoticeKind.AWAITS_VALIDATION, "Waiting for validation"),
    (NoticeKind.AWAITS_REOPENING, "Waiting to be reopened"),
    (NoticeKind.NO_WELCOME, "Accounts that get no welcome e-mail"),
    (NoticeKind.REQUESTED_APP, "Applications that clients asked for"),
    (NoticeKind.DRIFT, "Changed by the users themselves"),
    (NoticeKind.ADOPTED, "Existing accounts, managed from now on"),
    (NoticeKind.LEFT, "Left the manifests, accounts still open"),
    (NoticeKind.UNMANAGED, "In no manifest, left alone"),
    (NoticeKind.LETTER_OWED, "E-mails still owed from an earlier run"),
    (NoticeKind.LETTER_UNKNOWN, "E-mails that may or may not have arrived"),
    (NoticeKind.LETTER_FAILED, "E-mails that were refused"),
)
"""The kinds of notices that have their own section, each with the section's title, in display order."""


def names_of(plan: Plan) -> Names:
    """Return the names of the plan's companies, by dossier number. A renamed company has its new name."""
    changed = {
        change.after.number: change.after.name for change in plan.changes if isinstance(change.after, Company)
    }
    return {**plan.companies, **changed}


def counts(plan: Plan) -> str:
    """Return the line ``Plan: 3 to add, …``, which scripts search for. It omits ``0 to reopen``."""
    reopened = plan.count(Action.REOPEN)
    return (
        f"Plan: {f'{reopened} to reopen, ' if reopened else ''}"
        f"{plan.count(Action.CREATE)} to add, {plan.count(Action.UPDATE)} to change, "
        f"{plan.count(Action.CLOSE)} to close, {count_of(len(plan.letters), 'e-mail')} to send."
    )


def in_short(plan: Plan) -> str:
    """Return a summary such as ``2 new companies, 3 new accounts, 1 account closes, 2 e-mails go out``."""
    companies = [change.action for change in plan.changes if change.address.kind == "company"]
    accounts = [change.action for change in plan.changes if change.address.kind == "user"]
    parts = (
        (companies.count(Action.CREATE), "new company", "new companies"),
        (companies.count(Action.UPDATE), "company changes", "companies change"),
        (accounts.count(Action.CREATE), "new account", "new accounts"),
        (accounts.count(Action.UPDATE), "account changes", "accounts change"),
        (accounts.count(Action.REOPEN), "account reopens", "accounts reopen"),
        (accounts.count(Action.CLOSE), "account closes", "accounts close"),
        (len(plan.letters), "e-mail goes out", "e-mails go out"),
    )
    return ", ".join(count_of(number, one, many) for number, one, many in parts if number)


def risks(plan: Plan, names: Names) -> list[Risk]:
    """Return the risks of the plan, the most serious first. ``names`` has the names of the companies."""
    people = [(change, change.after) for change in plan.changes if isinstance(change.after, User)]
    administrators = [_administrator(c, user, names) for c, user in people if c.new_administrator]
    widened = [
        _access(user, c.new_companies, names)
        for c, user in people
        if c.new_companies and c.action is not Action.REOPEN
    ]
    validated = [
        f"{format_person(user)}, {TYPES[user.type]}: {format_companies(user.companies, names)}"
        for c, user in people
        if isinstance(c.before, User)
        and (c.before.status, user.status) == (Status.TO_VALIDATE, Status.ACTIVE)
    ]
    reopened = [_access(user, user.companies, names) for c, user in people if c.action is Action.REOPEN]
    closed = [
        f"{format_person(user)}: {format_companies(user.companies, names)}"
        for c, user in people
        if c.action is Action.CLOSE
    ]
    stopping = _dated(_notices(plan, NoticeKind.BILLING_STOPS))
    interrupted = [notice.detail for notice in _notices(plan, NoticeKind.INTERRUPTED)]
    found = (
        (
            administrators,
            "new administrator",
            "new administrators",
            "An administrator sees every document of the company, bank and payroll included.",
        ),
        (
            widened,
            "person will see further companies",
            "people will see further companies",
            "They have an account already, and do not see these companies today.",
        ),
        (
            validated,
            "account is validated",
            "accounts are validated",
            "Whoever was waiting for validation can log in from now on.",
        ),
        (
            reopened,
            "closed account reopens",
            "closed accounts reopen",
            "The owner can log in again, and sees the documents of these companies.",
        ),
        (
            closed,
            "account closes",
            "accounts close",
            "The owner can no longer log in. Nothing is deleted, and the account can be reopened.",
        ),
        (
            stopping,
            "company stops being billed",
            "companies stop being billed",
            "The portal stops billing on the date given.",
        ),
        (
            interrupted,
            "step of an earlier run was interrupted",
            "steps of an earlier run were interrupted",
            "Whether it was done is found out before anything else is.",
        ),
    )
    return [
        Risk(count_of(len(entries), one, many), meaning, tuple(entries))
        for entries, one, many, meaning in found
        if entries
    ]


def _administrator(change: Change, user: User, names: Names) -> str:
    until_now = {
        Action.CREATE: "",
        Action.UPDATE: " (standard user until now)",
        Action.REOPEN: " (account closed until now)",
        Action.CLOSE: "",
    }[change.action]
    pending = " (once validated)" if user.status is Status.TO_VALIDATE else ""
    return f"{format_person(user)}{until_now}{pending}: {format_companies(user.companies, names)}"


def _access(user: User, companies: Iterable[str], names: Names) -> str:
    as_administrator = ", as administrator" if user.is_administrator else ""
    return f"{format_person(user)}: {format_companies(companies, names)}{as_administrator}"


def _notices(plan: Plan, kind: NoticeKind) -> Iterator[Notice]:
    return (notice for notice in plan.notices if notice.kind is kind)


def _dated(notices: Iterable[Notice]) -> list[str]:
    return [
        f"{format_day(notice.on)}: {notice.detail}" if notice.on else notice.detail
        for notice in sorted(notices, key=lambda notice: (notice.on or date.max, notice.address))
    ]


def groups(plan: Plan) -> list[CompanyChanges]:
    """Return the changes by company, sorted by dossier number. A change of the company itself comes first."""
    found: dict[str, list[Change]] = {}
    for change in sorted(plan.changes, key=lambda change: change.address.kind):
        number = change.after.billed if isinstance(change.after, User) else change.after.number
        found.setdefault(number, []).append(change)
    return [CompanyChanges(number, tuple(found[number])) for number in sorted(found)]


def sections(plan: Plan) -> list[Section]:
    """Return the sections of the plan that have at least one entry."""
    found = [
        Section("Welcome e-mails to send", tuple(_letters(plan))),
        Section("Applications that end", tuple(_endings(plan))),
        *(
            Section(title, tuple(notice.detail for notice in _notices(plan, kind)))
            for kind, title in NOTICE_TITLES
        ),
        Section("What this program remembers", tuple(_records(plan))),
    ]
    return [section for section in found if section.entries]


def _letters(plan: Plan) -> Iterator[str]:
    people = {change.address: change.after for change in plan.changes if isinstance(change.after, User)}
    for letter in plan.letters:
        user = people.get(letter.user)
        recipient = f"{user.name} <{letter.recipient}>" if user else letter.recipient
        yield f"{recipient}, {format_language(letter.language)}"


def _endings(plan: Plan) -> list[str]:
    """Return a line for each application with an end date, set by this plan or earlier, sorted by date."""
    set_now = [
        Notice(
            NoticeKind.ENDING,
            change.address,
            f"{grant.app} of {change.after.email}, by this plan.",
            grant.ends,
        )
        for change in plan.changes
        if isinstance(change.after, User) and change.after.is_open
        for grant in sorted(change.after.apps - _apps_before(change), key=lambda grant: grant.app)
        if grant.state is AppState.ENDING
    ]
    return _dated([*_notices(plan, NoticeKind.ENDING), *set_now])


def _apps_before(change: Change) -> frozenset[Grant]:
    return change.before.apps if isinstance(change.before, User) else frozenset()


def _records(plan: Plan) -> Iterator[str]:
    if known := sum(adoption.known for adoption in plan.adoptions):
        yield (
            f"What is known of {count_of(known, 'account')} is brought up to date; the portal is not touched."
        )
