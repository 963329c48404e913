"""Plain English descriptions of fields, changes and steps. All output formats of a plan use the descriptions.

The descriptions contain values from outside the program unchanged. Each output format makes these values safe
to show: with ``printable`` for a terminal, and with ``escaped`` for Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import NamedTuple, assert_never

from provisioner.diagnostics import plural
from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Company,
    Grant,
    Production,
    Status,
    User,
    UserType,
)
from provisioner.planning import steps
from provisioner.planning.plan import Action, Change, PlannedLetter

ARROW = "→"
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
LANGUAGES = {"fr": "French", "en": "English"}
TYPES = {UserType.ADMINISTRATOR: "administrator", UserType.STANDARD: "standard user"}
SEES_ALL = "sees every document, bank and payroll included"
TRIO = "Compta, Fiscalité, Paie"
PRODUCTIONS = {Production.FULL: "full", Production.CONSULTATION: "consultation, which is read only"}
BILLED = {BillingMode.CLIENT: "the client is billed", BillingMode.FIRM: "the firm is billed"}
LOGINS = {
    (None, Status.ACTIVE): ("+", "possible at once"),
    (None, Status.TO_VALIDATE): ("+", "only once somebody validates the account"),
    (Status.TO_VALIDATE, Status.ACTIVE): ("+", "possible from now on, the account is validated"),
    (Status.CLOSED, Status.ACTIVE): ("+", "possible again, the account is reopened"),
    (Status.ACTIVE, Status.CLOSED): (
        "-",
        "no longer possible; nothing is deleted, and the account can be reopened",
    ),
    (Status.TO_VALIDATE, Status.CLOSED): (
        "-",
        "not possible, the account closes before anybody validated it",
    ),
}
PLURALS = {"company": "companies", "application": "applications"}
REASONS = {"status: closed": "the manifest says status: closed"}

Names = Mapping[str, str]
"""Company names by dossier number."""


class DescriptionLine(NamedTuple):
    """One line about a change; ``symbol`` is ``+`` (something gained), ``~`` (changed) or ``-`` (lost)."""

    symbol: str
    label: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.label}: {self.value}" if self.value else self.label


def format_day(day: date) -> str:
    """Return the day in a form such as ``30 November 2026``."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def format_language(language: str) -> str:
    """Return the name of a language code in a form such as ``in French``."""
    return f"in {LANGUAGES.get(language, language)}"


def format_person(user: User) -> str:
    """Return the name and the e-mail in the form ``Claire Martin <claire.martin@example.com>``."""
    return f"{user.name} <{user.email}>"


def format_company(number: str, names: Names) -> str:
    """Return a form such as ``004217 Boulangerie Martin SARL``, or only the number if no name is known."""
    name = names.get(number)
    return f"{number} {name}" if name else number


def format_companies(numbers: Iterable[str], names: Names) -> str:
    """Return the companies, sorted by number and separated by commas, or ``none`` if ``numbers`` is empty."""
    return ", ".join(format_company(number, names) for number in sorted(numbers)) or "none"


def format_billing(billing: Billing | None) -> str:
    """Return a form such as ``the client is billed, offer Essentiel``, or ``not billed`` for None."""
    return f"{BILLED[billing.mode]}, offer {billing.offer}" if billing else "not billed"


def format_phone(phone: str | None) -> str:
    """Return a French number with its digits in pairs, any other number unchanged, or ``none`` for None."""
    if phone is None:
        return "none"
    if phone.startswith("+33") and phone[3:].isascii() and phone[3:].isdigit() and len(phone) == 12:
        return " ".join(["+33", phone[3], *(phone[start : start + 2] for start in range(4, 12, 2))])
    return phone


def format_siren(siren: str | None) -> str:
    """Return the SIREN in a form such as ``732 829 320``, or ``none`` for None."""
    if siren is None:
        return "none"
    return f"{siren[:3]} {siren[3:6]} {siren[6:]}" if len(siren) == 9 else siren


def format_origin(change: Change) -> DescriptionLine | None:
    """Return a line with the reason for a change and its position in a manifest; None if both are unknown."""
    place = f"{change.source.file}:{change.source.line}" if change.source else ""
    reason = REASONS.get(change.reason, change.reason)
    if reason:
        return DescriptionLine("", "why", f"{reason} ({place})" if place else reason)
    return DescriptionLine("", "declared in", place) if place else None


def heading_of(change: Change) -> DescriptionLine:
    """Return the first line about a change: what happens and, for a user, the name and the e-mail."""
    symbol = change.action.symbol
    if isinstance(change.after, Company):
        return DescriptionLine(symbol, "New company" if change.before is None else "Company changes")
    return DescriptionLine(symbol, _user_words(change, change.after), format_person(change.after))


