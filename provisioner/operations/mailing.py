"""Letters on their way: the workspace's sender, templates and transport, and the outbox emptied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from provisioner.errors import MailError
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.outbox import OutboxEntry
from provisioner.limits import MAX_TEMPLATE_BYTES
from provisioner.mail.delivery import Delivery, DeliveryState, Transport
from provisioner.mail.message import Letter, Templates
from provisioner.mail.transport import open_transport
from provisioner.operations.deliver import DeliveryReport, SenderProfile, deliver_outbox
from provisioner.planning.plan import Plan
from provisioner.portal import Portal
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.terminal.progress import progress
from provisioner.workspace.files import read_texts, resource_folder
from provisioner.workspace.secrets import secret_of
from provisioner.workspace.settings import Workspace

TEMPLATE_SUFFIX = ".j2"


def load_sender(workspace: Workspace) -> SenderProfile:
    """Who writes, and with which templates: the workspace's own override the program's."""
    shipped = resource_folder("templates")
    sources = read_texts(shipped / "mail", TEMPLATE_SUFFIX, MAX_TEMPLATE_BYTES, within=shipped)
    own = workspace.root / "templates" / "mail"
    sources |= read_texts(own, TEMPLATE_SUFFIX, MAX_TEMPLATE_BYTES, within=workspace.root)
    return SenderProfile(
        workspace.mail.sender, workspace.mail.reply_to, Templates(sources), workspace.public_url
    )


def open_mail_transport(workspace: Workspace) -> Transport:
    """How letters travel; secrets are read from where the workspace names them."""
    mail = workspace.mail
    return open_transport(
        mail.transport,
        root=workspace.root,
        username=mail.username,
        password=secret_of(
            workspace.root, mail.password_env, mail.password_file, what="the mail password", error=MailError
        ),
        tls=mail.tls,
        ca_file=mail.ca_file,
        connections=mail.connections,
        timeout=mail.timeout,
    )


def preview_letters(plan: Plan, now: datetime) -> Iterator[Letter]:
    """The plan's letters as they would be written, without a link."""
    for letter in plan.letters:
        yield Letter("0" * 64, letter.recipient, letter.language, letter.context, now)


def deliver(
    workspace: Workspace,
    ledger: Ledger,
    portal: Portal,
    sender: SenderProfile,
    owed: Sequence[OutboxEntry],
    console: Console,
    stop: Callable[[], bool],
) -> DeliveryReport:
    """Send these letters, which the outbox owes, telling each one's fate."""
    if not owed:
        return DeliveryReport()
    sent = 0

    with progress(console, "Sending", len(owed)) as shown:

        def on_letter(delivery: Delivery, address: str) -> None:
            nonlocal sent
            recipient = printable(address)
            if delivery.state is DeliveryState.SENT and delivery.detail:
                shown.tell(f"welcome e-mail to {recipient}: {delivery.detail}")
            elif delivery.state is DeliveryState.SENT:
                sent += 1
                shown.tell(f"[{sent}/{len(owed)}] welcome e-mail to {recipient}: sent")
            else:
                line = f"welcome e-mail to {recipient}: {delivery.state} ({printable(delivery.detail)})"
                shown.tell(line, good=False)

        try:
            transport = open_mail_transport(workspace)
        except MailError as problem:
            # what was done for the letters stays done, and they stay owed
            return DeliveryReport(problem=problem)
        return deliver_outbox(ledger, portal, transport, sender, owed, stop=stop, on_letter=on_letter)
