"""The progress of long work: a line that counts on a terminal, elsewhere a line for each thing done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from provisioner.progress import ProgressCallback, ignore_progress
from provisioner.terminal.console import Console

if TYPE_CHECKING:
    from provisioner.terminal.counting_line import CountingLine

FLUSH_SECONDS = 0.1
"""Lines written in less time are written together."""

QUIET_SECONDS = 0.5
"""Work that takes less gets no counting line, and does not load rich."""


class Progress:
    """The parts of a whole, counted or listed as they are done."""

    def __init__(self, console: Console, label: str, total: int) -> None:
        self._console = console
        self._line = _counting_line(console, label) if console.bar else None
        self._total = total
        self._done = 0
        self._failed = 0
        self._lines: list[str] = []
        self._flushed = 0.0

    def begin(self) -> None:
        """Show that nothing is done yet."""
        if self._line is not None:
            self._line.draw(0, self._total)

    def advance(self, line: str, *, good: bool = True) -> None:
        """Count one part as done; ``line`` says how it ended, where lines are listed."""
        self._done += 1
        self._failed += not good
        if self._line is not None:
            self._line.draw(self._done, self._total, self._failed)
            return
        self._lines.append(line)
        now = time.monotonic()
        if now - self._flushed >= FLUSH_SECONDS:
            self._flushed = now
            self.close()

    def close(self) -> None:
        """Remove the counting line; write the lines that wait."""
        if self._line is not None:
            self._line.clear()
        elif self._lines:
            self._console.say("\n".join(self._lines))
            self._lines.clear()


@contextmanager
def progress(console: Console, label: str, total: int) -> Iterator[Progress]:
    """Work whose every part is worth a line: applying, mailing."""
    with closing(Progress(console, label, total)) as shown:
        # inside the block: an interruption removes the line, and rich shows the cursor again
        shown.begin()
        yield shown


@contextmanager
def counting(console: Console, label: str, quiet: float = QUIET_SECONDS) -> Iterator[ProgressCallback]:
    """Work whose parts are worth no line: reading, planning. Silent where there is no terminal."""
    if not console.bar:
        yield ignore_progress
        return
    begins = time.monotonic() + quiet
    line: CountingLine | None = None

    def report(done: int, total: int) -> None:
        nonlocal line
        if line is None and time.monotonic() >= begins:
            line = _counting_line(console, label)
        if line is not None:
            line.draw(done, total)

    try:
        yield report
    finally:
        if line is not None:
            line.clear()


def _counting_line(console: Console, label: str) -> CountingLine:
    from provisioner.terminal.counting_line import CountingLine

    return CountingLine(console.stderr, label)
