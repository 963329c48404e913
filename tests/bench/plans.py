"""Compares plans and applies with the bare reading of the same manifests, and their memory with its limit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from .generate import write_manifests, write_settings
from .letters import active_users, require_letters
from .measure import Side, Table, baseline, in_turn, megabytes, provisioner

LOADS = {10_000: 1.5}
"""The largest ratio of a plan to the bare load of its manifests, by number of users."""

GROWTH = {100_000: 11.0}
"""The largest ratio of a plan to the plan of a tenth of its users, by number of users."""

MEMORY, MEMORY_A_USER = 40_000_000, 4_000
"""The limit of a plan's peak memory in bytes: a fixed part, and a part for each user."""


def settled(folder: Path, users: int) -> Path:
    """Create a workspace, and a portal that matches its manifests. Return ``folder``."""
    folder.mkdir()
    write_manifests(folder, users)
    write_settings(folder)
    provisioner(folder, "apply", "--auto-approve").run()
    return folder


def cold_plans(table: Table, work: Path, sizes: Sequence[int], times: int) -> None:
    """Compare a plan without changes to the parsing of the same files, in time and memory.

    Leaves the workspace of each size in the folder ``work / f"plan-{size}"``.
    """
    plans: dict[int, Side] = {}
    for users in sizes:
        folder = settled(work / f"plan-{users}", users)
        plan = provisioner(folder, "plan", "--detailed-exitcode")
        load = baseline("load", str(folder / "clients"))
        in_turn(times if users < 100_000 else min(times, 3), plan, load)
        plans[users] = plan
        ours, theirs = plan.processor_time, load.processor_time
        table.row(f"plan, {users:,} users", ours, theirs, "CSafeLoader, same files", bound=LOADS.get(users))
        if tenth := plans.get(users // 10):
            other, bound = f"plan, {users // 10:,} users", GROWTH.get(users)
            table.row(f"plan, {users:,} users", ours, tenth.processor_time, other, bound=bound)
    for users, plan in plans.items():
        limit = MEMORY + users * MEMORY_A_USER
        table.row(
            f"plan, {users:,} users, peak memory", plan.peak, limit, "40 MB + 4 KB a user",
            bound=1, unit=megabytes,
        )  # fmt: skip


def creations(table: Table, work: Path, users: int, times: int) -> None:
    """Compare an apply that creates all users to a plan of the same changes.

    The letters of the second comparison go into a maildir.
    """
    for welcome, what in (("none", "no letters"), ("ours", "with letters")):
        plan_times, apply_times = [], []
        for turn in range(times):
            folder = work / f"apply-{welcome}-{turn}"
            folder.mkdir()
            write_manifests(folder, users)
            write_settings(folder, welcome=welcome)
            plan = provisioner(folder, "plan")
            apply = provisioner(folder, "apply", "--auto-approve")
            in_turn(1, plan, apply)
            require_letters(folder, active_users(folder) if welcome == "ours" else 0)
            plan_times.append(plan.time)
            apply_times.append(apply.time)
        label = f"apply, {users:,} new, {what}"
        table.row(label, median(apply_times), median(plan_times), "plan, same changes")
