"""Texts that other YAML readers read as numbers, dates or booleans stay texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from manifest_support import CLAIRE, make_workspace, manifest, problems_of, user
from yaml_texts import LOOKALIKES

from provisioner.cli import run
from provisioner.embedded.portal import SqlPortal
from provisioner.model import Operator, State
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import TERMS
from provisioner.workspace.settings import load_workspace

NO_TEXTS = ("null", "Null", "NULL", "~", "true", "True", "TRUE", "false", "False", "FALSE", "")
NO_NAMES = ("=", "<<")
NAMES = [text for text in LOOKALIKES if text not in NO_TEXTS + NO_NAMES]
"""The texts of ``LOOKALIKES`` that the program accepts as names."""


def portal_of(root: Path) -> State:
    """The state of the embedded portal."""
    workspace = load_workspace(root)
    portal = SqlPortal(
        SqliteDatabase(root / "portal.db"), Operator.PARTNER, workspace.settings.terms, "", _never
    )
    try:
        return portal.snapshot().state
    finally:
        portal.close()


def _never() -> Any:
    from provisioner.testing.people import NOW

    return NOW


def test_name_stays_the_exact_text_from_manifest_to_portal_and_back(tmp_path: Path) -> None:
    """A name stays the exact text from the manifest to the portal and back.

    The name is written without quotes, applied, exported, and read again by a YAML 1.1 reader.
    """
    people = CLAIRE + "".join(
        user(f"u{at}@example.fr").replace("last_name: Martin", f"last_name: {text}")
        for at, text in enumerate(NAMES)
    )
    root = make_workspace(tmp_path / "firm", manifest(people))
    assert run(["-C", str(root), "apply", "--auto-approve"]) == 0
    held = {someone.email: someone.last_name for someone in portal_of(root).users.values()}
    assert [held[f"u{at}@example.fr"] for at in range(len(NAMES))] == NAMES

    assert run(["-C", str(root), "export", str(tmp_path / "exported")]) == 0
    (file,) = (tmp_path / "exported" / "clients").rglob("*.yaml")
    typed = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)  # noqa: TID251
    exported = {entry["email"]: entry["last_name"] for entry in typed["users"]}
    assert [exported[f"u{at}@example.fr"] for at in range(len(NAMES))] == NAMES


@pytest.mark.parametrize("text", [*NO_TEXTS, *NO_NAMES])
def test_invalid_name_is_an_error_with_its_position(tmp_path: Path, text: str) -> None:
    """An invalid name gives an error with the line of the name."""
    person = CLAIRE.replace("last_name: Martin", f"last_name: {text}")
    (problem,) = problems_of(make_workspace(tmp_path, manifest(person)))
    assert problem.is_error
    assert problem.source is not None
    assert problem.source.line == manifest(person).partition("last_name:")[0].count("\n") + 1
    assert "last_name" in problem.detail


@pytest.mark.parametrize(
    ("field", "written", "kept"),
    [
        ("number", "004217", "004217"), ("number", "0x1F", "0x1F"), ("number", "1e3", "1e3"),
        ("number", "1_000", "1_000"), ("number", "2024-11-30", "2024-11-30"), ("number", "off", "off"),
        ("number", "012", "012"), ("number", "1.10", "1.10"), ("number", "0", "0"),
        ("siren", "732829320", "732829320"), ("siren", "005520135", "005520135"),
        ("siren", "055 201 350", None), ("siren", "5520135", None), ("siren", "1e8", None),
        ("siren", "true", None),
        ("name", "12:30", "12:30"), ("name", "1_000", "1_000"), ("name", "75008", "75008"),
        ("name", "no", "no"),
        ("name", "null", None), ("name", "3.10", "3.10"), ("name", ".inf", ".inf"),
    ],
)  # fmt: skip
def test_company_values_stay_the_exact_text_or_give_an_error(
    tmp_path: Path, field: str, written: str, kept: str | None
) -> None:
    """A company value stays the exact text, with its zeros and dots, or gives an error."""
    values = {"number": '"004217"', "name": "Boulangerie Martin", "siren": '"732829320"', field: written}
    text = "company:\n" + "".join(f"  {key}: {value}\n" for key, value in values.items())
    root = make_workspace(tmp_path, text + "users:\n" + CLAIRE)
    if kept is None:
        (problem,) = (problem for problem in problems_of(root) if problem.is_error)
        assert field in problem.detail
        assert problem.source is not None
        assert problem.source.line == 2 + list(values).index(field)
        return
    assert run(["-C", str(root), "apply", "--auto-approve"]) == 0
    (company,) = portal_of(root).companies.values()
    assert getattr(company, field) == kept


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("0612345678", "+33612345678"), ("+33612345678", "+33612345678"), ("06 12 34 56 78", "+33612345678"),
        ("33612345678", "+33612345678"), ("612345678", "+33612345678"), ("0x24", None),
        ("1e9", None), ("12:30", None), ("yes", None),
        ("0612345678.0", None), ("6.12345678e8", None), ("2024-11-30", None), ("true", None),
    ],
)  # fmt: skip
def test_phone_is_the_written_number_or_an_error(tmp_path: Path, written: str, kept: str | None) -> None:
    """A phone number without quotes is read as the number that is written, or gives an error."""
    root = make_workspace(tmp_path, manifest(CLAIRE.replace('"+33 6 12 34 56 78"', written)))
    if kept is None:
        (problem,) = (problem for problem in problems_of(root) if problem.is_error)
        assert "phone" in problem.detail
        return
    assert run(["-C", str(root), "apply", "--auto-approve"]) == 0
    (claire,) = portal_of(root).users.values()
    assert claire.phone == kept


def test_names_of_firm_and_catalogue_stay_texts(tmp_path: Path) -> None:
    """The names of offers, applications and the firm stay texts: ``1.10``, ``on`` and ``1_000``."""
    settings = (
        "version: 1\nfirm: {name: 1_000}\ncatalogue: {offers: [1.10, 007], apps: [on, 0x1F, 12:30]}\n"
        "mail: {from: acces@durand-associes.fr}\n"
    )
    head = "billing: {mode: client, offer: 1.10}\n"
    root = make_workspace(
        tmp_path, manifest(CLAIRE + "    apps: [on, 0x1F, 12:30]\n", head=head), settings=settings
    )
    assert run(["-C", str(root), "apply", "--auto-approve"]) == 0
    workspace, state = load_workspace(root), portal_of(root)
    assert workspace.settings.firm.name == "1_000"
    assert workspace.settings.terms.offers == {"1.10", "007"}
    (company,), (claire,) = state.companies.values(), state.users.values()
    assert company.billing is not None
    assert company.billing.offer == "1.10"
    assert {grant.app for grant in claire.apps} == {"on", "0x1F", "12:30"}
    assert TERMS.offers != workspace.settings.terms.offers
