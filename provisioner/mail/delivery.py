"""The interface of a transport: the messages that it sends and the deliveries that it reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """A letter that is ready to be sent. ``sender`` and ``recipient`` are addresses without a name."""

    key: str
    sender: str
    recipient: str
    content: bytes


class DeliveryState(StrEnum):
    """The state of a letter after an attempt to send it."""

    SENT = "sent"
    OWED = "owed"
    """The letter was not accepted, and it can safely be sent again."""
    FAILED = "failed"
    """The letter was permanently refused."""
    UNKNOWN = "unknown"
    """The connection was lost during the body, so it is unknown whether the server accepted the letter."""


class Delivery(NamedTuple):
    """The state of a letter after an attempt to send it, and the reason for that state."""

    key: str
    state: DeliveryState
    detail: str = ""


Record = Callable[[Sequence[str], Sequence[Delivery]], None]
"""A function that stores its two arguments in one transaction: the keys of letters whose bodies are about to
be sent, and the deliveries of other letters. A transport sends a body only after this function has returned.
Otherwise, if the run is killed while it sends the body, the next run would send the letter a second time."""


class Transport(Protocol):
    """A way to send or store letters, such as a mail server or a maildir."""

    def deliver(self, messages: Iterable[Message], *, record: Record, stop: Callable[[], bool]) -> None:
        """Deliver the messages, and report the delivery of each message with a call of ``record``.

        Before a transport sends a body, it reports the letter's key with ``record``. A maildir need not do
        this, because a maildir never stores a letter twice.
        Once ``stop`` returns True, the transport only completes the letters that it has begun.
        Raises :class:`~provisioner.errors.MailError` at the end for a problem that affects all letters: no
        connection, a refused password, an invalid certificate, or a full disk.
        """
        ...
