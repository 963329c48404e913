"""``provisioner validate``: print every problem of the manifests that can be found without the portal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from provisioner.commands.report import show_problems
from provisioner.diagnostics import Diagnostic, count_of
from provisioner.errors import ManifestsInvalid
from provisioner.operations.open import read_declared
from provisioner.render.diagnostics import problems_json
from provisioner.render.sanitize import printable_json
from provisioner.terminal.console import Console
from provisioner.terminal.progress import counting
from provisioner.workspace.settings import load_workspace, names_in_workspace


def validate(folder: Path, console: Console, *, paths: Sequence[Path] = (), as_json: bool = False) -> int:
    """Print every problem; return exit code 3 if one of them is an error, otherwise 0.

    With ``paths``, all manifests are read, but only problems that concern these files are printed and
    determine the exit code. Errors in provisioner.yaml always count, because no manifest can be checked then.
    """
    try:
        workspace = load_workspace(folder)
        names = names_in_workspace(workspace, paths) if paths else None
        with counting(console, "Reading") as report:
            declared, problems = read_declared(workspace, report)
        root = workspace.root
    except ManifestsInvalid as invalid:
        if not as_json:
            raise
        console.answer(printable_json(problems_json(invalid.diagnostics)))
        return ManifestsInvalid.exit_code
    shown = problems if names is None else _concerning(names, problems)
    if as_json:
        console.answer(printable_json(problems_json(shown)))
    else:
        show_problems(console, root, shown)
    if any(problem.is_error for problem in shown):
        return ManifestsInvalid.exit_code
    if as_json:
        return 0
    if names is None:
        companies = count_of(len(declared.companies), "company", "companies")
        console.answer(f"The manifests are valid: {companies}, {count_of(len(declared.users), 'user')}.")
        return 0
    console.answer(f"No errors in {count_of(len(names), 'file')}.")
    if elsewhere := len(problems) - len(shown):
        console.say(f"Other files have {count_of(elsewhere, 'problem')}: provisioner validate shows all.")
    return 0


def _concerning(names: Collection[str], problems: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return the problems with a position in one of the files ``names``."""
    return [
        problem
        for problem in problems
        if any(source.file in names for source in (problem.source, problem.other) if source is not None)
    ]
