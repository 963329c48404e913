"""A plan as JSON: what ``plan --json`` prints and ``plan --out`` saves, and what ``apply`` reads back.

The names are Terraform's where it has them (``format_version``, ``resource_changes``, ``applyable``,
``complete``, ``errored``, ``resource_drift``, ``checks``), because tools read them already.

Two sums protect it. The *digest* names what is approved: portal, changes, steps, letters, adoptions
and limits, and nothing else. The *seal* covers every field of the file, so that a changed one is
noticed; it shows accidents and careless edits, and is no signature.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from provisioner.diagnostics import SUMMARIES, Diagnostic, Severity, Source
from provisioner.errors import ProvisionerError, StalePlan
from provisioner.limits import MAX_PLAN_BYTES
from provisioner.model import Address, AppState, Company, Notice, NoticeKind, Resource, User
from provisioner.planning.codec import (
    InvalidJson,
    Json,
    canonical,
    reader,
    step_from_json,
    step_to_json,
    writer,
)
from provisioner.planning.plan import Action, Adoption, Change, Limits, Plan, PlannedLetter, PlannedStep
from provisioner.planning.steps import PHASES, CreateUser, Phase

__all__ = ["FORMAT_VERSION", "SavedPlan", "digest", "from_json", "step_from_json", "step_to_json", "to_json"]

FORMAT_VERSION = "1.0"

T = TypeVar("T")

ACTIONS: dict[Action, str] = {
    Action.CREATE: "create",
    Action.UPDATE: "update",
    Action.CLOSE: "delete",
    Action.REOPEN: "create",
}
"""Our actions in Terraform's words: a closure is the only removal, a reopening an arrival."""

_AGAIN = "Make a new one: provisioner plan --out FILE"


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan as it was saved.

    ``manifests`` has the digest of each manifest file it was made from; ``complete`` is false where
    ``--target`` or ``--exclude`` left something out.
    """

    plan: Plan
    manifests: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    made_by: str = ""
    version: str = ""
    complete: bool = True


def digest(plan: Plan) -> str:
    """SHA-256, in hexadecimal, of what is approved with a plan.

    It does not depend on the order in which resources were met, only on the order of the steps.
    """
    return _Rendering(plan).digest


def to_json(
    plan: Plan, *, manifests: Mapping[str, str], version: str, made_by: str = "", complete: bool = True
) -> str:
    """The plan as one JSON object, one entry a line, sealed."""
    return _sealed(_rendered(plan, manifests, made_by, version, complete))


def from_json(text: str) -> SavedPlan:
    """The plan that :func:`to_json` wrote.

    Raises :class:`StalePlan` when it was changed afterwards, and :class:`ProvisionerError` when it is
    no plan of a format that this version reads.
    """
    document = _parsed(text)
    _require_our_format(document)
    seal = document.pop("seal", None)
    written = {key: _lines(value) for key, value in document.items()}
    if not isinstance(seal, str) or seal != _seal(written):
        _refuse_changed()
    try:
        saved = _saved(document)
    except InvalidJson as problem:
        _refuse_changed(f" ({problem.where or 'it'} is not {problem.expected})")
    # what tools and reviewers read beside the plan itself must be what this plan says
    if _rendered(saved.plan, saved.manifests, saved.made_by, saved.version, saved.complete) != written:
        _refuse_changed()
    return saved


class _Rendering:
    """The lines of a plan; each resource, which several of them hold, is put into JSON once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._texts: dict[int, str] = {}
        self.steps = [self._step(step) for step in plan.steps]
        self.letters = [canonical(_LETTER(letter)) for letter in plan.letters]
        self.adoptions = [canonical(_ADOPTION(adoption)) for adoption in plan.adoptions]
        self.limits = canonical(_LIMITS(plan.limits))

    @property
    def changes(self) -> list[str]:
        """Each change as reviewers and tools read it; the digest needs less."""
        return [self._change(change) for change in self.plan.changes]

    @property
    def digest(self) -> str:
        """See :func:`digest`."""
        changes = [
            f"{canonical(str(change.address))} {self._resource(change.before)} {self._resource(change.after)}"
            for change in self.plan.changes
        ]
        places = [(PHASES.index(step.phase), step.wave) for step in self.plan.steps]
        steps = [text for _, text in sorted(zip(places, self.steps, strict=True))]
        approved = (
            canonical(self.plan.portal),
            _listed(sorted(changes)),
            _listed(steps),
            _listed(sorted(self.letters)),
            _listed(sorted(self.adoptions)),
            self.limits,
        )
        return _sha256("\n".join(approved))

    def _resource(self, resource: Resource | None) -> str:
        # by identity: the plan keeps its resources alive, and equal ones may differ in id and version
        if id(resource) not in self._texts:
            write = _USER if isinstance(resource, User) else _COMPANY
            self._texts[id(resource)] = "null" if resource is None else canonical(write(resource))
        return self._texts[id(resource)]

    def _change(self, change: Change) -> str:
        before, after = self._resource(change.before), self._resource(change.after)
        actions = canonical([ACTIONS[change.action]])
        return _object(
            {
                "access_delta": canonical(_access_delta(change)),
                "action": canonical(change.action.value),
                "address": canonical(str(change.address)),
                "change": _object({"actions": actions, "after": after, "before": before}),
                "name": canonical(change.address.key),
                "reason": canonical(change.reason),
                "source": canonical(_SOURCE(change.source)),
                "type": canonical(change.address.kind),
            }
        )

    def _step(self, planned: PlannedStep) -> str:
        place = {"phase": planned.phase.value, "wave": planned.wave}
        step = planned.step
        if not isinstance(step, CreateUser):
            return canonical({**place, **step_to_json(step)})
        named = {"step": type(step).__name__, "user": step.user}
        parts = {key: canonical(value) for key, value in (place | named).items()}
        return _object({**parts, "profile": self._resource(step.profile)})


