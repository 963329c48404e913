"""``provisioner validate``: print every problem of the manifests that can be found without the portal."""

from __future__ import annotations

from pathlib import Path

from provisioner.commands.report import show_problems
from provisioner.diagnostics import count_of
from provisioner.errors import ManifestsInvalid
from provisioner.operations.open import read_declared
from provisioner.render.diagnostics import problems_json
from provisioner.render.sanitize import printable_json
from provisioner.terminal.console import Console
from provisioner.terminal.progress import counting
from provisioner.workspace.settings import load_workspace


def validate(folder: Path, console: Console, *, as_json: bool = False) -> int:
    """Print every problem; return exit code 3 if one of them is an error, otherwise 0."""
    try:
        workspace = load_workspace(folder)
        with counting(console, "Reading") as report:
            declared, problems = read_declared(workspace, report)
        root = workspace.root
    except ManifestsInvalid as invalid:
        if not as_json:
            raise
        console.answer(printable_json(problems_json(invalid.diagnostics)))
        return ManifestsInvalid.exit_code
    if as_json:
        console.answer(printable_json(problems_json(problems)))
    else:
        show_problems(console, root, problems)
    if any(problem.is_error for problem in problems):
        return ManifestsInvalid.exit_code
    if not as_json:
        companies = count_of(len(declared.companies), "company", "companies")
        console.answer(f"The manifests are valid: {companies}, {count_of(len(declared.users), 'user')}.")
    return 0
