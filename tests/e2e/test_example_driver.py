"""The example of a driver in another package: it passes the contract, and a driver with a defect fails it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from package_support import install, install_project
from shell_support import ROOT, copy_sample

PROJECT = ROOT / "tests" / "example_driver"
SOURCE = (PROJECT / "provisioner_jsonfile.py").read_text(encoding="utf-8")


def python(*arguments: str, cwd: Path, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python in ``cwd``, with the packages in the folder ``packages`` installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(packages or "")}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )


def contract(folder: Path, packages: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest on the test modules in ``folder``, as an author of the driver does."""
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return python(
        "-m", "pytest", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider", cwd=folder, packages=packages
    )


def test_example_driver_is_short() -> None:
    assert len(SOURCE.splitlines()) < 150


def test_document_shows_the_test_module_of_the_example() -> None:
    document = (ROOT / "provisioner" / "portals" / "README.md").read_text(encoding="utf-8")
    module = (PROJECT / "tests" / "test_contract.py").read_text(encoding="utf-8")
    code = module[module.index("from ") :]
    assert f"```python\n{code}```" in document


def test_example_driver_passes_the_contract(tmp_path: Path) -> None:
    install_project(PROJECT, tmp_path / "packages")
    tests = tmp_path / "tests"
    tests.mkdir()
    module = (PROJECT / "tests" / "test_contract.py").read_text(encoding="utf-8")
    (tests / "test_contract.py").write_text(module, encoding="utf-8")
    done = contract(tests, tmp_path / "packages")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^1[5-9] passed", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.slow
def test_example_driver_works_in_the_program(tmp_path: Path) -> None:
    """A firm plans and applies with the driver. Where it is not installed, its saved plan can be shown."""
    packages, firm = tmp_path / "packages", copy_sample(tmp_path / "firm")
    install_project(PROJECT, packages)
    settings = firm / "provisioner.yaml"
    text = settings.read_text(encoding="utf-8")
    text = re.sub(r'url: "?sqlite:///portal.db"?', 'url: "jsonfile:///portal.json"', text)
    assert "jsonfile" in text
    settings.write_text(text, encoding="utf-8")

    def run(*arguments: str, packages: Path | None = packages) -> subprocess.CompletedProcess[str]:
        return python("-m", "provisioner", *arguments, cwd=firm, packages=packages)

    without = run("validate", packages=None)
    assert (without.returncode, "No driver is installed for jsonfile:// URLs." in without.stderr) == (0, True)
    assert run("validate").stderr == ""
    planned = run("plan", "--out", "plan.json", "--detailed-exitcode")
    assert planned.returncode == 2, planned.stderr
    assert "Phone numbers are not stored [jsonfile-phone]" in planned.stdout
    assert "Phone numbers are not stored" in run("show", "plan.json", packages=None).stdout
    applied = run("apply", "plan.json")
    assert applied.returncode == 0, applied.stderr
    again = run("plan", "--detailed-exitcode")
    assert again.returncode == 0, again.stdout


class Defect(NamedTuple):
    """A promise that a driver breaks: what is replaced in its source, and the test that must fail."""

    name: str
    before: str
    after: str
    test: str


DEFECTS = (
    Defect("new identity", "Snapshot(content.portal,", "Snapshot(uuid.uuid4().hex,",
           "test_snapshot_is_the_same_for_all_and_its_stamp_changes_with_it"),
    Defect("overwrites changes of others", "(new or before.version != call.version)", "new",
           "test_concurrent_change_is_not_overwritten"),
    Defect("keeps the version", "before.version + 1", "before.version",
           "test_every_write_changes_the_version_and_returns_it"),
    Defect("creates twice", "== key), None)", "== key and False), None)",
           "test_existing_resource_as_wanted_is_not_created_again"),
    Defect("distinguishes cases", "{email_key(user.email): user for", "{user.email: user for",
           "test_accounts_are_found_by_their_e_mail_in_any_case"),
    Defect("one refusal stops the batch", "        self._save(Content(content.portal, tuple",
           "        if any(r.problem for r in receipts): return receipts\n"
           "        self._save(Content(content.portal, tuple",
           "test_concurrent_change_is_not_overwritten"),
    Defect("disordered receipts", "return receipts\n", "return receipts[::-1]\n",
           "test_concurrent_change_is_not_overwritten"),
    Defect("returns everyone", "if user.id in ids", "", "test_users_by_id_are_those_of_the_snapshot"),
    Defect("loses silently", "(lost,)", "()", "test_projection_is_idempotent_and_says_what_is_lost"),
    Defect("problem without a summary", 'driver_summary="Phone numbers are not stored",', "",
           "test_projection_is_idempotent_and_says_what_is_lost"),
    Defect("stores what it projects away", "wanted = replace(wanted, phone=None)", "pass",
           "test_every_step_changes_the_portal_as_the_fold_says"),
    Defect("claims receipts", "receipts=False, ", "", "test_features_are_those_that_the_driver_declares"),
    Defect("writes when reading", "if not self._access.writing:", "if False:",
           "test_reader_sees_the_same_and_writes_nothing"),
    Defect("reading creates", "if access.writing and not self", "if not self",
           "test_reader_creates_no_portal"),
    Defect("raises a refusal", "except IllegalStep as", "except ZeroDivisionError as",
           "test_illegal_step_gets_a_receipt_that_says_why"),
    Defect("no id of a new account", "Verdict.APPLIED, id_, version", 'Verdict.APPLIED, "", version',
           "test_every_step_changes_the_portal_as_the_fold_says"),
    Defect("claims no letter", "dict.fromkeys(letters, run)", 'dict.fromkeys(letters, "")',
           "test_missing_features_are_answered_as_the_protocol_says"),
)  # fmt: skip


@pytest.mark.slow
def test_driver_that_breaks_a_promise_fails_the_contract(tmp_path: Path) -> None:
    """Each defect is a driver with a scheme of its own. All are tested in one run of pytest."""
    packages, tests = tmp_path / "packages", tmp_path / "tests"
    packages.mkdir()
    tests.mkdir()
    lines = ["from test_contract import JsonFile as Contract"]
    for number, defect in enumerate(DEFECTS):
        assert SOURCE.count(defect.before) == 1, defect.name
        source = SOURCE.replace(defect.before, defect.after).replace("jsonfile:///", f"defect{number}:///")
        entry_point = f"[provisioner.portals]\ndefect{number} = defect{number}:driver\n"
        install(packages, f"defect{number}", source, entry_point)
        lines.append(f"class TestDefect{number}(Contract):\n    url = 'defect{number}:///portal.json'")
    module = (PROJECT / "tests" / "test_contract.py").read_text(encoding="utf-8")
    # without "Test", the driver itself is not tested again
    (tests / "test_contract.py").write_text(module.replace("TestJsonFile", "JsonFile"), encoding="utf-8")
    (tests / "test_defects.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    failed = set(re.findall(r"::TestDefect(\d+)::(\w+)", contract(tests, packages).stdout))
    missed = [d.name for number, d in enumerate(DEFECTS) if (str(number), d.test) not in failed]
    assert missed == []
