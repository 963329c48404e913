"""Tests of the SCIM driver that the contract suite lacks, with scim2-server in a separate process.

They cover missing features, attribute overrides and the data of other programs, which the driver keeps.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import UTC, date, datetime
from io import BytesIO, TextIOWrapper
from typing import Any, NamedTuple

import pytest
from http_support import Asked
from manifest_support import compare_with_golden
from scim_schemas import schema_resource
from scim_support import (
    PROFILES,
    SCHEMAS,
    TOKEN,
    ask,
    between,
    everything,
    opened,
    resource_types,
    server,
    server_schemas,
    tenant,
)
from shell_support import SAMPLES, Shell

from provisioner.errors import PortalError
from provisioner.model import AppState, Grant, Operator, Production, State, Status, UserType
from provisioner.planning.steps import (
    CloseUser,
    CreateUser,
    EditApps,
    EditCompanies,
    EditProfile,
    SetBilledCompany,
    SetType,
    Step,
)
from provisioner.portal import Call, Verdict
from provisioner.portals.scim.discovery import Schemas, definitions
from provisioner.portals.scim.driver import ScimPortal, identity
from provisioner.portals.scim.path import COMPANY, USER
from provisioner.portals.scim.pending import Pending
from provisioner.testing.people import NOW, TERMS, company, user
from provisioner.testing.plan_promises import aimed, some_steps
from provisioner.testing.reference_portal import MemoryPortal
from provisioner.testing.world import Desk, require

ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
CORE = "urn:ietf:params:scim:schemas:core:2.0:"


def without_the_guard_warning(text: str) -> str:
    """The plan without the warning that the portal has no leases or claims."""
    alone = "Warnings (1)\n  This portal takes one run at a time [unguarded]"
    return "\n\n".join(part for part in text.split("\n\n") if not part.startswith(alone))


@pytest.fixture
def url() -> str:
    """Return the URL of an empty SCIM server with all features."""
    return tenant(server("scim"))


@pytest.fixture
def desk(url: str) -> Iterator[Desk]:
    """Yield a desk for a portal with two companies.

    Company 1 has the administrator ann and the standard user bob. Company 2 has the administrator cid.
    """
    with opened(url) as portal:
        yield furnished(portal)


def furnished(portal: ScimPortal) -> Desk:
    desk = Desk(portal)
    for someone in (user("ann"), user("bob", type="standard"), user("cid", "2")):
        require(desk.create(someone))
    return desk


def on_scim(shell: Shell, url: str, monkeypatch: pytest.MonkeyPatch, *, mapping: str = "") -> None:
    """Make the SCIM server at ``url`` the portal of a workspace, and set the token.

    ``mapping`` is the value of the setting ``portal.scim``.
    """
    shell.edit("provisioner.yaml", '"sqlite:///portal.db"', f'"scim+{url}"')
    if mapping:
        shell.edit("provisioner.yaml", "\nledger:", f"  scim: {mapping}\n\nledger:")
    monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", TOKEN)


def next_month(shell: Shell) -> None:
    shutil.rmtree(shell.folder / "clients")
    shutil.copytree(SAMPLES / "next-month" / "clients", shell.folder / "clients")


# --- the samples ---


class Month(NamedTuple):
    """The plan and the final state of a sample on the embedded portal."""

    plan: str
    """The output of ``provisioner plan`` before the sample is applied."""
    state: State
    """The state of the portal after the sample is applied."""


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Month]:
    """Apply both samples one after the other on the embedded portal. Return the result for each sample."""
    from boundaries import apply, workspace

    from provisioner.cli import run
    from provisioner.operations.open import read_snapshot
    from provisioner.workspace.settings import load_workspace

    folder = workspace(tmp_path_factory.mktemp("embedded") / "firm")
    months = {}
    for month in ("onboarding", "next-month"):
        shutil.rmtree(folder / "clients")
        shutil.copytree(SAMPLES / month / "clients", folder / "clients")
        with redirect_stdout(TextIOWrapper(BytesIO(), "utf-8")) as said:
            assert run(["-C", str(folder), "plan"]) == 0
        assert apply(folder) == 0
        said.seek(0)
        months[month] = Month(said.read(), read_snapshot(load_workspace(folder)).state)
    return months


@pytest.mark.external
@pytest.mark.parametrize("profile", ["scim", "scim with nothing"])
def test_samples_are_applied_as_on_the_embedded_portal(
    profile: str, shell: Shell, monkeypatch: pytest.MonkeyPatch, embedded: dict[str, Month]
) -> None:
    """On a SCIM server, the samples give the same plans and final states as on the embedded portal.

    Only the warning about missing ETags differs.
    """
    url = tenant(server(profile))
    on_scim(shell, url, monkeypatch)
    letters = []
    for month in ("onboarding", "next-month"):
        if month == "next-month":
            next_month(shell)
        planned = shell("plan", "--out", shell.folder / "plan.json")
        assert planned.code == 0
        assert without_the_guard_warning(planned.out) == embedded[month].plan
        applied = shell("apply", shell.folder / "plan.json")
        assert applied.code == 0, applied
        letters.append(shell.letters())
        with opened(url) as portal:
            found = portal.snapshot().state
        assert dict(found.users) == dict(embedded[month].state.users)
        assert dict(found.companies) == dict(embedded[month].state.companies)
        again = shell("plan", "--detailed-exitcode")
        assert again.code == 0
        assert "No changes" in again.out
        assert ("overwrite what somebody else changes" in again.out) == ("etag" not in PROFILES[profile])
        assert "portal-cannot-hold" not in again.out
    assert letters == [15, 17]


@pytest.mark.external
def test_unsupported_fields_are_named_and_not_planned_again(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, embedded: dict[str, Month]
) -> None:
    url = tenant(server("scim", ours=False))
    on_scim(shell, url, monkeypatch)
    first = shell("plan", "--out", shell.folder / "plan.json")
    for words in (
        "the SIREN of 8 companies",
        "the billing mode and offer of 7 companies",
        "that somebody awaits validation, so 1 user",
        "schemas/scim-company.schema.json",
        "which writes are ours",
    ):
        assert words in " ".join(first.out.split())
    assert shell("apply", shell.folder / "plan.json").code == 0
    assert "No changes" in shell("plan").out
    assert shell.letters() == 15
    with opened(url) as portal:
        # every server has an attribute for the billed company
        found = portal.snapshot().state.users
    held = embedded["onboarding"].state.users
    assert set(held) - set(found) == {"karim.haddad@les-petits-pas.fr"}
    assert all(someone == held[key] for key, someone in found.items())
    next_month(shell)
    assert shell("apply", "--auto-approve").code == 0
    assert "No changes" in shell("plan").out
    assert shell.letters() == 17


@pytest.mark.external
def test_overridden_attributes_are_written_and_read(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    url = tenant(server("scim", ours=False))
    mapping = {
        "billed": f"{ENTERPRISE}:costCenter",
        "status": f"{ENTERPRISE}:division",
        "type": "userType",
        "phone": 'phoneNumbers[type eq "mobile"].value',
        "work_email": "none",
    }
    on_scim(shell, url, monkeypatch, mapping=json.dumps(mapping))
    planned = shell("plan", "--out", shell.folder / "plan.json")
    assert "awaits validation, so" not in planned.out
    assert shell("apply", shell.folder / "plan.json").code == 0
    assert "No changes" in shell("plan").out
    written = {one["userName"]: one for one in everything(url, "Users")}
    claire = written["claire.martin@boulangerie-martin.fr"]
    assert claire[ENTERPRISE] == {"costCenter": "004217", "division": "active"}
    assert claire["userType"] == "administrator"
    assert claire["phoneNumbers"][0]["type"] == "mobile"
    assert {"roles", "emails"}.isdisjoint(claire)
    assert written["karim.haddad@les-petits-pas.fr"]["active"] is False
    assert written["karim.haddad@les-petits-pas.fr"][ENTERPRISE]["division"] == "to_validate"


# --- what is said ---


@pytest.mark.external
@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"bilED": "userType"}, "bilED is nothing that a SCIM server is asked to hold"),
        ({"billed": ""}, "billed cannot be left out"),
        ({"type": "none"}, "type cannot be left out"),
        ({"phone": "phone numbers!"}, "phone numbers! is no attribute path"),
        ({"billed": f"{ENTERPRISE}:costCenter"}, "no attribute .*costCenter that can be written"),
        ({"billed": "groups"}, "groups holds something else"),
        ({"phone": "name.mobile"}, "no attribute name.mobile that can be written"),
        ({"apps": "userType"}, "userType is no attribute with several values"),
    ],
)
def test_invalid_override_ends_in_a_sentence(url: str, mapping: dict[str, str], words: str) -> None:
    with opened(url, scim=mapping) as portal, pytest.raises(PortalError, match=words) as refusal:
        portal.snapshot()
    assert refusal.value.remedy


@pytest.mark.external
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"secret": "wrong"}, "does not take the token"),
        ({"client_id": "app"}, "bearer token alone"),
        ({"url": "http://127.0.0.1:9/v2?x=1"}, "no address of a SCIM server"),
        ({"url": "http://example.com/v2"}, "the secret would travel unprotected"),
    ],
)
def test_server_that_cannot_be_opened_ends_in_a_sentence(
    url: str, words: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(PortalError, match=sentence), opened(words.pop("url", url), **words) as portal:
        portal.snapshot()


def test_identity_is_the_same_for_each_spelling_of_the_address() -> None:
    same = {identity(url) for url in ("scim+https://Id.example.fr/v2", "scim+https://id.example.fr:443/v2/")}
    assert len(same) == 1
    assert identity("scim+https://id.example.fr/v3") not in same


@pytest.mark.external
def test_driver_opened_for_planning_cannot_write(url: str) -> None:
    with opened(url, writing=False) as portal:
        portal.snapshot()
        for attempt in (
            lambda: portal.execute([]),
            lambda: portal.hold("l", "o", 1, 60),
            lambda: portal.claim("r", {}),
        ):
            with pytest.raises(PortalError, match="for reading only"):
                attempt()


@pytest.mark.external
def test_plan_sends_reads_only(shell: Shell, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning writes nothing, even if a step is unfinished."""
    verbs: list[str] = []

    def answer(asked: Asked, passed: Callable[[], bytes]) -> bytes:
        verbs.append(asked.method)
        return passed()

    with between(url, answer) as watched:
        on_scim(shell, watched, monkeypatch)
        assert shell("plan", "--detailed-exitcode").code == 2
        pending = Pending("k", "l", add=("004217",), status=Status.ACTIVE, billed="004217")
        group = {"schemas": [f"{CORE}Group", COMPANY], "displayName": "B", COMPANY: {"number": "004217"}}
        someone = {
            "schemas": [f"{CORE}User", USER],
            "userName": "claire.martin@boulangerie-martin.fr",
            "active": False,
            USER: {"status": "to_validate", "pending": pending.to_json()},
        }
        for kind, body in (("Groups", group), ("Users", someone)):
            assert ask(url, "POST", f"/{kind}", body)[0] == 201
        planned = shell("plan", "--detailed-exitcode")
        assert planned.code == 2
        assert "1 user is in the middle of a step" in " ".join(planned.out.split())
        assert "Changes: Claire Martin" in planned.out or "claire.martin" in planned.out
    assert set(verbs) == {"GET"}


