"""``provisioner completion``: print the script with which a shell completes commands, options and files."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import get_completion_class

from provisioner.terminal.console import Console

VARIABLE = "_PROVISIONER_COMPLETE"
"""The environment variable with which the script asks the program for completions. Click chooses the name."""


def completion(folder: Path, console: Console, *, shell: str) -> int:
    """Print click's completion script for ``shell``: bash, zsh or fish."""
    root = click.get_current_context().find_root()
    found = get_completion_class(shell)
    assert found is not None
    console.answer(found(root.command, {}, "provisioner", VARIABLE).source())
    return 0
