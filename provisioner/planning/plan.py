"""The plan: a frozen value that contains everything that ``apply`` does.

A *change* is one resource before and after, for the reviewer; a *step* is one thing that the portal does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from provisioner.diagnostics import Diagnostic, Source
from provisioner.model import Address, Notice, Resource, Status, User
from provisioner.planning.steps import Phase, Step, address_of


class Action(StrEnum):
    """The kind of a change."""

    CREATE = "create"
    UPDATE = "update"
    CLOSE = "close"
    REOPEN = "reopen"

    @property
    def symbol(self) -> str:
        """``+`` for new and reopened, ``~`` for changed, ``-`` for closed."""
        return {Action.UPDATE: "~", Action.CLOSE: "-"}.get(self, "+")


@dataclass(frozen=True, slots=True)
class Change:
    """One resource before and after; ``reason`` and ``source`` are for the reviewer."""

    address: Address
    before: Resource | None
    after: Resource
    reason: str = ""
    source: Source | None = None

    @property
    def action(self) -> Action:
        """The kind of this change, derived from ``before`` and ``after``."""
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
        """True if the user is an administrator now and can log in, or has the same status afterwards (R7)."""
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
    """A step with its phase and wave; the steps of one wave touch different resources, in any order."""

    step: Step
    phase: Phase
    wave: int

    @property
    def address(self) -> Address:
        """The resource this step touches."""
        return address_of(self.step)


@dataclass(frozen=True, slots=True)
class PlannedLetter:
    """A welcome that a change earns. ``context`` has the values for the template, and no secret."""

    user: Address
    recipient: str
    language: str
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adoption:
    """The record that the ledger gets of an account that exists already; the portal is not changed.

    ``email`` and ``phone`` are the values that the manifest declares and the portal has ("" for no phone,
    None for a value that provisioner never applied). ``known`` is true if the ledger has a record of the
    account already, which is updated.
    """

    user: Address
    id: str
    email: str | None = None
    phone: str | None = None
    created: bool = False
    known: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Safety limits; they are approved with the plan."""

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
    """The names of the companies that the changes mention, by dossier number; not part of the digest."""

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
        """True if there are changes or letters; adoptions do not change the portal."""
        return bool(self.changes or self.letters)

    def count(self, *actions: Action) -> int:
        """How many changes have one of these actions."""
        return sum(change.action in actions for change in self.changes)
