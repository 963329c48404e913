"""Names from outside have no effect on a terminal, in a build log or in a comment (row 26).

test_review_text.py, test_review_markdown.py and test_problems.py test the rendering of single texts. These
tests run the commands on manifests, files and a portal that contain hostile names.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from manifest_support import SETTINGS, make_workspace, manifest, user
from test_review_markdown import read as read_markdown

from provisioner.cli import run
from provisioner.embedded.portal import SqlPortal
from provisioner.model import Operator, email_key
from provisioner.planning.steps import CreateCompany, CreateUser, SetBilling, Step
from provisioner.portal import Call, Verdict
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.terminal.console import Console
from provisioner.testing.people import ESSENTIEL, NOW, TERMS
from provisioner.testing.people import user as person

SHOWN = (
    "::error::stop", "##[error]stop", "##vso[task.complete result=Failed]", "a ::set-output name=x::y",
    "a##[group]b", "::stop-commands::x", "a:::add-mask::b", "section_start:1:x", "<script>alert(1)</script>",
    "**a** [b](https://c.fr)", "![a](https://b.fr/c.png)", "@everyone #1 !1", "```a", "</details><!--",
    "=cmd|' /C calc'!A0", "+1+1", "-1", "| a |", "$(reboot) `reboot`", "%0A::error::x", "&lt;b&gt; &#60;",
    "/close", "~~a~~ :tada: $x$",
)  # fmt: skip
"""Names that pass validation: every character is visible."""

HIDDEN = (
    "\x1b[31mred\x1b[0m", "\x1b]8;;https://evil.example\x1b\\a\x1b]8;;\x1b\\", "\x1b]0;title\x07", "\x9b31m",
    "\x9d8;;x\x9c", "a\rb", "a\nb", "a\n::error::b", "a\r\n##[error]b", "\x1b[2J\x1b[H", "\u202egpj.exe",
    "\u2066a\u2069", "a\u2028b", "\u200ba", "\ufeffa", "a\x7fb", "\x08\x08x", "\x00a", "\U000e0041",
    "\nsection_start:1:x\r\x1b[0K", "\x0b", "\x85",
)  # fmt: skip
"""Names that validation refuses: only another writer can set them on the portal."""

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("validate",), ("plan", "--out", "plan.json", "--markdown", "plan.md"), ("show", "plan.json"),
    ("apply", "plan.json"), ("plan",), ("history",), ("history", "1"), ("mail", "status"),
    ("mail", "preview", "u0@example.fr"), ("apply", "--auto-approve"), ("unlock",),
    ("mail", "send", "unknown\x1b[31m@example.fr"), ("mail", "settle", "::error::x", "--sent"),
    ("export", "exported"), ("plan", "--target", "user:::error::x\x1b[0m"),
    ("show", "::error::\x1b[31m.json"), ("plan", "--json"), ("history", "--json"),
    ("mail", "status", "--json"),
    ("nothing-\x1b[31m-::error::",), ("plan", "--\x1b[31m::error::"), ("plan", "::error::x"),
)  # fmt: skip
"""Every command that prints values of the workspace, the portal or its arguments."""

_ORDERS = re.compile(r"::[A-Za-z]|##\[|##vso\[", re.IGNORECASE)
_HIDDEN_KINDS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def is_only_shown(text: str) -> None:
    """Assert that the text has no escape, no hidden character and no command of a build system."""
    odd = {c for c in text if c != "\n" and unicodedata.category(c) in _HIDDEN_KINDS}
    assert not odd, sorted(map(ascii, odd))
    order = _ORDERS.search(text)
    assert order is None, text[max(0, order.start() - 80) : order.end() + 40]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command and return its output on both streams."""
    capsys.readouterr()
    run(list(words))
    spoken = capsys.readouterr()
    assert "Traceback" not in spoken.out + spoken.err
    return spoken.out + spoken.err


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def all_is_only_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path) -> str:
    """Run all commands in ``root``. Assert that their output and the plan's Markdown have no effect.

    Return the output of all commands.
    """
    monkeypatch.chdir(root)
    spoken = ""
    for words in COMMANDS:
        text = said(capsys, *words)
        is_only_shown(text)
        spoken += text
    comment = (root / "plan.md").read_text(encoding="utf-8")
    is_only_shown(comment)
    read_markdown(comment)
    return spoken


