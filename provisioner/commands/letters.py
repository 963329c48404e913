"""What ``apply`` and ``mail send`` say about letters: their progress, and those that were not sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from provisioner.diagnostics import count_of
from provisioner.errors import ProvisionerError
from provisioner.ledger.outbox import OutboxState, read_letters
from provisioner.mail.delivery import Delivery, DeliveryState
from provisioner.operations.deliver import DeliveryReport
from provisioner.operations.open import ledger_location
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.terminal.progress import progress
from provisioner.workspace.settings import Workspace

LISTED = 20
"""The maximum number of unsent letters listed at the end of a run; ``mail status`` lists all."""


@contextmanager
def letter_progress(console: Console, total: int) -> Iterator[Callable[[Delivery, str], None]]:
    """Show the progress of the letters; yield a callback that takes each delivery and its recipient.

    Letters that were not sent are left to :func:`say_trouble`, so that each is shown once.
    """
    sent = 0
    with progress(console, "Sending", total) as show:

        def on_letter(delivery: Delivery, address: str) -> None:
            nonlocal sent
            recipient = printable(address)
            if delivery.state is not DeliveryState.SENT:
                show("")
            elif delivery.detail:
                show(f"welcome e-mail to {recipient}: {delivery.detail}")
            else:
                sent += 1
                show(f"[{sent}/{total}] welcome e-mail to {recipient}: sent")

        yield on_letter


def say_trouble(console: Console, report: DeliveryReport) -> None:
    """Say what stopped the delivery, and list the letters that were not sent, each with the reason."""
    if report.problem is not None:
        console.say(f"\n{report.problem.sentence}\n  {report.problem.remedy}")
    for delivery in report.trouble[:LISTED]:
        console.say(f"  E-mail not sent ({delivery.state}): {printable(delivery.detail)}")
    if len(report.trouble) > LISTED:
        more = count_of(len(report.trouble) - LISTED, "more e-mail")
        console.say(f"  {more} not sent. To see them: provisioner mail status")


def say_parked(console: Console, workspace: Workspace, *states: OutboxState) -> None:
    """Say how many letters are in ``states`` (by default *unknown*), and how to decide what became of them.

    Says nothing if there is none, or if the ledger cannot be read.
    """
    parked = []
    with suppress(ProvisionerError):
        parked = read_letters(ledger_location(workspace), *(states or (OutboxState.UNKNOWN,)))
    if parked:
        it, is_, each = ("it", "is", "") if len(parked) == 1 else ("they", "are", " for each")
        console.say(
            f"\n{count_of(len(parked), 'welcome e-mail')} {is_} parked: whether {it} arrived is not known.\n"
            "  To see: provisioner mail status\n"
            f"  To decide{each}: provisioner mail settle USER --sent, or --resend"
        )


@contextmanager
def parked_at_ctrl_c(console: Console, workspace: Workspace) -> Iterator[None]:
    """If Ctrl-C ends the block at once, say which letters the mail server was taking meanwhile."""
    try:
        yield
    except KeyboardInterrupt:
        # the next run, or mail settle, changes "body" to "unknown"
        say_parked(console, workspace, OutboxState.UNKNOWN, OutboxState.BODY)
        raise