# --- what others have there ---


@pytest.mark.external
@pytest.mark.parametrize("profile", ["scim", "scim without patch"])
def test_existing_billed_account_is_adopted(profile: str) -> None:
    """An account without the extension counts as billed to its only company."""
    url = tenant(server(profile))
    with opened(url) as portal:
        desk = furnished(portal)
        _, eve = ask(url, "POST", "/Users", {"schemas": [f"{CORE}User"], "userName": "eve@example.fr"})
        (group,) = [one for one in everything(url, "Groups") if one["displayName"] == "Company 2"]
        group["members"].append({"value": eve["id"]})
        assert ask(url, "PUT", f"/Groups/{group['id']}", group)[0] == 200
        found = desk.find("eve")
        assert (found.billed, found.companies, found.type) == ("2", frozenset("2"), UserType.STANDARD)
        assert (found.production, found.status) == (Production.CONSULTATION, Status.ACTIVE)
        portal.hold("ledger", "ann", 1, 60)
        steps: list[Step] = [
            EditCompanies("eve@example.fr", add=("1",)),
            EditProfile("eve@example.fr", "eve@example.fr", "Eve", "Martin", None),
            EditApps("eve@example.fr", production=Production.FULL, grant=("Scan",)),
            SetBilledCompany("eve@example.fr", "1", UserType.ADMINISTRATOR),
            EditCompanies("eve@example.fr", remove=("2",)),
        ]
        for number, step in enumerate(steps):
            require(desk.do(step, f"key-{number}"))
            assert portal.receipts([f"key-{number}"], "ledger")
            assert desk.find("eve").billed == ("2" if number < 3 else "1")
        assert desk.find("eve") == user("eve", apps=("Scan",))


