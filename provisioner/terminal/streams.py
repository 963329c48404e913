"""Standard streams that may fail without taking the work along.

Whoever reads the answer may leave (``| head``), the disk it goes to may be full, and there may be no
stream at all (``>&-``). None of that may stop a run in the middle of what it does to the portal.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Literal, TextIO, cast


class ResilientStream(io.FileIO):
    """A descriptor that remembers its first failure and drops what is written after it."""

    problem: OSError | None = None

    def write(self, data: object, /) -> int:
        """All of it counts as written, whether or not anybody got it."""
        content = memoryview(data)  # type: ignore[arg-type]
        if self.problem is None:
            try:
                while (written := super().write(content)) is None:
                    # somebody made it a stream that does not wait, so the waiting is done here
                    select.select((), (self,), ())
                return written
            except OSError as problem:
                self.problem = problem
        return content.nbytes


def install_resilient_streams() -> ResilientStream | None:
    """Put sturdy streams in the place of the standard ones; returns stdout's (None: there was none)."""
    if sys.stdin is None:
        sys.stdin = _nowhere("r")
    answer = _sturdy(sys.stdout)
    talk = _sturdy(sys.stderr)
    sys.stdout, sys.stderr = _text(answer, sys.stdout), _text(talk, sys.stderr)
    return answer


def _sturdy(stream: TextIO | None) -> ResilientStream | None:
    return None if stream is None else ResilientStream(stream.fileno(), "w", closefd=False)


def _text(raw: ResilientStream | None, stream: TextIO | None) -> TextIO:
    if raw is None or stream is None:
        return _nowhere("w")
    stream.flush()
    before = cast(io.TextIOWrapper, stream)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        before.encoding,
        before.errors,
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )


def _nowhere(mode: Literal["r", "w"]) -> TextIO:
    # it also takes the free number, which no file of ours then gets
    return open(os.devnull, mode, encoding="utf-8")
