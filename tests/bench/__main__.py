"""Compares the program with simple baselines, and prints the results side by side.

Whole processes are timed. The two sides run in turn, because a busy machine then slows down both. The report
shows medians. For plans, the report shows the minimum of the processor time (user and system), because other
work on the machine can only increase it. Peak memory is that of the child process (``ru_maxrss``). The
program itself fills the portal, because a plan without changes must be realistic.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .generate import write_manifests, write_settings

HERE = Path(__file__).resolve().parent
PROVISIONER = str(Path(sys.executable).parent / "provisioner")
PARTLY = 7


@dataclass(slots=True)
class Side:
    """One side of a comparison: a command and the measurements of its runs."""

    command: Sequence[str]
    prepare: Callable[[], object] = lambda: None
    """The function that is called before each run. Its time is not measured."""
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    def run(self, expected: int = 0) -> None:
        """Run the command once and measure it. An exit code other than ``expected`` ends the benchmark."""
        self.prepare()
        with tempfile.TemporaryFile() as output:
            began = time.perf_counter()
            child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            _, status, usage = os.wait4(child.pid, 0)
            self.seconds.append(time.perf_counter() - began)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode != expected:
                output.seek(0)
                sys.stdout.write(output.read().decode(errors="replace")[-3000:])
                sys.exit(f"{' '.join(self.command)} ended with {child.returncode}, not {expected}")
        self.processor.append(usage.ru_utime + usage.ru_stime)
        # kilobytes on Linux, bytes on macOS
        self.peaks.append(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))

    @property
    def time(self) -> float:
        """The median of the elapsed times in seconds."""
        return median(self.seconds)

    @property
    def processor_time(self) -> float:
        """The minimum of the processor times in seconds."""
        return min(self.processor)

    @property
    def peak(self) -> float:
        """The median of the peak memory in bytes."""
        return median(self.peaks)


def provisioner(folder: Path, *arguments: str, prepare: Callable[[], object] = lambda: None) -> Side:
    """Return the side that runs the program in the workspace ``folder``."""
    return Side([PROVISIONER, "-C", str(folder), *arguments], prepare)


def baseline(*arguments: str) -> Side:
    """Return the side that runs ``baselines.py`` with these arguments."""
    return Side([sys.executable, str(HERE / "baselines.py"), *arguments])


def compiled() -> None:
    """Compile the program and its libraries to bytecode, as an installation does."""
    import compileall
    import sysconfig

    import provisioner as package

    for folder in (str(Path(package.__file__).parent), sysconfig.get_path("purelib")):
        compileall.compile_dir(folder, quiet=2)


def in_turn(times: int, *sides: Side) -> None:
    """Run all sides one after the other, ``times`` times."""
    for _ in range(times):
        for side in sides:
            side.run()


def say(*columns: str) -> None:
    """Print one line of the report: a label, then the figures."""
    first, *rest = columns
    print(f"{first:<46}" + "".join(f"{column:>16}" for column in rest), flush=True)


def seconds(value: float) -> str:
    """Return a time as text, for example ``0.512 s``."""
    return f"{value:.3f} s"


def ratio(ours: float, theirs: float) -> str:
    """Return a ratio as text, for example ``1.42 x``."""
    return f"{ours / theirs:.2f} x"


def startup(times: int) -> None:
    """Compare ``--version`` and ``--help`` to the start of an empty Python program."""
    bare = Side([sys.executable, "-c", "pass"])
    version, help_ = Side([PROVISIONER, "--version"]), Side([PROVISIONER, "--help"])
    in_turn(times, bare, version, help_)
    say(f"\nstart-up ({times} runs)", "provisioner", "python -c pass", "ratio")
    for side in (version, help_):
        say(side.command[1], seconds(side.time), seconds(bare.time), ratio(side.time, bare.time))


def cold_plans(work: Path, sizes: Sequence[int], times: int) -> None:
    """Compare a plan without changes to the parsing of the same files, in time and memory."""
    print()
    say("cold plan without changes, processor time", "provisioner", "CSafeLoader", "ratio", "of a tenth")
    plans: dict[int, Side] = {}
    loads: dict[int, Side] = {}
    for users in sizes:
        files, plan, load = _plan_and_load(work, users)
        plans[users], loads[users] = plan, load
        in_turn(times if users < 100_000 else min(times, 3), plan, load)
        ours, theirs = plan.processor_time, load.processor_time
        tenth = plans.get(users // 10)
        growth = ratio(ours, tenth.processor_time) if tenth else ""
        say(
            f"{users:,} users in {files:,} files", seconds(ours), seconds(theirs), ratio(ours, theirs), growth
        )
    print()
    say("  peak memory", "provisioner", "CSafeLoader", "limit")
    for users, plan in plans.items():
        limit = MEMORY + users * MEMORY_A_USER
        say(f"{users:,} users", *(f"{it / 1e6:.0f} MB" for it in (plan.peak, loads[users].peak, limit)))


MEMORY, MEMORY_A_USER = 40_000_000, 4_000
"""The limit of a plan's peak memory in bytes: a fixed part, and a part for each user."""


