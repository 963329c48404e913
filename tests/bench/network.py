"""Compares a portal over HTTP with the same embedded portal.

The service runs in its own process, on a copy of the embedded portal.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .generate import write_settings
from .letters import copy_databases
from .measure import HERE, PROVISIONER, Side, Table, in_turn, megabytes, provisioner

PLANNERS = 8
LATE = 20
"""How late each response comes when steps one at a time are compared with ten at a time, in milliseconds."""


@contextmanager
def served(folder: Path, log: Path) -> Iterator[str]:
    """Serve the portal in ``folder`` to a new API client, and yield its url. Logs requests in ``log``."""
    url = f"sqlite:///{folder / 'portal.db'}"
    added = subprocess.run(
        [PROVISIONER, "api-client", "add", f"b{time.time_ns()}", "--role", "partner", "--url", url, "--json"],
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    credentials = json.loads(added.stdout)
    os.environ["PROVISIONER_PORTAL_CLIENT"] = credentials["id"]
    os.environ["PROVISIONER_PORTAL_SECRET"] = credentials["secret"]
    command = [PROVISIONER, "-C", str(folder), "serve", "--url", url, "--port", "0", "--rate", "1000000"]
    with log.open("wb") as lines:
        process = subprocess.Popen(command, stdout=lines, stderr=subprocess.STDOUT)
        try:
            yield _address(log, process)
        finally:
            process.terminate()
            process.wait()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    while process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:[0-9]+", log.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[0]
        time.sleep(0.02)
    sys.exit(f"the service did not start:\n{log.read_text(encoding='utf-8')}")


@contextmanager
def delayed(url: str, milliseconds: int) -> Iterator[str]:
    """Run a proxy that delays each response of the service. Yield the url of the proxy."""
    port = url.rpartition(":")[2]
    command = [sys.executable, str(HERE / "late_proxy.py"), port, str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        yield f"http://127.0.0.1:{int(proxy.stdout.readline())}"
        proxy.terminate()


def copied(source: Path, target: Path, url: str = "sqlite:///portal.db") -> Path:
    """Copy a workspace with its databases, and name the portal at ``url`` in it. Return ``target``."""
    target.mkdir()
    shutil.copytree(source / "clients", target / "clients")
    copy_databases(source, target)
    write_settings(target)
    settings = target / "provisioner.yaml"
    text = settings.read_text(encoding="utf-8").replace("sqlite:///portal.db", url)
    settings.write_text(text, encoding="utf-8")
    return target


def rename(folder: Path, changes: int, word: str) -> int:
    """Change the last name of at least ``changes`` users to ``word``. Return the number of changed users."""
    done = 0
    for path in sorted((folder / "clients").rglob("*.yaml")):
        if done >= changes:
            break
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"last_name: .*", f"last_name: {word}", text), encoding="utf-8")
        done += text.count("last_name: ")
    return done


def network(table: Table, work: Path, source: Path, users: int, wanted: int, times: int) -> None:
    """Compare plans and an apply over HTTP with the same on the embedded portal.

    ``source`` is a workspace of ``users`` users without changes. ``wanted`` is the number of users to rename.
    """
    embedded, portal = copied(source, work / "embedded"), copied(source, work / "portal")
    with served(portal, work / "service.log") as url:
        remote = copied(source, work / "remote", url)
        ours = provisioner(remote, "plan", "--detailed-exitcode")
        theirs = provisioner(embedded, "plan", "--detailed-exitcode")
        in_turn(times, ours, theirs)
        what = f"HTTP: plan, {users:,} users"
        table.row(what, ours.time, theirs.time, "embedded portal")
        table.row(f"{what}, peak memory", ours.peak, theirs.peak, "embedded portal", unit=megabytes)
        together = _plans_together(remote)
        table.row(
            f"HTTP: {PLANNERS} plans at once", together, PLANNERS * ours.time, f"{PLANNERS} x one alone"
        )
        count = rename(embedded, wanted, "Renamed")
        rename(remote, wanted, "Renamed")
        ours = provisioner(remote, "apply", "--auto-approve")
        theirs = provisioner(embedded, "apply", "--auto-approve")
        in_turn(1, ours, theirs)
        table.row(f"HTTP: apply, {count:,} changes", ours.time, theirs.time, "embedded portal")


def _plans_together(folder: Path) -> float:
    """Return the time that ``PLANNERS`` plans at the same time take, in seconds."""
    began = time.perf_counter()
    command = [PROVISIONER, "-C", str(folder), "plan"]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(PLANNERS)]
    codes = [process.wait() for process in running]
    if any(codes):
        sys.exit(f"plans at the same time ended with {codes}")
    return time.perf_counter() - began


def parallel(table: Table, work: Path, source: Path, wanted: int) -> None:
    """Compare ten steps at a time with one at a time, when each response of the service is delayed."""
    sides: dict[int, Side] = {}
    count = 0
    for parallelism in (1, 10):
        portal = copied(source, work / f"late-portal-{parallelism}")
        with served(portal, work / f"late-{parallelism}.log") as url, delayed(url, LATE) as late:
            folder = copied(source, work / f"late-{parallelism}", late)
            count = rename(folder, wanted, "Late")
            arguments = ("apply", "--auto-approve", "--parallelism", str(parallelism))
            sides[parallelism] = provisioner(folder, *arguments)
            sides[parallelism].run()
    what = f"HTTP {LATE} ms late: apply, {count:,} changes"
    table.row(what, sides[10].time, sides[1].time, "same, one step at a time")
