"""Standard streams whose failure does not stop the work.

The reader of an answer may leave (``| head``), the disk that it goes to may be full, and a stream may be
closed (``>&-``). None of this may stop a run in the middle of its writes to the portal.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Literal, TextIO, cast


class ResilientStream(io.FileIO):
    """A descriptor that keeps its first failure in ``problem`` and drops what is written after it."""

    problem: OSError | None = None

    def write(self, data: object, /) -> int:
        """The size of the data, also if it could not be written."""
        content = memoryview(data)  # type: ignore[arg-type]
        if self.problem is None:
            try:
                while (written := super().write(content)) is None:
                    # the descriptor was made non-blocking elsewhere, so the wait is here
                    select.select((), (self,), ())
                return written
            except OSError as problem:
                self.problem = problem
        return content.nbytes


def install_resilient_streams() -> ResilientStream | None:
    """Replace the standard streams by resilient ones; returns that of stdout, None if stdout is closed."""
    if sys.stdin is None:
        sys.stdin = _null_stream("r")
    out, err = _resilient(sys.stdout), _resilient(sys.stderr)
    sys.stdout, sys.stderr = _text(out, sys.stdout), _text(err, sys.stderr)
    return out


def forget_failure(stream: TextIO) -> None:
    """Let a resilient stream be written to again after a failure; leaves any other stream alone."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    if isinstance(raw, ResilientStream):
        raw.problem = None


def _resilient(stream: TextIO | None) -> ResilientStream | None:
    return None if stream is None else ResilientStream(stream.fileno(), "w", closefd=False)


def _text(raw: ResilientStream | None, stream: TextIO | None) -> TextIO:
    if raw is None or stream is None:
        return _null_stream("w")
    stream.flush()
    before = cast(io.TextIOWrapper, stream)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        before.encoding,
        before.errors,
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )


def _null_stream(mode: Literal["r", "w"]) -> TextIO:
    # it also occupies the closed descriptor, so that no file opened later gets its number
    return open(os.devnull, mode, encoding="utf-8")
