"""The models of manifests and provisioner.yaml, published schemas, and the diagnostics of invalid files."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, get_args

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifest_support import (
    CLAIRE,
    codes,
    compare_with_golden,
    document_of,
    make_workspace,
    manifest,
    problems_of,
    user,
    validated,
)
from schema_reference import schema_reference

from provisioner.errors import ManifestsInvalid
from provisioner.manifest.models import MODELS, ClientManifest, Kind, json_schema
from provisioner.manifest.validate import read_model
from provisioner.workspace.settings import load_workspace
from provisioner.yaml_source.document import Document, read_document

ROOT = Path(__file__).parents[2]
KINDS: tuple[Kind, ...] = get_args(Literal["client", "provisioner"])


def as_an_editor_sees(document: Document) -> Any:
    """Return the data as an editor reads YAML 1.2: an unquoted whole number becomes an ``int``."""

    def seen(value: Any, *path: str | int) -> Any:
        if isinstance(value, dict):
            return {key: seen(item, *path, key) for key, item in value.items()}
        if isinstance(value, list):
            return [seen(item, *path, position) for position, item in enumerate(value)]
        return int(value) if path in plain and re.fullmatch("[-+]?[0-9]+", value) else value

    plain = {unquoted.path for unquoted in document.unquoted}
    return seen(document.data)


def schema_errors(kind: Kind, data: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(json_schema(kind))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(data)]


# --- the published schemas ---


@pytest.mark.parametrize("kind", KINDS)
def test_published_schema_equals_the_generated_one(kind: Kind) -> None:
    text = json.dumps(json_schema(kind), ensure_ascii=False, indent=2) + "\n"
    compare_with_golden(ROOT / "schemas" / f"{kind}.schema.json", text)


@pytest.mark.parametrize("kind", KINDS)
def test_published_schema_is_valid_and_describes_every_field(kind: Kind) -> None:
    schema = json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"]
    described = [schema, *schema.get("$defs", {}).values()]
    for part in described:
        for name, field in part.get("properties", {}).items():
            assert "description" in field or "$ref" in field, name
        if part.get("type") == "object":
            assert part["additionalProperties"] is False


def test_the_reference_of_all_keys_is_generated_from_the_schemas() -> None:
    path = ROOT / "schemas" / "README.md"
    head, begin, rest = re.split(r"(<!-- generated from .*? -->\n)", path.read_text(encoding="utf-8"))
    end = rest[rest.index("<!-- end of the generated part -->") :]
    compare_with_golden(path, f"{head}{begin}\n{schema_reference()}\n{end}")


def test_the_schema_names_fields_as_the_wizard_does() -> None:
    text = json.dumps(json_schema("client"), ensure_ascii=False)
    for words in (
        "Entreprise facturée",
        "Mode de facturation",
        "Offre tarifaire",
        "Accès aux dossiers",
        "Envoyer l'email de bienvenue",
        "Type de client",
    ):
        assert words in text


@pytest.mark.parametrize("folder", ["onboarding", "next-month"])
def test_samples_are_valid_for_the_program_and_for_editors(folder: str) -> None:
    root = ROOT / "samples" / folder
    assert [problem for problem in problems_of(root) if problem.is_error] == []
    files: list[tuple[Kind, Path]] = [("provisioner", root / "provisioner.yaml")]
    files += [("client", path) for path in sorted((root / "clients").rglob("*.yaml"))]
    assert len(files) > 3
    for kind, path in files:
        document = document_of(path.read_text(encoding="utf-8"))
        assert schema_errors(kind, document.data) == []
        assert schema_errors(kind, as_an_editor_sees(document)) == []


def test_editors_and_the_program_refuse_the_same_shapes() -> None:
    good = manifest(CLAIRE, head="billing: {mode: client, offer: Essentiel}\n")
    assert schema_errors("client", document_of(good).data) == []
    for before, after in (
        ("type: administrator", "type: boss"),
        ("mode: client", "mode: cabinet"),
        ("first_name", "firstname"),
        ('"004217"', '"00 42 17"'),
        ("    production: full", "    apps: \n    production: full"),
        ("    production: full", "    apps: Scan\n    production: full"),
        ("    production: full", "    welcome_email: yes\n    production: full"),
        ("company:", "entreprise:"),
        ('"+33 6 12 34 56 78"', '"call me"'),
    ):
        assert before in good
        document = document_of(good.replace(before, after))
        assert schema_errors("client", document.data) != [], after
        assert read_model(ClientManifest, document).problems, after


@pytest.mark.parametrize(
    ("setting", "url", "accepted"),
    [
        ("portal", "sqlite:///my portal.db", True),
        ("portal", "scim+https://id.example.fr/v2", True),
        ("portal", "crm://portal.example.fr/a?b=c", True),
        ("portal", "portal.db", False),
        ("portal", "crm:portal", False),
        ("portal", "portal.example.fr:443", False),
        ("portal", "crm://my portal", False),
        ("portal", "CRM://portal", False),
        ("mail", "maildir:my outbox", True),
        ("mail", "smtp://mail.example.com:587", True),
        ("mail", "ses://eu-west-3", True),
        ("mail", "outbox", False),
        ("mail", "mail.example.com:587", False),
        ("mail", "ses://eu west", False),
    ],
)
def test_malformed_urls_are_refused_but_no_unknown_scheme(
    tmp_path: Path, setting: str, url: str, accepted: bool
) -> None:
    """The driver of another scheme may be missing where an editor or a job in CI checks the file."""
    key = "url" if setting == "portal" else "transport"
    others = {"mail": {"from": "a@example.fr"}}
    data = {"version": 1, "firm": {"name": "C"}, **others, setting: {**others.get(setting, {}), key: url}}
    assert (schema_errors("provisioner", data) == []) is accepted
    (tmp_path / "provisioner.yaml").write_text(json.dumps(data), encoding="utf-8")
    with nullcontext() if accepted else pytest.raises(ManifestsInvalid):
        load_workspace(tmp_path)


def test_dossier_number_without_quotes_is_an_error_in_editors() -> None:
    document = document_of(manifest().replace('"004217"', "004217"))
    assert schema_errors("client", as_an_editor_sees(document)) != []
    assert read_model(ClientManifest, document).model is not None


# --- plain scalars: the exact text or an error ---

TYPED_BY_OTHERS = [
    "0612345670", "01000", "000000000", "00", "1_000", "0x1F", "0o17", "0b11", "1e3", "6.02", ".5", "+33",
    "12:30", "12:30:45", "2024-01-01", "2024-01-01T10:00:00Z", "yes", "no", "on", "off", "y", "N", "No",
    ".inf", "-.inf", ".nan", "1.0", "007",
]  # fmt: skip


@pytest.mark.parametrize("text", TYPED_BY_OTHERS)
def test_plain_scalar_is_the_exact_text(tmp_path: Path, text: str) -> None:
    root = make_workspace(tmp_path, manifest(CLAIRE.replace("last_name: Martin", f"last_name: {text}")))
    declared, problems = validated(root)
    assert declared is not None
    (claire,) = declared.users.values()
    if problems:
        assert set(codes(problems)) <= {"quote-it", "name"}
    if "name" not in codes(problems):
        assert claire.last_name == text


@pytest.mark.parametrize("text", ["true", "False", "null", "~", ""])
def test_null_and_booleans_are_refused_as_texts(tmp_path: Path, text: str) -> None:
    root = make_workspace(tmp_path, manifest(CLAIRE.replace("last_name: Martin", f"last_name: {text}")))
    (problem,) = problems_of(root)
    assert problem.code == "wrong-value"
    assert problem.source is not None
    assert problem.source.line == 7


@pytest.mark.parametrize("number", ["004217", "4217", "0042170", "1e3", "0x1F", "12.30", "2024-01-01", "no"])
def test_dossier_number_keeps_its_zeros_with_and_without_quotes(tmp_path: Path, number: str) -> None:
    for position, text in enumerate((number, f'"{number}"', f"'{number}'")):
        written = manifest().replace('"004217"', text)
        declared, problems = validated(make_workspace(tmp_path / str(position), written))
        assert declared is not None
        assert list(declared.companies) == [number]
        assert codes(problems) == (["quote-it"] if position == 0 else [])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("0612345678", "+33612345678"),
        ("06 12 34 56 78", "+33612345678"),
        ("+33612345678", "+33612345678"),
        ("06.12.34.56.78", "+33612345678"),
        ("null", None),
        ("", None),
    ],
)
def test_phone_without_quotes_is_the_written_number(tmp_path: Path, written: str, meant: str | None) -> None:
    declared, problems = validated(
        make_workspace(tmp_path, manifest(CLAIRE.replace('"+33 6 12 34 56 78"', written)))
    )
    assert declared is not None
    (claire,) = declared.users.values()
    assert (claire.phone, claire.phone_declared) == (meant, True)
    assert set(codes(problems)) <= {"quote-it"}


def test_absent_phone_is_unmanaged(tmp_path: Path) -> None:
    declared, _ = validated(
        make_workspace(tmp_path, manifest(CLAIRE.replace('    phone: "+33 6 12 34 56 78"\n', "")))
    )
    assert declared is not None
    (claire,) = declared.users.values()
    assert (claire.phone, claire.phone_declared) == (None, False)


@pytest.mark.parametrize("word", ["yes", "on", "1", '"true"', "vrai"])
def test_only_true_and_false_are_booleans(tmp_path: Path, word: str) -> None:
    root = make_workspace(tmp_path, manifest(CLAIRE + f"    welcome_email: {word}\n"))
    (problem,) = problems_of(root)
    assert problem.code == "wrong-value"
    assert "true or false" in problem.detail


# --- diagnostics of an invalid file ---


def test_faulty_user_does_not_hide_faults_of_others(tmp_path: Path) -> None:
    users = (
        user("claire@example.fr", type="administrator")
        + user("paul.example.fr")
        + user("louis@example.fr", "    apps: [Scann]\n    phone: nowhere\n")
        + user("contact@example.fr", "    tipe: x\n", type="chief")
    )
    problems = problems_of(make_workspace(tmp_path, manifest(users)))
    assert codes(problems) == ["email", "unknown-app", "phone", "S1", "wrong-value", "unknown-key"]


def test_faulty_list_item_does_not_shift_other_positions(tmp_path: Path) -> None:
    users = user("claire@example.fr", '    companies: ["0 0", "9999"]\n', type="administrator")
    users += user("contact@example.fr")
    problems = problems_of(make_workspace(tmp_path, manifest(users)))
    places = [(problem.code, problem.source.line) for problem in problems if problem.source]
    assert places == [("wrong-value", 10), ("S1", 11)]
    assert problems[0].source is not None
    assert problems[0].source.column == 17


def test_consequences_of_a_fault_are_not_reported(tmp_path: Path) -> None:
    broken = manifest(user("claire@example.fr", type="administratr"), "004217")
    other = manifest(user("paul@example.fr", '    companies: ["004217"]\n', type="administrator"), "004218")
    assert codes(problems_of(make_workspace(tmp_path, broken, other))) == ["wrong-value"]


def test_dossier_of_an_unreadable_file_is_not_reported_unknown(tmp_path: Path) -> None:
    broken = "company: [\n"
    other = manifest(user("paul@example.fr", '    companies: ["004217"]\n', type="administrator"), "004218")
    assert codes(problems_of(make_workspace(tmp_path, broken, other))) == ["yaml-syntax"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [("emial", "email"), ("firstname", "first_name"), ("prénom", "first_name"), ("Téléphone", "phone"),
     ("dossiers", "companies"), ("lastName", "last_name"), ("welcome-email", "welcome_email")],
)  # fmt: skip
def test_unknown_key_gets_a_suggestion(tmp_path: Path, key: str, meant: str) -> None:
    (problem,) = problems_of(make_workspace(tmp_path, manifest(CLAIRE + f"    {key}: x\n")))
    assert problem.code == "unknown-key"
    assert f'Did you mean "{meant}"?' in problem.detail


@pytest.mark.parametrize("text", ["", "[]", "- a\n", "hello", "{}", "true", "company: x", "users: {}", "~"])
def test_file_of_another_shape_is_reported(tmp_path: Path, text: str) -> None:
    problems = problems_of(make_workspace(tmp_path, text))
    assert problems
    assert {"wrong-value", "missing-key"} >= set(codes(problems))


def test_many_unknown_keys_are_reported_in_bounded_time(tmp_path: Path) -> None:
    text = manifest() + "".join(f"k{position}: x\n" for position in range(20_000))
    problems = problems_of(make_workspace(tmp_path, text))
    assert codes(problems) == ["unknown-key"] * 20_000


TEXTS = st.sampled_from(
    ["company", "users", "email", "number", "name", "x", "", "004217", "é", "\u202e", "yes"]
)
SCALARS = st.none() | st.booleans() | TEXTS | st.text(max_size=5)
KEYS = st.sampled_from(
    ["company", "billing", "users", "number", "name", "mode", "offer", "email", "apps", "firm", "mail",
     "version", "from", "catalogue", "profiles", "defaults", "phone", "companies", "zz"]
)  # fmt: skip
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)


@given(ANYTHING, st.sampled_from(KINDS))
def test_any_file_is_read_or_reported(data: Any, kind: Kind) -> None:
    document, problems = read_document("a.yaml", json.dumps(data))
    if document is None:
        assert problems
        return
    reading = read_model(MODELS[kind], document)
    assert reading.model is not None or reading.problems
    for problem in reading.problems:
        assert problem.source is not None
        assert problem.summary
        assert problem.detail
