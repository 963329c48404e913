"""A plan file that was changed, already applied or made for another portal or workspace causes no write.

test_planfile.py tests how plan files with changed fields are read; these tests apply them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shell_support import BAKERY, CLAIRE, Shell, copy_sample

LEA = """
  - email: lea@example.fr
    first_name: Léa
    last_name: Petit
    type: standard
    apps: [Scan]
"""

EXTRA = """
company: {number: "009999", name: Extra}
billing: {mode: client, offer: Essentiel}
users:
  - {email: lea@example.fr, first_name: Léa, last_name: Petit, type: administrator, production: full}
"""


@pytest.fixture
def planned(applied: Shell) -> Path:
    """A saved plan that changes a company, changes a user, creates a user and closes a user."""
    applied.edit(BAKERY, "offer: Essentiel", "offer: Confort")
    applied.edit(BAKERY, "first_name: Claire", "first_name: Clara")
    applied.edit(BAKERY, "profile: reader                #", "profile: reader\n    status: closed   #")
    file = applied.folder / BAKERY
    file.write_text(file.read_text() + LEA)
    planfile = applied.folder / "plan.json"
    assert applied("plan", "--out", planfile, "--detailed-exitcode").code == 2
    return planfile


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each scalar and each empty container in a JSON value."""
    if isinstance(value, dict | list) and value:
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(child, (*path, key))
    else:
        yield path


