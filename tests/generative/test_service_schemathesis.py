"""schemathesis gets no 5xx response, and only responses that the OpenAPI document describes.

With ``-m external --hypothesis-profile generative``, pytest draws more requests.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import GenerationMode
from schemathesis.config import (
    ChecksConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)
from service_support import ROOT, Served, serving

from provisioner.planning.steps import CreateCompany, CreateUser, SetBilling
from provisioner.portal import Call
from provisioner.testing.people import ESSENTIEL, user

pytestmark = pytest.mark.external

REFUSALS = [401, 403, 404, 409, 412, 413, 415, 422, 423, 428, 429]
"""The statuses of refusals that a valid request can get, because a schema cannot express rules and rights."""

CHECKS = ChecksConfig(
    positive_data_acceptance=PositiveDataAcceptanceConfig(expected_statuses=["2XX", *REFUSALS]),
)
CHECKS.missing_required_header.expected_statuses = ["400", "401", "428"]

document = json.loads((ROOT / "schemas" / "openapi.json").read_text(encoding="utf-8"))
schema = schemathesis.openapi.from_dict(
    document,
    config=SchemathesisConfig(projects=ProjectsConfig(default=ProjectConfig(checks=CHECKS))),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(
        tmp_path_factory.mktemp("drawn"), "--failed-logins", "1000000", "--rate", "100000"
    ) as service:
        yield service


@pytest.fixture(scope="module")
def people(served: Served) -> list[str]:
    """The ids of an administrator and two other users of one company."""
    portal = served.portal()
    portal.execute([Call("", CreateCompany("1", "Company 1"))])
    portal.execute([Call("", SetBilling("1", ESSENTIEL), "", 1)])
    wanted = [user("ann"), user("bob", type="standard"), user("cid", type="standard", status="to_validate")]
    receipts = portal.execute([Call("", CreateUser(one.email, replace(one, id=""))) for one in wanted])
    portal.close()
    return [receipt.id for receipt in receipts]


@pytest.fixture(scope="module")
def token(served: Served) -> str:
    return served.token()


@schema.parametrize()
@settings(suppress_health_check=list(HealthCheck))
def test_responses_conform_to_the_document(case: Any, served: Served, token: str, people: list[str]) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    if case.meta.generation.mode is GenerationMode.POSITIVE:
        _aim(case, served.url, headers, people)
    case.call_and_validate(base_url=served.url, headers=headers)


def _aim(case: Any, url: str, headers: dict[str, str], people: list[str]) -> None:
    """Put existing ids and versions into a valid request, so that the request passes the first look-up."""
    kind = "id" if "id" in case.path_parameters else "number"
    if kind not in case.path_parameters:
        return
    known = people[len(str(case.body)) % len(people)] if kind == "id" else "1"
    case.path_parameters[kind] = known
    if "If-Match" in case.headers:
        found = httpx2.get(f"{url}/v1/{'users' if kind == 'id' else 'companies'}/{known}", headers=headers)
        case.headers["If-Match"] = found.headers["etag"]
        for name in ("Lease", "Fencing-Token"):
            case.headers.pop(name, None)


def test_responses_to_request_sequences_conform_to_the_document(
    served: Served, token: str, people: list[str]
) -> None:
    """The responses to sequences of requests conform to the document.

    schemathesis uses the ids from earlier responses in later requests.
    """
    headers = {"Authorization": f"Bearer {token}"}
    seen: Counter[tuple[str, int]] = Counter()
    made: set[str] = set()
    followed: Counter[int] = Counter()

    class Walk(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": headers, "base_url": served.url}

        def before_call(self, case: Any) -> None:
            if case.meta.generation.mode is GenerationMode.POSITIVE:
                _make_likely(case, served.url, headers)

        def validate_response(self, response: Any, case: Any, *checks: Any, **more: Any) -> None:
            seen[case.operation.label, response.status_code] += 1
            if (case.operation.label, response.status_code) == ("POST /v1/users", 201):
                made.add(response.json()["id"])
            if (case.path_parameters or {}).get("id") in made:
                followed[response.status_code] += 1
            super().validate_response(response, case, *checks, **more)

    # sequences are random: draw until one of them requests a user that it has created
    walks = settings(
        stateful_step_count=8,
        suppress_health_check=list(HealthCheck),
        derandomize=False,
    )
    for _ in range(20):
        run_state_machine_as_test(Walk, settings=walks)
        if followed:
            break
    assert seen["POST /v1/users", 201] >= 1
    # the user created in the sequence was requested by the id in that response, and found
    assert followed
    assert 404 not in followed


def _make_likely(case: Any, url: str, headers: dict[str, str]) -> None:
    """Change a random request so that it can succeed: known companies, the current version, and no lease."""
    for name in ("Lease", "Fencing-Token"):
        case.headers.pop(name, None)
    if case.operation.label == "POST /v1/users" and isinstance(case.body, dict):
        # few of the random strings are valid names, and few numbers exist
        address = f"u{zlib.crc32(repr(case.body).encode())}@example.fr"
        case.body.update(
            email=address,
            first_name="Ada",
            last_name="Love",
            phone=None,
            billed="1",
            companies=["1"],
            apps=[],
        )
    if "If-Match" in case.headers and "id" in case.path_parameters:
        found = httpx2.get(f"{url}/v1/users/{case.path_parameters['id']}", headers=headers)
        case.headers["If-Match"] = found.headers.get("etag", '"1"')
