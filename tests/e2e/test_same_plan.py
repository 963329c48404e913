"""A plan of the same manifests and portal has the same bytes with any hash seed, locale or time zone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from shell_support import SAMPLES, Shell, process

MACHINES: dict[str, dict[str, str]] = {
    "another seed": {"PYTHONHASHSEED": "1"},
    "yet another seed": {"PYTHONHASHSEED": "4294967295", "TZ": "UTC"},
    "far east": {"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8"},
    "far west": {"TZ": "Pacific/Pago_Pago", "LANG": "C.UTF-8", "PYTHONHASHSEED": "7"},
    "an old machine": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "no/where"},
    "a machine of POSIX": {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii", "COLUMNS": "40"},
}


HOLDING = """
company: {number: "009001", name: Holding Martin}
billing: {mode: client, offer: Confort}
users:
  - email: henri@example.fr
    first_name: Henri
    last_name: Martin
    type: administrator
    apps: [Image, Scan, Documents, Achats]
    companies: ["004705", "004217", "004301", "004410", "004512"]
"""
"""A manifest of a user with several companies and applications. Its lists are long enough that their order in
a plan is not right by chance."""


@pytest.fixture
def edited(applied: Shell) -> Shell:
    """Apply the onboarding sample. Then replace its manifests with those of next-month and ``HOLDING``."""
    shutil.rmtree(applied.folder / "clients")
    shutil.copytree(SAMPLES / "next-month" / "clients", applied.folder / "clients")
    (applied.folder / "clients/holding.yaml").write_text(HOLDING)
    return applied


def json_plan(folder: Path, **environment: str) -> str:
    done = process("provisioner plan --json", folder, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rewrite_in_another_order(folder: Path) -> None:
    """Write the same manifests again in another order, so that the folder lists them differently."""
    clients = folder / "clients"
    contents = {path.relative_to(clients): path.read_bytes() for path in clients.rglob("*.yaml")}
    shutil.rmtree(clients)
    for name in sorted(contents, key=lambda path: path.name[::-1], reverse=True):
        (clients / name).parent.mkdir(parents=True, exist_ok=True)
        (clients / name).write_bytes(contents[name])


def test_plan_is_the_same_with_any_seed_zone_locale_and_file_order(edited: Shell) -> None:
    expected = json_plan(edited.folder, PYTHONHASHSEED="0")
    assert expected.count('"step":') > 10
    rewrite_in_another_order(edited.folder)
    for machine, environment in MACHINES.items():
        assert json_plan(edited.folder, **environment) == expected, machine


def test_plan_is_the_same_in_another_folder(edited: Shell, tmp_path: Path) -> None:
    """A plan is the same in another folder, because a plan does not contain the path of its workspace."""
    elsewhere = tmp_path / "d'été à côté" / "firm"
    shutil.copytree(edited.folder, elsewhere)
    assert json_plan(elsewhere) == json_plan(edited.folder)
    (edited.folder / "link").symlink_to(elsewhere, target_is_directory=True)
    assert json_plan(edited.folder / "link") == json_plan(edited.folder)


def test_plan_is_the_same_with_manifest_entries_in_another_order(edited: Shell) -> None:
    expected = json_plan(edited.folder)
    files = sorted(path.name for path in (edited.folder / "clients").iterdir())
    entries = ", ".join(f"clients/{name}" for name in reversed(files))
    edited.edit("provisioner.yaml", "manifests: [clients/]", f"manifests: [{entries}]")
    assert json_plan(edited.folder) == expected