@pytest.mark.external
def test_other_users_and_groups_are_neither_shown_nor_changed(url: str, desk: Desk) -> None:
    strangers = [
        ("Users", {"schemas": [f"{CORE}User"], "userName": "svc-backup", "title": "Robot"}),
        ("Users", {"schemas": [f"{CORE}User"], "userName": "staff@example.org", "active": True}),
        ("Groups", {"schemas": [f"{CORE}Group"], "displayName": "Printers"}),
    ]
    before = [ask(url, "POST", f"/{kind}", body)[1] for kind, body in strangers]
    assert list(desk.state.users) == ["ann@example.fr", "bob@example.fr", "cid@example.fr"]
    assert list(desk.state.companies) == ["1", "2"]
    result = desk.create(user("staff", email="staff@example.org"))
    assert (result.verdict, result.code) == (Verdict.CONFLICT, "exists")
    require(desk.do(EditCompanies("cid@example.fr", add=("1",))))
    for (kind, _), stranger in zip(strangers, before, strict=True):
        assert ask(url, "GET", f"/{kind}/{stranger['id']}")[1] == stranger


@pytest.mark.external
@pytest.mark.parametrize("profile", ["scim", "scim without patch"])
def test_unknown_attributes_survive_writes(profile: str) -> None:
    url = tenant(server(profile))
    with opened(url) as portal:
        desk = furnished(portal)
        ann = desk.find("ann").id
        _, resource = ask(url, "GET", f"/Users/{ann}")
        resource |= {"title": "Boss", "nickName": "Annie"}
        resource["name"]["honorificPrefix"] = "Dr"
        resource["entitlements"] += [{"value": "VPN"}, {"value": "Scan", "type": "licence"}]
        resource["roles"] += [{"value": "auditor"}]
        resource["phoneNumbers"] = [{"value": "+33199990000", "type": "fax"}]
        assert ask(url, "PUT", f"/Users/{ann}", resource)[0] == 200
        for step in (
            EditProfile("ann@example.fr", "ann@example.fr", "Anne", "Martin", "+33612345678"),
            EditApps("ann@example.fr", production=Production.CONSULTATION, grant=("Scan",)),
            EditApps("ann@example.fr", remove=("Scan",)),
            EditCompanies("ann@example.fr", add=("2",)),
        ):
            require(desk.do(step))
        require(desk.do(SetType("bob@example.fr", UserType.ADMINISTRATOR)))
        require(desk.do(SetType("ann@example.fr", UserType.STANDARD)))
        after = ask(url, "GET", f"/Users/{ann}")[1]
        assert (after["title"], after["nickName"]) == ("Boss", "Annie")
        assert after["name"] == {"givenName": "Anne", "familyName": "Martin", "honorificPrefix": "Dr"}
        kinds = {(one["value"], one.get("type")) for one in after["entitlements"]}
        assert kinds == {("VPN", None), ("Scan", "licence"), ("consultation", "production")}
        assert {one["value"] for one in after["roles"]} == {"auditor", "standard"}
        assert {one["type"]: one["value"] for one in after["phoneNumbers"]} == {
            "fax": "+33199990000",
            "work": "+33612345678",
        }


