"""The interface of a transport: the messages it takes and the deliveries it reports."""

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
    """The state of a letter after an attempt."""

    SENT = "sent"
    OWED = "owed"
    """Not accepted; safe to send again."""
    FAILED = "failed"
    """Refused for good."""
    UNKNOWN = "unknown"
    """Cut off while the server had the body: it may or may not have been accepted."""


class Delivery(NamedTuple):
    """The state of one letter after an attempt, and the reason."""

    key: str
    state: DeliveryState
    detail: str = ""


Record = Callable[[Sequence[str], Sequence[Delivery]], None]
"""Records in one commit the letters whose bodies are about to be sent, and the deliveries of others.

A transport sends these bodies only after this call has returned: a connection lost later is ambiguous.
"""


class Transport(Protocol):
    """Takes letters and records the delivery of each."""

    def deliver(self, messages: Iterable[Message], *, record: Record, stop: Callable[[], bool]) -> None:
        """Deliver the messages; records one delivery for each, alone or with others.

        A transport where delivering a letter twice leaves one records no bodies. Once ``stop`` returns true,
        the letters in hand are finished and no others are taken. Raises
        :class:`~provisioner.errors.MailError` at the end for what concerns all letters: no connection, a
        refused password, an invalid certificate, a full disk.
        """
        ...
