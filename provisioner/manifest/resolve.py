"""Computes the desired state: the current state with the changes that the manifests declare.

Unmanaged fields are copied from the current state. The planner therefore only needs to compare the two
states with ``!=``.

Each declared user is first matched to an account of the portal. Three values are tried in this order: the
portal ID in the ledger, ``previous_email``, the e-mail. In both states, a declared user has the declared
e-mail as the key, even if the account has a different e-mail on the portal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache

from provisioner.diagnostics import Diagnostic, error
from provisioner.manifest.declared import Activation, Declared, DeclaredCompany, DeclaredUser, active_grants
from provisioner.model import (
    Address,
    AppState,
    Company,
    Grant,
    Managed,
    Notice,
    NoticeKind,
    Operator,
    State,
    Status,
    User,
    Welcome,
    email_key,
    month_end,
    user_address,
)
from provisioner.planning.planner import Resolution


@dataclass(frozen=True, slots=True)
class Policy:
    """The values on which the desired state depends: settings, the operator's role and the date."""

    operator: Operator
    today: date
    """The current date in Paris, which determines the end of the month (R9)."""
    close_absent: bool = False
    """True if the accounts of users who left the manifests are closed: ``safety: {absent: close}``."""
    restore: bool = False
    """True if users' own changes of e-mail and phone are undone: ``safety: {self_service: restore}``."""
    welcome: bool = True
    """True if this program sends the welcome e-mails: ``mail: {welcome: ours}``."""


def resolve(declared: Declared, current: State, managed: Mapping[str, Managed], policy: Policy) -> Resolution:
    """Return the current and the desired state, with the notices and the problems.

    The users of ``current`` are keyed by their e-mail on the portal. ``managed`` has the ledger's records,
    keyed by the declared e-mail.
    """
    matches, ambiguous = _match(declared, current, managed)
    undeclared = _undeclared(declared, current, matches, managed)
    before = {key: matches[key] for key in declared.users if key in matches} | undeclared
    resolver = _Resolver(managed, policy)
    desired = {key: resolver.desired_user(key, user, before.get(key)) for key, user in declared.users.items()}
    desired_users = {key: user for key, user in desired.items() if user is not None}
    left = {key: resolver.desired_absent(key, user) for key, user in undeclared.items()}
    companies = dict(current.companies)
    for number, company in declared.companies.items():
        companies[number] = _desired_company(company, current.companies.get(number))
    return Resolution(
        current=State(current.companies, before),
        desired=State(companies, desired_users | left),
        welcomes=resolver.welcomes,
        reasons=resolver.reasons,
        records=resolver.records,
        notices=tuple(resolver.notices),
        diagnostics=tuple(ambiguous),
        managed=len(managed),
        declared=len(declared.users),
        source_of=declared.source_of,
    )


def _match(
    declared: Declared, current: State, managed: Mapping[str, Managed]
) -> tuple[dict[str, User], list[Diagnostic]]:
    """Return the account of each declared user that has one, by user key. Also return the problems.

    If two users match the same account, the second match is reported as a problem.
    """
    by_id = {user.id: user for user in current.users.values()}
    matches: dict[str, User] = {}
    taken: dict[str, str] = {}
    problems: list[Diagnostic] = []
    later = []
    for key, user in declared.users.items():
        known = managed.get(key)
        account = by_id.get(known.id) if known else None
        if account is None:
            later.append((key, user))
        else:
            matches[key] = account
            taken[account.id] = key
    for key, user in later:
        account = _former_account(user, current, managed, by_id) or current.users.get(key)
        if account is None:
            continue
        if account.id in taken:
            problems.append(
                error(
                    "ambiguous-user",
                    f"{user.email} is today the address of the account declared as {taken[account.id]}.",
                    f"Declare this person once: remove {taken[account.id]}, whose own change this is.",
                    user.source,
                    str(user_address(key)),
                )
            )
            continue
        matches[key] = account
        taken[account.id] = key
    return matches, problems


def _former_account(
    user: DeclaredUser, current: State, managed: Mapping[str, Managed], by_id: Mapping[str, User]
) -> User | None:
    if user.previous_key is None:
        return None
    known = managed.get(user.previous_key)
    return (by_id.get(known.id) if known else None) or current.users.get(user.previous_key)


def _undeclared(
    declared: Declared, current: State, matches: Mapping[str, User], managed: Mapping[str, Managed]
) -> dict[str, User]:
    """Return the undeclared accounts, each by its e-mail in the ledger or, if none, by that on the portal."""
    matched = {user.id for user in matches.values()}
    if len(matched) == len(current.users):
        return {}
    names = {known.id: key for key, known in managed.items()}
    others: dict[str, User] = {}
    for portal_key, user in current.users.items():
        if user.id in matched:
            continue
        key = names.get(user.id, portal_key)
        taken = key in declared.users or key in others
        others[f"{key}#{user.id}" if taken else key] = user
    return others