@pytest.mark.external
def test_active_false_is_closed_and_active_true_is_active_again(url: str, desk: Desk) -> None:
    bob = desk.find("bob").id
    patch = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"]}
    for active, status in ((False, Status.CLOSED), (True, Status.ACTIVE)):
        body = {**patch, "Operations": [{"op": "replace", "path": "active", "value": active}]}
        assert ask(url, "PATCH", f"/Users/{bob}", body)[0] == 204
        assert desk.find("bob").status is status


# --- guards ---


@pytest.mark.external
@pytest.mark.parametrize("profile", [profile for profile in PROFILES if "bulk" not in profile])
def test_step_with_a_moved_version_conflicts_and_others_go_on(profile: str) -> None:
    """A step with an outdated version is a conflict, and the other steps are executed.

    Servers with all features, servers without one feature and servers without any feature behave alike.
    """
    with opened(tenant(server(profile))) as portal:
        desk = furnished(portal)
        ann, bob, cid = (desk.find(name) for name in ("ann", "bob", "cid"))
        stale = [
            Call("a", EditCompanies("ann@example.fr", add=("2",)), ann.id, ann.version),
            Call("b", SetType("bob@example.fr", UserType.ADMINISTRATOR), bob.id, bob.version),
            Call("c", CloseUser("cid@example.fr"), "nobody", 1),
            Call("d", EditCompanies("cid@example.fr", add=("1",)), cid.id, cid.version),
        ]
        require(desk.do(EditCompanies("ann@example.fr", add=("2",))))
        require(desk.do(EditProfile("bob@example.fr", "bob@example.fr", "Robert", "Martin", None)))
        result = [(receipt.verdict, receipt.code) for receipt in portal.execute(stale)]
        assert result == [
            (Verdict.ALREADY, ""),
            (Verdict.CONFLICT, "version-moved"),
            (Verdict.CONFLICT, "not-on-portal"),
            (Verdict.APPLIED, ""),
        ]
        assert not desk.find("bob").is_administrator


