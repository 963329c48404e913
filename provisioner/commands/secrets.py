"""Secrets, read from where a workspace names them: an environment variable or a file, never YAML."""

from __future__ import annotations

import os
from pathlib import Path

from provisioner.errors import ProvisionerError, WorkspaceError
from provisioner.files import read_bytes
from provisioner.limits import MAX_FILE_BYTES


def secret_of(
    root: Path, variable: str, file: str, *, what: str, error: type[ProvisionerError], usual: str = ""
) -> str:
    """The secret; "" where none is named. ``what`` says whose it is: "the mail password".

    ``usual`` is the variable that is looked at, without insisting, when neither place is named.
    Raises ``error``.
    """
    if variable:
        if variable not in os.environ:
            raise error(
                f"The environment variable {variable}, which holds {what}, is not set.",
                f"Set it, for example: export {variable}=…",
            )
        return os.environ[variable]
    if file:
        try:
            return read_bytes(root / file, MAX_FILE_BYTES).decode().strip()
        except (WorkspaceError, UnicodeDecodeError) as problem:
            raise error(
                f"{what[0].upper()}{what[1:]} cannot be read: {problem}", f"Check {file}."
            ) from problem
    return os.environ.get(usual, "") if usual else ""
