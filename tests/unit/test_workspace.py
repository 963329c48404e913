"""The settings of provisioner.yaml, and the reading of manifests."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from manifest_support import (
    CLAIRE,
    SETTINGS,
    codes,
    document_of,
    make_workspace,
    manifest,
    problems_of,
    rendered,
    user,
)
from manifest_support import loaded as loaded_documents

from provisioner.errors import ManifestsInvalid, WorkspaceError
from provisioner.manifest import urls
from provisioner.manifest.fields import InvalidField
from provisioner.manifest.profiles import Profiles
from provisioner.model import Operator, Production, UserType
from provisioner.operations.open import ledger_location
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.workspace.settings import Workspace, load_workspace, path_of, read_manifests
from provisioner.yaml_source.document import Document

MINIMAL = "version: 1\nfirm: {name: Cabinet Durand}\nmail: {from: acces@example.fr}\n"


def loaded(root: Path, settings: str) -> Workspace:
    return load_workspace(make_workspace(root, settings=settings))


def told(root: Path, settings: str) -> list[str]:
    """Return ``code line:column`` for each problem of these settings."""
    with pytest.raises(ManifestsInvalid) as caught:
        loaded(root, settings)
    assert caught.value.exit_code == 3
    return [f"{p.code} {p.source.line}:{p.source.column}" for p in caught.value.diagnostics if p.source]


# --- settings ---


def test_minimal_settings_have_defaults(tmp_path: Path) -> None:
    workspace = loaded(tmp_path, MINIMAL)
    settings = workspace.settings
    assert workspace.root == tmp_path
    assert settings.manifests == ("clients/",)
    assert (settings.firm.name, settings.firm.language) == ("Cabinet Durand", "fr")
    assert (settings.portal.url, settings.portal.public_url) == ("sqlite:///portal.db", "")
    assert ledger_location(workspace) == SqliteDatabase(tmp_path / "ledger.db")
    assert settings.portal.operator is Operator.COLLABORATOR
    mail = settings.mail
    assert (mail.sender, mail.transport, mail.reply_to) == ("acces@example.fr", "maildir:outbox", "")
    assert (mail.welcome, mail.on_unknown, mail.tls) == ("ours", "hold", "required")
    assert (mail.connections, mail.timeout) == (16, 60)
    assert (mail.username, mail.password_env, mail.password_file, mail.ca_file) == ("", "", "", "")
    safety = settings.safety
    assert (safety.absent, safety.self_service) == ("report", "keep")
    assert (safety.max_closures, safety.max_closures_percent) == (5, 10)


FULL = """\
version: 1
firm:
  name: Cabinet Durand & Associés
  language: en
  email_domains: [Durand-Associes.FR]
  staff: [Helene.Durand@Example.com]
manifests: [clients/, more/]
catalogue:
  offers: [Essentiel]
  apps: [Documents, Scan]
  profiles:
    gérant: {type: administrator, production: full, apps: [Scan], welcome_email: false, removal: immediate}
defaults: {production: consultation, companies: ["0042"]}
portal: {url: "sqlite:////srv/portal.db", operator: partner, public_url: "https://portail.example.fr/"}
ledger: {url: "sqlite:///state/ledger.db"}
mail:
  from: "Cabinet Durand <acces@durand-associes.fr>"
  reply_to: bonjour@durand-associes.fr
  transport: smtps://mail.example.com
  welcome: none
  on_unknown: resend
  username: acces
  password_env: SMTP_PASSWORD
  ca_file: ca.pem
  connections: 8
  timeout: "30"