def _rendered(
    plan: Plan, manifests: Mapping[str, str], made_by: str, version: str, complete: bool
) -> dict[str, str]:
    """Each field of the file with its text, but for the seal."""
    rendering = _Rendering(plan)
    written = {
        "adoptions": _listed(rendering.adoptions),
        "letters": _listed(rendering.letters),
        "limits": rendering.limits,
        "resource_changes": _listed(rendering.changes),
        "steps": _listed(rendering.steps),
    }
    others: dict[str, Json] = {
        "applyable": plan.applyable and (plan.has_changes or bool(plan.adoptions)),
        "checks": [_check_to_json(problem) for problem in plan.diagnostics],
        "companies": dict(plan.companies),
        "complete": complete,
        "digest": rendering.digest,
        "errored": bool(plan.errors),
        "format_version": FORMAT_VERSION,
        "made_by": made_by,
        "manifests": dict(manifests),
        "notices": [_NOTICE(notice) for notice in plan.notices],
        "portal": plan.portal,
        "provisioner_version": version,
        "resource_drift": [_drift_to_json(notice) for notice in _drift(plan)],
    }
    return written | {key: _lines(value) for key, value in others.items()}


def _sealed(written: dict[str, str]) -> str:
    fields = {**written, "seal": canonical(_seal(written))}
    text = "{\n" + ",\n".join(f'"{key}": {fields[key]}' for key in sorted(fields)) + "\n}\n"
    # the same JSON; build servers would read ##[…] or ::… in a job's output as a command
    return text.replace("##", "#\\u0023").replace("::", ":\\u003a")


def _seal(written: Mapping[str, str]) -> str:
    return _sha256("\n".join(f"{canonical(key)}: {written[key]}" for key in sorted(written)))


def _lines(value: Json) -> str:
    return _listed(canonical(item) for item in value) if isinstance(value, list) else canonical(value)


def _object(fields: Mapping[str, str]) -> str:
    """What :func:`canonical` makes of an object whose values are in JSON already."""
    return "{" + ",".join(f'"{key}":{fields[key]}' for key in sorted(fields)) + "}"


def _listed(items: Iterable[str]) -> str:
    """One entry a line, so that two plans can be compared line by line."""
    lines = ",\n".join(items)
    return f"[\n{lines}\n]" if lines else "[]"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


_COMPANY, _USER = writer(Company), writer(User)
_LETTER, _ADOPTION, _LIMITS = writer(PlannedLetter), writer(Adoption), writer(Limits)
_NOTICE, _SOURCE = writer(Notice), writer(Source | None)


def _access_delta(change: Change) -> dict[str, Json] | None:
    """What a user sees and uses from now on and did not before, and the reverse; None for a company."""
    before, after = change.before, change.after
    if not isinstance(after, User):
        return None
    was = before if isinstance(before, User) and before.is_open else None
    will = after if after.is_open else None
    seen, sees = (user.companies if user else frozenset() for user in (was, will))
    had, has = _apps_in_use(was), _apps_in_use(will)
    ending = {} if will is None else _apps_ending(will)
    return {
        "apps_ending": {app: day for app, day in ending.items() if was is None or app in had},
        "apps_granted": sorted(has - had),
        "apps_removed": sorted(had - has - ending.keys()),
        "companies_added": sorted(sees - seen),
        "companies_removed": sorted(seen - sees),
        "new_administrator": change.new_administrator,
    }


def _apps_in_use(user: User | None) -> set[str]:
    return {grant.app for grant in user.apps if grant.state is AppState.ACTIVE} if user else set()


def _apps_ending(user: User) -> dict[str, str | None]:
    return {
        grant.app: grant.ends.isoformat() if grant.ends else None
        for grant in sorted(user.apps, key=str)
        if grant.state is AppState.ENDING
    }


def _check_to_json(problem: Diagnostic) -> dict[str, Json]:
    return {
        "address": {"kind": "check", "name": problem.code, "to_display": problem.summary},
        "problems": [{"message": problem.detail, "remedy": problem.remedy}],
        "resource": problem.address,
        "severity": problem.severity.value,
        "source": _SOURCE(problem.source),
        "status": "fail",
    }