def flipped(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value[:-1] + chr(ord(value[-1]) ^ 1) if value else "x"
        case None:
            return "x"
    return [*value, 1] if isinstance(value, list) else {"x": 1}


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    *inner, last = path
    place = document
    for key in inner:
        place = place[key]
    before, place[last] = place[last], value
    return before


def test_plan_with_any_changed_leaf_is_refused_and_writes_nothing(applied: Shell, planned: Path) -> None:
    """A plan file with any changed leaf is refused, and nothing is written.

    The test changes each leaf of the file in turn.
    """
    document = json.loads(planned.read_text())
    before, letters = applied.tables(), applied.letters()
    tried = 0
    for path in leaves(document):
        value = put(document, path, None)
        put(document, path, flipped(value))
        planned.write_text(json.dumps(document))
        said = applied("apply", planned)
        # an unknown format is an error and not a stale plan
        assert said.code == (1 if path == ("format_version",) else 5), path
        assert said.out == ""
        put(document, path, value)
        tried += 1
    assert tried > 200
    assert applied.tables() == before
    assert applied.letters() == letters
    planned.write_text(json.dumps(document))
    assert applied("apply", planned).code == 0


def test_plan_without_one_of_its_fields_is_refused(applied: Shell, planned: Path) -> None:
    whole = json.loads(planned.read_text())
    before = applied.tables()
    for key in whole:
        planned.write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
        assert applied("apply", planned).code in (1, 5), key
    assert applied.tables() == before


def test_plan_that_was_applied_already_changes_nothing(applied: Shell, planned: Path) -> None:
    """A plan that is applied a second time does no step and sends no letter."""
    letters = applied.letters()
    assert applied("apply", planned).code == 0
    assert applied.letters() == letters + 1
    after = applied.tables()
    for _ in range(2):
        said = applied("apply", planned)
        assert said.code == 0, said.err
        assert said.out == "Applied: 0 steps done, 0 e-mails sent.\n"
    assert applied.letters() == letters + 1
    now = applied.tables()
    for books in ("ledger.db:run",):
        del after[books], now[books]
    assert now == after


def test_plan_applied_again_sends_no_letter_after_the_maildir_is_deleted(
    applied: Shell, planned: Path
) -> None:
    """The ledger's outbox, not the maildir, records which letters were sent."""
    assert applied("apply", planned).code == 0
    shutil.rmtree(applied.folder / "outbox")
    assert applied("apply", planned).code == 0
    assert applied.letters() == 0


def test_plan_applied_again_is_refused_after_others_changed_its_accounts(
    applied: Shell, planned: Path
) -> None:
    """An account that the plan closed and another writer reopened is not closed again."""
    assert applied("apply", planned).code == 0
    paul = "paul.girard@boulangerie-martin.fr"
    assert applied("simulate", "user-changes", CLAIRE, "--phone", "").code == 0
    assert applied("simulate", "close", "lea@example.fr").code == 0
    before = applied.tables()
    said = applied("apply", planned)
    assert said.code == 5
    assert f"user:{CLAIRE}" in said.err
    assert "user:lea@example.fr" in said.err
    assert paul not in said.err
    assert applied.tables() == before


def test_plan_of_another_portal_is_refused(applied: Shell, planned: Path) -> None:
    """A plan that was made for another portal is refused.

    Only the portal differs; the manifests and the users are the same.
    """
    manifests = (applied.folder / BAKERY).read_text()
    for name in ("portal.db", "ledger.db"):
        (applied.folder / name).unlink()
    shutil.copy(copy_sample(applied.folder.parent / "fresh") / BAKERY, applied.folder / BAKERY)
    assert applied("apply", "--auto-approve").code == 0
    (applied.folder / BAKERY).write_text(manifests)
    before, letters = applied.tables(), applied.letters()
    said = applied("apply", planned)
    assert said.code == 5
    assert "This plan was made for another portal" in said.err
    assert applied.tables() == before
    assert applied.letters() == letters


def test_plan_of_an_existing_portal_is_refused_if_the_portal_is_missing(
    applied: Shell, planned: Path
) -> None:
    """A plan that was made for an existing portal is refused and creates no user if the portal is missing."""
    for name in ("portal.db", "ledger.db"):
        (applied.folder / name).unlink()
    said = applied("apply", planned)
    assert said.code == 5
    assert applied("portal", "users").out == "Nobody is on this portal yet.\n"


def test_plan_for_a_new_portal_is_refused_when_another_portal_exists(
    shell: Shell,
) -> None:
    """A plan that was made without a portal is refused if a portal now exists.

    The portal has resources that the plan does not know.
    """
    planfile, extra = shell.folder / "plan.json", shell.folder / "clients" / "extra.yaml"
    assert shell("plan", "--out", planfile, "--detailed-exitcode").code == 2
    extra.write_text(EXTRA)
    assert shell("apply", "--auto-approve").code == 0
    extra.unlink()
    (shell.folder / "ledger.db").unlink()
    before = shell("portal", "users").out
    said = shell("apply", planfile)
    assert said.code == 5
    assert "has more than the plan knows: company:009999 and 1 more." in said.err
    assert shell("portal", "users").out == before


def test_plan_of_another_workspace_is_refused(applied: Shell, planned: Path, tmp_path: Path) -> None:
    """A plan that was made in another workspace is refused.

    Only the manifests differ; the portal is the same.
    """
    other = copy_sample(tmp_path / "other", "next-month")
    settings = other / "provisioner.yaml"
    settings.write_text(
        settings.read_text().replace("sqlite:///portal.db", f"sqlite:///{applied.folder}/portal.db")
    )
    before = applied.tables()
    said = applied("apply", planned, folder=other)
    assert said.code == 5
    assert "The manifests have changed since this plan was made" in said.err
    assert applied.tables() == before


def test_ledger_of_another_portal_is_refused(applied: Shell, planned: Path, tmp_path: Path) -> None:
    """A ledger that belongs to another portal is refused.

    The portal and the ledger in the test come from two workspaces.
    """
    other = copy_sample(tmp_path / "other")
    shutil.copytree(applied.folder / "clients", other / "clients", dirs_exist_ok=True)
    shutil.copy(applied.folder / "portal.db", other / "portal.db")
    strangers = Shell(copy_sample(tmp_path / "strangers"), applied._capsys)
    assert strangers("apply", "--auto-approve").code == 0
    shutil.copy(strangers.folder / "ledger.db", other / "ledger.db")
    here = Shell(other, applied._capsys)
    before = here.tables()
    for words in (("apply", str(planned)), ("apply", "--auto-approve"), ("plan",)):
        said = here(*words)
        assert said.code == 1, said.err
        assert "belongs to another portal" in said.err
    assert here.tables() == before


def test_missing_portal_with_an_existing_ledger_is_not_planned(
    applied: Shell,
) -> None:
    """If the ledger exists and the portal is missing, no new portal is planned.

    Examples of the cause are a mistyped URL and a moved file.
    """
    applied.edit("provisioner.yaml", "sqlite:///portal.db", "sqlite:///portl.db")
    for words in (("plan",), ("apply", "--auto-approve")):
        said = applied(*words)
        assert (said.code, said.out) == (1, "")
        assert "There is no portal yet at sqlite:///portl.db" in said.err
    assert not (applied.folder / "portl.db").exists()


def test_plan_is_applied_in_another_checkout_of_its_workspace(
    applied: Shell, planned: Path, tmp_path: Path
) -> None:
    """A plan is applied in another checkout of its workspace, because the workspace's path is not checked."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(applied.folder, elsewhere)
    assert applied("apply", planned, folder=elsewhere).code == 0
