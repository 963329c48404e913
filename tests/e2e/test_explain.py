"""``explain`` prints the entry of each code, and every code that users meet has an entry."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from manifest_support import compare_with_golden
from shell_support import ROOT, Shell

from provisioner import codes
from provisioner.codes import CODES, code_named
from provisioner.diagnostics import error
from provisioner.render.codes import codes_page
from provisioner.render.diagnostics import render_problems

PACKAGE = ROOT / "provisioner"
NUMBERED = re.compile(r"\b[RAS][1-9][0-9]?\b")
"""The codes of rules, assumptions and conventions."""

YIELDS = {"error": 0, "warning": 0, "Diagnostic": 1, "_normal": 0, "_report": 0, "_problem": 0, "_refused": 0}
"""The functions that take the code of a diagnostic, with the position of this argument."""


@cache
def trees() -> dict[Path, ast.Module]:
    files = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "codes.py")
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the string constants of a module, without docstrings."""
    spoken = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in spoken:
            yield node.value


def yielded(tree: ast.AST) -> Iterator[str]:
    """Yield the constants that are passed as the code of a diagnostic."""
    for node in ast.walk(tree):
        given: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", "")
            if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                name = node.func.attr if node.func.value.id == "self" else ""
            given = [node.args[YIELDS[name]]] if name in YIELDS and len(node.args) > YIELDS[name] else []
            if name != "Receipt" and name != "_conflict":
                given += [word.value for word in node.keywords if word.arg == "code"]
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
                yield value.value


def test_every_code_that_the_program_yields_has_an_entry() -> None:
    found = {code for tree in trees().values() for code in yielded(tree)}
    assert len(found) > 35
    assert found <= CODES.keys()


def test_every_numbered_code_that_users_read_has_an_entry() -> None:
    """The codes in sentences of the program, in documents, samples and schemas have an entry."""
    read = [*(text for tree in trees().values() for text in texts(tree))]
    for pattern in ("*.md", "*/*.md", "provisioner/*/*.md", "schemas/*.json", "samples/**/*.yaml"):
        read += [path.read_text(encoding="utf-8") for path in ROOT.glob(pattern)]
    read += [text for entry in CODES.values() for text in entry]
    found = {code for text in read for code in NUMBERED.findall(text)}
    assert len(found) > 20
    assert found <= CODES.keys()


@pytest.mark.parametrize("code", CODES)
def test_every_entry_has_a_user(code: str) -> None:
    if NUMBERED.fullmatch(code):
        others = "".join("".join(entry) for name, entry in CODES.items() if name != code)
        sources = "".join(path.read_text(encoding="utf-8") for path in trees())
        assert re.search(rf"\b{code}\b", others + sources)
    else:
        assert any(code == text for tree in trees().values() for text in texts(tree))


ORDER = (codes.WARNING, codes.INVALID, codes.BLOCKED, codes.REFUSED, codes.NOTE)
PLANNED = ("planning/order.py", "planning/guard.py", "operations/pipeline.py", "manifest/resolve.py")
"""The modules whose errors are errors of a plan."""
READ = ("manifest", "yaml_source", "workspace")
"""The packages whose other errors are errors in the files."""


def severities_of(call: ast.Call, module: str) -> Iterator[tuple[str, str]]:
    """Yield each code that a call passes on, with the severity that results in this module."""
    name = getattr(call.func, "id", "") or getattr(call.func, "attr", "")
    inside = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
    words = [value for value in inside if isinstance(value, str)]
    given = set(words) & CODES.keys()
    if name == "warning" or (name == "Diagnostic" and module.startswith("manifest")):
        yield from ((code, codes.WARNING) for code in given)
    if name in {"error", "_normal", "_report", "_problem", "_refuse", "Diagnostic"}:
        levels = {
            module in PLANNED: codes.BLOCKED,
            module.split("/")[0] in READ and module not in PLANNED: codes.INVALID,
            module == "planning/steps.py": codes.REFUSED,
        }
        found = codes.RULE if module == "rules.py" else levels.get(True, "")
        yield from ((code, level) for code in given for level in ORDER if level in found)
    if name == "Receipt" or (name == "_require" and module == "planning/steps.py"):
        yield from ((code, codes.REFUSED) for code in given)
    if name in {"Notice", "_notify"}:
        noted = re.findall(r"\((R\d+)\)", " ".join(words))
        yield from ((code, codes.NOTE) for code in noted)


