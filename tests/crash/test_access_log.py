"""The access log of the service while its reader is slow or its disk is full."""

from __future__ import annotations

import errno
import json
import os
import threading
from functools import partial
from io import BufferedWriter, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

from provisioner.embedded.server.access_log import AccessLog
from provisioner.terminal.streams import ResilientStream, forget_failure


def test_access_log_that_is_not_read_delays_no_request() -> None:
    reading, writing = os.pipe()
    read: list[str] = []
    with os.fdopen(writing, "w") as stuck:
        log = AccessLog(stuck)
        for number in range(50_000):
            log.record(
                method="GET", endpoint="users", path="/v1/users", status=200, ms=1.0, client="c", bytes=number
            )  # fmt: skip
        reader = threading.Thread(target=lambda: read.append(_all_of(reading)))
        reader.start()
        log.close()
    reader.join()
    lines = [json.loads(line) for line in read[0].splitlines()]
    assert 0 < len(lines) < 50_000


class _Disk(StringIO):
    """A stream to a disk that is full until ``room`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = threading.Event()
        self.room = threading.Event()

    def write(self, text: str) -> int:
        """Raise ENOSPC until ``room`` is set."""
        if not self.room.is_set():
            self.refused.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_access_log_continues_once_the_disk_has_room() -> None:
    disk = _Disk()
    log = AccessLog(disk)
    line: dict[str, Any] = {"method": "GET", "path": "/v1/users", "status": 200, "ms": 1.0, "client": "c"}
    log.record(endpoint="first", bytes=1, **line)
    assert disk.refused.wait(20)
    disk.room.set()
    log.record(endpoint="second", bytes=1, **line)
    log.close()
    assert json.loads(disk.getvalue())["endpoint"] == "second"


def test_access_log_continues_on_a_stream_that_failed_before(tmp_path: Path) -> None:
    raw = ResilientStream(tmp_path / "access.log", "w")
    raw.problem = OSError(errno.ENOSPC, "No space left on device")
    with TextIOWrapper(BufferedWriter(raw)) as stream:
        log = AccessLog(stream, partial(forget_failure, stream))
        log.record(
            method="GET", endpoint="users", path="/v1/users", status=200, ms=1.0, client="c", bytes=1
        )  # fmt: skip
        log.close()
    assert json.loads((tmp_path / "access.log").read_text())["endpoint"] == "users"


def _all_of(descriptor: int) -> str:
    with os.fdopen(descriptor) as stream:
        return stream.read()
