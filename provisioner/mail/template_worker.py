"""Renders the templates of a workspace in a separate process with limited time, memory and output.

The worker limits its own memory and CPU time, if the system has such limits (Windows does not). The parent
limits the time and the size of each reply, and replaces a worker that exceeds these limits. Requests and
replies are JSON, each preceded by its length in four bytes. The worker ends when its standard input closes,
which also happens if the parent is killed. The worker has its own session, so Ctrl-C reaches only the parent.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from typing_extensions import override

from provisioner import limits
from provisioner.errors import MailError
from provisioner.mail.message import TemplateRenderer, too_much, within_bounds

MEMORY_BYTES = 512 * 1024 * 1024
"""The maximum size in bytes of the worker's address space. The interpreter uses almost 200 MB of this."""

_LENGTH = struct.Struct(">I")
_SOURCES_BYTES = 2**32 - 1
_REPLY_OVERHEAD = 64 * 1024
"""The maximum number of bytes that a reply contains in addition to the rendered text."""


class WorkerTemplates(TemplateRenderer):
    """A renderer that uses a worker process, which is started when the first letter is rendered."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources
        self._worker: subprocess.Popen[bytes] | None = None

    @override
    def render(self, name: str, context: Mapping[str, str]) -> str:
        try:
            worker = self._worker or self._start()
        except (OSError, EOFError) as problem:
            self.close()
            raise MailError(
                f"The mail template {name} cannot be rendered: no process for it starts: {problem}.",
                "Look at the limits of this machine; the letters stay owed: provisioner mail send",
            ) from problem
        timer = threading.Timer(limits.MAX_RENDER_SECONDS, worker.kill)
        timer.start()
        try:
            _send(worker.stdin, [name, dict(context)])
            # a character has at most four bytes in UTF-8, or six bytes as a JSON escape
            reply = _receive(worker.stdout, 6 * limits.MAX_RENDERED_CHARACTERS + _REPLY_OVERHEAD)
        except (OSError, EOFError, ValueError) as problem:
            self.close()
            raise too_much(name) from problem
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
        if "text" in reply:
            return within_bounds(name, reply["text"])
        raise MailError(reply["sentence"], reply["remedy"])

    @override
    def close(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            # wait until the worker has ended, and close the pipes
            with suppress(OSError):
                worker.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parent.parent.parent)
        main = f"import sys; sys.path.append({root!r}); from {__name__} import main; main()"
        # -P: Python must not import a module of the workspace instead of the program's own
        self._worker = subprocess.Popen(  # noqa: S603  # the interpreter and the code are constants
            [sys.executable, "-P", "-c", main],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _send(self._worker.stdin, dict(self._sources))
        _receive(self._worker.stdout, _REPLY_OVERHEAD)
        return self._worker


def main() -> None:
    """Read requests from standard input and write replies, until standard input is closed."""
    from provisioner.mail.template_sandbox import Templates

    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    _limit_memory()
    templates = Templates(_receive(requests, _SOURCES_BYTES))
    _send(replies, {})
    with suppress(EOFError, BrokenPipeError):
        while True:
            name, context = _receive(requests, _SOURCES_BYTES)
            _limit_processor_time()
            try:
                _send(replies, {"text": templates.render(name, context)})
            except MailError as problem:
                _send(replies, {"sentence": problem.sentence, "remedy": problem.remedy})


def _limit_memory() -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _limit_processor_time() -> None:
    """Limit the CPU time for one letter. This limit also stops a worker whose parent was killed."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        seconds = int(used.ru_utime + used.ru_stime + limits.MAX_RENDER_SECONDS) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))


def _send(stream: IO[bytes] | None, message: object) -> None:
    assert stream is not None
    content = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def _receive(stream: IO[bytes] | None, most: int) -> Any:
    """Read the next message. Raises ``EOFError`` at the end, ``ValueError`` for more than ``most`` bytes."""
    assert stream is not None
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    if length > most:
        raise ValueError(f"{length} bytes")
    return json.loads(_exactly(stream, length).decode("utf-8", "surrogatepass"))


def _exactly(stream: IO[bytes], length: int) -> bytes:
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return content
