"""After a run on any variant of a SCIM server, a plan finds no changes, and no data is lost.

Each user gets one letter. Each variant is one entry of ``VARIANTS``. If a server does not store a change, the
step fails and names the field.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from boundaries import apply, mailed, workspace
from http_support import Asked
from scim_manners import CORE, Resource, manners
from scim_support import TOKEN, opened

from provisioner import limits
from provisioner.cli import run
from provisioner.errors import PortalError
from provisioner.model import State, Status
from provisioner.planning.steps import CloseUser, EditApps, EditCompany, Step
from provisioner.portal import Verdict
from provisioner.portals.scim.path import COMPANY, USER
from provisioner.testing.people import user
from provisioner.testing.world import Desk, require

LEDGER = "1" * 32


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", TOKEN)


# --- variants of servers ---


def without_members_in_lists(kind: str, one: Resource, listed: bool) -> Resource:
    return without_members(kind, one, listed) if listed else one


def without_members(kind: str, one: Resource, listed: bool) -> Resource:
    return {name: what for name, what in one.items() if name != "members"}


def with_nulls(kind: str, one: Resource, listed: bool) -> Resource:
    return {**dict.fromkeys(("members", "active", "externalId")), **one}


def phones_as_rfc_3966_has_them(one: Resource) -> None:
    for phone in one.get("phoneNumbers", ()):
        phone["value"] = f"tel:{phone['value'].removeprefix('tel:')}"


VARIANTS: dict[str, dict[str, Any]] = {
    "as the RFC has it": {},
    "without PATCH": {"patch": False},
    "nulls": {"shown": with_nulls},
    "nulls, without PATCH": {"shown": with_nulls, "patch": False},
    "phones as RFC 3966 has them": {"kept": phones_as_rfc_3966_has_them},
    "lists without members": {"shown": without_members_in_lists},
    "lists without members, without filters": {"shown": without_members_in_lists, "filters": "none"},
    "filters for few things": {"filters": "refused"},
    "filters that are ignored": {"filters": "ignored"},
    "filters that find nothing": {"filters": "empty"},
    "versions in headers alone": {"version": ""},
    "versions that are no ETags": {"version": "{}"},
}


@pytest.mark.parametrize("words", VARIANTS.values(), ids=VARIANTS)
def test_same_run_on_servers_of_every_variant(words: dict[str, Any], memory_path: Path) -> None:
    with manners(**words) as server:
        strangers = [
            server.write("Users", {"schemas": [f"{CORE}User"], "userName": "svc-backup"}),
            server.write(
                "Groups",
                {"schemas": [f"{CORE}Group"], "displayName": "Printers", "members": [{"value": "x"}]},
            ),
        ]
        folder = workspace(memory_path / "firm", clients="[cs]*.yaml", portal=f"scim+{server.url}")
        assert apply(folder) == 0
        assert nothing_to_do(folder)
        emily = server.find("Users", "emily")
        theirs = {"value": "VPN"}
        server.write("Users", {**emily, "title": "Boss", "entitlements": [*emily["entitlements"], theirs]})
        edit(folder, "apps: [Documents, Scan, Achats]", "apps: [Documents]")
        edit(folder, "James\n    last_name: Clarke\n    type: administrator", JAMES)
        assert apply(folder) == 0
        assert nothing_to_do(folder)
        assert set(mailed(folder).values()) == {1}
        assert len(mailed(folder)) == 3
        emily = server.find("Users", "emily")
        assert emily["title"] == "Boss"
        assert theirs in emily["entitlements"]
        assert [server.find("Users", "svc"), server.find("Groups", "Printers")] == strangers
        assert not any("pending" in one.get(USER, ()) for one in server.held["Users"].values())
        assert [len(server.find("Groups", name)["members"]) for name in ("Clarke", "SCI")] == [3, 1]


JAMES = """James
    last_name: Clark
    type: standard
    companies: ["004302"]

  - email: rob.clarke@clarke-ceramics.com
    first_name: Rob
    last_name: Clarke
    type: standard"""
"""The YAML text that renames James, makes James a standard user of a further company, and adds a user."""


def edit(folder: Path, old: str, new: str) -> None:
    manifest = folder / "clients" / "clarke-ceramics.yaml"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))


def nothing_to_do(folder: Path) -> bool:
    return run(["-C", str(folder), "plan", "--detailed-exitcode"]) == 0


# --- lists ---


def test_list_that_grows_while_read_is_read_to_its_end() -> None:
    """If a resource is added to a list after each request, the list is still read to its end."""
    with manners(page=3) as server, opened(server.url) as portal:

        def after(asked: Asked) -> None:
            server.write("Users", {"userName": f"u{len(server.asked)}@example.fr"})

        for number in range(20):
            server.write("Users", {"userName": f"first{number}@example.fr"})
        server.after = after
        portal.snapshot()
        assert len([asked for asked in server.asked if asked.path.startswith("/v2/Users?")]) < 25


def test_listed_resources_are_limited_at_n_and_n_plus_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_LISTED", 6)
    with manners(page=3) as server, opened(server.url) as portal:
        for _ in range(6):
            server.write("Users", {"userName": "svc"})
        portal.snapshot()
        server.write("Users", {"userName": "svc"})
        with pytest.raises(PortalError, match="more than 6 Users"):
            portal.snapshot()


def test_server_that_counts_only_one_page_is_refused() -> None:
    with manners(page=3, lying=True) as server, opened(server.url) as portal:
        for _ in range(7):
            server.write("Users", {"userName": "svc"})
        with pytest.raises(PortalError, match="another list of /Users each time"):
            portal.snapshot()


def test_group_of_all_users_is_read_without_members(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with manners() as server, opened(server.url) as portal:
        desk = Desk(portal)
        require(desk.create(user("ann")))
        server.write(
            "Groups", {"displayName": "All", "members": [{"value": f"{n:09}"} for n in range(2_000)]}
        )
        portal.project(State())  # its schemas are read under the usual bound
        monkeypatch.setattr(limits, "MAX_REPLY_BYTES", 20_000)
        require(desk.do(EditApps("ann@example.fr", grant=("Scan",))))


# --- versions ---


def test_versions_in_headers_alone_guard_concurrent_writes() -> None:
    """Concurrent writes are detected even if the server sends versions only in headers.

    ``meta.version`` is optional (RFC 7644, section 3.14).
    """
    with manners(version="") as server, opened(server.url) as portal:
        desk = Desk(portal)
        require(desk.create(user("ann")))
        call = desk.call(EditApps("ann@example.fr", grant=("Scan",)))

        def after(asked: Asked) -> None:
            if asked.method == "GET" and "/Users/" in asked.path:
                server.after = lambda asked: None
                ann = server.find("Users", "ann")
                server.write("Users", {**ann, "entitlements": [*ann["entitlements"], {"value": "VPN"}]})

        server.after = after
        assert portal.execute([call])[0].verdict is Verdict.CONFLICT
        assert {"value": "VPN"} in server.find("Users", "ann")["entitlements"]


@pytest.mark.parametrize(
    ("words", "guarded"), [({"version": ""}, True), ({"version": "", "header": ""}, False)]
)
def test_versions_are_assumed_until_a_resource_has_none(words: dict[str, Any], guarded: bool) -> None:
    with manners(says={"etag": {"supported": True}}, **words) as server, opened(server.url) as portal:
        portal.snapshot()
        assert portal.capabilities().versions
        require(Desk(portal).create(user("ann")))
        assert portal.capabilities().versions is guarded


def test_server_that_rejects_its_own_versions_is_named() -> None:
    """If a server rejects the versions that it sent, the error says so and suggests a setting.

    Such a server compares weak ETags strongly (RFC 9110, section 13.1.1).
    """
    with manners(header='W/"{}"', matches=lambda *_: False) as server, opened(server.url) as portal:
        with pytest.raises(PortalError, match=r'it calls /Groups/id\d+ W/"\d+", as it stands') as result:
            Desk(portal).create(user("ann"))
        assert "supported: false}" in result.value.remedy


# --- members ---


@pytest.mark.parametrize("filters", ["", "ignored"])
def test_step_conflicts_with_a_membership_added_meanwhile(filters: str) -> None:
    with manners(filters=filters) as server, opened(server.url) as portal:
        desk = Desk(portal)
        require(desk.create(user("ann")))
        require(desk.create(user("cid", "2")))
        ann = {"value": desk.find("ann").id}
        call = desk.call(EditApps("ann@example.fr", grant=("Scan",)))
        group = server.find("Groups", "Company 2")
        server.write("Groups", {**group, "members": [*group["members"], ann]})
        assert portal.execute([call])[0].verdict is Verdict.CONFLICT


@pytest.mark.parametrize("patch", [True, False], ids=["PATCH", "PUT"])
def test_server_without_members_is_named_and_no_group_is_emptied(patch: bool) -> None:
    with manners(patch=patch) as server, opened(server.url) as portal:
        desk = Desk(portal)
        require(desk.create(user("ann")))
        members = server.find("Groups", "Company 1")["members"]
        call = desk.call(EditCompany("1", "Other", None))
        server.shown = without_members
        if not patch:
            with pytest.raises(PortalError, match="no company who its members are"):
                portal.execute([call])
        with pytest.raises(PortalError, match=r"no company who its members are; ann.* Company 1 \(1\)"):
            portal.snapshot()
        assert server.find("Groups", "Company 1")["members"] == members


def test_put_of_a_group_without_returned_members_is_no_success() -> None:
    with manners(patch=False, shown=without_members) as server, opened(server.url) as portal:
        desk = Desk(portal)
        result = desk.create(user("ann"), "key")
        assert (result.verdict, result.problem) == (
            Verdict.FAILED,
            "The server refuses: It does not say who the members of a group are.",
        )
        assert not server.held["Users"]


# --- what is not kept ---


def dropping(*names: str) -> Callable[[Resource], None]:
    def kept(one: Resource) -> None:
        for name in names:
            one.pop(name, None)

    return kept


@pytest.mark.parametrize("speaks", [True, False], ids=["with our schemas", "saying nothing"])
def test_account_created_without_required_fields_is_deleted_and_reported(speaks: bool) -> None:
    """If the server does not store required fields of a new account, the account is deleted and reported.

    Otherwise the account would remain as a standard user. It would violate R2 in all later steps and get a
    letter.
    """
    with (
        manners(speaks=speaks, kept=dropping("roles", "phoneNumbers")) as server,
        opened(server.url) as portal,
    ):
        portal.hold(LEDGER, "ann", 1, 60)
        result = Desk(portal).create(user("ann", phone="+33612345678"), "key")
        assert (result.verdict, result.code) == (Verdict.FAILED, "portal-cannot-hold")
        assert 'not keep: phone (phoneNumbers[type eq "work"].value), type (roles).' in result.problem
        assert not server.held["Users"]


@pytest.mark.parametrize(
    ("dropped", "step", "thing"),
    [
        ("entitlements", EditApps("ann@example.fr", grant=("Scan",)), "apps (entitlements)"),
        ("active", CloseUser("ann@example.fr"), "status"),
        ("displayName", EditCompany("1", "Other", None), "number"),
        (COMPANY, EditCompany("1", "Company 1", "732829320"), "number"),
    ],
)
def test_accepted_change_that_is_not_stored_has_failed(dropped: str, step: Step, thing: str) -> None:
    with manners() as server, opened(server.url) as portal:
        desk = Desk(portal)
        require(desk.create(user("ann")))
        server.kept = dropping(dropped)
        result = desk.do(step, "key")
        assert (result.verdict, result.code) == (Verdict.FAILED, "portal-cannot-hold")
        assert f"not keep: {thing}" in result.problem


# --- what is refused ---


def test_refused_billing_end_blocks_neither_welcome_nor_closing() -> None:
    """If the server refuses the end of billing (R15), accounts are still created and closed.

    The end of billing is written after the step on the user is done.
    """

    def refuses(asked: Asked) -> int:
        return 403 if b"billingEnds" in asked.content else 0

    with manners() as server, opened(server.url) as portal:
        portal.hold(LEDGER, "ann", 1, 60)
        desk = Desk(portal)
        require(desk.create(user("ann"), "first"))
        group = server.find("Groups", "Company 1")
        server.refuses = refuses
        require(desk.do(CloseUser("ann@example.fr"), "second"))
        server.write("Groups", {**group, COMPANY: {**group[COMPANY], "billingEnds": "2026-11-30"}})
        require(desk.create(user("bob"), "third"))
        assert [desk.find(name).status for name in ("ann", "bob")] == [Status.CLOSED, Status.ACTIVE]
        assert any(b"billingEnds" in asked.content for asked in server.asked)