def refusals(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the rules with which a sentence of the embedded portal begins, but not those of other writers."""
    for text in texts(tree):
        if (found := re.match(r"(R\d+): ", text)) and found[1] != "R11":
            yield found[1], codes.REFUSED


def test_the_severity_of_an_entry_is_what_the_program_yields() -> None:
    found: dict[str, set[str]] = {code: set() for code in CODES}
    for path, tree in trees().items():
        module = path.relative_to(PACKAGE).as_posix()
        if module.startswith(("testing", "manifest/export")):
            continue
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        passed = [pair for call in calls for pair in severities_of(call, module)]
        for code, level in [*passed, *(refusals(tree) if module.startswith("embedded") else ())]:
            found[code].add(level)
    # the values of a variable and of the default of a parameter
    for code in ("R6", "file-path"):
        found[code].add(codes.INVALID)
    for code, entry in CODES.items():
        expected = " ".join(level for level in ORDER if level in found[code]) or codes.CITED
        assert entry.severity == expected, code


def test_the_severity_of_an_entry_is_that_of_the_broken_samples() -> None:
    goldens = sorted((ROOT / "tests" / "golden" / "broken").glob("*.txt"))
    text = "".join(path.read_text(encoding="utf-8") for path in goldens)
    shown = re.findall(r"^(Error|Warning): .* \[([\w-]+)\]$", text, re.MULTILINE)
    assert len(shown) > 25
    for title, code in shown:
        assert {"Error": codes.INVALID, "Warning": codes.WARNING}[title] in CODES[code].severity, code


def test_entries_are_complete_sentences() -> None:
    for code, entry in CODES.items():
        assert not entry.summary.endswith("."), code
        assert entry.explanation.endswith("."), code
        assert entry.source.endswith("."), code
        assert entry.action, code


def test_the_page_of_codes_is_made_from_the_table() -> None:
    compare_with_golden(ROOT / "schemas" / "CODES.md", codes_page())


def test_explain_prints_the_entry(shell: Shell) -> None:
    said = shell("explain", "R2")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0] == "R2: Company without an administrator"
    shown = " ".join(said.out.split())
    assert all(text in shown for text in CODES["R2"])
    assert max(map(len, said.out.splitlines())) <= 80


def test_every_code_of_a_message_is_explained_as_it_is_printed(shell: Shell) -> None:
    """A user may copy the code with its brackets, or type it in another case."""
    for code in CODES:
        text = render_problems([error(code, "x.")], lambda *_: None, colour=False, width=80)
        (bracketed,) = re.findall(r"\[[^]]+\]$", text.splitlines()[0])
        assert code_named(bracketed) == code_named(code.upper()) == code_named(f" {code.lower()}") == code
    assert shell("explain", "[unknown-company]").out == shell("explain", "UNKNOWN-COMPANY").out


def test_explain_without_a_code_lists_all(shell: Shell) -> None:
    said = shell("explain")
    assert said.code == 0
    assert [line.split()[0] for line in said.out.splitlines()] == list(CODES)
    assert all(entry.summary in said.out for entry in CODES.values())


@pytest.mark.parametrize(
    ("word", "hint"),
    [("unknown-compny", 'Did you mean "unknown-company"?'), ("R22", 'Did you mean "R2"?'), ("zzz", "")],
)
def test_unknown_code_gets_a_suggestion(shell: Shell, word: str, hint: str) -> None:
    said = shell("explain", word)
    assert (said.code, said.out) == (64, "")
    assert f'There is no code "{word}".' in said.err
    assert hint in said.err
    assert ("Did you mean" in said.err) == bool(hint)
    assert "provisioner explain" in said.err


def test_explain_needs_no_workspace(shell: Shell) -> None:
    (shell.folder / "provisioner.yaml").unlink()
    assert shell("explain", "S1").code == 0
