"""Measures whole processes, and prints one line of the table for each comparison.

The sides of a comparison run in turn, because a busy machine then slows down all of them. A figure of time is
the median of the elapsed times. For plans, the figure is the minimum of the processor time (user and system)
instead, because other work on the machine can only increase it. Peak memory is that of the child process
(``ru_maxrss``). A ratio is the figure of the program divided by the figure of the other side, so that a
smaller ratio is always better.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
PROVISIONER = str(Path(sys.executable).parent / "provisioner")


@dataclass(slots=True)
class Side:
    """One side of a comparison: a command and the measurements of its runs."""

    command: Sequence[str]
    prepare: Callable[[], object] = lambda: None
    """The function that is called before each run. Its time is not measured."""
    elapsed: list[float] = field(default_factory=list)
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
            self.elapsed.append(time.perf_counter() - began)
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
        return median(self.elapsed)

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


def in_turn(times: int, *sides: Side) -> None:
    """Run all sides one after the other, ``times`` times."""
    for _ in range(times):
        for side in sides:
            side.run()


def compile_all() -> None:
    """Compile the program and its libraries to bytecode, as an installation does.

    The compiler runs in its own process, because the peak memory of this process would be counted as that of
    each child that it starts.
    """
    import sysconfig

    import provisioner as package

    folders = [str(Path(package.__file__).parent), sysconfig.get_path("purelib")]
    # some libraries ship files for other versions of Python, which do not compile
    subprocess.run([sys.executable, "-m", "compileall", "-qq", *folders], check=False)


def seconds(value: float) -> str:
    """Return a time as text, for example ``0.512 s``."""
    return f"{value:.3f} s"


def megabytes(value: float) -> str:
    """Return a number of bytes as text, for example ``62.3 MB``."""
    return f"{value / 1e6:.1f} MB"


@dataclass(slots=True)
class Table:
    """The table of all comparisons. Prints each line as soon as it is measured."""

    missed: list[str] = field(default_factory=list)
    """The comparisons whose ratio is above its bound."""

    def head(self) -> None:
        """Print the names of the columns."""
        _line("", "provisioner", "other side", "", "ratio", "at most")

    def row(
        self,
        what: str,
        ours: float,
        theirs: float,
        other: str,
        *,
        bound: float | None = None,
        unit: Callable[[float], str] = seconds,
    ) -> None:
        """Print one comparison. ``other`` says what the other side is, ``bound`` is the largest ratio."""
        ratio = ours / theirs
        limit = "" if bound is None else f"{bound:.2f}"
        if bound is not None and ratio > bound:
            self.missed.append(what)
            limit += " missed"
        _line(what, unit(ours), unit(theirs), other, f"{ratio:.2f}", limit)


def _line(what: str, ours: str, theirs: str, other: str, ratio: str, bound: str) -> None:
    print(f"{what:<40}{ours:>12}{theirs:>12}  {other:<30}{ratio:>6}  {bound}".rstrip(), flush=True)