@pytest.mark.parametrize("ci", [False, True])
def test_valid_names_have_no_effect_on_a_terminal_or_in_ci(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ci: bool
) -> None:
    if ci:
        monkeypatch.setenv("CI", "true")
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
    people = "".join(
        user(f"u{at}@example.fr", type="administrator").replace(": Martin", f": {quoted(name)}")
        for at, name in enumerate(SHOWN)
    )
    text = manifest(people).replace("name: Boulangerie Martin\n", "name: '::error::a ##[error]b'\n")
    settings = SETTINGS + "portal: {operator: partner, public_url: 'https://p.example.fr'}\n"
    settings = settings.replace("Cabinet Durand & Associés", "'::warning::Durand'")
    root = make_workspace(tmp_path / "firm", text, settings=settings)
    assert all_is_only_shown(capsys, monkeypatch, root).count("stop") > 10


def test_names_from_the_portal_have_no_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_workspace(
        tmp_path / "firm",
        manifest(user("u0@example.fr", type="administrator")),
        settings=SETTINGS + "portal: {operator: partner}\n",
    )
    portal = SqlPortal(SqliteDatabase(root / "portal.db"), Operator.PARTNER, TERMS, "", lambda: NOW)
    steps: tuple[Step, ...] = (
        CreateCompany("004217", "\x1b[31m::error::Martin\n##[error]x"), SetBilling("004217", ESSENTIEL),
    )  # fmt: skip
    for version, step in enumerate(steps):
        assert portal.execute([Call("", step, "", version)])[0].verdict is Verdict.APPLIED
    names = (*SHOWN, *HIDDEN)
    for at, name in enumerate(names):
        someone = person("x", "004217", email=f"u{at}@example.fr", phone=name)
        someone = replace(someone, first_name=name, last_name=name)
        call = Call("", CreateUser(email_key(someone.email), someone))
        assert portal.execute([call])[0].verdict is Verdict.APPLIED
    portal.close()
    people = "".join(user(f"u{at}@example.fr", type="administrator") for at in range(1, len(names) - 5))
    (root / "clients" / "1.yaml").write_text(manifest(people, number="5"), encoding="utf-8")
    assert all_is_only_shown(capsys, monkeypatch, root).count("stop") > 5


@pytest.mark.parametrize(
    "name", ["\x1b[31mred", "::error::x", "##[error]x", "\u202eevil", "a\nb", "\x9b31m", "\udcff"]
)
def test_errors_about_hostile_files_have_no_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """An error that quotes a hostile file name, key, value or line has no effect."""
    key = name.encode("ascii", "replace").decode()
    root = make_workspace(tmp_path / "firm", manifest().replace("phone:", f"'{key}':"))
    people = user("a@example.fr", "    phone: '::error::x'\n    ::error::y: 1\n")
    (root / "clients" / f"{name}.yaml").write_text(manifest(people) + f"# {name}\n", "utf-8", "replace")
    (root / "clients" / "twice.yaml").write_text(f"a: 1\na: '##[error]x'\n{name}: [\n", "utf-8", "replace")
    for words in (["validate"], ["plan"], ["apply", "--auto-approve"], ["validate", "--json"]):
        text = said(capsys, "-C", str(root), *words)
        assert text
        is_only_shown(text)


def test_json_is_the_exact_text_and_has_no_effect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON contains the exact text of a hostile name, but has no effect in a build log."""
    people = user("u0@example.fr", type="administrator").replace(": Martin", ": '::error::stop ##[error]x'")
    root = make_workspace(tmp_path / "firm", manifest(people))
    text = said(capsys, "-C", str(root), "plan", "--json")
    assert "::error::stop ##[error]x" in str(json.loads(text.partition("\nError")[0]))
    is_only_shown(text)


def test_what_a_console_says_is_printable() -> None:
    """A console escapes hostile text in its messages, for example in the name of the owner of a lock."""
    stream = StringIO()
    Console(StringIO(), stream).say("Waiting: held by \x1b]8;;http://x\x1b\\ann on ::error::b\nsecond line")
    assert stream.getvalue() == (
        "Waiting: held by \\x1b]8;;http://x\\x1b\\ann on \\x3a:error\\x3a:b\nsecond line\n"
    )
