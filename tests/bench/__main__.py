"""Both sides of every comparison, measured in one run and printed side by side.

Whole processes are timed, in turn, so that a busy machine slows both sides; medians are shown.
Peak memory is the child's own (``ru_maxrss``). The portal is filled by the program itself, so that a plan
without changes is a real one.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
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
    """One command, measured again and again."""

    command: Sequence[str]
    seconds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    def run(self, expected: int = 0) -> None:
        """Once more; an unexpected exit code ends the benchmark."""
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
        # kilobytes on Linux, bytes on macOS
        self.peaks.append(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))

    @property
    def time(self) -> float:
        """The median, in seconds."""
        return median(self.seconds)

    @property
    def peak(self) -> float:
        """The median, in bytes."""
        return median(self.peaks)


def provisioner(folder: Path, *arguments: str) -> Side:
    """Our side."""
    return Side([PROVISIONER, "-C", str(folder), *arguments])


def baseline(*arguments: str) -> Side:
    """The other side."""
    return Side([sys.executable, str(HERE / "baselines.py"), *arguments])


def in_turn(times: int, *sides: Side) -> None:
    """Each side once, and again."""
    for _ in range(times):
        for side in sides:
            side.run()


def say(*columns: str) -> None:
    """One line of the report: what, then figures."""
    first, *rest = columns
    print(f"{first:<46}" + "".join(f"{column:>16}" for column in rest), flush=True)


def seconds(value: float) -> str:
    """``0.512 s``."""
    return f"{value:.3f} s"


def ratio(ours: float, theirs: float) -> str:
    """``1.42 x``."""
    return f"{ours / theirs:.2f} x"


def startup(times: int) -> float:
    """``--version`` and ``--help`` beside an empty Python; returns the peak of ``--version`` in bytes."""
    bare = Side([sys.executable, "-c", "pass"])
    version, help_ = Side([PROVISIONER, "--version"]), Side([PROVISIONER, "--help"])
    in_turn(times, bare, version, help_)
    say(f"\nstart-up ({times} runs)", "provisioner", "python -c pass", "ratio")
    for side in (version, help_):
        say(side.command[1], seconds(side.time), seconds(bare.time), ratio(side.time, bare.time))
    return version.peak


def cold_plans(work: Path, sizes: Sequence[int], times: int, idle: float) -> None:
    """A plan without changes, beside the bare reading of the same files."""
    print()
    say(
        "cold plan without changes",
        "provisioner",
        "CSafeLoader",
        "ratio",
        "peak",
        "peak a user",
        "its peak a user",
    )
    for users in sizes:
        folder = work / f"plan-{users}"
        folder.mkdir()
        files = write_manifests(folder, users)
        write_settings(folder)
        provisioner(folder, "apply", "--auto-approve").run()
        plan = provisioner(folder, "plan", "--detailed-exitcode")
        load = baseline("load", str(folder / "clients"))
        in_turn(times if users < 100_000 else min(times, 3), plan, load)
        say(
            f"{users:,} users in {files:,} files",
            seconds(plan.time),
            seconds(load.time),
            ratio(plan.time, load.time),
            f"{plan.peak / 2**20:.0f} MiB",
            f"{(plan.peak - idle) / users / 1024:.1f} KiB",
            f"{(load.peak - idle) / users / 1024:.1f} KiB",
        )


def creations(work: Path, users: int, times: int) -> None:
    """Everybody created, with the ledger and a letter each, beside the plan of the same."""
    print()
    say("apply of creations, with letters", "apply", "plan alone", "ratio", "users a second")
    apply_times, plan_times = [], []
    for turn in range(times):
        folder = work / f"apply-{turn}"
        folder.mkdir()
        write_manifests(folder, users)
        write_settings(folder, welcome="ours")
        plan, apply = provisioner(folder, "plan"), provisioner(folder, "apply", "--auto-approve")
        in_turn(1, plan, apply)
        letters = len(os.listdir(folder / "outbox" / "new"))
        assert letters == users, f"{letters} letters for {users} users"
        plan_times.append(plan.time)
        apply_times.append(apply.time)
    ours, theirs = median(apply_times), median(plan_times)
    say(f"{users:,} users", seconds(ours), seconds(theirs), ratio(ours, theirs), f"{users / ours:,.0f}")


def mails(work: Path, users: int) -> None:
    """Letters rendered, recorded and sent, beside letters that only have to be sent."""
    folder = work / "mail"
    folder.mkdir()
    write_manifests(folder, users)
    # nobody listens there, so that every letter stays owed
    write_settings(folder, welcome="ours", transport=f"smtp://127.0.0.1:{closed_port()}", mail=PLAIN)
    provisioner(folder, "plan", "--out", str(folder / "plan.json")).run()
    provisioner(folder, "mail", "preview", str(folder / "plan.json"), "--out", str(folder / "letters")).run()
    provisioner(folder, "apply", str(folder / "plan.json")).run(expected=PARTLY)
    print()
    say(f"{users:,} letters to a local SMTP sink", "time", "letters/second", "ratio")
    with sink() as port:
        write_settings(folder, welcome="ours", transport=f"smtp://127.0.0.1:{port}", mail=PLAIN)
        ours = provisioner(folder, "mail", "send")
        ours.run()
        one = baseline("send", str(port), str(folder / "letters"), "one")
        each = baseline("send", str(port), str(folder / "letters"), "each")
        in_turn(1, one, each)
    for name, side in (
        ("mail send: rendered, recorded, 4 connections", ours),
        ("bare aiosmtplib, one connection for all", one),
        ("bare aiosmtplib, one connection a letter", each),
    ):
        say(name, seconds(side.time), f"{users / side.time:,.0f}", ratio(side.time, each.time))


PLAIN = "  tls: none\n"


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def sink() -> Iterator[int]:
    """A mail server in a process of its own; yields its port."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "sink.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--users", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="sizes for the plan"
    )
    parser.add_argument("--times", type=int, default=5, help="runs a figure (the median is shown)")
    parser.add_argument("--quick", action="store_true", help="1,000 users, and little of everything")
    options = parser.parse_args()
    sizes, times = ([1_000], 3) if options.quick else (options.users, options.times)
    many = 1_000 if options.quick else 10_000
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, medians")
    with tempfile.TemporaryDirectory(prefix="provisioner-bench-") as name:
        work = Path(name)
        idle = startup(times * 4)
        cold_plans(work, sizes, times, idle)
        creations(work, many, 1 if options.quick else min(times, 3))
        mails(work, 300 if options.quick else 2_000)


if __name__ == "__main__":
    main()