@pytest.mark.external
def test_rules_are_checked_on_current_data(url: str, desk: Desk) -> None:
    """R2: closing an administrator is refused if another writer has just closed the other administrator."""
    require(desk.create(user("dan")))
    call = desk.call(CloseUser("ann@example.fr"))
    with opened(url) as other:
        require(Desk(other).do(CloseUser("dan@example.fr")))
        (result,) = desk.portal.execute([call])
        assert (result.verdict, result.code) == (Verdict.FAILED, "R2")
        calls = [desk.call(CreateUser("eve@example.fr", user("eve", "2", "standard")))]
        calls.append(desk.call(SetBilledCompany("bob@example.fr", "2", UserType.STANDARD)))
        require(Desk(other).do(CloseUser("cid@example.fr")))
        for result in desk.portal.execute(calls):
            assert (result.verdict, result.code) == (Verdict.FAILED, "R2")


@pytest.mark.external
@pytest.mark.parametrize("profile", ["scim", "scim without filter"])
@pytest.mark.parametrize("moved", [True, False], ids=["moved", "deleted"])
def test_administrator_removed_meanwhile_no_longer_counts(profile: str, moved: bool) -> None:
    """R2: an administrator whom another writer moved or deleted does not count as an administrator.

    So the last administrator of the company cannot be closed, because a standard user remains.
    """
    url = tenant(server(profile))
    with opened(url) as portal, opened(url) as other:
        desk = furnished(portal)
        for someone in (user("dan"), user("eve", "3")):
            require(desk.create(someone))
        ann, dan = desk.find("ann"), desk.find("dan")
        if moved:
            require(Desk(other).do(SetBilledCompany("dan@example.fr", "3", UserType.STANDARD)))
        else:
            assert ask(url, "DELETE", f"/Users/{dan.id}")[0] == 204
        (result,) = portal.execute([Call("k", CloseUser("ann@example.fr"), ann.id, ann.version)])
        assert (result.verdict, result.code) == (Verdict.FAILED, "R2")


@pytest.mark.external
@pytest.mark.parametrize("seed", range(2))
def test_random_steps_end_as_on_the_reference_portal(url: str, seed: int) -> None:
    """After random steps, the SCIM portal has the same verdicts and states as the reference portal."""
    chance = random.Random(seed)
    with opened(url) as portal:
        ours = Desk(portal)
        reference = Desk(MemoryPortal(Operator.PARTNER, TERMS, "", lambda: NOW))
        for desk in (ours, reference):
            for number in ("1", "2"):
                desk.company(company(number))
        for turn in range(12):
            here, there = ours.state, reference.state
            assert dict(here.users) == dict(there.users)
            assert dict(here.companies) == dict(there.companies)
            steps = some_steps(chance, there)
            result = [
                desk.portal.execute([aimed(step, found, f"{seed}-{turn}-{n}", False) for n, step in steps])
                for desk, found in ((ours, here), (reference, there))
            ]
            assert [(r.verdict, r.code) for r in result[0]] == [(r.verdict, r.code) for r in result[1]], steps
        assert len(ours.state.users) > 2


# --- time ---


