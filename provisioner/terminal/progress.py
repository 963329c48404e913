"""The progress of long work: one line with a count on a terminal, else one line for each finished part."""

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
"""The time in seconds before a counting line appears. Shorter work shows no line and does not import rich."""


@contextmanager
def progress(console: Console, label: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show the progress of work with ``total`` parts. Yields a function to call after each finished part.

    The function takes a text about the part. The text, unless it is empty, is shown if there is no progress
    line.
    """
    if not console.bar:
        yield lambda text: console.say(text) if text else None
        return
    with counting_line(console.stderr) as line:
        task = line.add_task(label, total=total)
        yield lambda _: line.advance(task)


@contextmanager
def counting(console: Console, label: str, quiet: float = QUIET_SECONDS) -> Iterator[ProgressCallback]:
    """Show how many parts of the work are finished, for example when files are read.

    Yields a callback, which takes the number of finished parts and the total. The line appears only on a
    terminal, and only after ``quiet`` seconds.
    """
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
    """Return a progress line that shows count, percentage and time left, and is erased at the end."""
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