def _plan_and_load(work: Path, users: int) -> tuple[int, Side, Side]:
    """Create a portal that matches the manifests. Return the number of files, the plan and its baseline."""
    folder = work / f"plan-{users}"
    folder.mkdir()
    files = write_manifests(folder, users)
    write_settings(folder)
    provisioner(folder, "apply", "--auto-approve").run()
    return (
        files,
        provisioner(folder, "plan", "--detailed-exitcode"),
        baseline("load", str(folder / "clients")),
    )


def creations(work: Path, users: int, times: int) -> None:
    """Compare an apply that creates all users (with and without letters) to a plan of the same changes."""
    print()
    say(f"apply of {users:,} creations", "apply", "plan alone", "ratio", "users a second")
    for welcome, what in (("none", "no letters"), ("ours", "a letter each, into a maildir")):
        plan_times, apply_times = [], []
        for turn in range(times):
            folder = work / f"apply-{welcome}-{turn}"
            folder.mkdir()
            write_manifests(folder, users)
            write_settings(folder, welcome=welcome)
            letters = active_users(folder) if welcome == "ours" else 0
            plan = provisioner(folder, "plan")
            apply = provisioner(folder, "apply", "--auto-approve")
            in_turn(1, plan, apply)
            _require_letters(folder, letters)
            plan_times.append(plan.time)
            apply_times.append(apply.time)
        ours, theirs = median(apply_times), median(plan_times)
        say(what, seconds(ours), seconds(theirs), ratio(ours, theirs), f"{users / ours:,.0f}")


def active_users(folder: Path) -> int:
    """Return the number of declared users that are activated immediately and therefore get a letter."""
    texts = [path.read_text(encoding="utf-8") for path in (folder / "clients").rglob("*.yaml")]
    return sum(text.count("- email:") - text.count("activation: later") for text in texts)


def _require_letters(folder: Path, expected: int) -> None:
    new = folder / "outbox" / "new"
    written = len(os.listdir(new)) if new.exists() else 0
    if written != expected:
        sys.exit(f"{written} letters in {new}, not {expected}")


def mails(work: Path, users: int) -> None:
    """Compare ``mail send`` to a baseline that sends letters without rendering or recording them."""
    folder = work / "mail"
    folder.mkdir()
    write_manifests(folder, users)
    letters = active_users(folder)
    # no server listens on this port, so that every letter stays owed
    write_settings(folder, welcome="ours", transport=f"smtp://127.0.0.1:{closed_port()}", mail=PLAIN)
    provisioner(folder, "plan", "--out", str(folder / "plan.json")).run()
    provisioner(folder, "mail", "preview", str(folder / "plan.json"), "--out", str(folder / "letters")).run()
    provisioner(folder, "apply", str(folder / "plan.json")).run(expected=PARTLY)
    print()
    say(f"{letters:,} letters to a local SMTP sink", "time", "letters/second", "ratio")
    settled = work / "mail-owed"
    settled.mkdir()
    books = ("ledger.db", "portal.db", "portal.db.key")
    for name in books:
        shutil.copy(folder / name, settled / name)

    def owed_again() -> None:
        for name in books:
            shutil.copy(settled / name, folder / name)

    with sink(expected=4 * letters) as port:
        write_settings(folder, welcome="ours", transport=f"smtp://127.0.0.1:{port}", mail=PLAIN)
        ours = provisioner(folder, "mail", "send", prepare=owed_again)
        alone = Side(
            [sys.executable, "-m", "tests.bench.one_a_connection", "-C", str(folder), "mail", "send"],
            owed_again,
        )
        one = baseline("send", str(port), str(folder / "letters"), "one")
        each = baseline("send", str(port), str(folder / "letters"), "each")
        in_turn(1, ours, alone, one, each)
    for name, side in (
        ("mail send: rendered, recorded, pooled", ours),
        ("mail send, one letter a connection", alone),
        ("bare aiosmtplib, one connection for all", one),
        ("bare aiosmtplib, one connection a letter", each),
    ):
        say(name, seconds(side.time), f"{letters / side.time:,.0f}", ratio(side.time, each.time))


PLAIN = "  tls: none\n"


def closed_port() -> int:
    """Return a local port on which no server listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def sink(expected: int) -> Iterator[int]:
    """Run a mail server in its own process, and yield its port.

    Ends the benchmark if the server did not accept exactly ``expected`` letters.
    """
    with subprocess.Popen(
        [sys.executable, str(HERE / "sink.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.stdin.close()
        taken = int(server.stdout.readline())
    if taken != expected:
        sys.exit(f"the sink took {taken} letters, not {expected}")


def main() -> None:
    """Read the options and run all comparisons."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--users", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000], help="sizes for the plan"
    )
    parser.add_argument("--times", type=int, default=5, help="runs a figure (the median is shown)")
    parser.add_argument("--quick", action="store_true", help="1,000 users, and little of everything")
    options = parser.parse_args()
    sizes, times = ([1_000], 3) if options.quick else (options.users, options.times)
    many = 1_000 if options.quick else 10_000
    compiled()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, medians")
    with tempfile.TemporaryDirectory(prefix="provisioner-bench-") as name:
        work = Path(name)
        startup(times * 4)
        cold_plans(work, sizes, times)
        creations(work, many, 1 if options.quick else min(times, 3))
        mails(work, 300 if options.quick else 10_000)


if __name__ == "__main__":
    main()
