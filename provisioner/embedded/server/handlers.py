"""The handlers of the operations. The application checks a request before it calls the handler."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, date
from functools import cache
from typing import Any

from starlette.responses import Response

from provisioner.embedded.portal import SqlPortal
from provisioner.embedded.portal_types import AuthorisedCall, Lease, Page, PortalInfo
from provisioner.embedded.server import schemas
from provisioner.embedded.server.endpoints import COMPANY_STEPS, STEP_NAMES
from provisioner.embedded.server.problem_details import PROBLEMS, Problem
from provisioner.embedded.server.service import CheckedRequest, Service
from provisioner.errors import Locked, LockLost
from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Company,
    Grant,
    PortalTerms,
    Production,
    Status,
    User,
    UserType,
    email_key,
)
from provisioner.planning.codec import reader, writer
from provisioner.planning.steps import CreateCompany, CreateUser, SetBilling, Step
from provisioner.portal import DONE, Call, Receipt, Verdict

MAX_FENCE_STEP = 1_000_000
"""The maximum by which a requested fencing number may exceed the latest number of its ledger."""


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return _response(json.dumps(value, ensure_ascii=False), status, headers)


def _response(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(text, status, headers, "application/json")


# --- reading ---


async def _portal(service: Service, request: CheckedRequest) -> Response:
    about = await service.read(lambda portal: portal.about())
    assert request.session is not None
    answer = replace(
        about,
        stamp=about.stamp or about.portal,
        operator=request.session.role,
        scopes=frozenset(request.session.scopes),
    )
    return _response(writer(PortalInfo)(answer))


async def _companies(service: Service, request: CheckedRequest) -> Response:
    def read(portal: SqlPortal) -> str:
        return writer(Page[Company])(portal.page_of_companies(**request.values))

    return _response(await service.read(read))


async def _users(service: Service, request: CheckedRequest) -> Response:
    def read(portal: SqlPortal) -> str:
        return writer(Page[User])(portal.page_of_users(**request.values))

    return _response(await service.read(read))


async def _company(service: Service, request: CheckedRequest) -> Response:
    number = request.values["number"]
    found = await service.read(lambda portal: portal.company(number))
    if found is None:
        raise Problem("not-on-portal", f"company:{number} is not on this portal.")
    return _response(writer(Company)(found), headers={"ETag": f'"{found.version}"'})


async def _user(service: Service, request: CheckedRequest) -> Response:
    id_ = request.values["id"]
    found = await service.read(lambda portal: portal.user(id_))
    if found is None:
        raise Problem("not-on-portal", f"user:{id_} is not on this portal.")
    return _response(writer(User)(found), headers={"ETag": f'"{found.version}"'})


async def _receipt(service: Service, request: CheckedRequest) -> Response:
    key, ledger = request.values["key"], request.values.get("ledger", "")
    found = await service.read(lambda portal: portal.receipts([key], ledger).get(key))
    if found is None:
        raise Problem("not-on-portal", "No step was ever done with this key.")
    return _json({"key": found.key, "verdict": str(found.verdict), "id": found.id, "version": found.version})


async def _lease(service: Service, request: CheckedRequest) -> Response:
    found = await service.read(lambda portal: portal.lease(request.values["ledger"]))
    if found is None:
        raise Problem("not-on-portal", "This ledger never held the portal.")
    return _json(_lease_members(found))


def _lease_members(lease: Lease) -> dict[str, Any]:
    return {
        "ledger": lease.ledger,
        "owner": lease.owner,
        "fence": lease.fence,
        "expires": lease.expires.astimezone(UTC).isoformat(),
    }


# --- writing ---


async def _set_terms(service: Service, request: CheckedRequest) -> Response:
    body: schemas.NewTerms = request.body
    terms = PortalTerms(
        frozenset(body.offers),
        frozenset(body.apps),
        frozenset(domain.lower() for domain in body.email_domains),
        frozenset(map(email_key, body.staff)),
    )
    await service.write(lambda portal: portal.configure(terms, body.public_url))
    return Response(status_code=204)


async def _claim_letters(service: Service, request: CheckedRequest) -> Response:
    ledger, fence = request.values["Lease"], request.values["Fencing-Token"]
    body: schemas.Letters = request.body
    letters = {claim.letter: claim.runs for claim in body.letters}
    try:
        holders = await service.write(lambda portal: portal.claim_letters(ledger, fence, body.run, letters))
    except LockLost as problem:
        raise Problem("fenced", problem.sentence) from None
    return _json({"holders": {letter: holders[letter] for letter in letters}})


async def _invitations(service: Service, request: CheckedRequest) -> Response:
    users = list(dict.fromkeys(request.body.users))
    return _json({"links": dict(await service.write(lambda portal: portal.activation_links(users)))})


async def _take_lease(service: Service, request: CheckedRequest) -> Response:
    ledger, body = request.values["ledger"], request.body

    def take(portal: SqlPortal) -> Lease:
        known = portal.lease(ledger)
        if body.fence > (known.fence if known else 0) + MAX_FENCE_STEP:
            # a fencing number never decreases: after the largest number, the ledger could take no lease
            raise Problem("invalid", "fence is far above the last one of this ledger.", pointer="/fence")
        return portal.take_lease(ledger, body.owner, body.holder, body.fence, body.seconds)

    try:
        lease = await service.write(take)
    except Locked as problem:
        held = await service.read(lambda portal: portal.lease(ledger))
        words = _lease_members(held) if held is not None else {}
        more = {name: words[name] for name in ("owner", "expires") if name in words}
        raise Problem("locked", problem.sentence, **more) from None
    return _json(_lease_members(lease))


async def _drop_lease(service: Service, request: CheckedRequest) -> Response:
    await service.write(lambda portal: portal.drop_lease(request.values["ledger"], request.values["holder"]))
    return Response(status_code=204)


async def _step(service: Service, request: CheckedRequest) -> Response:
    session = request.session
    assert session is not None
    step = STEPS[request.operation.name](request.values, request.body)
    call = Call(
        key=request.values.get("Idempotency-Key", ""),
        step=step,
        id=request.values.get("id", ""),
        version=int(request.values.get("If-Match", "0").strip('"')),
    )
    ledger, fence = request.values.get("Lease", ""), request.values.get("Fencing-Token", 0)
    receipt = await service.work(AuthorisedCall(call, session.role, ledger, fence))
    if receipt.verdict not in DONE:
        raise refusal(receipt)
    answer = {"verdict": str(receipt.verdict), "id": receipt.id, "version": receipt.version}
    headers = {"ETag": f'"{receipt.version}"'}
    if receipt.verdict is Verdict.APPLIED and isinstance(step, CreateUser):
        return _json(answer, 201, {**headers, "Location": f"/v1/users/{receipt.id}"})
    if receipt.verdict is Verdict.APPLIED and isinstance(step, CreateCompany):
        return _json(answer, 201, {**headers, "Location": f"/v1/companies/{step.company}"})
    return _json(answer, 200, headers)


def refusal(receipt: Receipt) -> Problem:
    """Return the problem that describes why the step of this receipt was refused."""
    code, problem = receipt.code, receipt.problem
    if code in PROBLEMS:
        rule = _rule(problem) if code in ("exists", "month-turned") else ""
        return Problem(code, problem, rule=rule)
    if code == "no-right":
        return Problem("forbidden", problem, rule=_rule(problem))
    return Problem("rule", problem, rule=code)


def _rule(problem: str) -> str:
    found = re.match("(R[0-9]+): ", problem)
    return found[1] if found else ""


def _new_user(_: Mapping[str, Any], body: schemas.NewUser) -> Step:
    profile = User(
        body.email, body.first_name, body.last_name, body.phone, UserType(body.type), body.billed,
        frozenset(body.companies), Production(body.production), frozenset(map(_grant, body.apps)),
        Status(body.status),
    )  # fmt: skip
    return CreateUser(email_key(body.email), profile)


def _grant(body: schemas.GrantBody) -> Grant:
    return Grant(body.app, AppState(body.state), _day(body.ends))


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def _step_maker(kind: Any) -> Callable[[Mapping[str, Any], Any], Step]:
    read = reader(kind)

    def make(values: Mapping[str, Any], body: Any) -> Step:
        address = {"company": values["number"]} if kind in COMPANY_STEPS else {"user": values["id"]}
        step: Step = read({**address, **(body.model_dump() if body else {})})
        return step

    return make


STEPS: dict[str, Callable[[Mapping[str, Any], Any], Step]] = {
    **{name: _step_maker(kind) for kind, name in STEP_NAMES.items()},
    "create_company": lambda _, body: CreateCompany(body.number, body.name, body.siren),
    "set_billing": lambda values, body: SetBilling(
        values["number"], Billing(BillingMode(body.mode), body.offer)
    ),
    "create_user": _new_user,
}
"""By operation name: the function that makes the step to apply from the request's parameters and body."""


# --- health and the document ---


async def _healthz(service: Service, request: CheckedRequest) -> Response:
    return _json({"status": "ok"})


async def _readyz(service: Service, request: CheckedRequest) -> Response:
    await service.require_ready()
    return _json({"status": "ok"})


async def _openapi(service: Service, request: CheckedRequest) -> Response:
    return _response(_document())


@cache
def _document() -> str:
    from provisioner.embedded.server.openapi import openapi

    return json.dumps(openapi(), ensure_ascii=False)


Handler = Callable[[Service, CheckedRequest], Awaitable[Response]]

HANDLERS: dict[str, Handler] = {
    "portal": _portal,
    "set_terms": _set_terms,
    "companies": _companies,
    "company": _company,
    "users": _users,
    "user": _user,
    "receipt": _receipt,
    "claim_letters": _claim_letters,
    "invitations": _invitations,
    "lease": _lease,
    "take_lease": _take_lease,
    "drop_lease": _drop_lease,
    "healthz": _healthz,
    "readyz": _readyz,
    "openapi": _openapi,
    **dict.fromkeys(STEPS, _step),
}
"""The handlers by operation name. :mod:`~provisioner.embedded.server.oauth` handles ``token``."""
