"""The plan: an immutable value that describes everything that ``apply`` does.

A *change* is one resource before and after the plan, as the reviewer sees it. A *step* is one operation on
the portal; a change needs one or more steps.
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
        """The symbol of the action: ``+`` for create and reopen, ``~`` for update, ``-`` for close."""
        return {Action.UPDATE: "~", Action.CLOSE: "-"}.get(self, "+")


@dataclass(frozen=True, slots=True)
class Change:
    """One resource before and after the plan. ``before`` is None if the plan creates the resource.

    ``reason`` and ``source`` (the position in a manifest) explain the change to reviewers.
    """

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
        """True if the user sees every document of their companies after this change, but not before it."""
        return (
            isinstance(self.after, User)
            and self.after.is_open
            and self.after.is_administrator
            and not self._sees_everything_today
        )

    @property
    def _sees_everything_today(self) -> bool:
        """True if the user was an administrator (R7) and the change does not reopen or validate the user."""
        before, after = self.before, self.after
        if not isinstance(before, User) or not isinstance(after, User) or not before.is_administrator:
            return False
        return before.status is Status.ACTIVE or before.status is after.status

    @property
    def new_companies(self) -> frozenset[str]:
        """The dossier numbers of companies that an existing user sees only after this change."""
        if not isinstance(self.before, User) or not isinstance(self.after, User) or not self.after.is_open:
            return frozenset()
        seen = self.before.companies if self.before.is_open else frozenset()
        return self.after.companies - seen


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step with its phase and wave. The steps of one wave can be applied in any order."""

    step: Step
    phase: Phase
    wave: int

    @property
    def address(self) -> Address:
        """The address of the resource that this step changes."""
        return address_of(self.step)


@dataclass(frozen=True, slots=True)
class PlannedLetter:
    """A welcome letter to send. ``context`` holds the variables for the template, none of which is secret."""

    user: Address
    recipient: str
    language: str
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adoption:
    """An existing account that ``apply`` records in the ledger, without changing the portal.

    ``email``, ``phone`` and ``created`` have the same meaning as in :class:`~provisioner.model.Managed`.
    ``known`` is true if the ledger already has a record of the account. The adoption then updates the record.
    """

    user: Address
    id: str
    email: str | None = None
    phone: str | None = None
    created: bool = False
    known: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The safety limits on a plan: the maximum number and the maximum percentage of accounts to close."""

    max_closures: int = 5
    max_closures_percent: int = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan: the changes, the steps in the order to apply them, the letters, notices and diagnostics."""

    portal: str
    changes: tuple[Change, ...] = ()
    steps: tuple[PlannedStep, ...] = ()
    letters: tuple[PlannedLetter, ...] = ()
    adoptions: tuple[Adoption, ...] = ()
    limits: Limits = field(default_factory=Limits)
    notices: tuple[Notice, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    companies: Mapping[str, str] = field(default_factory=dict)
    """The names of the companies in the changes, by dossier number. The plan's digest ignores the names."""

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The diagnostics with severity *error*. A plan that has errors cannot be applied."""
        return tuple(problem for problem in self.diagnostics if problem.is_error)

    @property
    def applyable(self) -> bool:
        """True if the plan has no errors."""
        return not self.errors

    @property
    def has_changes(self) -> bool:
        """True if the plan has changes or letters. Adoptions do not count, as they change only the ledger."""
        return bool(self.changes or self.letters)

    def count(self, *actions: Action) -> int:
        """Return the number of changes whose action is one of ``actions``."""
        return sum(change.action in actions for change in self.changes)
