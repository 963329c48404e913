"""The outbox, emptied: each letter owed is sent once, or parked where a person decides.

    owed ─▶ connecting ─▶ body ─▶ sent
      ▲         │           ├──▶ failed     refused for good (5xx)
      └─────────┴───────────┤               refused for now, or no connection: owed again
                            └──▶ unknown    cut off between the body's first byte and the answer

Activation links are derived as a letter is written and stand in no file of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from provisioner.errors import MailError
from provisioner.ledger import Ledger, Posted
from provisioner.mail.letters import Letter, Templates, compose, render
from provisioner.mail.transport import Delivery, DeliveryState, Message, Transport
from provisioner.portals.base import Portal

CLAIM = 100
"""How many letters are claimed in one commit, and settled in one where sending twice is harmless."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Whom the letters come from, and what they are made of."""

    address: str
    """With the display name: ``Cabinet Durand <acces@durand-associes.fr>``."""
    reply_to: str
    templates: Templates

    @property
    def envelope(self) -> str:
        """The bare address, for MAIL FROM."""
        return self.address.rpartition("<")[2].rstrip(">").strip()


@dataclass(slots=True)
class Tally:
    """What became of the letters of one run."""

    sent: int = 0
    trouble: list[Delivery] = field(default_factory=list)
    """Everything that is not sent, with its state and why."""
    problem: MailError | None = None
    """What stopped the whole delivery, if anything did."""


def rehearse(letters: Iterable[Letter], sender: Sender) -> None:
    """Write one letter a language without sending it: a broken template stops a run before its first write.

    Raises :class:`MailError`.
    """
    for letter in {(letter.template, letter.language): letter for letter in letters}.values():
        write(letter, "https://example.com/", sender)


def write(letter: Letter, link: str, sender: Sender) -> bytes:
    """The letter as it travels."""
    rendered = render(letter, link, sender.templates)
    return compose(letter, rendered, sender=sender.address, reply_to=sender.reply_to)


def prepare(ledger: Ledger, *, resend_unknown: bool) -> None:
    """Settle what a killed run left; under ``on_unknown: resend`` owe each unknown letter once more."""
    ledger.reset_interrupted()
    if resend_unknown:
        for posted in ledger.letters("unknown"):
            if not posted.resent:
                ledger.resend(posted.letter.key)


def send_owed(
    ledger: Ledger,
    portal: Portal,
    transport: Transport,
    sender: Sender,
    *,
    only: frozenset[str] | None = None,
    stop: Callable[[], bool],
    on_letter: Callable[[Delivery], None],
) -> Tally:
    """Send what the outbox owes (``only`` these keys, where given), each into a state of the outbox."""
    owed = [posted for posted in ledger.letters("owed") if only is None or posted.letter.key in only]
    tally = Tally()
    settled: list[str] = []

    def flush() -> None:
        if settled:
            ledger.mark(settled, "sent")
            settled.clear()

    def on_body(key: str) -> None:
        if not transport.repeatable:
            ledger.mark([key], "body")

    def on_delivery(delivery: Delivery) -> None:
        if delivery.state is DeliveryState.SENT:
            tally.sent += 1
            settled.append(delivery.key)
            if not transport.repeatable or len(settled) >= CLAIM:
                flush()
        else:
            tally.trouble.append(delivery)
            ledger.mark([delivery.key], str(delivery.state), delivery.detail)
        on_letter(delivery)

    try:
        transport.deliver(
            _messages(owed, ledger, portal, sender, on_delivery),
            on_body=on_body,
            on_delivery=on_delivery,
            stop=stop,
        )
    except MailError as problem:
        tally.problem = problem
    finally:
        flush()
        ledger.release_claims()
    return tally


def _messages(
    owed: list[Posted],
    ledger: Ledger,
    portal: Portal,
    sender: Sender,
    on_delivery: Callable[[Delivery], None],
) -> Iterator[Message]:
    for start in range(0, len(owed), CLAIM):
        claimed = owed[start : start + CLAIM]
        ledger.mark([posted.letter.key for posted in claimed], "connecting")
        for posted in claimed:
            key, recipient = posted.letter.key, posted.letter.recipient
            try:
                content = write(posted.letter, portal.activation_link(posted.user_id), sender)
            except MailError as problem:
                on_delivery(Delivery(key, DeliveryState.FAILED, problem.sentence))
            else:
                yield Message(key, sender.envelope, recipient, content)
