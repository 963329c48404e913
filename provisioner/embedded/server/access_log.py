"""The access log: one JSON line a request, without personal data.

What a line may say is a fixed set of fields. The route's template stands for the path, so no address,
id, key or token gets there.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

MOST_WAITING = 20_000
"""Lines that wait for a slow reader; further ones are counted instead."""


class AccessLog:
    """Lines, written by a thread of their own: a reader who does not read stops nobody."""

    def __init__(self, stream: TextIO, forget_failure: Callable[[], None] = lambda: None) -> None:
        """``forget_failure`` lets a stream that failed once be written to again."""
        self._stream = stream
        self._forget_failure = forget_failure
        self._waiting: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="access log", daemon=True)
        self._thread.start()

    def tell(
        self, *, method: str, endpoint: str, path: str, status: int, ms: float, client: str, bytes: int
    ) -> None:
        """One request and its answer."""
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": method,
            "endpoint": endpoint,
            "path": path,
            "status": status,
            "ms": round(ms, 1),
            "client": client,
            "bytes": bytes,
        }
        if self._dropped:
            line["dropped"] = self._dropped
        try:
            self._waiting.put_nowait(json.dumps(line))
            self._dropped = 0
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, for a moment at most."""
        try:
            self._waiting.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(timeout=2)

    def _write(self) -> None:
        ended = False
        while not ended:
            lines = [self._waiting.get()]
            while not self._waiting.empty():
                lines.append(self._waiting.get())
            ended = None in lines
            text = "".join(f"{line}\n" for line in lines if line is not None)
            # what failed once may work again, and a service lives long
            self._forget_failure()
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                # a full disk, or nobody who reads: these lines are gone, and the log goes on once it can
                continue
