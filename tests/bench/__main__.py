"""Compares the program with the least work that its tasks need, and prints all ratios in one table.

Exits with 1 if a ratio is above its bound. ``tests/bench/measure.py`` explains the figures.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .letters import mails
from .measure import PROVISIONER, Side, Table, compile_all, in_turn
from .network import network, parallel
from .plans import cold_plans, creations


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: numbers of users, and of runs for each figure."""

    plans: tuple[int, ...]
    """Sizes of plans, at least two. The portal over HTTP has the largest one up to 10,000."""
    created: int
    mailed: int
    renamed: int
    times: int


FULL = Sizes(plans=(100, 1_000, 10_000, 100_000), created=10_000, mailed=10_000, renamed=1_000, times=5)
QUICK = Sizes(plans=(100, 1_000), created=1_000, mailed=300, renamed=100, times=3)


def startup(table: Table, times: int) -> None:
    """Compare ``--version`` and ``--help`` to the start of an empty Python program."""
    bare = Side([sys.executable, "-c", "pass"])
    sides = [Side([PROVISIONER, option]) for option in ("--version", "--help")]
    in_turn(times, bare, *sides)
    for side in sides:
        table.row(side.command[1], side.time, bare.time, "python -c pass")


def run(sizes: Sizes) -> Table:
    """Run all comparisons with these sizes and print the table. Return the table."""
    table = Table()
    table.head()
    with tempfile.TemporaryDirectory(prefix="provisioner-bench-") as name:
        work = Path(name)
        startup(table, sizes.times * 4)
        cold_plans(table, work, sizes.plans, sizes.times)
        creations(table, work, sizes.created, min(sizes.times, 3))
        mails(table, work, sizes.mailed, min(sizes.times, 3))
        large = max(users for users in sizes.plans if users <= 10_000)
        network(table, work, work / f"plan-{large}", large, sizes.renamed, sizes.times)
        small = sorted(sizes.plans)[1]
        parallel(table, work, work / f"plan-{small}", min(sizes.renamed, 200))
    return table


def main() -> int:
    """Read the options and run all comparisons. Return 1 if a ratio is above its bound, otherwise 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 1,000 users, in about a minute")
    options = parser.parse_args()
    compile_all()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores. Ratios: smaller is better.\n")
    table = run(QUICK if options.quick else FULL)
    if table.missed:
        print(f"\nAbove the bound: {'; '.join(table.missed)}.")
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