def _user_words(change: Change, after: User) -> str:
    before = change.before
    match change.action:
        case Action.CREATE:
            return f"New {TYPES[after.type]}"
        case Action.CLOSE:
            return "Account closes"
        case Action.REOPEN:
            return f"Account reopens, as {TYPES[after.type]}"
        case Action.UPDATE:
            if isinstance(before, User) and before.type is not after.type:
                return f"Becomes {TYPES[after.type]}"
            if isinstance(before, User) and before.status is not after.status is Status.ACTIVE:
                return f"Validated, as {TYPES[after.type]}"
            return "Changes"
    assert_never(change.action)


def field_changes(
    change: Change, names: Names, letter: PlannedLetter | None = None
) -> Iterator[DescriptionLine]:
    """Yield a line for each attribute that is added, changed or removed, and one for ``letter`` if given."""
    before, after = change.before, change.after
    if isinstance(after, Company):
        yield from _company_changes(before if isinstance(before, Company) else None, after)
        return
    was = before if isinstance(before, User) else None
    if was is None or change.action is Action.REOPEN:
        yield from _arrival(was, after, names)
    else:
        yield from _edits(was, after, names)
    yield from _login(was, after, names)
    if letter is not None:
        yield DescriptionLine("+", "welcome e-mail", format_language(letter.language))
    elif was is None and after.status is Status.ACTIVE:
        yield DescriptionLine("+", "welcome e-mail", "none")


def _company_changes(before: Company | None, after: Company) -> Iterator[DescriptionLine]:
    if before is None:
        # the name is not repeated, because the heading above contains it
        if after.siren:
            yield DescriptionLine("+", "SIREN", format_siren(after.siren))
        yield DescriptionLine("+", "billing", format_billing(after.billing))
        return
    yield from _changed("name", before.name, after.name)
    yield from _changed("SIREN", format_siren(before.siren), format_siren(after.siren))
    if before.billing is None or after.billing is None:
        yield from _changed("billing", format_billing(before.billing), format_billing(after.billing))
    else:
        yield from _changed("billing", BILLED[before.billing.mode], BILLED[after.billing.mode])
        yield from _changed("offer", before.billing.offer, after.billing.offer)


def _changed(label: str, before: str, after: str) -> Iterator[DescriptionLine]:
    if before != after:
        yield DescriptionLine("~", label, f"{before} {ARROW} {after}")


def _format_type(user: User) -> str:
    return f"{TYPES[user.type]}, {SEES_ALL}" if user.is_administrator else TYPES[user.type]


def _arrival(before: User | None, after: User, names: Names) -> Iterator[DescriptionLine]:
    # before is the closed account, which is compared with the reopened account, or None for a new account
    if before is not None:
        yield from _person(before, after)
    if before is None or before.type is after.type:
        yield DescriptionLine("+", "type", _format_type(after))
    else:
        yield from _changed("type", TYPES[before.type], _format_type(after))
    if before is not None:
        yield from _changed(
            "billed company", format_company(before.billed, names), format_company(after.billed, names)
        )
    yield DescriptionLine("+", "companies", _companies_of(after, names))
    if before is not None and before.companies - after.companies:
        yield DescriptionLine(
            "-", "no longer sees", format_companies(before.companies - after.companies, names)
        )
    if before is None or before.production is after.production:
        yield DescriptionLine("+", "production", f"{PRODUCTIONS[after.production]} ({TRIO})")
    else:
        yield from _production(before, after)
    yield DescriptionLine("+", "applications", _format_apps(after.apps))
    if before is not None and (lost := _apps(before) - _apps(after)):
        yield DescriptionLine("-", "no longer uses", ", ".join(sorted(lost)))
    if before is None and after.phone:
        yield DescriptionLine("+", "phone", format_phone(after.phone))


def _companies_of(user: User, names: Names) -> str:
    parts = [f"{format_company(user.billed, names)} (billed)"]
    parts += [format_company(number, names) for number in sorted(user.companies - {user.billed})]
    return ", ".join(parts)


def _apps(user: User) -> set[str]:
    return {grant.app for grant in user.apps}


def _format_apps(apps: Iterable[Grant]) -> str:
    return ", ".join(_format_app(grant) for grant in sorted(apps, key=lambda grant: grant.app)) or "none"


def _format_app(grant: Grant) -> str:
    match grant.state:
        case AppState.ACTIVE:
            return grant.app
        case AppState.REQUESTED:
            return f"{grant.app} (asked for)"
        case AppState.ENDING:
            return f"{grant.app} (ends{_on(grant.ends)})"
    assert_never(grant.state)


def _on(day: date | None) -> str:
    return f" on {format_day(day)}" if day else ""


def _edits(before: User, after: User, names: Names) -> Iterator[DescriptionLine]:
    yield from _person(before, after)
    if before.type is not after.type:
        yield from _changed("type", TYPES[before.type], _format_type(after))
    yield from _changed(
        "billed company", format_company(before.billed, names), format_company(after.billed, names)
    )
    if given := after.companies - before.companies:
        yield DescriptionLine("+", _label("company given", len(given)), format_companies(given, names))
    if withdrawn := before.companies - after.companies:
        yield DescriptionLine(
            "-", _label("company withdrawn", len(withdrawn)), format_companies(withdrawn, names)
        )
    yield from _production(before, after)
    yield from _app_edits(before, after)


