"""Removes one safeguard of the program at a time, and checks each time that a named test fails.

The exit code is 1 if no test fails for a sabotage, or if a sabotage cannot be applied. The tests have to pass
without a sabotage: run the tests first, or run this program with ``--unchanged``.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from .table import SABOTAGES, Sabotage

TESTS = Path(__file__).resolve().parents[1]
HOOK = Path(__file__).resolve().parent / "hook"

TIMEOUT = 300
"""The timeout of one run of pytest in seconds. pytest has its own timeout for each test."""

TEST_FAILED = 1
"""The exit code of pytest if a test failed. All other codes except 0 mean that there is no result."""

_FAILED = re.compile(r"^(?:FAILED|ERROR) \S+?(\w+\.py::.+)", re.MULTILINE)


class Run(NamedTuple):
    """The result of one run of pytest."""

    failed: bool
    """True if a test failed, False if all passed."""
    output: str
    seconds: float


class NotRun(Exception):
    """The error if pytest ends without a result. Its message is the output of pytest."""


def run_tests(sabotage: Sabotage, *, unchanged: bool) -> Run:
    """Run the tests that have to detect a sabotage, up to the first failure. Raises :class:`NotRun`.

    With ``unchanged``, the tests run without the sabotage.
    """
    path = [str(HOOK), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PROVISIONER_SABOTAGE": sabotage.name}
    if unchanged:
        del environment["PROVISIONER_SABOTAGE"]
    # under CI a test whose tool is missing fails, as if it had seen the sabotage
    for name in ("CI", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    began = time.monotonic()
    with TemporaryDirectory(prefix="sabotage-", ignore_cleanup_errors=True) as folder:
        # some tests run the program under another account
        Path(folder).chmod(0o755)
        command = [sys.executable, "-m", "pytest", "-x", "--tb=short", "-rfE", "-p", "no:cacheprovider"]
        command += ["--hypothesis-profile=first", f"--basetemp={folder}/tests", sabotage.target]
        process = subprocess.Popen(
            command, cwd=TESTS.parent, env=environment, text=True, errors="replace", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise NotRun(f"{output}Stopped after {TIMEOUT} s.") from None
    if process.returncode not in (0, TEST_FAILED):
        raise NotRun(output)
    return Run(process.returncode == TEST_FAILED, output, time.monotonic() - began)


def attempt(sabotage: Sabotage, *, verbose: bool, unchanged: bool) -> bool:
    """Run the tests of one sabotage and print the result.

    Returns True if a test failed or, with ``unchanged``, if all tests passed.
    """
    try:
        run = run_tests(sabotage, unchanged=unchanged)
    except NotRun as problem:
        print(f"ERROR {sabotage.name}: the tests have no result.\n{problem}", flush=True)
        return False
    if verbose:
        print(run.output)
    failure = found[1] if (found := _FAILED.search(run.output)) else "no test failed"
    is_right = run.failed is not unchanged
    word = ("pass " if unchanged else "seen ") if is_right else ("FAIL " if unchanged else "BLIND")
    reason = "" if is_right else f"\n      {sabotage.reason}"
    print(f"{word} {sabotage.name} ({run.seconds:.1f} s): {failure[:160]}{reason}", flush=True)
    return is_right


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen sabotages. Returns 1 if a test does not detect its sabotage, and 0 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.sabotage", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; --list prints all names")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--unchanged", action="store_true", help="check that the tests pass without sabotage")
    parser.add_argument("--verbose", action="store_true", help="print the output of the tests")
    parser.add_argument("--list", action="store_true", help="print the names and reasons, and run nothing")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(SABOTAGES):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    chosen = [SABOTAGES[name] for name in options.names or SABOTAGES]
    if options.list:
        for sabotage in chosen:
            print(f"{sabotage.name}: {sabotage.reason}")
        return 0
    began = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        right = list(
            pool.map(
                lambda sabotage: attempt(sabotage, verbose=options.verbose, unchanged=options.unchanged),
                chosen,
            )
        )
    word = "pass unchanged" if options.unchanged else "are seen"
    print(f"{sum(right)} of {len(right)} {word}, in {time.monotonic() - began:.0f} s.")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
