"""What other people have on a SCIM server, or spell and understand otherwise, is theirs: read, and left."""

from __future__ import annotations

from contract_support import Desk, require
from people import user
from scim_manners import CORE, manners
from scim_support import opened

from provisioner.planning.steps import EditCompanies


def test_a_group_is_no_company_by_somebody_else_s_name_for_it_where_our_numbers_have_a_place() -> None:
    """Identity systems put their own keys into ``externalId`` of each group that they bring along."""
    with manners() as server, opened(server.url) as portal:
        desk = Desk(portal)
        require(desk.create(user("ann")))
        vpn = {"schemas": [f"{CORE}Group"], "displayName": "VPN", "externalId": "3f2a"}
        vpn = server.write("Groups", {**vpn, "members": [{"value": desk.find("ann").id}]})
        assert list(desk.state.companies) == ["1"]
        assert desk.find("ann").companies == {"1"}
        desk.do(EditCompanies("ann@example.fr", remove=("3f2a",)))
        assert server.find("Groups", "VPN") == vpn
