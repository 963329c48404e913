"""The words of the program, as the portal's users know them."""

from __future__ import annotations

from people import user

from provisioner.model import PRODUCTION_APPS, Production


def test_the_production_trio_and_its_twin_have_the_portals_names() -> None:
    full = ("Production Compta", "Production Fiscalité", "Production Paie")
    assert PRODUCTION_APPS[Production.FULL] == full
    assert PRODUCTION_APPS[Production.CONSULTATION] == tuple(f"{name} (Consultation)" for name in full)


def test_a_user_is_called_by_his_first_and_last_name() -> None:
    assert user("claire").name == "Claire Martin"
