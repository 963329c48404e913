"""Programs of Debian's that some tests stand on."""

from __future__ import annotations

import os
import shutil

import pytest

# read as tests are collected: each test then runs without it
IN_CI = bool(os.environ.get("CI"))


def need(*programs: str) -> None:
    """Skip loudly where one is missing; in CI that is a failure."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        lack(f"{', '.join(missing)} not installed: .ci/run shows the Debian packages")


def lack(what: str) -> None:
    """Skip loudly for want of something; in CI that is a failure."""
    if IN_CI:
        pytest.fail(what)
    pytest.skip(what)
