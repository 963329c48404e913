"""``validate FILE…`` reads the whole workspace and reports only the problems in the named files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from manifest_support import CLAIRE, SETTINGS, make_workspace, manifest, user
from shell_support import Shell

BAD_PHONE = user("paul@example.fr", '    phone: "none"\n')
GENERIC = user("contact@example.fr", type="administrator")


@pytest.fixture
def firm(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Return a workspace: clients/0.yaml is valid, 1.yaml has an error, 2.yaml has a warning."""
    root = make_workspace(
        tmp_path / "firm",
        manifest(),
        manifest(user("ann@example.fr", type="administrator") + BAD_PHONE, "004218"),
        manifest(GENERIC, "004219"),
    )
    monkeypatch.chdir(root)
    return Shell(root, capsys)


def test_problems_of_other_files_are_not_shown_and_do_not_count(firm: Shell) -> None:
    said = firm("validate", "clients/0.yaml")
    assert (said.code, said.out) == (0, "No errors in 1 file.\n")
    assert "clients/" not in said.err
    assert said.err == "Other files have 2 problems: provisioner validate shows all.\n"
    said = firm("validate", "clients/0.yaml", "clients/1.yaml")
    assert (said.code, said.out) == (3, "")
    assert "clients/1.yaml:" in said.err
    assert "clients/2.yaml:" not in said.err
    said = firm("validate", "clients/2.yaml")
    assert (said.code, said.out) == (0, "No errors in 1 file.\n")
    assert "[S1]" in said.err


def test_json_has_the_problems_of_the_files_alone(firm: Shell) -> None:
    for file, code, codes in (("0", 0, []), ("1", 3, ["phone"]), ("2", 0, ["S1"])):
        said = firm("validate", "--json", f"clients/{file}.yaml")
        assert said.code == code
        assert [problem["code"] for problem in json.loads(said.out)] == codes


def test_files_are_checked_against_all_other_manifests(firm: Shell) -> None:
    """A dossier that another file declares is known, although that file is not named."""
    for number, code in (("004217", 0), ("004299", 0)):
        (firm.folder / "clients/3.yaml").write_text(
            manifest(user("eve@example.fr", f'    companies: ["{number}"]\n', type="administrator"), "004220")
        )
        said = firm("validate", "clients/3.yaml")
        assert said.code == code
        assert ("unknown-company" in said.err) == (number == "004299")


@pytest.mark.parametrize("file", ["clients/0.yaml", "clients/3.yaml"])
def test_a_repeated_declaration_is_reported_for_both_of_its_files(firm: Shell, file: str) -> None:
    (firm.folder / "clients/3.yaml").write_text(manifest(CLAIRE, "004217"))
    said = firm("validate", file)
    assert said.code == 3
    assert "[R1]" in said.err
    assert "[R13]" in said.err


def test_errors_in_the_settings_are_reported_with_any_file(firm: Shell) -> None:
    said = firm("validate", "provisioner.yaml")
    assert (said.code, said.out) == (0, "No errors in 1 file.\n")
    (firm.folder / "provisioner.yaml").write_text(SETTINGS + "portail: {}\n")
    for file in ("provisioner.yaml", "clients/0.yaml"):
        said = firm("validate", file)
        assert said.code == 3
        assert "provisioner.yaml:" in said.err


def test_paths_start_at_the_current_folder(firm: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(firm.folder / "clients")
    for folder in (firm.folder, Path(".")):
        assert firm("validate", "1.yaml", folder=folder).code == 3
        assert firm("validate", "../clients/0.yaml", folder=folder).code == 0
        assert firm("validate", firm.folder / "clients/0.yaml", folder=folder).code == 0
        assert firm("validate", "../provisioner.yaml", folder=folder).code == 0
    monkeypatch.chdir(firm.folder.parent)
    assert firm("validate", "firm/clients/1.yaml").code == 3
    os.symlink(firm.folder, firm.folder.parent / "link")
    assert firm("validate", "link/clients/1.yaml").code == 3


def test_a_file_that_is_no_manifest_gets_a_sentence(firm: Shell) -> None:
    (firm.folder / "notes.yaml").write_text("a: b\n")
    (firm.folder.parent / "elsewhere.yaml").write_text("a: b\n")
    said = firm("validate", "clients/9.yaml", "notes.yaml", "../elsewhere.yaml", "clients", "clients/0.yaml")
    assert (said.code, said.out) == (64, "")
    for sentence in (
        "There is no file clients/9.yaml.",
        "notes.yaml is not a manifest of this workspace: manifests: in provisioner.yaml names clients/.",
        f"../elsewhere.yaml is not in the workspace {firm.folder}.",
        "clients is not a manifest of this workspace",
        "-C FOLDER",
    ):
        assert sentence in said.err
    assert "0.yaml" not in said.err
