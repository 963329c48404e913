"""Take one safeguard out of a copy of the program, run the tests there, and say which of them noticed.

A sabotage that no test notices is a promise that nothing keeps: exit code 1. So is one that cannot be done
any more, because the text it replaces has gone. First all tests are run in a copy as it is, since a test
that fails anyhow would notice everything.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from .table import SABOTAGES, Sabotage

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "*_cache", ".hypothesis", "__pycache__", "*.db*", "outbox", ".coverage*"
)
LONGEST = 900
"""Seconds; tests that do not end have noticed too."""

NAMED = 3
"""How many tests are named of those that noticed."""

_RED = re.compile(r"^(?:FAILED|ERROR) \S+?\.py::(\w+)", re.MULTILINE)


class Run(NamedTuple):
    """What the tests said in one copy."""

    code: int
    red: tuple[str, ...]
    said: str
    seconds: float


@contextmanager
def copy() -> Iterator[Path]:
    """The checkout once more, for as long as it is needed."""
    with TemporaryDirectory(prefix="sabotage-") as place:
        # some tests run the program as somebody who may not write, and he has to find it
        Path(place).chmod(0o755)
        folder = Path(place) / "copy"
        shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
        yield folder


def run_tests(folder: Path, tests: Sequence[str], options: Sequence[str]) -> Run:
    """The tests in a copy of the checkout, in a process of their own."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    # a program that is missing makes tests skip here: in CI they would fail, and seem to have noticed
    for name in ("CI", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
    command += ["--hypothesis-profile=first", "--basetemp", str(folder / ".tmp"), *options, *tests]
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, errors="replace", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said = "FAILED tests.py::the_tests_did_not_end"
        process.wait()
    red = dict.fromkeys(_RED.findall(said))
    return Run(process.returncode, tuple(red), said, time.monotonic() - began)


def ids(tests: str) -> list[str]:
    """``apply::it_works`` as ``tests/test_apply.py::test_it_works``."""
    found = []
    for word in tests.split():
        file, _, test = word.partition("::")
        found.append(f"tests/test_{file}.py" + (f"::test_{test}" if test else ""))
    return found


def spoil(folder: Path, sabotage: Sabotage) -> bool:
    """Do it there; False where its old text does not stand exactly once."""
    path = folder / "provisioner" / sabotage.file
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text.count(sabotage.old) != 1:
        return False
    path.write_text(text.replace(sabotage.old, sabotage.new), encoding="utf-8")
    return True


def attempt(sabotage: Sabotage, tests: Sequence[str], options: Sequence[str]) -> bool:
    """One sabotage from beginning to end; True if a test noticed."""
    with copy() as folder:
        if not spoil(folder, sabotage):
            print(f"GONE  {sabotage.name}: its text does not stand once in {sabotage.file}", flush=True)
            return False
        run = run_tests(folder, tests, options)
    if not run.red:
        what = "no test noticed" if run.code == 0 else f"the tests did not run:\n{run.said}"
        print(f"BLIND {sabotage.name}: {what}. {sabotage.reason}", flush=True)
        return False
    more = f" and {len(run.red) - NAMED} more" if len(run.red) > NAMED else ""
    print(f"seen  {sabotage.name} ({run.seconds:.0f} s): {', '.join(run.red[:NAMED])}{more}", flush=True)
    return True


def healthy(tests: Iterable[str], jobs: int) -> bool:
    """Whether the tests pass where nothing was done."""
    with copy() as folder:
        run = run_tests(folder, sorted(set(tests)), ("-n", str(jobs)))
    if run.code:
        print(f"The tests fail before anything is done:\n{run.said}")
    return run.code == 0


def main() -> None:
    """Exit code 1 where a sabotage is not seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.sabotage", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these alone; --list tells what there is")
    parser.add_argument("--all", action="store_true", help="run the whole suite for each, not a few files")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--trust", action="store_true", help="do not run the tests as they are first")
    parser.add_argument("--list", action="store_true", help="say what there is, and do nothing")
    options = parser.parse_args()
    chosen = [sabotage for sabotage in SABOTAGES if not options.names or sabotage.name in options.names]
    if unknown := set(options.names) - {sabotage.name for sabotage in SABOTAGES}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    if options.list:
        for sabotage in chosen:
            print(f"{sabotage.name}: {sabotage.reason}")
        return
    began = time.monotonic()
    tests = {sabotage.name: ["tests"] if options.all else ids(sabotage.tests) for sabotage in chosen}
    if not options.trust and not healthy((test for some in tests.values() for test in some), options.jobs):
        sys.exit(1)
    # the whole suite takes all processors for itself; of a few files the first tests that notice are enough
    each = ("-n", str(options.jobs)) if options.all else ("-n", "0", "--maxfail=4", "--timeout=60")
    with ThreadPoolExecutor(1 if options.all else options.jobs) as pool:
        seen = list(pool.map(lambda sabotage: attempt(sabotage, tests[sabotage.name], each), chosen))
    minutes, seconds = divmod(int(time.monotonic() - began), 60)
    print(f"{sum(seen)} of {len(seen)} sabotages seen, in {minutes} min {seconds} s.")
    sys.exit(0 if all(seen) else 1)


if __name__ == "__main__":
    main()
