"""The exported workspace is readable and stable, and is read back as the state of the portal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from manifest_support import loaded, settings_of

from provisioner.limits import MAX_FILE_BYTES
from provisioner.manifest.check import check
from provisioner.manifest.export import export_workspace, flow, quoted, scalar
from provisioner.manifest.resolve import Policy, resolve
from provisioner.model import (
    AppState,
    Billing,
    BillingMode,
    Company,
    Grant,
    Operator,
    PortalTerms,
    Production,
    State,
    Status,
    User,
    UserType,
    email_key,
)
from provisioner.workspace.settings import load_workspace
from provisioner.yaml_source.document import read_document
from provisioner.yaml_source.source_text import HIDDEN

TERMS = PortalTerms(
    offers=frozenset({"Essentiel", "Confort"}),
    apps=frozenset({"Documents", "Scan", "Achats"}),
    email_domains=frozenset({"durand-associes.fr"}),
    staff=frozenset({"helene.durand@durand-associes.fr"}),
)
BAKERY = Company("004217", "Boulangerie Martin SARL", "732829320", Billing(BillingMode.CLIENT, "Essentiel"))
TODAY = date(2026, 11, 24)
CLAIRE = User(
    email="claire.martin@boulangerie-martin.fr",
    first_name="Claire",
    last_name="Martin",
    phone="+33199001001",
    type=UserType.ADMINISTRATOR,
    billed="004217",
    companies=frozenset({"004217", "004218"}),
    production=Production.FULL,
    apps=frozenset(
        {
            Grant("Documents", AppState.ACTIVE),
            Grant("Scan", AppState.ENDING, date(2026, 11, 30)),
            Grant("Achats", AppState.REQUESTED),
        }
    ),
    status=Status.ACTIVE,
)


def exported(state: State, terms: PortalTerms = TERMS) -> dict[str, str]:
    return export_workspace(
        state,
        terms,
        firm_name="Cabinet Durand & Associés",
        portal_url="sqlite:///portal.db",
        mail_from="Cabinet Durand <acces@durand-associes.fr>",
        public_url="https://portail.durand-associes.fr",
    )


def read(text: str) -> Any:
    document, problems = read_document("clients/x.yaml", text.encode())
    assert problems == []
    assert document is not None
    return document.data


def state_of(companies: list[Company], users: list[User]) -> State:
    return State(
        {company.number: company for company in companies}, {email_key(user.email): user for user in users}
    )


def test_exported_manifest_is_readable() -> None:
    paul = User(
        "paul@example.fr", "Paul", "Girard", None, UserType.STANDARD, "004217", frozenset({"004217"}),
        Production.CONSULTATION, frozenset(), Status.CLOSED,
    )  # fmt: skip
    files = exported(state_of([BAKERY, Company("004218", "SCI des Tilleuls")], [CLAIRE, paul]))
    assert list(files) == [
        "provisioner.yaml",
        "clients/004217-boulangerie-martin-sarl.yaml",
        "clients/004218-sci-des-tilleuls.yaml",
    ]
    assert (
        files["clients/004217-boulangerie-martin-sarl.yaml"]
        == """\
company:
  number: "004217"
  name: Boulangerie Martin SARL
  siren: "732829320"
billing: {mode: client, offer: Essentiel}
users:
  - email: paul@example.fr
    first_name: Paul
    last_name: Girard
    type: standard
    production: consultation
    apps: []
    companies: []
    status: closed

  - email: claire.martin@boulangerie-martin.fr
    first_name: Claire
    last_name: Martin
    phone: "+33 1 99 00 10 01"
    type: administrator
    production: full
    apps: [Documents]
    companies: ["004218"]
"""
    )
    assert (
        files["clients/004218-sci-des-tilleuls.yaml"]
        == """\
company:
  number: "004218"
  name: SCI des Tilleuls
"""
    )


def test_exported_catalogue_has_the_terms_and_what_is_in_use() -> None:
    archaic = Company("1", "A", billing=Billing(BillingMode.FIRM, "Tarif 2019"))
    assert (
        exported(state_of([archaic], []))["provisioner.yaml"]
        == """\
# Written by provisioner export: the portal as it was, so that planning it changes nothing.
version: 1

firm:
  name: Cabinet Durand & Associés
  language: fr
  email_domains: [durand-associes.fr]
  staff: [helene.durand@durand-associes.fr]

manifests: [clients/]

catalogue:
  offers: [Confort, Essentiel, Tarif 2019]
  apps: [Achats, Documents, Scan]

