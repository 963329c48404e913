"""The program on a pseudo-terminal: the text that it shows, and the keys that a test presses."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

CTRL_C = b"\x03"
"""The byte that the key Ctrl-C sends. The terminal converts it to SIGINT."""

COLUMNS = 80


class Shown(NamedTuple):
    """The exit code of a run and everything that was written to its terminal."""

    code: int
    text: str


def in_terminal(
    arguments: Sequence[str],
    *,
    keys: Sequence[tuple[str, bytes]] = (),
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], None] = lambda: None,
) -> Shown:
    """Run ``provisioner`` with these arguments in a separate process, on a terminal 80 columns wide.

    ``keys`` are pairs of a text and the bytes that are typed when the program has shown this text.
    ``prepare`` is called in the new process before the program.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid, master = pty.fork()
    if pid == 0:
        _child(arguments, environment or {}, prepare)
    text = ""
    seen = 0
    left = list(keys)
    # the end of the other side is EIO on Linux, and an empty read elsewhere
    with suppress(OSError):
        while data := os.read(master, 65536):
            text += data.decode(errors="replace")
            while left and (found := text.find(left[0][0], seen)) >= 0:
                seen = found + len(left[0][0])
                os.write(master, left.pop(0)[1])
    _, status = os.waitpid(pid, 0)
    os.close(master)
    assert not left, f"never shown: {left[0][0]!r}\n{text}"
    return Shown(os.waitstatus_to_exitcode(status), text)


CONTROL = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def screen(text: str) -> list[str]:
    """Return the lines that a terminal shows after this output, with rich's cursor movements applied."""
    lines, row, column = [""], 0, 0
    for number, letter, control, words in CONTROL.findall(text):
        if control == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif control == "\r":
            column = 0
        elif letter == "A":
            row -= int(number or 1)
        elif letter == "K":
            lines[row] = ""
        elif words:
            lines[row] = lines[row][:column].ljust(column) + words + lines[row][column + len(words) :]
            column += len(words)
        else:
            assert letter in "hlm", letter
    return lines


def _child(arguments: Sequence[str], environment: Mapping[str, str], prepare: Callable[[], None]) -> None:
    code = 99
    try:
        os.environ.update({"TERM": "xterm", **environment})
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 25, COLUMNS, 0, 0))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  # ends with the process
            for number, mode in enumerate("rww")
        )
        sys.argv = ["provisioner", *arguments]
        prepare()
        from provisioner.cli import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 99
    except BaseException as problem:  # noqa: BLE001  # the end of a process, not of a test
        os.write(2, f"Traceback: {problem!r}".encode())
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
        os._exit(code)