safety: {absent: close, self_service: restore, max_closures: 0, max_closures_percent: 100}
"""


def test_all_settings_are_read(tmp_path: Path) -> None:
    workspace = loaded(tmp_path, FULL)
    settings = workspace.settings
    assert settings.terms.email_domains == {"durand-associes.fr"}
    assert settings.terms.staff == {"helene.durand@example.com"}
    assert settings.terms.offers == {"Essentiel"}
    assert settings.terms.apps == {"Documents", "Scan"}
    assert settings.portal.operator is Operator.PARTNER
    assert settings.portal.public_url == "https://portail.example.fr"
    assert path_of(settings.portal.url, workspace.root) == Path("/srv/portal.db")
    assert ledger_location(workspace) == SqliteDatabase(tmp_path / "state" / "ledger.db")
    assert settings.mail.sender == "Cabinet Durand <acces@durand-associes.fr>"
    assert (settings.mail.connections, settings.mail.timeout) == (8, 30)
    assert (settings.safety.max_closures, settings.safety.max_closures_percent) == (0, 100)
    profiles = Profiles(settings)
    chief = profiles.by_name["gérant"]
    assert (chief.type, chief.production) == (UserType.ADMINISTRATOR, Production.FULL)
    assert (chief.apps, chief.companies) == (("Scan",), ("0042",))
    assert (chief.welcome_email, chief.removal, chief.language) == (False, "immediate", "en")
    assert profiles.defaults.type is None


def test_pydantic_is_imported_only_when_a_file_is_read() -> None:
    modules = "provisioner.workspace.settings, provisioner.manifest.check"
    script = f"import sys, {modules}; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_workspace_is_found_in_a_parent_folder(tmp_path: Path) -> None:
    make_workspace(tmp_path, manifest())
    assert load_workspace(tmp_path / "clients").root == tmp_path


def test_missing_workspace_is_a_workspace_error(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError):
        load_workspace(tmp_path)


def test_all_problems_of_provisioner_yaml_are_reported(tmp_path: Path) -> None:
    settings = """\
version: 3
firm: {name: "", languages: fr, email_domains: [durand], staff: [helene]}
catalogue:
  apps: [Documents, Production Paie]
  profiles:
    a: {type: chief, apps: [Documents, Scann]}