portal:
  url: "sqlite:///portal.db"
  operator: partner
  public_url: "https://portail.durand-associes.fr"

ledger: {url: "sqlite:///ledger.db"}

mail:
  transport: "maildir:outbox"
  from: "Cabinet Durand <acces@durand-associes.fr>"
  welcome: ours

safety: {absent: report}
"""
    )


def test_exported_settings_have_the_access_to_the_portal(tmp_path: Path) -> None:
    access: dict[str, str | Mapping[str, str]] = {
        "client_id": "ci",
        "secret_env": "SECRET",
        "ca_file": "",
        "paths": {"users": "/people"},
    }
    files = export_workspace(
        State(), TERMS, firm_name="Cabinet", portal_url="https://portal.example.fr/x",
        mail_from="acces@example.fr", access=access,
    )  # fmt: skip
    (tmp_path / "provisioner.yaml").write_text(files["provisioner.yaml"], encoding="utf-8")
    place = load_workspace(tmp_path).settings.portal
    assert (place.url, place.client_id, place.secret_env) == ("https://portal.example.fr/x", "ci", "SECRET")
    assert (place.ca_file, dict(place.paths), dict(place.scim)) == ("", {"users": "/people"}, {})


def test_pending_account_is_exported_with_activation_later() -> None:
    waiting = User(
        "a@example.fr", "A", "B", None, UserType.STANDARD, "1", frozenset({"1"}),
        Production.FULL, frozenset(), Status.TO_VALIDATE,
    )  # fmt: skip
    (user,) = read(exported(state_of([Company("1", "A")], [waiting]))["clients/1-a.yaml"])["users"]
    assert user["activation"] == "later"


def test_phone_or_siren_that_is_invalid_becomes_a_comment() -> None:
    odd = User(
        "a@example.fr", "A", "B", "poste 12\n", UserType.STANDARD, "1", frozenset({"1"}),
        Production.FULL, frozenset(), Status.ACTIVE,
    )  # fmt: skip
    text = exported(state_of([Company("1", "A", siren="123")], [odd]))["clients/1-a.yaml"]
    data = read(text)
    assert "phone" not in data["users"][0]
    assert "siren" not in data["company"]
    assert '# phone: the portal has "poste 12\\n", which is not in the form of a phone' in text


def test_user_billed_to_an_unlisted_dossier_is_exported() -> None:
    files = exported(state_of([], [CLAIRE]))
    assert [user["email"] for user in read(files["clients/004217-004217.yaml"])["users"]] == [CLAIRE.email]


def test_export_does_not_depend_on_the_portals_order() -> None:
    users = [
        User(
            f"{name}@example.fr", name, name, None, UserType.ADMINISTRATOR, "1", frozenset({"1", "2", "3"}),
            Production.FULL, frozenset({Grant("Scan", AppState.ACTIVE), Grant("Achats", AppState.ACTIVE)}),
            Status.ACTIVE,
        )
        for name in ("Zoé", "anna", "Émile")
    ]  # fmt: skip
    companies = [Company(number, "Société") for number in "123"]
    assert exported(state_of(companies, users)) == exported(state_of(companies[::-1], users[::-1]))
    assert list(exported(state_of(companies, users))) == list(exported(state_of(companies[::-1], users)))


@pytest.mark.parametrize(
    ("number", "name", "path"),
    [
        ("004217", "Boulangerie Martin SARL", "clients/004217-boulangerie-martin-sarl.yaml"),
        ("7", "Crêperie  d'Été & Cie", "clients/7-creperie-d-ete-cie.yaml"),
        ("7", "株式会社", "clients/7.yaml"),
        ("7", "x" * 90, f"clients/7-{'x' * 40}.yaml"),
        ("../../etc/passwd", "..", "clients/etc_passwd.yaml"),
        ("\0", "/", "clients/company.yaml"),
    ],
)
def test_manifest_file_is_named_after_its_company(number: str, name: str, path: str) -> None:
    assert list(exported(state_of([Company(number, name)], [])))[1:] == [path]


def test_colliding_file_names_get_a_number() -> None:
    names = list(exported(state_of([Company("a1", "X"), Company("A1", "x"), Company("A1-x", "")], [])))[1:]
    assert names == ["clients/A1-x.yaml", "clients/A1-x-2.yaml", "clients/a1-x-3.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "no", "Yes", "ON", "y", "N", "null", "~", "True", "012", "0x1F", "1e3", "12:30",
        "2026-11-24", ".inf", "- a", "? a", "a: b", "a #b", "#a", "&a", "*a", "!a", "%a", "@a", "`a`",
        "[a", "{a}", "a, b", "a]", "'", '"', "\\", "<<", "=", "---", "...",
        "a\nb", "a\tb", "a\u00a0b", "a\u2028b", "\ufeffa",
        "\u202eevil", "a\u0085b", " a", "a ", "a  b", "l'été", "Æsir & Œuvre (2)", "\U0001f950", "e\u0301",
    ],
)  # fmt: skip
def test_any_text_is_read_back_unchanged(text: str) -> None:
    written = f"a: {scalar(text)}\nb: {flow([text])}\nc: {quoted(text)}\n"
    if HIDDEN.search(text) is None:
        assert read(written) == {"a": text, "b": [text], "c": text}
    else:
        # hidden characters are escaped in the file, and refused when it is read
        assert HIDDEN.search(written) is None
    # a YAML 1.1 reader reads the same text
    assert yaml.load(written, Loader=yaml.CSafeLoader) == {"a": text, "b": [text], "c": text}  # noqa: TID251


@pytest.mark.parametrize("text", ["Boulangerie Martin SARL", "Lefèvre & Fils", "l'Été", "a.b@example.fr"])
def test_ordinary_names_are_written_without_quotes(text: str) -> None:
    assert scalar(text) == text


TEXT = st.text(
    st.characters(exclude_categories=["Cs"]).filter(lambda c: not HIDDEN.match(c)), max_size=30
) | st.sampled_from(["no", "0123", "1e3", "a: b", "- x", "a #b", "12:30", "~", "{", "Été"])
NUMBER = st.from_regex(r"[0-9A-Za-z](?:[0-9A-Za-z._-]{0,6}[0-9A-Za-z])?", fullmatch=True)
SIREN = st.sampled_from(["732829320", "812345676", "005880596"])
PHONE = st.from_regex(r"\+336[0-24-8][0-9]{7}", fullmatch=True) | st.sampled_from(
    ["+442079460000", "poste 3"]
)


@st.composite
def states(draw: st.DrawFn) -> State:
    numbers = draw(st.lists(NUMBER, min_size=1, max_size=5, unique=True))
    billing = st.builds(Billing, st.sampled_from(BillingMode), TEXT)
    companies = {
        number: Company(number, draw(TEXT), draw(st.none() | SIREN), draw(st.none() | billing))
        for number in numbers
    }
    users: dict[str, User] = {}
    for position in range(draw(st.integers(0, 6))):
        billed = draw(st.sampled_from(numbers))
        apps = draw(st.dictionaries(TEXT, st.sampled_from(AppState), max_size=3))
        users[str(position)] = User(
            email=draw(TEXT),
            first_name=draw(TEXT),
            last_name=draw(TEXT),
            phone=draw(st.none() | PHONE),
            type=draw(st.sampled_from(UserType)),
            billed=billed,
            companies=draw(st.frozensets(st.sampled_from(numbers))) | {billed},
            production=draw(st.sampled_from(Production)),
            apps=frozenset(Grant(app, state) for app, state in apps.items()),
            status=draw(st.sampled_from(Status)),
        )
    return State(companies, users)


@given(states())
def test_any_portal_state_is_read_back_unchanged(state: State) -> None:
    files = exported(state)
    found = [read(text) for path, text in files.items() if path != "provisioner.yaml"]
    assert {data["company"]["number"] for data in found} == set(state.companies)
    for data in found:
        company = state.companies[data["company"]["number"]]
        assert data["company"]["name"] == company.name
        assert data["company"].get("siren") == company.siren
        billing = data.get("billing")
        found_billing = Billing(BillingMode(billing["mode"]), billing["offer"]) if billing else None
        anybody = any(user.billed == company.number and user.is_open for user in state.users.values())
        assert found_billing == (company.billing if anybody else None)
    declared = sorted(
        (_declared_user(data["company"]["number"], user) for data in found for user in data.get("users", [])),
        key=repr,
    )
    assert declared == sorted((_expected(user) for user in state.users.values()), key=repr)
    assert set(read(files["provisioner.yaml"])["catalogue"]["apps"]) >= {
        grant.app for user in state.users.values() for grant in user.apps
    }


def _declared_user(billed: str, user: dict[str, Any]) -> tuple[object, ...]:
    status = {"later": Status.TO_VALIDATE}.get(user.get("activation", ""), Status.ACTIVE)
    return (
        user["email"], user["first_name"], user["last_name"], user.get("phone", "").replace(" ", ""),
        user["type"], user["production"], billed, sorted({billed, *user["companies"]}), sorted(user["apps"]),
        user.get("status", str(status)),
    )  # fmt: skip


def _expected(user: User) -> tuple[object, ...]:
    phone = user.phone if user.phone and re.fullmatch(r"\+[0-9]+", user.phone) else ""
    apps = sorted(grant.app for grant in user.apps if grant.state is AppState.ACTIVE)
    return (
        user.email, user.first_name, user.last_name, phone, user.type, user.production, user.billed,
        sorted(user.companies), apps, str(user.status),
    )  # fmt: skip


# possible names that contain characters or words with a meaning in YAML
NAMES = st.sampled_from(
    [
        "Martin", "No", "Null", "O'Brien: Fils", "# Rue", "- Tiret", "12:30", "1e3", "007", "Été & Cie",
        "{x}", '"Guillemets"', "[y]", "a\\b", "<b>", "株式会社", "«A» (2)", "y", "~b", "@c", "*d", "&e", "!f",
        "%g", "Yes?",
    ]
)  # fmt: skip
LOCALS = st.sampled_from(["no", "1e3", "0x1f", "007", "o'brien", "a+b", "true", "null", "12", "y"])


@st.composite
def portals(draw: st.DrawFn) -> State:
    """Generate a state that obeys the rules, with accounts of every status."""
    numbers = draw(st.lists(NUMBER, min_size=1, max_size=4, unique=True))
    billing = st.builds(Billing, st.sampled_from(BillingMode), st.sampled_from(sorted(TERMS.offers)))
    companies = {
        number: Company(number, draw(NAMES), draw(st.none() | SIREN), draw(st.none() | billing))
        for number in numbers
    }
    grants = {
        app: st.sampled_from(
            [Grant(app, AppState.ACTIVE), Grant(app, AppState.REQUESTED), Grant(app, AppState.ENDING, TODAY)]
        )
        for app in TERMS.apps
    }
    users: dict[str, User] = {}
    managers: set[str] = set()
    for position in range(draw(st.integers(0, 8))):
        billed = draw(st.sampled_from(numbers))
        # the first user of a company is its administrator (R2)
        first = billed not in managers
        managers.add(billed)
        chosen = draw(st.fixed_dictionaries({}, optional=grants))
        someone = User(
            email=f"{draw(LOCALS)}{position}@example.fr",
            first_name=draw(NAMES),
            last_name=draw(NAMES),
            phone=draw(st.none() | PHONE),
            type=UserType.ADMINISTRATOR if first else draw(st.sampled_from(UserType)),
            billed=billed,
            companies=draw(st.frozensets(st.sampled_from(numbers))) | {billed},
            production=draw(st.sampled_from(Production)),
            apps=frozenset(chosen.values()),
            status=Status.ACTIVE if first else draw(st.sampled_from(Status)),
            id=str(position),
        )
        users[email_key(someone.email)] = someone
    return State(companies, users)


@given(portals())
def test_plan_of_an_export_has_no_changes(state: State) -> None:
    files = exported(state)
    documents = [read_document(name, text) for name, text in files.items() if name != "provisioner.yaml"]
    known = settings_of(offers=TERMS.offers, apps=TERMS.apps, domains=TERMS.email_domains)
    declared, problems = loaded((document for document, _ in documents if document), known)
    assert [problem for _, found in documents for problem in found] == []
    assert [*problems, *check(declared, known)] == []
    resolution = resolve(declared, state, {}, Policy(Operator.PARTNER, TODAY))
    assert resolution.desired == resolution.current
    assert resolution.desired == state
    assert resolution.welcomes == {}


def test_manifest_of_a_thousand_users_is_within_the_size_limit() -> None:
    users = [
        User(
            f"prenom.nom{number}@boulangerie-martin.fr", "Maximilienne", f"de la Rochefoucauld {number}",
            "+33199001001", UserType.ADMINISTRATOR, "004217", frozenset({"004217", "004218"}),
            Production.CONSULTATION, CLAIRE.apps, Status.TO_VALIDATE,
        )
        for number in range(1000)
    ]  # fmt: skip
    files = exported(state_of([BAKERY, Company("004218", "SCI")], users))
    assert max(len(text.encode()) for text in files.values()) < MAX_FILE_BYTES / 3
