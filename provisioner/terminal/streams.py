"""Standard streams whose failure does not stop the work.

The program that reads the output may end early (``| head``), the disk may be full, and a stream may be
closed (``>&-``). None of this may stop a run in the middle of its writes to the portal.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Literal, TextIO, cast


class ResilientStream(io.FileIO):
    """An output stream that ignores failures. After the first failure, all data written to it is dropped."""

    problem: OSError | None = None
    """The first failure; None if there was none."""

    def write(self, data: object, /) -> int:
        """Write ``data``, or drop it after a failure. Return the number of bytes written or dropped."""
        content = memoryview(data)  # type: ignore[arg-type]
        if self.problem is None:
            try:
                while (written := super().write(content)) is None:
                    # another process made the file descriptor non-blocking, so wait until it is writable
                    select.select((), (self,), ())
                return written
            except OSError as problem:
                self.problem = problem
        return content.nbytes


def install_resilient_streams() -> ResilientStream | None:
    """Make stdout and stderr resilient. Return the resilient stdout, or None if stdout was closed."""
    if sys.stdin is None:
        sys.stdin = _null_stream("r")
    out, err = _resilient(sys.stdout), _resilient(sys.stderr)
    sys.stdout, sys.stderr = _text(out, sys.stdout), _text(err, sys.stderr)
    return out


def forget_failure(stream: TextIO) -> None:
    """Let a resilient stream write again after a failure. Other streams are not changed."""
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
    # this also occupies the closed file descriptor, so no file opened later gets its number
    return open(os.devnull, mode, encoding="utf-8")
