"""What a transport takes, and what it tells of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """A letter ready to travel; ``sender`` and ``recipient`` are bare addresses."""

    key: str
    sender: str
    recipient: str
    content: bytes


class DeliveryState(StrEnum):
    """Where a letter stands after an attempt."""

    SENT = "sent"
    OWED = "owed"
    """Not accepted, or never asked: safe to try again."""
    FAILED = "failed"
    """Refused for good."""
    UNKNOWN = "unknown"
    """Cut off while the server had the body: it may or may not have been accepted."""


class Delivery(NamedTuple):
    """What became of one letter, and why."""

    key: str
    state: DeliveryState
    detail: str = ""


Record = Callable[[Sequence[str], Sequence[Delivery]], None]
"""Writes down, in one commit, whose bodies are about to leave, and what became of others.

It has returned before the first byte of any of these bodies leaves: from then on nobody can tell.
"""


class Transport(Protocol):
    """Takes letters and tells each one's fate."""

    def deliver(self, messages: Iterable[Message], *, record: Record, stop: Callable[[], bool]) -> None:
        """Deliver; each message has one delivery, recorded with others or alone.

        A transport where delivering a letter twice leaves one records no bodies. When ``stop`` says so the
        letters in hand are finished and no more are taken. Raises :class:`~provisioner.errors.MailError` at
        the end when something concerns them all: no connection, a refused password, a certificate that does
        not hold, a full disk.
        """
        ...
