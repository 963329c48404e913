"""Data of other programs on a SCIM server is preserved, and attribute overrides are checked."""

from __future__ import annotations

from typing import Any

import pytest
from http_support import Asked
from scim_manners import CORE, manners
from scim_support import opened

from provisioner.errors import PortalError
from provisioner.model import AppState, Grant, UserType, month_end
from provisioner.planning.steps import EditApps, EditCompanies, EditProfile, SetType
from provisioner.portals.scim.path import COMPANY
from provisioner.testing.people import TODAY, user
from provisioner.testing.world import Desk, require


def test_external_id_is_no_number_where_the_extension_has_one() -> None:
    """If a server has the extension for companies, ``externalId`` of a group is not read as a company number.

    Identity systems store their own keys in ``externalId`` of groups.
    """
    with manners() as server, opened(server.url) as portal:
        desk = Desk(portal)
        require(desk.create(user("ann")))
        vpn = {"schemas": [f"{CORE}Group"], "displayName": "VPN", "externalId": "3f2a"}
        vpn = server.write("Groups", {**vpn, "members": [{"value": desk.find("ann").id}]})
        assert list(desk.state.companies) == ["1"]
        assert desk.find("ann").companies == {"1"}
        desk.do(EditCompanies("ann@example.fr", remove=("3f2a",)))
        assert server.find("Groups", "VPN") == vpn


# --- what stands beside ours ---

THEIRS: dict[str, list[Any]] = {
    "emails": ["ann@private.example", {"type": "home", "value": "ann@home.example"}],
    "phoneNumbers": ["+33100000000"],
    "roles": [{"value": "administrator", "type": "erp"}, "auditor"],
    "entitlements": [
        {"value": "VPN", "type": "ending"}, {"value": "SAP", "type": "requested"}, "Badge",
        {"value": "Scan", "type": "licence"},
    ],
}  # fmt: skip


def test_values_of_other_programs_are_neither_read_nor_lost() -> None:
    with manners() as server, opened(server.url) as portal:
        desk = Desk(portal)
        require(desk.create(user("ann")))
        require(desk.create(user("bob", type="standard", apps=("Scan",))))
        bob = server.find("Users", "bob")
        scan = {"value": "Scan", "display": "Numérisation", "primary": True}
        ours = [scan if one["value"] == "Scan" else one for one in bob["entitlements"]]
        server.write(
            "Users",
            {**bob, **{name: [*theirs, *bob.get(name, [])] for name, theirs in THEIRS.items()},
             "entitlements": [*THEIRS["entitlements"], *ours]},
        )  # fmt: skip
        assert desk.find("bob") == user("bob", type="standard", apps=("Scan",))
        for step in (
            SetType("bob@example.fr", UserType.ADMINISTRATOR),
            SetType("bob@example.fr", UserType.STANDARD),
            EditApps("bob@example.fr", grant=("Achats",)),
            EditApps("bob@example.fr", end=("Scan",), ends=month_end(TODAY)),
            EditProfile("bob@example.fr", "rob@example.fr", "Rob", "Martin", "+33612345678"),
        ):
            require(desk.do(step))
        found = server.find("Users", "rob")
        for name, theirs in THEIRS.items():
            assert [one for one in found[name] if one in theirs] == theirs
        assert {**scan, "type": "ending"} in found["entitlements"]
        ending = Grant("Scan", AppState.ENDING, month_end(TODAY))
        assert desk.find("rob").apps == {Grant("Achats", AppState.ACTIVE), ending}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("tel:+33-6-12-34-56-78", "+33612345678"), ("TEL:+33612345678", "+33612345678"),
        ("+33 (6) 12.34.56.78", "+33612345678"), ("tel:+33612345678;ext=9", "tel:+33612345678;ext=9"),
        ("06 12 34 56 78", "06 12 34 56 78"),
    ],
)  # fmt: skip
def test_phone_is_read_in_any_notation(written: str, read: str) -> None:
    """An international phone number is read without ``tel:`` and separators.

    A number with an extension or without a country code is read unchanged. Servers may store phones in the
    form of RFC 3966 (RFC 7643, section 4.1.2).
    """
    with manners() as server, opened(server.url) as portal:
        phones = [{"type": "work", "value": written}]
        ann = server.write("Users", {"userName": "ann@example.fr", "phoneNumbers": phones})
        members = [{"value": ann["id"]}]
        server.write("Groups", {"displayName": "One", COMPANY: {"number": "1"}, "members": members})
        assert Desk(portal).find("ann").phone == read


ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


@pytest.mark.parametrize("silent", ["/Schemas", "/ResourceTypes", "/Schemas /ResourceTypes"])
def test_override_is_trusted_without_schemas(silent: str) -> None:
    def refuses(asked: Asked) -> int:
        return 404 if asked.path.removeprefix("/v2") in silent.split() else 0

    wishes = {"billed": f"{ENTERPRISE}:costCenter", "last_name": "title", "apps": "x509Certificates"}
    with manners(refuses=refuses) as server, opened(server.url, scim=wishes) as portal:
        desk = Desk(portal)
        require(desk.create(user("ann", apps=("Scan",))))
        ann = server.find("Users", "ann")
        assert (ann[ENTERPRISE]["costCenter"], ann["title"]) == ("1", "Martin")
        assert desk.find("ann") == user("ann", apps=("Scan",))
        # our own are known where it names them, as are those that it describes
        assert portal.capabilities().receipts is (silent != "/Schemas /ResourceTypes")


def test_override_outside_of_the_schemas_is_refused() -> None:
    wishes = {"billed": "urn:example:User:costCenter"}
    with (
        manners() as server,
        opened(server.url, scim=wishes) as portal,
        pytest.raises(PortalError, match="no attribute urn:example:User:costCenter"),
    ):
        portal.snapshot()


@pytest.mark.parametrize(
    "wish",
    [
        {"number": "id"}, {"number": "displayName"}, {"billed": "userName"}, {"phone": "active"},
        {"billed": "id"}, {"billed": "externalId"}, {"number": "members"}, {"phone": "schemas"},
    ],
)  # fmt: skip
def test_override_to_a_reserved_attribute_is_refused(wish: dict[str, str]) -> None:
    with (
        manners() as server,
        opened(server.url, scim=wish) as portal,
        pytest.raises(PortalError, match="holds something else"),
    ):
        portal.snapshot()
