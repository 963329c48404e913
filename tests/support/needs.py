"""Functions that skip a test if a program from a Debian package or a Python package is missing."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import NoReturn

import pytest

# read as tests are collected: each test then runs without it
IN_CI = bool(os.environ.get("CI"))


def need(*programs: str) -> None:
    """Skip the test with a message if one of these programs is missing. Under CI, the test fails instead."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        lack(f"{', '.join(missing)} not installed: .ci/run shows the Debian packages")


def need_package(name: str) -> None:
    """Skip the test with a message if this package is missing. Under CI, the test fails instead."""
    if find_spec(name) is None:
        lack(f"{name} is not installed: pip install '.[test-all]'")


def lack(what: str) -> NoReturn:
    """Skip the test with the message ``what``. Under CI, the test fails instead."""
    if IN_CI:
        pytest.fail(what)
    pytest.skip(what)
