"""Runs ``provisioner serve`` until boundary N (boundaries.py) kills it: ``doomed_service.py N serve …``."""

from __future__ import annotations

import os
import signal
import sys

from boundaries import watch

from provisioner.cli import run


def main() -> int:
    """Run ``provisioner`` and kill this process at the n-th boundary. Otherwise, return the exit code."""
    left = int(sys.argv[1])

    def checkpoint() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(checkpoint)
    return run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