def _desired_company(declared: DeclaredCompany, before: Company | None) -> Company:
    if before is None:
        return Company(declared.number, declared.name, declared.siren, declared.billing)
    siren = declared.siren or before.siren
    billing = declared.billing or before.billing
    if (declared.name, siren, billing) == (before.name, before.siren, before.billing):
        return before
    return replace(before, name=declared.name, siren=siren, billing=billing)


class _Resolver:
    def __init__(self, managed: Mapping[str, Managed], policy: Policy) -> None:
        self._managed = managed
        self._managed_ids = {known.id: known for known in managed.values()}
        self._policy = policy
        self._month_end = month_end(policy.today)
        self.welcomes: dict[str, Welcome] = {}
        self.reasons: dict[Address, str] = {}
        self.records: dict[str, tuple[Managed, bool]] = {}
        self.notices: list[Notice] = []

    def desired_user(self, key: str, declared: DeclaredUser, before: User | None) -> User | None:
        """Return the desired user, or None if the user has no account and is declared closed."""
        if before is None:
            return None if declared.closed else self._new_user(key, declared)
        known = self._managed_ids.get(before.id)
        if known is None:
            self._notify(
                NoticeKind.ADOPTED,
                key,
                f"{declared.email} has an account already; it is managed from now on.",
            )
        desired = self._edited(key, declared, before, known)
        self._record(key, declared, before, known)
        self._welcome(key, declared, before, desired, known)
        self._report_apps(key, before, desired)
        return desired

    def desired_absent(self, key: str, user: User) -> User:
        """Return the desired user for an undeclared account.

        A managed account is closed if the policy has ``close_absent``. Any other account stays unchanged.
        """
        known = self._managed_ids.get(user.id)
        if user.is_open and known is not None:
            if self._policy.close_absent:
                self.reasons[user_address(key)] = "left the manifests"
                return replace(user, status=Status.CLOSED)
            self._notify(
                NoticeKind.LEFT,
                key,
                f"{user.email} left the manifests; the account stays open. "
                "To close it, declare it with status: closed.",
            )
        elif user.is_open:
            self._notify(
                NoticeKind.UNMANAGED, key, f"{user.email} ({user.name}) is in no manifest and is left alone."
            )
            if user.status is Status.TO_VALIDATE:
                self._report_pending(key, user)
        self._report_apps(key, user, user)
        return user

    def _new_user(self, key: str, declared: DeclaredUser) -> User:
        active = declared.activation is Activation.IMMEDIATE and self._policy.operator.may_validate
        user = User(
            email=declared.email,
            first_name=declared.first_name,
            last_name=declared.last_name,
            phone=declared.phone,
            type=declared.type,
            billed=declared.billed,
            companies=declared.companies or frozenset({declared.billed}),
            production=declared.production,
            apps=active_grants(declared.apps or ()),
            status=Status.ACTIVE if active else Status.TO_VALIDATE,
        )
        if not active:
            self._report_pending(key, user)
        elif declared.welcome and self._policy.welcome:
            self.welcomes[key] = Welcome(declared.language)
        return user

    def _edited(self, key: str, declared: DeclaredUser, before: User, known: Managed | None) -> User:
        status = self._status(key, declared, before)
        if status is Status.CLOSED:
            # no other field changes, because reopening restores the account as it was before closing (F)
            return replace(before, status=status)
        email = before.email if before.email == declared.email else self._email(key, declared, before, known)
        phone = before.phone
        if declared.phone_declared and phone != declared.phone:
            phone = self._phone(key, declared, before, known)
        companies = before.companies if declared.companies is None else declared.companies
        if declared.billed not in companies:
            companies |= {declared.billed}
        apps = before.apps
        if declared.apps is not None and apps != active_grants(declared.apps):
            apps = frozenset(_desired_apps(apps, declared, self._policy.today, self._month_end))
        # most users are unchanged, and comparing the fields is faster than building a User
        if (
            status is before.status
            and declared.type is before.type
            and declared.production is before.production
            and declared.first_name == before.first_name
            and declared.last_name == before.last_name
            and declared.billed == before.billed
            and email == before.email
            and phone == before.phone
            and companies == before.companies
            and apps == before.apps
        ):
            return before
        return User(
            email, declared.first_name, declared.last_name, phone, declared.type, declared.billed, companies,
            declared.production, apps, status, before.id, before.version,
        )  # fmt: skip

    def _status(self, key: str, declared: DeclaredUser, before: User) -> Status:
        if declared.closed:
            if before.is_open:
                self.reasons[user_address(key)] = "status: closed"
            return Status.CLOSED
        if before.status is Status.ACTIVE:
            return Status.ACTIVE
        if before.status is Status.CLOSED:
            if self._policy.operator.may_validate:
                return Status.ACTIVE
            self._notify(
                NoticeKind.AWAITS_REOPENING,
                key,
                f"{before.email} is closed; reopening awaits a portal administrator, a partner "
                "or a customer manager (R8).",
            )
            return Status.CLOSED
        if declared.activation is Activation.IMMEDIATE and self._policy.operator.may_validate:
            return Status.ACTIVE
        self._report_pending(key, before)
        return Status.TO_VALIDATE

    def _email(self, key: str, declared: DeclaredUser, before: User, known: Managed | None) -> str:
        current, wanted = email_key(before.email), email_key(declared.email)
        if current == wanted:
            return before.email
        if known is not None and known.email is not None and email_key(known.email) == wanted:
            return self._user_change(key, "e-mail", declared.email, before.email) or declared.email
        return declared.email

    def _phone(self, key: str, declared: DeclaredUser, before: User, known: Managed | None) -> str | None:
        if known is not None and known.phone == (declared.phone or ""):
            kept = self._user_change(key, "phone", declared.phone or "none", before.phone or "none")
            return before.phone if kept else declared.phone
        return declared.phone

    def _user_change(self, key: str, field: str, declared: str, current: str) -> str:
        """Report that the user changed a field. Return ``current`` to keep the change, or "" to undo it."""
        outcome = "is put back" if self._policy.restore else "is kept"
        kept = "" if self._policy.restore else current
        advice = "" if self._policy.restore else f" To follow, write {current} in the manifest."
        self._notify(
            NoticeKind.DRIFT,
            key,
            f"{key} changed their own {field}: {declared} became {current}; "
            f"{'the declared value' if self._policy.restore else 'the change'} {outcome}.{advice}",
        )
        return kept

    def _record(self, key: str, declared: DeclaredUser, before: User, known: Managed | None) -> None:
        """Collect the user's new ledger record if it differs from ``known``, the present one.

        A field that the plan will change on the portal keeps the value that it has in ``known``.
        """
        settled_email = before.email == declared.email or email_key(before.email) == email_key(declared.email)
        email = before.email if settled_email else (known.email if known else None)
        phone = known.phone if known else None
        if not declared.phone_declared or before.phone == declared.phone:
            phone = before.phone or ""
        if known is not None and known.email == email and known.phone == phone:
            if self._managed.get(key) is not known:
                self.records[key] = (known, True)
        else:
            record = Managed(before.id, email, phone, known.created if known else False)
            self.records[key] = (record, known is not None)

    def _welcome(
        self, key: str, declared: DeclaredUser, before: User, desired: User, known: Managed | None
    ) -> None:
        if not (before.status is Status.TO_VALIDATE and desired.status is Status.ACTIVE):
            return
        if not (declared.welcome and self._policy.welcome):
            return
        if known is not None and known.created:
            self.welcomes[key] = Welcome(declared.language)
        else:
            self._notify(
                NoticeKind.NO_WELCOME,
                key,
                f"{before.email} was created by somebody else, so no welcome e-mail goes out. "
                f"To send one: provisioner mail send {key}",
            )

    def _report_apps(self, key: str, before: User, desired: User) -> None:
        if _all_active(before.apps):
            return
        for grant in sorted(before.apps & desired.apps, key=lambda grant: grant.app):
            if grant.state is AppState.REQUESTED:
                self._notify(
                    NoticeKind.REQUESTED_APP,
                    key,
                    f"{before.email} asks for {grant.app}; it waits until the firm activates it (R10).",
                )
            elif grant.state is AppState.ENDING:
                self._notify(NoticeKind.ENDING, key, f"{grant.app} of {before.email} ends.", grant.ends)

    def _report_pending(self, key: str, user: User) -> None:
        whom = (
            "a person with the right to validate"
            if self._policy.operator.may_validate
            else "a portal administrator, a partner or a customer manager"
        )
        self._notify(
            NoticeKind.AWAITS_VALIDATION,
            key,
            f"{user.email} cannot log in until {whom} validates the account (R7).",
        )

    def _notify(self, kind: NoticeKind, key: str, detail: str, on: date | None = None) -> None:
        self.notices.append(Notice(kind, user_address(key), detail, on))


@lru_cache(maxsize=4096)
def _all_active(apps: frozenset[Grant]) -> bool:
    return all(grant.state is AppState.ACTIVE for grant in apps)


def _desired_apps(
    before: frozenset[Grant], declared: DeclaredUser, today: date, ends: date
) -> Iterator[Grant]:
    """Yield the declared applications, and the undeclared applications that the account keeps for now.

    A requested application is kept. Any other undeclared application is omitted if removal is immediate. If
    not, an active application ends on ``ends``, and an ending application is kept until its last day is over.
    """
    apps = declared.apps or ()
    yield from active_grants(apps)
    for grant in before:
        if grant.app in apps:
            continue
        if grant.state is AppState.REQUESTED:
            yield grant
        elif not declared.immediate_removal:
            if grant.state is AppState.ACTIVE:
                yield Grant(grant.app, AppState.ENDING, ends)
            elif grant.ends is None or grant.ends >= today:
                yield grant
