"""Runs ``provisioner serve`` with the time that a file contains: ``clocked_service.py FILE serve …``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from provisioner.cli import run
from provisioner.commands import serve


def main() -> int:
    """Run ``provisioner`` with the time in the file that the first argument names. Return the exit code."""
    file = Path(sys.argv[1])

    def clock() -> datetime:
        return datetime.fromisoformat(file.read_text()).astimezone(UTC)

    serving = serve.serve
    assert serving.__kwdefaults__ is not None
    serving.__kwdefaults__["clock"] = clock
    return run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
