"""A line of a terminal that counts, drawn with rich and removed at the end. Imported on a terminal alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.text import Text
from typing_extensions import override

from provisioner.diagnostics import count_of

DRAW_SECONDS = 0.1
"""The least time between two drawings."""

RATE_SECONDS = 10.0
"""The rate is that of the last seconds, so that the time left follows what happens now."""


class CountingLine:
    """How much of a whole is done, and how long the rest will take."""

    def __init__(
        self,
        stream: TextIO,
        label: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        width: int | None = None,
    ) -> None:
        self._label = label
        self._clock = clock
        self._next = clock()
        self._task: TaskID | None = None
        self._progress = Progress(
            _Words(),
            console=Console(file=stream, force_terminal=True, no_color=True, width=width),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            speed_estimate_period=RATE_SECONDS,
            get_time=clock,
        )

    def draw(self, done: int, total: int, failed: int = 0) -> None:
        """Draw the line, unless it was drawn a moment ago and the work goes on."""
        now = self._clock()
        if now < self._next and done < total:
            return
        self._next = now + DRAW_SECONDS
        if self._task is None:
            self._task = self._progress.add_task(self._label, total=total, failed=failed)
            self._progress.start()
        self._progress.update(self._task, completed=done, total=total, failed=failed, refresh=True)

    def clear(self) -> None:
        """Remove the line."""
        if self._task is not None:
            self._progress.stop()


class _Words(ProgressColumn):
    """``Applying 1,234 of 13,638 (9 %), about 30 seconds left, 412 a second``."""

    @override
    def render(self, task: Task) -> Text:
        done, total = int(task.completed), int(task.total or 0)
        parts = [f"{task.description} {done:,} of {total:,}"]
        if total:
            parts[0] += f" ({100 * done // total} %)"
        if task.fields["failed"]:
            parts.append(f"{task.fields['failed']:,} not done")
        # the rate of less than a second is a guess
        rate = task.speed or 0.0
        if rate > 0 and done < total and (task.elapsed or 0.0) >= 1.0:
            parts.append(f"about {duration((total - done) / rate)} left")
            parts.append(f"{rate:,.0f} a second" if rate >= 1 else f"{rate * 60:,.0f} a minute")
        return Text(", ".join(parts), no_wrap=True, overflow="crop")


def duration(seconds: float) -> str:
    """A time in words: seconds below 90 seconds, minutes below 90 minutes, then hours and minutes."""
    if seconds < 90:
        return count_of(max(1, round(seconds)), "second")
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} minutes"
    return f"{minutes // 60} h {minutes % 60:02} min"
