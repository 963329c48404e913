"""The progress of long work: a line that counts on a terminal, elsewhere a line for each thing done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from provisioner.progress import ProgressCallback, ignore_progress
from provisioner.terminal.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

COUNT = "{task.description} {task.completed:,.0f} of {task.total:,.0f} ({task.percentage:.0f} %), time left"

QUIET_SECONDS = 0.5
"""Work that takes less gets no counting line, and does not load rich."""


@contextmanager
def progress(console: Console, label: str, total: int) -> Iterator[Callable[[str], None]]:
    """Progress of work with a line for each part: applying, mailing. The callback takes that line."""
    if not console.bar:
        yield console.say
        return
    with counting_line(console.stderr) as line:
        task = line.add_task(label, total=total)
        yield lambda _: line.advance(task)


@contextmanager
def counting(console: Console, label: str, quiet: float = QUIET_SECONDS) -> Iterator[ProgressCallback]:
    """Progress of work without lines: reading, planning. Shows nothing where there is no terminal."""
    if not console.bar:
        yield ignore_progress
        return
    begins = time.monotonic() + quiet
    line: Progress | None = None

    def report(done: int, total: int) -> None:
        nonlocal line
        if line is None and time.monotonic() >= begins:
            line = counting_line(console.stderr)
            line.add_task(label, completed=done, total=total)
            line.start()
        elif line is not None:
            line.update(line.task_ids[0], completed=done, total=total)

    try:
        yield report
    finally:
        if line is not None:
            line.stop()


def counting_line(
    stream: TextIO, width: int | None = None, clock: Callable[[], float] = time.monotonic
) -> Progress:
    """A line with the count, the percentage and the time left, which is removed at the end."""
    from rich.console import Console as Terminal
    from rich.progress import Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    return Progress(
        TextColumn(COUNT, table_column=Column(no_wrap=True, overflow="crop")),
        TimeRemainingColumn(),
        console=Terminal(file=stream, force_terminal=True, no_color=True, width=width),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        get_time=clock,
    )
