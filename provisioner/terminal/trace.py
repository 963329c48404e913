"""The output of the trace: one line for each exchange, on stderr, in a file, or in both.

This module is imported only if the trace is requested, because it imports ``logging``.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from typing_extensions import override

from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.terminal.streams import ResilientStream
from provisioner.trace import LOGGER
from provisioner.workspace.files import open_to_append

HEADING = "# provisioner trace: time, kind, exchange -> result, duration, size\n"
"""The first line of a trace file. A file without this line is refused, because it is not a trace."""


@contextmanager
def tracing(console: Console, file: Path | None, *, verbose: bool) -> Iterator[None]:
    """Write the exchanges of the block on stderr if ``verbose``, and to ``file`` if it is not None.

    Raises :class:`WorkspaceError` before the block if ``file`` cannot be written. A failure to write later
    does not stop the block: a warning on stderr follows the block.
    """
    logger = logging.getLogger(LOGGER)
    with ExitStack() as stack:
        if verbose:
            stack.enter_context(_handler(logger, console.stderr))
        if file is not None:
            raw = ResilientStream(open_to_append(file, HEADING.encode()), "w")
            stack.callback(_warn_if_incomplete, console, file, raw)
            stream = stack.enter_context(
                io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace")
            )
            stack.enter_context(_handler(logger, stream))
        level, propagate = logger.level, logger.propagate
        logger.setLevel(logging.DEBUG)
        # the loggers of a program that imports provisioner do not repeat the lines
        logger.propagate = False
        try:
            yield
        finally:
            logger.setLevel(level)
            logger.propagate = propagate


@contextmanager
def _handler(logger: logging.Logger, stream: TextIO) -> Iterator[None]:
    handler = _Handler(stream)
    handler.setFormatter(_Formatter())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _warn_if_incomplete(console: Console, file: Path, raw: ResilientStream) -> None:
    if raw.problem is not None:
        console.say(f"The trace in {file} is incomplete: {raw.problem.strerror}.")


class _Handler(logging.StreamHandler[TextIO]):
    """A handler that drops a line that cannot be written, instead of printing a traceback."""

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _Formatter(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        kind = record.name.rpartition(".")[2]
        return printable(f"{moment.removesuffix('+00:00')}Z {kind} {record.getMessage()}")
