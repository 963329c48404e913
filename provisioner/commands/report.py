"""Output that several commands share: problems with their source lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from provisioner.diagnostics import Diagnostic
from provisioner.errors import WorkspaceError
from provisioner.limits import MAX_FILE_BYTES
from provisioner.render.commands import problem_in_folder
from provisioner.terminal.console import Console
from provisioner.workspace.files import read_bytes


def show_problems(console: Console, workspace_root: Path, problems: Iterable[Diagnostic]) -> None:
    """Print the problems on stderr, each with the line of the file in ``workspace_root`` that causes it."""
    found = [problem_in_folder(problem, console.folder) for problem in problems]
    if found:
        from provisioner.render.diagnostics import render_problems

        text = render_problems(
            found, _line_reader(workspace_root), colour=console.colour, width=console.width
        )
        console.say_rendered(text)


def _line_reader(root: Path) -> Callable[[str, int], str | None]:
    texts: dict[str, list[str]] = {}

    def line_of(file: str, line: int) -> str | None:
        if file not in texts:
            try:
                texts[file] = (
                    read_bytes(root / file, MAX_FILE_BYTES).decode("utf-8-sig", "replace").splitlines()
                )
            except WorkspaceError:
                texts[file] = []
        lines = texts[file]
        return lines[line - 1] if 0 < line <= len(lines) else None

    return line_of