def _production(before: User, after: User) -> Iterator[DescriptionLine]:
    if before.production is not after.production:
        was, will = PRODUCTIONS[before.production], PRODUCTIONS[after.production]
        yield DescriptionLine("~", "production", f"{was} {ARROW} {will} ({TRIO}, all at once)")


def _label(words: str, number: int) -> str:
    """Return ``words``, with the first word in the plural unless ``number`` is 1: ``companies given``."""
    noun, _, rest = words.partition(" ")
    return f"{plural(number, noun, PLURALS[noun])} {rest}"


def _person(before: User, after: User) -> Iterator[DescriptionLine]:
    yield from _changed("name", before.name, after.name)
    yield from _changed("e-mail, which is the log-in", before.email, after.email)
    yield from _changed("phone", format_phone(before.phone), format_phone(after.phone))


def _app_edits(before: User, after: User) -> Iterator[DescriptionLine]:
    was = {grant.app: grant for grant in before.apps}
    wanted = {grant.app: grant for grant in after.apps}
    lines: dict[tuple[str, str], list[str]] = {}
    for app in sorted(was.keys() | wanted.keys()):
        if was.get(app) != wanted.get(app):
            lines.setdefault(_becomes(was.get(app), wanted.get(app)), []).append(app)
    for (symbol, label), apps in sorted(lines.items(), key=lambda line: (line[0][0] != "+", line[0][1])):
        yield DescriptionLine(symbol, _label(label, len(apps)), ", ".join(apps))


def _becomes(was: Grant | None, wanted: Grant | None) -> tuple[str, str]:
    if wanted is None:
        refused = was is not None and was.state is AppState.REQUESTED
        return "-", "application refused, which was asked for" if refused else "application removed at once"
    if wanted.state is AppState.ENDING:
        return "-", f"application ending{_on(wanted.ends)}"
    if wanted.state is AppState.REQUESTED:
        return "~", "application asked for"
    if was is None:
        return "+", "application given"
    if was.state is AppState.REQUESTED:
        return "+", "application given, as asked for"
    return "+", "application kept, which was to end"


def _login(before: User | None, after: User, names: Names) -> Iterator[DescriptionLine]:
    status = before.status if before else None
    if status is after.status:
        return
    if (status, after.status) in LOGINS:
        symbol, words = LOGINS[(status, after.status)]
        yield DescriptionLine(symbol, "log-in", words)
    if before is not None and before.is_open and not after.is_open:
        yield DescriptionLine("-", "no longer sees", format_companies(before.companies, names))


def describe_step(step: steps.Step) -> str:
    """Return the description of one step on one line, without a full stop."""
    match step:
        case steps.CreateCompany():
            return f"Create company {step.company} {step.name}"
        case steps.EditCompany():
            return f"Correct company {step.company}: {step.name}, SIREN {format_siren(step.siren)}"
        case steps.SetBilling():
            return f"Set the billing of company {step.company}: {format_billing(step.billing)}"
        case steps.CreateUser():
            return f"Create {TYPES[step.profile.type]} {format_person(step.profile)}"
        case steps.ReopenUser():
            return f"Reopen the account of {step.user}"
        case steps.ValidateUser():
            return f"Validate {step.user}"
        case steps.CloseUser():
            return f"Close the account of {step.user}"
        case steps.EditProfile():
            person = f"{step.first_name} {step.last_name} <{step.email}>"
            return f"Correct the profile of {step.user}: {person}, phone {format_phone(step.phone)}"
        case steps.SetType():
            return (
                f"Make {step.user} {'an' if step.type is UserType.ADMINISTRATOR else 'a'} {TYPES[step.type]}"
            )
        case steps.SetBilledCompany():
            return f"Bill {step.user} to company {step.billed}, as {TYPES[step.type]}"
        case steps.EditCompanies():
            return f"Edit the companies of {step.user}: {_joined(given=step.add, withdrawn=step.remove)}"
        case steps.EditApps():
            return f"Edit the applications of {step.user}: {_apps_edited(step)}"
    assert_never(step)


def _joined(**lists: tuple[str, ...]) -> str:
    return "; ".join(f"{word.replace('_', ' ')} {', '.join(items)}" for word, items in lists.items() if items)


def _apps_edited(step: steps.EditApps) -> str:
    ending = f"{', '.join(step.end)} to end{_on(step.ends)}" if step.end else ""
    production = f"production {step.production}" if step.production else ""
    others = _joined(given=step.grant, removed_at_once=step.remove)
    return "; ".join(part for part in (production, others, ending) if part)
