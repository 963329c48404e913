"""Validates a document with a pydantic model, and keeps the valid part of an invalid document."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from provisioner.diagnostics import Diagnostic
from provisioner.manifest.explain import Fault, explain, faults_of, value_at
from provisioner.yaml_source.document import Document

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Validated(Generic[M]):
    """The result of a validation. ``model`` is the valid part of the document, or None if no part is valid.

    For each user of ``model``, ``users`` has the user's index in the document. ``faulty`` has the indexes in
    the document of the users with a problem. ``lost`` is True if ``model`` lacks a user of the document.
    """

    model: M | None
    problems: Sequence[Diagnostic] = ()
    users: Sequence[int] = ()
    faulty: frozenset[int] = frozenset()
    lost: bool = False


def read_model(model: type[M], document: Document) -> Validated[M]:
    """Validate a document. Return its valid part, as an instance of ``model``, and the problems found."""
    try:
        found = model.model_validate(document.data)
    except ValidationError as invalid:
        faults = faults_of(invalid)
        return _recover(model, document.data, faults, explain(model, document, faults))
    return Validated(found, users=range(len(getattr(found, "users", ()))))


_STAND_INS: dict[str, Any] = {
    "name": "unnamed", "first_name": "unnamed", "last_name": "unnamed", "version": "1",
    "firm": {"name": "unnamed"}, "from": "nobody@example.com", "mail": {"from": "nobody@example.com"},
}  # fmt: skip
"""Values that replace missing required values, so that the rest of the document can be validated."""

_GONE = object()
_MOST_LEVELS = 10


def _recover(
    model: type[M], original: Any, faults: Sequence[Fault], problems: Sequence[Diagnostic]
) -> Validated[M]:
    """Validate the document without its faulty values. Do not report errors that this removal causes."""
    users = original.get("users") if isinstance(original, dict) else None
    total = len(users) if isinstance(users, list) else 0
    faulty = frozenset(
        path[1] for path in (fault["loc"] for fault in faults) if path[:1] == ("users",) and len(path) > 1
    )
    data, kept = deepcopy(original), list(range(total))
    # if a removed value was required, the next pass removes the mapping that contained the value
    for _ in range(_MOST_LEVELS):
        if not _remove_invalid(data, kept, faults):
            break
        try:
            found = model.model_validate(data)
        except ValidationError as invalid:
            faults = faults_of(invalid)
        else:
            lost = len(kept) < total or not isinstance(users, list | None)
            return Validated(found, problems, kept, faulty, lost)
    return Validated(None, problems, faulty=faulty, lost=True)


def _remove_invalid(data: Any, kept: list[int], faults: Sequence[Fault]) -> bool:
    """Remove the faulty values from ``data``, and add stand-ins for missing values.

    Also remove from ``kept`` the index of each removed user. Return False if the whole document is faulty.
    """
    thinned: list[list[Any]] = []
    for fault in faults:
        path = fault["loc"]
        if fault["type"] == "missing":
            *above, key = path
            if key in _STAND_INS:
                if isinstance(holder := value_at(data, above), dict):
                    holder[key] = deepcopy(_STAND_INS[key])
                continue
            path = path[:-1]
        if not path:
            return False
        if path[0] == "users":
            # a user's whole list is removed, because without one item the indexes of the others would change
            path = path[:3]
        holder, key = value_at(data, path[:-1]), path[-1]
        if isinstance(holder, dict):
            holder.pop(key, None)
        elif isinstance(holder, list):
            holder[key] = _GONE
            thinned.append(holder)
    for holder in thinned:
        if holder is data.get("users"):
            kept[:] = [position for position, user in zip(kept, holder, strict=True) if user is not _GONE]
        holder[:] = [item for item in holder if item is not _GONE]
    return True
