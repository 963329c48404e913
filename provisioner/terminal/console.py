"""The console of a command: the result goes to stdout, everything else to stderr; colour is optional."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, TextIO

from provisioner.errors import Cancelled
from provisioner.render.commands import in_folder
from provisioner.render.sanitize import printable_lines


@dataclass(frozen=True, slots=True)
class Console:
    """The output streams of a command, and the properties of the terminal."""

    stdout: TextIO
    stderr: TextIO
    colour: bool = False
    unicode: bool = True
    width: int = 80
    interactive: bool = False
    """True if the command can ask the user a question."""
    bar: bool = False
    """True if stderr is a terminal on which a progress line can be redrawn in place."""
    invocation: str = ""
    """The command line as the user typed it; the user runs it again to complete an interrupted run."""
    folder: str = ""
    """The folder given with ``-C``, quoted for the shell; "" if none was given."""

    def in_folder(self, text: str) -> str:
        """Return the text with the ``-C`` of this command line in each command that the text names."""
        return in_folder(text, self.folder)

    def answer(self, text: str) -> None:
        """Write the result of the command on stdout."""
        self.stdout.write(text if text.endswith("\n") else text + "\n")

    def say(self, text: str) -> None:
        """Write a progress message or a warning on stderr. Escape unprintable characters; add ``-C``."""
        self.say_rendered(printable_lines(self.in_folder(text)))

    def say_rendered(self, text: str) -> None:
        """Write a text, which may have colours, on stderr. Unprintable characters must be escaped already."""
        self.stderr.write(text if text.endswith("\n") else text + "\n")
        self.stderr.flush()

    def confirm(self, question: str) -> bool:
        """Ask ``question`` and return True if the answer is ``yes``. Raises :class:`Cancelled` at Ctrl-C."""
        self.stdout.flush()
        try:
            # the question is written inside the try block, because Ctrl-C may arrive as soon as it is shown
            self.stderr.write(f"{question} Only 'yes' is accepted: ")
            self.stderr.flush()
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            raise Cancelled("\nStopped; nothing was written.", f"To finish: {self.invocation}") from None
        if not answer:
            # after Ctrl-D the cursor is still on the line of the question
            self.say("")
        return answer.strip() == "yes"


def system_console(
    *, no_color: bool = False, verbose: bool = False, invocation: str = "", folder: str = ""
) -> Console:
    """Return the console of this process.

    ``no_color``, NO_COLOR, TERM=dumb and a piped stdout turn off colour. CI, a piped stdin and a piped stdout
    turn off questions. ``verbose``, CI, TERM=dumb and a piped stderr turn off the progress line.
    """
    environment = os.environ
    terminal = sys.stdout.isatty()
    plain = no_color or bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
    can_ask = terminal and sys.stdin is not None and sys.stdin.isatty() and not environment.get("CI")
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            # a character that the terminal cannot show is escaped instead of ending the run
            reconfigure(errors="backslashreplace")
    return Console(
        sys.stdout,
        sys.stderr,
        colour=terminal and not plain,
        unicode=encoding.startswith("utf"),
        width=_width(environment, terminal),
        interactive=can_ask,
        bar=not (verbose or environment.get("TERM") == "dumb" or environment.get("CI"))
        and sys.stderr.isatty(),
        invocation=invocation,
        folder=folder,
    )


def _width(environment: Mapping[str, str], terminal: bool) -> int:
    if not terminal and not environment.get("COLUMNS"):
        return 80
    from shutil import get_terminal_size

    return max(40, min(get_terminal_size().columns, 200))


@contextmanager
def interruptible(console: Console) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True after the first Ctrl-C or SIGTERM. The first signal does not stop
    the block, but is reported on stderr. The second signal raises KeyboardInterrupt.
    In a thread other than the main thread, the function always returns False, and signals act as usual.
    """
    import signal
    import threading

    wanted = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: wanted
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal wanted
        if wanted:
            signal.default_int_handler(number, frame)
        wanted = True
        # written directly to the file descriptor, because the signal may interrupt a write of the stream
        with suppress(OSError, ValueError):
            os.write(console.stderr.fileno(), b"\nStopping after the step in hand ...\n")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: wanted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
