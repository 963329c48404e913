"""A folder in the maildir format; a letter's file is named by its key, so a second finds the first.

    written into tmp/  ─▶  on the disk  ─▶  renamed into new/  ─▶  the names on the disk  ─▶  recorded

Letters pass each stage a batch at a time. Wherever a run ends, a letter is owed still, or it is
there under its own name, or both: then the next run finds it there and records it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice, takewhile
from pathlib import Path

from provisioner.errors import MailError
from provisioner.mail.delivery import Delivery, DeliveryState, Message, Record

BATCH = 1_000
"""Letters that reach the disk together: one wait for a thousand, instead of one for each."""


class Maildir:
    """Letters become files, for their owner's eyes only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def deliver(self, messages: Iterable[Message], *, record: Record, stop: Callable[[], bool]) -> None:
        """See :class:`~provisioner.mail.delivery.Transport`."""
        try:
            self._prepare()
            there = self._present()
        except OSError as problem:
            raise MailError(
                f"The maildir {self._path} cannot be used: {problem.strerror or problem}.",
                "Check the folder, its permissions and the space left; the letters stay owed.",
            ) from problem
        waiting = takewhile(lambda _: not stop(), messages)
        with ThreadPoolExecutor(1) as helper:
            under_way: Iterator[None] = iter(())
            # the next letters are composed while the disk takes the last ones
            while batch := list(islice(waiting, BATCH)):
                next(under_way, None)
                under_way = self._store(batch, there, record, helper)
                next(under_way)
            next(under_way, None)

    def _prepare(self) -> None:
        for folder in ("tmp", "new", "cur"):
            (self._path / folder).mkdir(mode=0o700, parents=True, exist_ok=True)

    def _present(self) -> set[str]:
        return {
            entry.name.partition(":")[0]
            for folder in ("new", "cur")
            for entry in os.scandir(self._path / folder)
        }

    def _store(
        self, batch: Sequence[Message], there: set[str], record: Record, helper: Executor
    ) -> Iterator[None]:
        """A batch, stage by stage, with a pause while it reaches the disk. Raises :class:`MailError` last.

        Letters that nothing is told of stay owed.
        """
        unfinished, box = str(self._path / "tmp"), str(self._path / "new")
        arrived = [message.key for message in batch if _name(message) in there]
        told: list[Delivery] = []
        trouble: OSError | None = None
        written: list[Message] = []
        try:
            with _opened(unfinished) as disk:
                for message in batch:
                    if _name(message) in there:
                        continue
                    try:
                        _write(f"{unfinished}/{_name(message)}", message.content)
                    except OSError as problem:
                        # whatever was written before is finished first
                        trouble = problem
                        told.append(_owed(message, problem))
                        break
                    written.append(message)
                files = [f"{unfinished}/{_name(message)}" for message in written]
                synced = helper.submit(_sync, disk, files) if files else None
                yield
                if synced is not None:
                    synced.result()
            for message in written:
                os.rename(f"{unfinished}/{_name(message)}", f"{box}/{_name(message)}")
            with _opened(box) as folder:
                os.fsync(folder)
        except OSError as problem:
            trouble = problem
            told += [_owed(message, problem) for message in written]
        else:
            arrived += [message.key for message in written]
            told += [Delivery(key, DeliveryState.SENT) for key in arrived]
        record((), told)
        if trouble is not None:
            raise MailError(
                f"The maildir {self._path} cannot be written: {trouble.strerror or trouble}.",
                "Mend it, then send what is owed: provisioner mail send",
            ) from trouble


def _name(message: Message) -> str:
    return f"{message.key}.provisioner"


def _owed(message: Message, problem: OSError) -> Delivery:
    return Delivery(message.key, DeliveryState.OWED, str(problem.strerror or problem))


def _write(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        left = content.replace(b"\r\n", b"\n")
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(disk: int, files: Sequence[str]) -> None:
    """Have these files on the disk; ``disk`` is a folder beside them, opened before they were written.

    Raises ``OSError``, also for a write that failed only when it got there.
    """
    import ctypes

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if os.name == "posix" else None
    if syncfs is None:
        for path in files:
            with _opened(path) as descriptor:
                os.fsync(descriptor)
    elif syncfs(disk):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
