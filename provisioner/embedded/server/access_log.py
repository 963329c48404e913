"""The access log: one JSON line per request, without personal data.

No line contains an e-mail or IP address, a user id, a key or a token. Paths are logged as templates.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

MAX_QUEUED = 20_000
"""The maximum number of lines that wait to be written; further lines are dropped, and counted."""


class AccessLog:
    """An access log with its own thread for writing, because a slow stream must not delay requests."""

    def __init__(self, stream: TextIO, forget_failure: Callable[[], None] = lambda: None) -> None:
        """Start the thread that writes to ``stream``. Before each write, the thread calls ``forget_failure``,
        so that a stream whose last write failed is tried again.
        """
        self._stream = stream
        self._forget_failure = forget_failure
        self._queued: queue.Queue[str | None] = queue.Queue(MAX_QUEUED)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="access log", daemon=True)
        self._thread.start()

    def record(self, **fields: str | float) -> None:
        """Queue the log line of one request, with the current time and these fields."""
        line: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
        if self._dropped:
            line["dropped"] = self._dropped
        try:
            self._queued.put_nowait(json.dumps(line))
            self._dropped = 0
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write the queued lines and end the thread, or give up after three seconds."""
        try:
            self._queued.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(timeout=2)

    def _write(self) -> None:
        ended = False
        while not ended:
            lines = [self._queued.get()]
            while not self._queued.empty():
                lines.append(self._queued.get())
            ended = None in lines
            text = "".join(f"{line}\n" for line in lines if line is not None)
            # try again after an error, because the stream may work again while the service runs
            self._forget_failure()
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                # a full disk or a closed pipe: these lines are lost, but later lines are tried again
                continue
