"""Compares a portal over HTTP with the same embedded portal: ``python -m tests.bench.network``.

The service runs in its own process, on a copy of the embedded portal. Commands are timed as whole processes,
in turn. Peak memory is measured for the command and for the service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .__main__ import HERE, PROVISIONER, Side, compiled, in_turn, provisioner, ratio, say, seconds
from .generate import write_manifests, write_settings

BOOKS = ("portal.db", "portal.db.key", "ledger.db")
PLANNERS = 8


@dataclass(frozen=True, slots=True)
class Service:
    """A running portal service: its url and its process ID."""

    url: str
    pid: int

    @property
    def peak(self) -> int:
        """The peak memory of the service in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    @property
    def processor(self) -> float:
        """The processor time of the service in seconds."""
        words = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(folder: Path, log: Path) -> Iterator[Service]:
    """Serve the portal in ``folder`` to a new API client, and yield the service. Logs requests in ``log``."""
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
            yield Service(_address(log, process), process.pid)
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


def requests_in(log: Path) -> int:
    """Return the number of requests in the access log."""
    return sum(b'"status"' in line for line in log.read_bytes().splitlines())


@contextmanager
def delayed(url: str, milliseconds: int) -> Iterator[str]:
    """Run a proxy that delays each response of the service. Yield the url of the proxy."""
    port = url.rpartition(":")[2]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.network", "--delay", port, str(milliseconds)],
        cwd=HERE.parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as proxy:  # fmt: skip
        assert proxy.stdin is not None
        assert proxy.stdout is not None
        yield f"http://127.0.0.1:{int(proxy.stdout.readline())}"
        proxy.terminate()


async def _delay(port: int, milliseconds: int) -> None:
    loop = asyncio.get_running_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        while data := await reader.read(1 << 16):
            if delay:
                loop.call_later(delay, writer.write, data)
            else:
                writer.write(data)
        await asyncio.sleep(delay)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            pump(reader, back, 0), pump(there, writer, milliseconds / 1000), return_exceptions=True
        )

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def workspace(work: Path, name: str, books: Path, url: str, users: int) -> Path:
    """Create a workspace for the portal at ``url``: manifests of ``users`` users, and copies of ``books``.

    ``books`` is a folder with the databases.
    """
    folder = work / name
    folder.mkdir()
    write_manifests(folder, users)
    for book in BOOKS:
        if (books / book).exists():
            shutil.copy(books / book, folder / book)
    at(folder, url)
    return folder


def at(folder: Path, url: str) -> None:
    """Write the settings of a workspace whose portal is at ``url``."""
    write_settings(folder)
    settings = folder / "provisioner.yaml"
    text = settings.read_text(encoding="utf-8").replace("sqlite:///portal.db", url)
    settings.write_text(text, encoding="utf-8")


def edit(folder: Path, changes: int, word: str) -> int:
    """Change the last name of at least ``changes`` users to ``word``. Return the number of changed users."""
    done = 0
    for path in sorted((folder / "clients").rglob("*.yaml")):
        if done >= changes:
            break
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"last_name: .*", f"last_name: {word}", text), encoding="utf-8")
        done += text.count("last_name: ")
    return done


def plans(embedded: Path, remote: Path, service: Service, users: int, times: int) -> None:
    """Compare plans over HTTP with plans on the embedded portal.

    The plans find no changes. Each plan reads the whole portal.
    """
    ours = provisioner(remote, "plan", "--detailed-exitcode")
    theirs = provisioner(embedded, "plan", "--detailed-exitcode")
    before = service.processor
    in_turn(times, ours, theirs)
    used = (service.processor - before) / times
    say("\ncold plan without changes", "over HTTP", "embedded", "ratio")
    say(f"{users:,} users", seconds(ours.time), seconds(theirs.time), ratio(ours.time, theirs.time))
    memory = f"{ours.peak / 2**20:.0f} MiB", f"{theirs.peak / 2**20:.0f} MiB"
    say("  peak memory", *memory, ratio(ours.peak, theirs.peak))
    say("  the service meanwhile", f"{seconds(used)} CPU", f"{service.peak / 2**20:.0f} MiB peak")


