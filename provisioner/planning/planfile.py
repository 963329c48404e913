"""The functions that write a plan as JSON (``plan --json``, ``plan --out``) and read it (``apply PLAN``).

Two hashes protect the JSON text. The *digest* covers the parts that a reviewer approves: portal, changes,
steps, letters, adoptions and limits. The *seal* covers all fields of the text except the seal. The seal
detects accidental edits, but it is not a signature.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import NoReturn, get_args, get_origin

from provisioner.errors import ProvisionerError, StalePlan
from provisioner.limits import MAX_PLAN_BYTES
from provisioner.model import Resource
from provisioner.planning.codec import InvalidJson, Json, canonical, parse_json, reader, record_fields, writer
from provisioner.planning.plan import Adoption, Limits, Plan, PlannedLetter, PlannedStep
from provisioner.planning.plan_document import (
    FORMAT_VERSION,
    PlanDocument,
    SavedPlan,
    document_of,
    saved_plan_of,
)
from provisioner.planning.steps import PHASES

_AGAIN = "Make a new one: provisioner plan --out FILE"


def digest(plan: Plan) -> str:
    """Return the SHA-256 digest, in hexadecimal, of the approved parts of a plan.

    The digest depends on the phases and waves of the steps, but not on the order within a wave, nor on the
    order of changes, letters and adoptions.
    """
    resource, step = writer(Resource | None), writer(PlannedStep)
    changes = [
        f"{canonical(str(change.address))} {resource(change.before)} {resource(change.after)}"
        for change in plan.changes
    ]
    steps = sorted((PHASES.index(planned.phase), planned.wave, step(planned)) for planned in plan.steps)
    approved = (
        canonical(plan.portal),
        _listed(sorted(changes)),
        _listed(text for *_, text in steps),
        _listed(sorted(map(writer(PlannedLetter), plan.letters))),
        _listed(sorted(map(writer(Adoption), plan.adoptions))),
        writer(Limits)(plan.limits),
    )
    return _sha256("\n".join(approved))


def to_json(plan: Plan, *, manifests: Mapping[str, str], version: str, complete: bool = True) -> str:
    """Return the plan, with its digest and its seal, as one JSON object with one entry per line."""
    return _sealed(_rendered(SavedPlan(plan, manifests, digest(plan), version, complete)))


def from_json(text: str) -> SavedPlan:
    """Parse a text that :func:`to_json` returned.

    Raises :class:`StalePlan` if the text was changed after :func:`to_json` returned it. Raises
    :class:`ProvisionerError` if the text is not a plan, or has a format that this version cannot read.
    """
    document = _parsed(text)
    _require_our_format(document)
    written = {key: _lines(value) for key, value in document.items() if key != "seal"}
    if document.get("seal") != _seal(written):
        _refuse_changed()
    try:
        saved = saved_plan_of(reader(PlanDocument)(document))
    except InvalidJson as problem:
        _refuse_changed(f" ({problem.where or 'it'} is not {problem.expected})")
    # tools and reviewers read the derived fields (such as access_delta), so these must match the plan
    if digest(saved.plan) != saved.digest or _rendered(saved) != written:
        _refuse_changed()
    return saved


def _rendered(saved: SavedPlan) -> dict[str, str]:
    """Return the JSON text of each field of the plan file, except the seal."""
    document = document_of(saved)
    written = {}
    for name, hint in record_fields(PlanDocument).items():
        if name == "seal":
            continue
        value = getattr(document, name)
        if get_origin(hint) is tuple:
            written[name] = _listed(map(writer(get_args(hint)[0]), value))
        else:
            written[name] = writer(hint)(value)
    return written


def _sealed(written: Mapping[str, str]) -> str:
    fields = {**written, "seal": canonical(_seal(written))}
    text = "{\n" + ",\n".join(f'"{key}": {fields[key]}' for key in sorted(fields)) + "\n}\n"
    # escape ## and ::, because CI systems execute ##[…] and ::… in job output; the JSON value stays the same
    return text.replace("##", "#\\u0023").replace("::", ":\\u003a")


def _seal(written: Mapping[str, str]) -> str:
    return _sha256("\n".join(f"{canonical(key)}: {written[key]}" for key in sorted(written)))


def _lines(value: Json) -> str:
    return _listed(map(canonical, value)) if isinstance(value, list) else canonical(value)


def _listed(items: Iterable[str]) -> str:
    """Return a JSON list with one item per line, because reviewers compare plans line by line."""
    lines = ",\n".join(items)
    return f"[\n{lines}\n]" if lines else "[]"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _parsed(text: str) -> dict[str, Json]:
    if len(text) > MAX_PLAN_BYTES:
        raise ProvisionerError(
            f"This file is too large for a plan: {len(text):,} characters, {MAX_PLAN_BYTES:,} at most.",
            "Plan a part of it: provisioner plan --target company:NUMBER --out FILE",
        )
    try:
        document = parse_json(text)
    except InvalidJson:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("format_version"), str):
        raise ProvisionerError(
            "This file is not a plan, or it was cut short.",
            _AGAIN,
        )
    return document


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
