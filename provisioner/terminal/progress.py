"""Long work that people can watch: a line that counts on a terminal, a line for each thing done elsewhere.

The counting line is drawn over itself with a carriage return and blanks alone, so it has no escape code,
and it is taken away before anything else is said.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TextIO

from provisioner.terminal.console import Console

DRAW_SECONDS = 0.1
"""How often the counting line is drawn; lines told sooner are said with the next one, or at the end."""

QUIET_SECONDS = 0.5
"""Work that takes less is not worth a counting line."""

WINDOW_SECONDS = 10.0
"""The rate is that of the last seconds, so that the time left follows what happens now."""

WIDTH = 79
"""A line that fills the last column would wrap on some terminals."""


class Progress:
    """What is done of a whole, told as it grows."""

    def __init__(self, console: Console, label: str, total: int) -> None:
        self._console = console
        self._line = CountingLine(console.stderr, label) if console.bar else None
        self._total = total
        self._done = 0
        self._trouble = 0
        self._lines: list[str] = []
        self._told = 0.0
        if self._line is not None:
            self._line.draw(0, total)

    def tell(self, line: str, *, good: bool = True) -> None:
        """One thing more; ``line`` is what is said of it where lines are said."""
        self._done += 1
        self._trouble += not good
        if self._line is not None:
            self._line.draw(self._done, self._total, self._trouble)
            return
        self._lines.append(line)
        now = time.monotonic()
        if now - self._told >= DRAW_SECONDS:
            self._told = now
            self.close()

    def close(self) -> None:
        """Leave nothing unsaid, and no line half drawn."""
        if self._line is not None:
            self._line.clear()
        elif self._lines:
            self._console.say("\n".join(self._lines))
            self._lines.clear()


@contextmanager
def progress(console: Console, label: str, total: int) -> Iterator[Progress]:
    """Work whose every part is worth a line: applying, mailing."""
    with closing(Progress(console, label, total)) as shown:
        yield shown


@contextmanager
def counting(
    console: Console, label: str, quiet: float = QUIET_SECONDS
) -> Iterator[Callable[[int, int], None]]:
    """Work whose parts are worth no line: reading, planning; silent where there is no terminal.

    The function is told how many of how many are done.
    """
    if not console.bar:
        yield lambda done, total: None
        return
    line = CountingLine(console.stderr, label, quiet=quiet)
    try:
        yield line.draw
    finally:
        line.clear()


class CountingLine:
    """One line of a terminal, drawn over itself."""

    def __init__(
        self,
        stream: TextIO,
        label: str,
        *,
        quiet: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        width: int | None = None,
    ) -> None:
        self._stream = stream
        self._label = label
        self._clock = clock
        self._width = width
        self._began = clock()
        self._next = self._began + quiet
        self._seen: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._drawn = 0

    def draw(self, done: int, total: int, trouble: int = 0) -> None:
        """So many of so many are done; drawn now and then, and when all is done."""
        now = self._clock()
        if now < self._next and not (done >= total and self._drawn):
            return
        self._next = now + DRAW_SECONDS
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        # a rate from less than a second is a guess
        rate = (done - before) / (now - since) if now - since >= 1.0 else 0.0
        self._show(line_of(self._label, done, total, rate, trouble, self._room()))

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn:
            self._stream.write("\r" + " " * self._drawn + "\r")
            self._stream.flush()
            self._drawn = 0

    def _show(self, text: str) -> None:
        # blanks take away what was longer before
        self._stream.write("\r" + text.ljust(self._drawn))
        self._stream.flush()
        self._drawn = len(text)

    def _room(self) -> int:
        if self._width is not None:
            return self._width
        try:
            return max(20, min(WIDTH, os.get_terminal_size(self._stream.fileno()).columns - 1))
        except (OSError, ValueError):
            return WIDTH


def line_of(label: str, done: int, total: int, rate: float, trouble: int, width: int) -> str:
    """``Applying 1,234 of 13,638 (9 %), about 30 seconds left, 412 a second``, while there is room."""
    parts = [f"{label} {done:,} of {total:,}"]
    if total:
        parts[0] += f" ({100 * done // total} %)"
    if trouble:
        parts.append(f"{trouble:,} not done")
    if rate > 0 and done < total:
        parts.append(f"about {duration((total - done) / rate)} left")
        parts.append(f"{rate:,.0f} a second" if rate >= 1 else f"{rate * 60:,.0f} a minute")
    while len(parts) > 1 and len(", ".join(parts)) > width:
        parts.pop()
    return ", ".join(parts)[:width]


def duration(seconds: float) -> str:
    """A time in words, no finer than anybody wants to know."""
    if seconds < 90:
        whole = max(1, round(seconds))
        return f"{whole} second{'s' if whole > 1 else ''}"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} minutes"
    return f"{minutes // 60} h {minutes % 60:02} min"
