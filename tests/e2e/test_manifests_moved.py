"""A saved plan is refused if the data of a manifest has changed since the plan was made.

A saved plan is accepted if only comments or the layout of a manifest have changed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from shell_support import BAKERY, Shell

MANIFEST = """\
company: {number: "009001", name: Garage Neuf, siren: "732829320"}
billing: {mode: client, offer: Essentiel}
users:
  - email: chloe.chef@example.fr
    first_name: Chloé
    last_name: Chef
    phone: "+33 1 99 00 10 01"
    type: administrator
    production: full
    apps: [Documents, Scan]
    companies: ["004217"]
    activation: immediate
    removal: month_end
    welcome_email: true
    language: fr
  - email: anatole.aide@example.fr
    first_name: Anatole
    last_name: Aide
    type: standard
    production: consultation
    apps: []
"""
NEW = "clients/garage.yaml"
TOP, _, USERS = MANIFEST.partition("users:\n")

SAME = {
    "a comment above": "# looked at by Hélène\n" + MANIFEST,
    "a comment at the end of a line": MANIFEST.replace("Chef\n", "Chef   # since May\n"),
    "empty lines": MANIFEST.replace("  - email", "\n\n  - email"),
    "a deeper indentation": re.sub(r"(?m)^  ( *)(?=\S)", r"      \1", MANIFEST),
    "Windows line ends": MANIFEST.replace("\n", "\r\n"),
    "no line end at the end": MANIFEST.rstrip("\n"),
    "quotes that were not needed": MANIFEST.replace("name: Garage Neuf", "name: 'Garage Neuf'"),
    "a block instead of a line": MANIFEST.replace("[Documents, Scan]", "\n      - Documents\n      - Scan"),
    "a folded text": MANIFEST.replace("first_name: Anatole", "first_name: >-\n      Anatole"),
    "an escape instead of the letter": MANIFEST.replace("Chloé", '"Chlo\\u00e9"'),
    "a document mark": "---\n" + MANIFEST,
    "the order of keys": MANIFEST.replace(
        "    first_name: Chloé\n    last_name: Chef\n", "    last_name: Chef\n    first_name: Chloé\n"
    ),
    "the order of sections": "users:\n" + USERS + TOP,
}  # fmt: skip
"""Other YAML texts with the same data as ``MANIFEST``."""


def saved(shell: Shell) -> Path:
    """Save a plan that creates the company of ``MANIFEST``. Return the path of the plan file."""
    (shell.folder / NEW).write_text(MANIFEST)
    planfile = shell.folder / "plan.json"
    assert shell("plan", "--out", planfile, "--detailed-exitcode").code == 2
    return planfile


@pytest.mark.parametrize("what", SAME)
def test_saved_plan_is_applied_after_a_comment_or_layout_change(what: str, shell: Shell) -> None:
    """A saved plan is applied if only comments or layout of a manifest have changed."""
    planfile = saved(shell)
    assert SAME[what] != MANIFEST
    (shell.folder / NEW).write_bytes(SAME[what].encode())
    said = shell("apply", planfile)
    assert said.code == 0, said.err
    assert shell("plan", "--detailed-exitcode").code == 0


def values(text: str) -> list[tuple[int, str]]:
    """Return the index and the text of each value in a manifest."""
    found = re.finditer(r'(?:(?<=[:,] )|(?<=\[))(?!\w+:)"?([^\s"{}\[\],][^"{}\[\],\n]*)', text)
    return [(one.start(1), one[1]) for one in found]


def test_plan_is_refused_after_a_change_of_one_byte_of_any_value(shell: Shell) -> None:
    """A saved plan is refused if one byte of any value has changed."""
    planfile = saved(shell)
    before = shell.print_of()
    tried = 0
    for start, value in values(MANIFEST):
        last = start + len(value) - 1
        other = "8" if MANIFEST[last] != "8" else "7"
        (shell.folder / NEW).write_text(MANIFEST[:last] + other + MANIFEST[last + 1 :])
        said = shell("apply", planfile)
        assert said.code == 5, (value, said.err)
        assert f"have changed since this plan was made: {NEW}. Nothing was written" in said.err
        tried += 1
    assert tried == 23
    (shell.folder / NEW).write_text(MANIFEST)
    assert shell.print_of() == before
    assert not (shell.folder / "portal.db").exists()


GONE_OR_NEW = {
    "a manifest that is new": lambda folder: (folder / "clients/more.yaml").write_text(MANIFEST),
    "a manifest that is gone": lambda folder: (folder / BAKERY).unlink(),
    "an empty list instead of none": lambda folder: (folder / NEW).write_text(
        MANIFEST.replace("type: standard\n", "type: standard\n    companies: []\n")
    ),
    "a list in another order": lambda folder: (folder / NEW).write_text(
        MANIFEST.replace("[Documents, Scan]", "[Scan, Documents]")
    ),
    "a word instead of a truth": lambda folder: (folder / NEW).write_text(
        MANIFEST.replace("welcome_email: true", 'welcome_email: "true"')
    ),
    "a null": lambda folder: (folder / NEW).write_text(
        MANIFEST.replace("type: standard\n", "type: standard\n    phone: null\n")
    ),
}


@pytest.mark.parametrize("what", GONE_OR_NEW)
def test_plan_is_refused_after_an_addition_removal_or_change_of_type(what: str, shell: Shell) -> None:
    """A saved plan is refused if something was added or removed, or if a value changed its type."""
    planfile = saved(shell)
    GONE_OR_NEW[what](shell.folder)
    assert shell("apply", planfile).code == 5
    assert not (shell.folder / "portal.db").exists()


def test_plan_is_refused_if_a_manifest_is_no_longer_valid(shell: Shell) -> None:
    """A saved plan is refused if a manifest is no longer valid. The message names the manifest."""
    planfile = saved(shell)
    (shell.folder / NEW).write_text(MANIFEST + "  - [")
    said = shell("apply", planfile)
    assert said.code in (3, 5)
    assert NEW in said.err
    assert not (shell.folder / "portal.db").exists()


def test_every_changed_manifest_is_named(shell: Shell) -> None:
    """The refusal names every manifest that has changed."""
    planfile = saved(shell)
    moved = list(json.loads(planfile.read_text())["manifests"])
    assert len(moved) > 5
    for file in moved:
        path = shell.folder / file
        path.write_text(path.read_text().replace("name: ", "name: X", 1))
    said = shell("apply", planfile)
    assert said.code == 5
    for file in moved:
        assert file in said.err


SETTINGS = {
    "what everybody has by default": ("production: full   ", "production: consultation "),
    "what a profile gives": ("apps: [Documents]\n\ndefaults", "apps: [Documents, Scan]\n\ndefaults"),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_plan_is_refused_after_a_change_of_defaults_or_profiles(what: str, shell: Shell) -> None:
    """A saved plan is refused if the defaults or profiles in provisioner.yaml have changed.

    The values that users get from the defaults and profiles are part of the reviewed plan.
    """
    planfile = saved(shell)
    shell.edit("provisioner.yaml", *SETTINGS[what])
    said = shell("apply", planfile)
    assert said.code == 5
    assert "provisioner.yaml" in said.err
    assert not (shell.folder / "portal.db").exists()


def test_plan_is_applied_after_a_change_of_the_mail_transport(shell: Shell) -> None:
    """A saved plan is applied if only the mail transport has changed.

    The plan may be made on a merge request and applied by a job with another mail server.
    """
    planfile = saved(shell)
    shell.edit("provisioner.yaml", '"maildir:outbox"', '"maildir:elsewhere"')
    assert shell("apply", planfile).code == 0
    assert (shell.folder / "elsewhere" / "new").is_dir()