def _drift(plan: Plan) -> Iterator[Notice]:
    return (notice for notice in plan.notices if notice.kind is NoticeKind.DRIFT)


def _drift_to_json(notice: Notice) -> dict[str, Json]:
    return {
        "address": str(notice.address),
        "change": {"actions": ["update"]},
        "detail": notice.detail,
        "name": notice.address.key,
        "type": notice.address.kind,
    }


def _parsed(text: str) -> dict[str, Json]:
    if len(text) > MAX_PLAN_BYTES:
        raise ProvisionerError(
            f"This file is too large for a plan: {len(text):,} characters, {MAX_PLAN_BYTES:,} at most.",
            "Plan a part of it: provisioner plan --target company:NUMBER --out FILE",
        )
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("format_version"), str):
        raise ProvisionerError(
            "This file is not a plan, or it was cut short.",
            _AGAIN,
        )
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _require_our_format(document: Mapping[str, Json]) -> None:
    found = document["format_version"]
    if found == FORMAT_VERSION:
        return
    if not re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", found):
        raise ProvisionerError("This file is not a plan: its format_version is not a version.", _AGAIN)
    newer = tuple(map(int, found.split("."))) > tuple(map(int, FORMAT_VERSION.split(".")))
    raise ProvisionerError(
        f"This plan file has format {found}, {'newer' if newer else 'older'} than the {FORMAT_VERSION} "
        "that this version of provisioner reads.",
        "Apply it with the version that made it, or make a new one: provisioner plan --out FILE",
    )


def _refuse_changed(why: str = "") -> NoReturn:
    raise StalePlan(
        f"This plan file was changed after it was made{why}, so it is not what was approved.", _AGAIN
    ) from None


def _saved(document: Mapping[str, Json]) -> SavedPlan:
    """The plan inside a document whose seal is whole. Raises :class:`InvalidJson`."""
    plan = Plan(
        portal=_field(document, "portal", str),
        changes=tuple(_each(document, "resource_changes", _change_from_json)),
        steps=tuple(_each(document, "steps", _planned_step_from_json)),
        letters=_field(document, "letters", tuple[PlannedLetter, ...]),
        adoptions=_field(document, "adoptions", tuple[Adoption, ...]),
        limits=_field(document, "limits", Limits),
        notices=_field(document, "notices", tuple[Notice, ...]),
        diagnostics=tuple(_each(document, "checks", _check_from_json)),
        companies=_field(document, "companies", Mapping[str, str]),
    )
    return SavedPlan(
        plan=plan,
        manifests=_field(document, "manifests", Mapping[str, str]),
        digest=_field(document, "digest", str),
        made_by=_field(document, "made_by", str),
        version=_field(document, "provisioner_version", str),
        complete=_field(document, "complete", bool),
    )


def _field(document: Json, key: str, hint: Any) -> Any:
    """One field of an object, read as a type. Raises :class:`InvalidJson`."""
    if not isinstance(document, dict):
        raise InvalidJson("an object")
    if key not in document:
        raise InvalidJson("there", key)
    try:
        return reader(hint)(document[key])
    except InvalidJson as problem:
        raise problem.under(key) from None


def _each(document: Mapping[str, Json], key: str, read: Callable[[Json], T]) -> Iterator[T]:
    """The entries of a list, read one by one. Raises :class:`InvalidJson`."""
    entries = document.get(key)
    if not isinstance(entries, list):
        raise InvalidJson("a list", key)
    for index, entry in enumerate(entries):
        try:
            yield read(entry)
        except InvalidJson as problem:
            raise problem.under(f"{key}[{index}]") from None


def _change_from_json(entry: Json) -> Change:
    address: Address = _field(entry, "address", Address)
    kind = User if address.kind == "user" else Company
    change = entry.get("change")
    return Change(
        address=address,
        before=_field(change, "before", kind | None),
        after=_field(change, "after", kind),
        reason=_field(entry, "reason", str),
        source=_field(entry, "source", Source | None),
    )


def _planned_step_from_json(entry: Json) -> PlannedStep:
    phase, wave = _field(entry, "phase", Phase), _field(entry, "wave", int)
    step = {key: value for key, value in entry.items() if key not in ("phase", "wave")}
    return PlannedStep(step_from_json(step), phase, wave)


def _check_from_json(entry: Json) -> Diagnostic:
    code = _field(entry.get("address") if isinstance(entry, dict) else None, "name", str)
    if code not in SUMMARIES:
        raise InvalidJson("the code of a problem", "address.name")
    problems = entry.get("problems")
    if not isinstance(problems, list) or len(problems) != 1:
        raise InvalidJson("a list of one problem", "problems")
    return Diagnostic(
        severity=_field(entry, "severity", Severity),
        code=code,
        detail=_field(problems[0], "message", str),
        remedy=_field(problems[0], "remedy", str),
        source=_field(entry, "source", Source | None),
        address=_field(entry, "resource", str),
    )