@pytest.mark.external
def test_past_ending_is_read_as_stored_and_removed_by_a_plan(
    shell: Shell, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R9: an application whose last day is over is read as stored, and the next plan removes the application.

    The server does not end applications by itself.
    """
    from shell_support import Clerk

    on_scim(shell, url, monkeypatch)
    clerk = Clerk(shell.folder, datetime(2026, 11, 24, tzinfo=UTC))
    assert clerk.apply().code == 0
    next_month(shell)
    assert clerk.apply().code == 0
    hugo = "hugo.lambert@menuiserie-roussel.fr"

    def grants() -> set[Grant]:
        with opened(url) as portal:
            return set(portal.snapshot().state.users[hugo].apps)

    assert Grant("Achats", AppState.ENDING, date(2026, 11, 30)) in grants()
    clerk.now = datetime(2026, 11, 30, 22, 59, tzinfo=UTC)
    assert clerk.plan().code == 0
    clerk.now = datetime(2026, 11, 30, 23, 1, tzinfo=UTC)  # 00:01 in Paris
    assert clerk.plan().code == 2
    assert Grant("Achats", AppState.ENDING, date(2026, 11, 30)) in grants()
    assert clerk.apply().code == 0
    assert {grant.app for grant in grants()} == {"Documents", "Image"}
    assert clerk.plan().code == 0


# --- size ---


@pytest.mark.external
@pytest.mark.parametrize("page", [1_000, 20])
def test_all_pages_of_users_are_read(page: int) -> None:
    """All users are read from several pages, and a group with 250 members loses no member."""
    url = tenant(server("scim", page=page))
    with opened(url) as portal:
        desk = Desk(portal)
        require(desk.create(user("ann")))
        _, group = ask(url, "GET", "/Groups")
        members = []
        for number in range(250):
            body = {
                "schemas": [f"{CORE}User", USER],
                "userName": f"u{number}@example.fr",
                "active": True,
                USER: {"billedCompany": "1"},
            }
            if number < 60:
                body["roles"] = [{"value": "administrator"}]
                members.append(ask(url, "POST", "/Users", body)[1]["id"])
            else:
                members.append(f"somebody-else-{number}")
        (where,) = [one["id"] for one in group["Resources"]]
        body = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"]}
        body["Operations"] = [{"op": "add", "path": "members", "value": [{"value": id_} for id_ in members]}]
        assert ask(url, "PATCH", f"/Groups/{where}", body)[0] == 204
        assert len(desk.state.users) == 61
        require(desk.create(user("eve", type="standard")))
        require(desk.do(CloseUser("eve@example.fr")))
        assert len(ask(url, "GET", f"/Groups/{where}")[1]["members"]) == 252
        assert all(someone.companies == {"1"} for someone in desk.state.users.values())


# --- the schemas, and the server that the tests stand on ---


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scim-user.schema", schema_resource(USER)),
        ("scim-company.schema", schema_resource(COMPANY)),
        ("scim-resource-types", resource_types()),
    ],
)
def test_published_schemas_equal_the_generated_ones(name: str, content: object) -> None:
    compare_with_golden(SCHEMAS / f"{name}.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@pytest.mark.external
def test_published_list_has_the_schemas_of_the_rfc_and_of_both_extensions() -> None:
    text = json.dumps(server_schemas(), indent=1, ensure_ascii=False) + "\n"
    compare_with_golden(SCHEMAS / "scim-schemas.json", text)


@pytest.mark.parametrize("urn", [USER, COMPANY])
def test_default_definitions_equal_the_published_schemas(urn: str) -> None:
    published = definitions(schema_resource(urn)["attributes"])
    assert {name: Schemas({}).definition(urn, name) for name in published} == published


@pytest.mark.external
def test_published_schemas_are_valid_and_served(url: str) -> None:
    from scim2_models import ResourceType, Schema

    for written in server_schemas():
        Schema.model_validate(written)
    for written in resource_types():
        ResourceType.model_validate(written)
    served = {one["id"]: one for one in ask(url, "GET", "/Schemas")[1]["Resources"]}
    for urn in (USER, COMPANY):
        assert [one["name"] for one in served[urn]["attributes"]] == [
            one["name"] for one in schema_resource(urn)["attributes"]
        ]


@pytest.mark.external
def test_server_refuses_switched_off_features() -> None:
    """Each test server has exactly the features of its profile. Other tests depend on this."""
    someone = {"schemas": [f"{CORE}User"], "userName": "x@example.fr"}
    patch = {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{"op": "add", "path": "title", "value": "x"}],
    }
    bulk = {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"],
        "Operations": [{"method": "POST", "path": "/Users", "bulkId": "1", "data": someone}],
    }
    found = {}
    for profile in PROFILES:
        url = tenant(server(profile))
        _, made = ask(url, "POST", "/Users", someone)
        where = f"/Users/{made['id']}"
        found[profile] = {
            "etag": "version" in made["meta"]
            and ask(url, "PUT", where, {**someone, "title": "y"}, **{"If-Match": 'W/"other"'})[0] == 412,
            "filter": ask(url, "GET", "/Users?filter=userName%20eq%20%22x%22")[0] == 200,
            "bulk": ask(url, "POST", "/Bulk", {**bulk, "Operations": []})[0] != 501,
            "patch": ask(url, "PATCH", where, patch)[0] == 204,
        }
    for profile, can in found.items():
        assert {feature for feature, works in can.items() if works} == PROFILES[profile], profile
