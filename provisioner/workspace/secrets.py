"""Reads secrets from environment variables and files. provisioner.yaml never contains a secret."""

from __future__ import annotations

import os
from pathlib import Path

from provisioner.errors import ProvisionerError, WorkspaceError
from provisioner.limits import MAX_FILE_BYTES
from provisioner.workspace.files import read_bytes


def secret_of(
    root: Path, variable: str, file: str, *, what: str, error: type[ProvisionerError], usual: str = ""
) -> str:
    """Return the secret in the environment variable ``variable``. If ``variable`` is "", read ``file``.

    The path ``file`` is relative to ``root``. If both are "", return the value of the environment variable
    ``usual``, or "" if ``usual`` is not set. Raises ``error`` if the named variable or file is missing or
    empty. Messages use ``what`` as the name of the secret.
    """
    if variable:
        secret = os.environ.get(variable, "").strip()
        if not secret:
            state = "empty" if variable in os.environ else "not set"
            raise error(
                f"The environment variable {variable}, which holds {what}, is {state}.",
                f"Set it, for example: export {variable}=…",
            )
        return secret
    if file:
        return _in_file(root / file, file, what, error)
    return os.environ.get(usual, "").strip() if usual else ""


def _in_file(path: Path, file: str, what: str, error: type[ProvisionerError]) -> str:
    sentence = f"{what[0].upper()}{what[1:]} cannot be read"
    try:
        # utf-8-sig, because some editors begin a file with a byte-order mark
        secret = read_bytes(path, MAX_FILE_BYTES).decode("utf-8-sig").strip()
    except WorkspaceError as problem:
        raise error(f"{sentence}: {problem}", f"Check {file}.") from problem
    except UnicodeDecodeError as problem:
        raise error(f"{sentence}: {file} is not UTF-8 text.", f"Save {file} as UTF-8.") from problem
    if not secret:
        raise error(f"{sentence}: {file} is empty.", f"Write it into {file}, and nothing else.")
    return secret
