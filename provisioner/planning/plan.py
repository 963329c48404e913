"""A plan is a value: everything that apply does is in it.

*Change* is what a reviewer reads (one person, before and after). *Step* is what a portal does.
The digest covers changes, steps, letters, adoptions and limits, and nothing else: not the clock, the path,
the commit or the order of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from provisioner.diagnostics import Diagnostic, Source
from provisioner.model import Address, Notice, Resource, Status, User
from provisioner.planning.steps import Phase, Step, address_of


class Action(StrEnum):
    """What happens to one resource."""

    CREATE = "create"
    UPDATE = "update"
    CLOSE = "close"
    REOPEN = "reopen"

    @property
    def symbol(self) -> str:
        """``+`` for new and reopened, ``~`` for changed, ``-`` for closed."""
        return {"create": "+", "update": "~", "close": "-", "reopen": "+"}[self.value]


@dataclass(frozen=True, slots=True)
class Change:
    """One resource, before and after; its action and its steps follow from the two."""

    address: Address
    before: Resource | None
    after: Resource
    reason: str = ""
    source: Source | None = None

    @property
    def action(self) -> Action:
        """Derived, so that it cannot contradict before and after."""
        if self.before is None:
            return Action.CREATE
        if isinstance(self.before, User) and isinstance(self.after, User):
            if self.before.is_open and not self.after.is_open:
                return Action.CLOSE
            if not self.before.is_open and self.after.is_open:
                return Action.REOPEN
        return Action.UPDATE

    @property
    def new_administrator(self) -> bool:
        """True if the user sees every document of their companies after this change and not before."""
        return (
            isinstance(self.after, User)
            and self.after.is_open
            and self.after.is_administrator
            and not self._sees_everything_today
        )

    @property
    def _sees_everything_today(self) -> bool:
        """True for an administrator who can log in; before validation they see nothing (R7)."""
        before, after = self.before, self.after
        if not isinstance(before, User) or not isinstance(after, User) or not before.is_administrator:
            return False
        return before.status is Status.ACTIVE or before.status is after.status

    @property
    def new_companies(self) -> frozenset[str]:
        """Dossiers that an existing account, open or closed, sees after this change and not before."""
        if not isinstance(self.before, User) or not isinstance(self.after, User) or not self.after.is_open:
            return frozenset()
        seen = self.before.companies if self.before.is_open else frozenset()
        return self.after.companies - seen


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step with its place: steps of one wave touch different resources and may run side by side."""

    step: Step
    phase: Phase
    wave: int

    @property
    def address(self) -> Address:
        """The resource this step touches."""
        return address_of(self.step)


@dataclass(frozen=True, slots=True)
class PlannedLetter:
    """A welcome that a change earns. ``context`` is what the template reads, without any secret."""

    user: Address
    recipient: str
    language: str
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adoption:
    """What the ledger records of an account that exists already; the portal is not touched.

    ``email`` and ``phone`` are the values as declared and found ("" for no phone, None for never
    applied by us); ``known`` is true if the ledger knew the account and only its record is updated.
    """

    user: Address
    id: str
    email: str | None = None
    phone: str | None = None
    created: bool = False
    known: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Safety limits, part of what is approved with the plan."""

    max_closures: int = 5
    max_closures_percent: int = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes, steps in apply order, letters, notices and diagnostics."""

    portal: str
    changes: tuple[Change, ...] = ()
    steps: tuple[PlannedStep, ...] = ()
    letters: tuple[PlannedLetter, ...] = ()
    adoptions: tuple[Adoption, ...] = ()
    limits: Limits = field(default_factory=Limits)
    notices: tuple[Notice, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    companies: Mapping[str, str] = field(default_factory=dict)
    """Names of the companies mentioned, by dossier number: for readers, not part of the digest."""

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The diagnostics that keep this plan from being applied."""
        return tuple(problem for problem in self.diagnostics if problem.is_error)

    @property
    def applyable(self) -> bool:
        """True if there are no errors."""
        return not self.errors

    @property
    def has_changes(self) -> bool:
        """True when the portal would change or a letter would go out; adoptions change nothing."""
        return bool(self.changes or self.letters)

    def count(self, *actions: Action) -> int:
        """How many changes have one of these actions."""
        return sum(change.action in actions for change in self.changes)
