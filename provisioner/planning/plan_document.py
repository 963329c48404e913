"""The types of the JSON document that ``plan --json`` prints and ``plan --out`` saves.

A field that also exists in Terraform's JSON plan has the same name as in Terraform, because existing tools
read that name. The codec writes and reads these types, and ``schemas/plan.schema.json`` is generated from
them. To add a field to the JSON, add it to these types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from typing import NamedTuple

from provisioner.codes import CODES
from provisioner.diagnostics import Diagnostic, Severity, Source
from provisioner.model import Address, AppState, Notice, NoticeKind, Resource, User
from provisioner.planning.codec import InvalidJson
from provisioner.planning.plan import Action, Adoption, Change, Limits, Plan, PlannedLetter, PlannedStep

FORMAT_VERSION = "1.0"


class TerraformAction(StrEnum):
    """The name of an action in Terraform's JSON plan."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


ACTIONS: dict[Action, TerraformAction] = {
    Action.CREATE: TerraformAction.CREATE,
    Action.UPDATE: TerraformAction.UPDATE,
    Action.CLOSE: TerraformAction.DELETE,
    Action.REOPEN: TerraformAction.CREATE,
}


class Transition(NamedTuple):
    """A resource before and after a change."""

    actions: tuple[TerraformAction, ...]
    before: Resource | None
    after: Resource


class AccessDelta(NamedTuple):
    """The companies and applications that a user gains and loses through a change."""

    apps_ending: Mapping[str, date | None]
    apps_granted: frozenset[str]
    apps_removed: frozenset[str]
    companies_added: frozenset[str]
    companies_removed: frozenset[str]
    new_administrator: bool


class ChangeEntry(NamedTuple):
    """One change of a company or of a user. ``access_delta`` is None for a company."""

    access_delta: AccessDelta | None
    action: Action
    address: Address
    change: Transition
    name: str
    reason: str
    source: Source | None
    type: str


class CheckAddress(NamedTuple):
    """The identification of a check: the code (``name``) and the summary (``to_display``) of a diagnostic."""

    kind: str
    name: str
    to_display: str


class CheckProblem(NamedTuple):
    """The detail (``message``) and the remedy of a diagnostic."""

    message: str
    remedy: str


class CheckEntry(NamedTuple):
    """One diagnostic (error or warning) of the plan."""

    address: CheckAddress
    problems: tuple[CheckProblem, ...]
    resource: str
    severity: Severity
    source: Source | None
    status: str


class DriftActions(NamedTuple):
    """The actions of a drift entry: always a list with *update* as its only item."""

    actions: tuple[TerraformAction, ...]


class DriftEntry(NamedTuple):
    """A change that a user made on the portal."""

    address: Address
    change: DriftActions
    detail: str
    name: str
    type: str


