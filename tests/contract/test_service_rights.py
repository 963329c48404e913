"""The rights of each role and scope at each endpoint."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from service_support import PUBLIC_URL, Served, claims, serving

from provisioner.embedded.server.endpoints import STEP_NAMES
from provisioner.embedded.server.routes import ROUTES, SCOPES, Operation
from provisioner.model import Operator, User
from provisioner.planning.steps import (
    CloseUser,
    CompanyStep,
    CreateCompany,
    CreateUser,
    SetBilling,
    Step,
    UserStep,
)
from provisioner.portal import Call
from provisioner.portals.rest.requests import step_request
from provisioner.testing.people import ESSENTIEL, NOW, TERMS, user
from provisioner.testing.step_examples import EXAMPLES

ROLES = list(Operator)
GRANTED = [scopes for size in (1, 2) for scopes in itertools.combinations(SCOPES, size)]
CASES = [(role, scopes) for role in ROLES for scopes in GRANTED]
PROTECTED = [entry for entry in ROUTES if entry.access]
STEP_EXAMPLES = {STEP_NAMES[type(step)]: step for step, _ in EXAMPLES}

MAY_VALIDATE = {Operator.ADMINISTRATOR, Operator.PARTNER, Operator.CUSTOMER_MANAGER}
"""The roles that may validate and reopen users (R7, R8), according to the portal's help."""


class Desk:
    """A served portal with one company for each case. A case is a role with scopes.

    Each company has an administrator, and one user for each operation that changes a user.
    """

    def __init__(self, served: Served) -> None:
        self.served = served
        self.portal = served.portal()
        self.web = httpx2.Client(base_url=served.url)
        self.tokens = {(role, scopes): served.token(str(role), " ".join(scopes)) for role, scopes in CASES}
        self.ids: dict[str, str] = {}
        self._do(CreateCompany("other", "Other"))
        self._do(SetBilling("other", ESSENTIEL), version=1)
        self._create(user("other", billed="other"))
        for number, (role, _) in enumerate(CASES):
            self._do(CreateCompany(str(number), "Company"))
            self._do(SetBilling(str(number), ESSENTIEL), version=1)
            self._create(user(f"boss-{number}", billed=str(number)))
            for verb, step in STEP_EXAMPLES.items():
                if not isinstance(step, UserStep) or isinstance(step, CreateUser):
                    continue
                status = "to_validate" if verb == "validate_user" else "active"
                name = f"{verb}-{number}"
                self._create(user(name, billed=str(number), type="standard", status=status))
                if verb == "reopen_user":
                    self._do(CloseUser(name), self.ids[name], 1)
            self.portal.take_lease(f"ledger-{number}", str(role), "us", 7, 3600)
            self.portal.take_lease(f"letters-{number}", str(role), "us", 7, 3600)

    def _create(self, someone: User) -> None:
        self.ids[someone.id] = self._do(CreateUser(someone.email, replace(someone, id="")))

    def _do(self, step: Step, id: str = "", version: int = 0) -> str:
        (receipt,) = self.portal.execute([Call("", step, id, version)])
        assert receipt.problem == ""
        return receipt.id

    def ask(self, entry: Operation, number: int, **more: Any) -> httpx2.Response:
        """Return the response to a valid request for case ``number``. ``more`` replaces parts of it."""
        request = self._requests(entry.name, number)
        request.update(more)
        values = {"number": str(number), "ledger": f"ledger-{number}", "key": "some-key"}
        verb = entry.name if f"{entry.name}-{number}" in self.ids else "boss"
        path = entry.path.format(**values, id=self.ids[f"{verb}-{number}"])
        headers = {"Authorization": f"Bearer {self.tokens[CASES[number]]}", **request.pop("headers", {})}
        return self.web.request(entry.method, path, headers=headers, **request)

    def _requests(self, name: str, number: int) -> dict[str, Any]:
        version = '"2"' if name == "reopen_user" else '"1"'
        match name:
            case "set_terms":
                words = {
                    "offers": sorted(TERMS.offers),
                    "apps": [*sorted(TERMS.apps), f"App {number}"],
                    "email_domains": sorted(TERMS.email_domains),
                    "staff": sorted(TERMS.staff),
                    "public_url": PUBLIC_URL,
                }
                return {"json": words}
            case "create_company":
                return {"json": {"number": f"new-{number}", "name": "New"}}
            case "set_billing":
                offer = {"mode": "firm", "offer": "Confort"}
                return {"json": offer, "headers": {"If-Match": self._version_of(number)}}
            case "create_user":
                return {"json": newcomer(number, "active")}
            case "claim_letters":
                lease = {"Lease": f"letters-{number}", "Fencing-Token": "7"}
                return {"json": claims("run", f"letter-{number}"), "headers": lease}
            case "invitations":
                return {"json": {"users": [self.ids[f"boss-{number}"]]}}
            case "take_lease":
                return {"json": {"owner": "me", "holder": "us", "fence": 8, "seconds": 60}}
            case "drop_lease":
                return {"params": {"holder": "us"}}
        bodies: dict[str, Any] = {
            "edit_profile": {"email": f"e{number}@example.fr", "first_name": "E", "last_name": "P"},
            "set_billed_company": {"billed": "other", "type": "standard"},
            "edit_companies": {"add": ["other"]},
        }
        if name in bodies:
            return {"json": bodies[name], "headers": {"If-Match": version}}
        example = STEP_EXAMPLES.get(name)
        if example is None:
            return {}
        if isinstance(example, CompanyStep):
            version = self._version_of(number)
        headers = {"If-Match": version, "Content-Type": "application/json"}
        return {"content": step_request(Call("", example))[2], "headers": headers}

    def _version_of(self, number: int) -> str:
        company = self.portal.company(str(number))
        assert company is not None
        return f'"{company.version}"'