defaults: {apps: [Nothing]}
portal: {url: "oracle:localhost/db", operator: boss, public_url: portail}
ledger: {url: ledger.db}
mail: {from: nobody, transport: "smtp://u:hunter2@h:25", password_env: hunter2, tls: maybe, connections: 0}
safety: {max_closures: many, generic_addresses: raise}
"""
    assert told(tmp_path, settings) == [
        "wrong-value 1:10", "name 2:14", "unknown-key 2:18", "email 2:49", "email 2:66", "R3 4:21",
        "wrong-value 6:15", "unknown-app 6:40", "unknown-app 7:19", "wrong-value 8:15", "wrong-value 8:48",
        "wrong-value 8:66", "wrong-value 9:15", "email 10:14", "wrong-value 10:33", "wrong-value 10:72",
        "wrong-value 10:86", "wrong-value 10:106", "wrong-value 11:24", "wrong-value 11:49",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mail", "expected"),
    [
        ("password_env: A, password_file: b, username: u", ["wrong-value"]),
        ("password_env: A", ["missing-key"]),
        ("username: u", ["missing-key"]),
        ("username: u, password_env: A, tls: none", ["wrong-value"]),
        ("username: u, password_file: secrets/mail", []),
        ("tls: none", []),
    ],
)
def test_password_needs_one_source_a_username_and_tls(tmp_path: Path, mail: str, expected: list[str]) -> None:
    settings = MINIMAL.replace("{from: acces@example.fr}", f"{{from: acces@example.fr, {mail}}}")
    root = make_workspace(tmp_path, manifest(), settings=settings)
    assert codes(problems_of(root)) == expected


@pytest.mark.parametrize(
    "line",
    [
        'mail: {from: acces@example.fr, transport: "smtp://acces:hunter2@mail.example.com:587"}',
        "mail: {from: acces@example.fr, password: hunter2}",
        "mail: {from: acces@example.fr, username: u, password_env: hunter2}",
        "mail:\n  from: acces@example.fr\n  password: 'hunter2'",
        'portal: {url: "postgresql://u:hunter2@h/db"}',
        "token: hunter2",
    ],
)
def test_misplaced_secret_is_refused_and_not_repeated(tmp_path: Path, line: str) -> None:
    settings = MINIMAL.replace("mail: {from: acces@example.fr}\n", "") if line.startswith("mail") else MINIMAL
    root = make_workspace(tmp_path, manifest(), settings=settings + line + "\n")
    problems = problems_of(root)
    assert problems
    assert "hunter2" not in rendered(root, problems)
    assert "hunter2" not in str(problems)


def test_portal_and_ledger_in_the_same_file_are_refused(tmp_path: Path) -> None:
    settings = MINIMAL + 'portal: {url: "sqlite:///a.db"}\nledger: {url: "sqlite:///a.db"}\n'
    assert told(tmp_path, settings) == ["wrong-value 5:15"]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///portal.db", "/w/portal.db"),
        ("sqlite:////srv/portal.db", "/srv/portal.db"),
        ("sqlite:///../other/portal.db", "/w/../other/portal.db"),
        ("maildir:outbox", "/w/outbox"),
        ("maildir:/var/outbox", "/var/outbox"),
    ],
)
def test_relative_url_starts_at_the_workspace(url: str, path: str) -> None:
    assert path_of(url, Path("/w")) == Path(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "version: 1", "firm: [\n", "\tversion: 1", "version: 1\nversion: 1\n"]
)
def test_unusable_provisioner_yaml_is_reported(tmp_path: Path, text: str) -> None:
    assert told(tmp_path, text)


# --- manifests ---


def test_unreadable_file_does_not_hide_problems_of_others(tmp_path: Path) -> None:
    root = make_workspace(tmp_path, manifest(), manifest(user("paul@x.fr"), "004218"))
    (root / "clients" / "broken.yaml").symlink_to(root / "clients" / "nowhere.yaml")
    (root / "clients" / "latin.yaml").write_bytes("company: {name: Société}".encode("latin-1"))
    (root / "clients" / "tab.yaml").write_text("company:\n\tname: x\n")
    problems = problems_of(root)
    assert set(codes(problems)) >= {"R2", "file-encoding", "yaml-syntax"}
    assert any("broken.yaml" in problem.detail for problem in problems)


def test_missing_manifest_folder_is_reported_at_its_entry(tmp_path: Path) -> None:
    settings = SETTINGS + "manifests: [clients/, client/, ../elsewhere]\n"
    problems = problems_of(make_workspace(tmp_path, manifest(), settings=settings))
    urls = [(p.code, p.source.line, p.source.column) for p in problems if p.source]
    line = settings.count("\n")
    assert urls == [("file-path", line, 23), ("file-path", line, 32)]


def test_file_listed_twice_is_read_once(tmp_path: Path) -> None:
    settings = SETTINGS + "manifests: [clients/, clients/0.yaml, clients]\n"
    assert problems_of(make_workspace(tmp_path, manifest(), settings=settings)) == []


def test_workspace_without_manifests_gives_a_warning(tmp_path: Path) -> None:
    problems = problems_of(make_workspace(tmp_path))
    assert codes(problems) == ["no-manifests"]
    assert not problems[0].is_error


def test_problem_of_yaml_is_not_reported_again_by_the_schema(tmp_path: Path) -> None:
    text = manifest(CLAIRE.replace("type: administrator", "type: !!str administrator"))
    assert codes(problems_of(make_workspace(tmp_path, text))) == ["yaml-unsafe"]


def test_documents_are_released_while_manifests_are_read() -> None:
    most = 0

    def stream() -> Iterator[Document]:
        nonlocal most
        for number in range(20):
            yield document_of(manifest(user(f"u{number}@x.fr", type="administrator"), str(number)))
            gc.collect()
            most = max(most, sum(isinstance(thing, Document) for thing in gc.get_objects()))

    declared, _ = loaded_documents(stream())
    assert len(declared.users) == 20
    assert most <= 2


def test_garbage_collection_is_enabled_after_reading(tmp_path: Path) -> None:
    workspace = load_workspace(make_workspace(tmp_path, manifest()))
    assert gc.isenabled()
    read_manifests(workspace)
    assert gc.isenabled()


WRITE_SQLITE = (
    "Write sqlite:///FILE for a file beside provisioner.yaml, sqlite:////FILE for an absolute path."
)
WRITE_POSTGRESQL = "Write postgresql://USER@HOST/DATABASE, with ?schema=NAME for a schema of your own."


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("scim+http://id.example.fr/v2", "Write scim+https://id.example.fr/v2"),
        ("HTTPS://portal.example.fr", 'Did you mean "https://portal.example.fr"?'),
        ("portal.db", WRITE_SQLITE),
        ("c:/portal.db", WRITE_SQLITE),
        ("portal.example.fr:443", WRITE_SQLITE),
        ("crm:portal", WRITE_SQLITE),
        ("crm://", WRITE_SQLITE),
        ("crm://the portal", WRITE_SQLITE),
        ("crm://portal\u200b", WRITE_SQLITE),
        ("crm://user:pass@portal", "Name it: secret_env: or secret_file: beside url."),
        (
            "https://user:pass@portal.example.fr",
            "Name them: client_id: and secret_env: or secret_file: beside url.",
        ),
        ("postgresql://user@db/access?sslmode=require", WRITE_POSTGRESQL),
        ("postgresql://user@db:port/access", WRITE_POSTGRESQL),
    ],
)
def test_unusable_url_is_refused_with_a_remedy(url: str, remedy: str) -> None:
    with pytest.raises(InvalidField) as refusal:
        urls.portal(url)
    assert refusal.value.remedy == remedy
    assert "pass" not in refusal.value.reason.replace("password", "")