class PlanDocument(NamedTuple):
    """The content of a plan file. ``digest`` hashes the approved parts, ``seal`` all fields except itself."""

    adoptions: tuple[Adoption, ...]
    applyable: bool
    checks: tuple[CheckEntry, ...]
    companies: Mapping[str, str]
    complete: bool
    digest: str
    errored: bool
    format_version: str
    letters: tuple[PlannedLetter, ...]
    limits: Limits
    manifests: Mapping[str, str]
    notices: tuple[Notice, ...]
    portal: str
    provisioner_version: str
    resource_changes: tuple[ChangeEntry, ...]
    resource_drift: tuple[DriftEntry, ...]
    seal: str
    steps: tuple[PlannedStep, ...]


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan and the other fields of the plan file.

    ``manifests`` holds the digest of each manifest file, by path; ``complete`` is false if ``--target`` or
    ``--exclude`` left out a resource.
    """

    plan: Plan
    manifests: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    version: str = ""
    complete: bool = True


def document_of(saved: SavedPlan) -> PlanDocument:
    """Return the plan document of a saved plan, with an empty seal."""
    plan = saved.plan
    return PlanDocument(
        adoptions=plan.adoptions,
        applyable=plan.applyable and (plan.has_changes or bool(plan.adoptions)),
        checks=tuple(map(_check_entry, plan.diagnostics)),
        companies=plan.companies,
        complete=saved.complete,
        digest=saved.digest,
        errored=bool(plan.errors),
        format_version=FORMAT_VERSION,
        letters=plan.letters,
        limits=plan.limits,
        manifests=saved.manifests,
        notices=plan.notices,
        portal=plan.portal,
        provisioner_version=saved.version,
        resource_changes=tuple(map(_change_entry, plan.changes)),
        resource_drift=tuple(
            _drift_entry(notice) for notice in plan.notices if notice.kind is NoticeKind.DRIFT
        ),
        seal="",
        steps=plan.steps,
    )


def saved_plan_of(document: PlanDocument) -> SavedPlan:
    """Return the plan that a document describes. Raises :class:`InvalidJson` for an inconsistent document."""
    plan = Plan(
        portal=document.portal,
        changes=tuple(map(_change_of, document.resource_changes)),
        steps=document.steps,
        letters=document.letters,
        adoptions=document.adoptions,
        limits=document.limits,
        notices=document.notices,
        diagnostics=tuple(map(_diagnostic_of, document.checks)),
        companies=document.companies,
    )
    return SavedPlan(
        plan,
        document.manifests,
        document.digest,
        document.provisioner_version,
        document.complete,
    )


def _change_entry(change: Change) -> ChangeEntry:
    return ChangeEntry(
        _access_delta(change),
        change.action,
        change.address,
        Transition((ACTIONS[change.action],), change.before, change.after),
        change.address.key,
        change.reason,
        change.source,
        change.address.kind,
    )


def _change_of(entry: ChangeEntry) -> Change:
    before, after = entry.change.before, entry.change.after
    for resource in (before, after):
        if resource is not None and isinstance(resource, User) != (entry.address.kind == "user"):
            raise InvalidJson(f"a {entry.address.kind}", f"resource_changes.{entry.address}")
    return Change(entry.address, before, after, entry.reason, entry.source)


def _access_delta(change: Change) -> AccessDelta | None:
    before, after = change.before, change.after
    if not isinstance(after, User):
        return None
    was = before if isinstance(before, User) and before.is_open else None
    will = after if after.is_open else None
    seen, sees = (user.companies if user else frozenset() for user in (was, will))
    had, has = _apps_in_use(was), _apps_in_use(will)
    ending = {} if will is None else _apps_ending(will)
    return AccessDelta(
        apps_ending={app: day for app, day in ending.items() if was is None or app in had},
        apps_granted=has - had,
        apps_removed=had.difference(has, ending),
        companies_added=sees - seen,
        companies_removed=seen - sees,
        new_administrator=change.new_administrator,
    )


def _apps_in_use(user: User | None) -> frozenset[str]:
    apps = user.apps if user else ()
    return frozenset(grant.app for grant in apps if grant.state is AppState.ACTIVE)


def _apps_ending(user: User) -> dict[str, date | None]:
    return {grant.app: grant.ends for grant in sorted(user.apps, key=str) if grant.state is AppState.ENDING}


def _check_entry(problem: Diagnostic) -> CheckEntry:
    return CheckEntry(
        CheckAddress("check", problem.code, problem.summary),
        (CheckProblem(problem.detail, problem.remedy),),
        problem.address,
        problem.severity,
        problem.source,
        "fail",
    )


def _diagnostic_of(entry: CheckEntry) -> Diagnostic:
    code, summary = entry.address.name, entry.address.to_display
    if not code or not summary:
        raise InvalidJson("the code of a problem and its summary", "checks.address")
    if len(entry.problems) != 1:
        raise InvalidJson("a list of one problem", "checks.problems")
    [problem] = entry.problems
    found = Diagnostic(entry.severity, code, problem.message, problem.remedy, entry.source, entry.resource)
    return found if code in CODES else replace(found, driver_summary=summary)


def _drift_entry(notice: Notice) -> DriftEntry:
    actions = DriftActions((TerraformAction.UPDATE,))
    return DriftEntry(notice.address, actions, notice.detail, notice.address.key, notice.address.kind)
