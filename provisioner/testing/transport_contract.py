"""The contract of transports: the promises of :class:`~provisioner.mail.delivery.Transport` as tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from provisioner.mail.delivery import Delivery, DeliveryState, Message, Transport

SENT = DeliveryState.SENT


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A transport and the letters that arrive through it."""

    transport: Transport
    arrived: Callable[[], Sequence[bytes]]
    """The function that returns the contents of all letters that have arrived so far."""
    repeatable: bool = False
    """True if a letter that is delivered again replaces itself, as in a maildir. The transport then need not
    record the bodies that it is about to send."""


@dataclass(frozen=True, slots=True)
class Records:
    """What a transport has recorded: the keys of bodies and the deliveries, in the order of the calls."""

    bodies: list[str] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)

    def record(self, bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
        """Store the arguments. The method is a :data:`~provisioner.mail.delivery.Record`."""
        self.bodies.extend(bodies)
        self.deliveries.extend(deliveries)

    @property
    def sent(self) -> list[str]:
        """The sorted keys of the letters that were sent."""
        return sorted(delivery.key for delivery in self.deliveries if delivery.state is SENT)


def letters(count: int) -> list[Message]:
    """Return letters whose bodies have lines that a mail protocol must escape."""
    return [
        Message(
            f"{number:064}",
            "acces@example.com",
            f"user{number}@example.fr",
            f"Subject: Letter {number}\r\n\r\nHello,\r\n.\r\n..dots\r\nFrom here\r\n".encode(),
        )
        for number in range(count)
    ]


def as_text(content: bytes) -> str:
    """Return the content of a letter with the line ends of Python."""
    return content.replace(b"\r\n", b"\n").decode("ascii")


class TransportContract:
    """The promises of a transport. A subclass whose name begins with ``Test`` tests one transport."""

    def make_mailbox(self, folder: Path) -> AbstractContextManager[Mailbox]:
        """Return a context manager that yields an empty mailbox. ``folder`` is a temporary folder."""
        raise NotImplementedError

    @pytest.fixture
    def mailbox(self, tmp_path: Path) -> Iterator[Mailbox]:
        """Return an empty mailbox."""
        with self.make_mailbox(tmp_path) as mailbox:
            yield mailbox

    def test_each_letter_arrives_once_and_unchanged(self, mailbox: Mailbox) -> None:
        records, sent = Records(), letters(30)
        mailbox.transport.deliver(iter(sent), record=records.record, stop=lambda: False)
        assert sorted(map(as_text, mailbox.arrived())) == sorted(as_text(letter.content) for letter in sent)
        assert records.sent == sorted(letter.key for letter in sent)
        assert len(records.deliveries) == len(sent)

    def test_no_body_leaves_before_it_is_recorded(self, mailbox: Mailbox) -> None:
        records, sent = Records(), letters(5)
        contents = {letter.key: as_text(letter.content) for letter in sent}

        def record(bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
            there = set(map(as_text, mailbox.arrived()))
            assert not [key for key in bodies if contents[key] in there]
            records.record(bodies, deliveries)

        mailbox.transport.deliver(sent, record=record, stop=lambda: False)
        assert records.sent == sorted(contents)
        if records.bodies or not mailbox.repeatable:
            assert sorted(records.bodies) == sorted(contents)

    def test_stopped_run_begins_no_letter(self, mailbox: Mailbox) -> None:
        records = Records()
        mailbox.transport.deliver(letters(3), record=records.record, stop=lambda: True)
        assert not mailbox.arrived()
        assert not records.bodies
        assert not records.sent

    def test_run_stopped_in_the_middle_completes_the_letters_it_has_begun(self, mailbox: Mailbox) -> None:
        records, offered = Records(), list[str]()

        def some() -> Iterator[Message]:
            for letter in letters(200):
                offered.append(letter.key)
                yield letter

        mailbox.transport.deliver(some(), record=records.record, stop=lambda: len(offered) >= 3)
        assert len(mailbox.arrived()) == len(records.sent) < 200
        assert set(records.bodies) <= {delivery.key for delivery in records.deliveries}

    def test_letter_that_is_delivered_again_replaces_itself(self, mailbox: Mailbox) -> None:
        if not mailbox.repeatable:
            return
        for _ in range(2):
            records = Records()
            mailbox.transport.deliver(letters(2), record=records.record, stop=lambda: False)
            assert len(records.sent) == len(mailbox.arrived()) == 2
