"""Stores letters in a maildir. Each file is named after the key of its letter, so no letter is stored twice.

    written into tmp/  ─▶  synced  ─▶  renamed into new/  ─▶  the folder synced  ─▶  recorded

Letters pass through these stages in batches. If a run is killed, a letter may be stored in the maildir but
still be ``owed`` in the outbox. The next run then records that letter as ``sent``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, takewhile
from pathlib import Path

from typing_extensions import override

from provisioner.errors import MailError
from provisioner.mail.delivery import Delivery, DeliveryState, Message, Record, Transport

BATCH = 1_000
"""The maximum number of letters that are synced to the disk together."""


class Maildir(Transport):
    """A transport that stores each letter in a file that only the file's owner can read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @override
    def deliver(self, messages: Iterable[Message], *, record: Record, stop: Callable[[], bool]) -> None:
        try:
            self._prepare()
            there = self._present()
        except OSError as problem:
            raise MailError(
                f"The maildir {self._path} cannot be used: {problem.strerror or problem}.",
                "Check the folder, its permissions and the space left; the letters stay owed.",
            ) from problem
        waiting = takewhile(lambda _: not stop(), messages)
        while batch := list(islice(waiting, BATCH)):
            self._store(batch, there, record)

    def _prepare(self) -> None:
        for folder in ("tmp", "new", "cur"):
            (self._path / folder).mkdir(mode=0o700, parents=True, exist_ok=True)

    def _present(self) -> set[str]:
        return {
            entry.name.partition(":")[0]
            for folder in ("new", "cur")
            for entry in os.scandir(self._path / folder)
        }

    def _store(self, batch: Sequence[Message], there: set[str], record: Record) -> None:
        # the set there has the names of all files that the maildir had at the beginning
        unfinished, box = str(self._path / "tmp"), str(self._path / "new")
        arrived = [message.key for message in batch if _name(message) in there]
        deliveries: list[Delivery] = []
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
                        # first complete the letters that are already written
                        trouble = problem
                        deliveries.append(_owed(message, problem))
                        break
                    written.append(message)
                if written:
                    _sync(disk, [f"{unfinished}/{_name(message)}" for message in written])
            for message in written:
                os.rename(f"{unfinished}/{_name(message)}", f"{box}/{_name(message)}")
            with _opened(box) as folder:
                os.fsync(folder)
        except OSError as problem:
            trouble = problem
            deliveries += [_owed(message, problem) for message in written]
        else:
            arrived += [message.key for message in written]
            deliveries += [Delivery(key, DeliveryState.SENT) for key in arrived]
        record((), deliveries)
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
    # disk, the folder's descriptor, was opened before the writes, so the sync also reports their errors
    import ctypes

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if os.name == "posix" else None
    if syncfs is None:
        for path in files:
            with _opened(path) as descriptor:
                os.fsync(descriptor)
    elif syncfs(disk):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