def newcomer(number: int, status: str) -> dict[str, Any]:
    return {
        "email": f"new-{status}-{number}@example.fr",
        "first_name": "New",
        "last_name": "Comer",
        "type": "standard",
        "billed": str(number),
        "companies": [str(number)],
        "production": "full",
        "apps": [],
        "status": status,
    }


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with serving(tmp_path_factory.mktemp("rights"), now=NOW) as served:
        found = Desk(served)
        yield found
        found.web.close()
        found.portal.close()


def refusal(entry: Operation, role: Operator, scopes: tuple[str, ...]) -> tuple[str, str]:
    """Return the code and the rule of the expected refusal.

    Both are "" if the operation is allowed. The rule is also "" if the refusal follows from no rule.
    """
    if entry.access not in scopes:
        return "scope", ""
    if entry.name == "set_terms" and role is not Operator.ADMINISTRATOR:
        return "forbidden", ""
    if entry.name in ("create_user", "validate_user") and role not in MAY_VALIDATE:
        return "forbidden", "R7"
    if entry.name == "reopen_user" and role not in MAY_VALIDATE:
        return "forbidden", "R8"
    return "", ""


@pytest.mark.parametrize("entry", PROTECTED, ids=lambda entry: entry.name)
def test_each_role_may_do_exactly_its_operations(desk: Desk, entry: Operation) -> None:
    for number, (role, scopes) in enumerate(CASES):
        before = desk.portal.about().counter
        answer = desk.ask(entry, number)
        code, rule = refusal(entry, role, scopes)
        if code:
            assert answer.status_code == 403, (role, scopes, answer.text)
            assert answer.json()["type"] == f"urn:provisioner:problem:{code}", (role, scopes)
            assert answer.json().get("rule", "") == rule
            assert desk.portal.about().counter == before
        else:
            assert answer.status_code in (entry.gives.keys() | {404}), (role, scopes, answer.text)
            assert answer.status_code != 404 or entry.name == "receipt"


def test_collaborator_creates_pending_users(desk: Desk) -> None:
    number = CASES.index((Operator.COLLABORATOR, tuple(SCOPES)))
    (entry,) = (entry for entry in ROUTES if entry.name == "create_user")
    answer = desk.ask(entry, number, json=newcomer(number, "to_validate"))
    assert answer.status_code == 201
    assert desk.portal.user(answer.json()["id"]).status == "to_validate"  # type: ignore[union-attr]


@pytest.mark.parametrize("entry", PROTECTED, ids=lambda entry: entry.name)
def test_request_without_a_token_changes_nothing(desk: Desk, entry: Operation) -> None:
    before = desk.portal.about().counter
    for authorization in ("", "Bearer made-up", "Basic YTpi"):
        headers = {**desk._requests(entry.name, 0).get("headers", {}), "Authorization": authorization}
        answer = desk.ask(entry, 0, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert desk.portal.about().counter == before


def test_public_endpoints_reveal_no_personal_data(desk: Desk) -> None:
    for entry in ROUTES:
        if not entry.access and entry.name != "token":
            answer = httpx2.get(f"{desk.served.url}{entry.path}")
            assert answer.status_code == 200
            assert "example.fr" not in answer.text
            assert "Essentiel" not in answer.text