def changes(embedded: Path, remote: Path, service: Service, log: Path, wanted: int) -> None:
    """Compare renaming at least ``wanted`` users over HTTP with renaming them on the embedded portal.

    Renaming one user takes one step.
    """
    count = edit(embedded, wanted, "Renamed")
    edit(remote, wanted, "Renamed")
    theirs = provisioner(embedded, "apply", "--auto-approve")
    ours = provisioner(remote, "apply", "--auto-approve")
    before = requests_in(log)
    in_turn(1, ours, theirs)
    asked = requests_in(log) - before
    say("\napply, side by side 10", "over HTTP", "embedded", "ratio", "requests/second")
    what = f"{count:,} changes in {asked:,} requests"
    say(
        what,
        seconds(ours.time),
        seconds(theirs.time),
        ratio(ours.time, theirs.time),
        f"{asked / ours.time:,.0f}",
    )
    say("  peak memory", f"{ours.peak / 2**20:.0f} MiB", f"{theirs.peak / 2**20:.0f} MiB")
    say("  the service meanwhile", f"{service.peak / 2**20:.0f} MiB peak")


def parallel(work: Path, books: Path, milliseconds: int, users: int, wanted: int) -> None:
    """Compare one step at a time with ten at a time, when each response of the service is delayed."""
    sides: dict[int, Side] = {}
    count = 0
    for parallelism in (1, 10):
        portal = work / f"late-portal-{parallelism}"
        portal.mkdir()
        for book in BOOKS[:2]:
            if (books / book).exists():
                shutil.copy(books / book, portal / book)
        write_settings(portal)
        with (
            served(portal, work / f"late-{parallelism}.log") as service,
            delayed(service.url, milliseconds) as url,
        ):
            folder = workspace(work, f"late-{parallelism}", books, url, users)
            count = edit(folder, wanted, "Late")
            arguments = ("apply", "--auto-approve", "--parallelism", str(parallelism))
            sides[parallelism] = provisioner(folder, *arguments)
            sides[parallelism].run()
    one, ten = sides[1].time, sides[10].time
    say(f"\napply, each reply {milliseconds} ms late", "10 side by side", "one at a time", "times as fast")
    say(f"{count:,} changes, among {users:,} users", seconds(ten), seconds(one), f"{one / ten:.2f} x")


def planners(remote: Path, service: Service, log: Path, users: int) -> None:
    """Compare eight plans at the same time with eight times the duration of a single plan."""
    alone = provisioner(remote, "plan")
    alone.run()
    before = requests_in(log)
    began = time.perf_counter()
    commands = [[PROVISIONER, "-C", str(remote), "plan"] for _ in range(PLANNERS)]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    codes = [process.wait() for process in running]
    took = time.perf_counter() - began
    if any(codes):
        sys.exit(f"planners ended with {codes}")
    asked = requests_in(log) - before
    say(f"\n{PLANNERS} plans at once", "all of them", f"{PLANNERS} x one alone", "ratio", "requests/second")
    say(
        f"{users:,} users each", seconds(took), seconds(PLANNERS * alone.time),
        ratio(took, PLANNERS * alone.time), f"{asked / took:,.0f}",
    )  # fmt: skip
    say("  the service meanwhile", f"{service.peak / 2**20:.0f} MiB peak")


def main() -> None:
    """Read the options and run all comparisons."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.network", description=__doc__)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--changes", type=int, default=5_000)
    parser.add_argument("--times", type=int, default=5, help="runs of a plan (the median is shown)")
    parser.add_argument("--delay", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.delay:
        asyncio.run(_delay(*options.delay))
        return
    compiled()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, medians")
    with tempfile.TemporaryDirectory(prefix="provisioner-bench-") as name:
        work = Path(name)
        books = work / "books"
        books.mkdir()
        write_manifests(books, options.users)
        write_settings(books)
        provisioner(books, "apply", "--auto-approve").run()
        embedded = workspace(work, "embedded", books, "sqlite:///portal.db", options.users)
        portal = workspace(work, "portal", books, "sqlite:///portal.db", options.users)
        log = work / "service.log"
        with served(portal, log) as service:
            remote = workspace(work, "remote", books, service.url, options.users)
            plans(embedded, remote, service, options.users, options.times)
            planners(remote, service, log, options.users)
            changes(embedded, remote, service, log, options.changes)
        few = min(options.users, 2_000)
        small = work / "small"
        small.mkdir()
        write_manifests(small, few)
        write_settings(small)
        provisioner(small, "apply", "--auto-approve").run()
        parallel(work, small, 20, few, min(few, 400))


if __name__ == "__main__":
    main()
