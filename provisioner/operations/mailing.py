"""Letters on their way: the workspace's sender, templates and transport, and the outbox emptied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from provisioner.errors import MailError
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.outbox import OutboxEntry
from provisioner.limits import MAX_TEMPLATE_BYTES
from provisioner.mail.delivery import Delivery, Transport
from provisioner.mail.message import Letter, Templates
from provisioner.mail.transport import open_transport
from provisioner.operations.deliver import DeliveryReport, SenderProfile, deliver_outbox
from provisioner.planning.plan import Plan
from provisioner.portal import Portal
from provisioner.workspace.files import read_texts, resource_folder
from provisioner.workspace.secrets import secret_of
from provisioner.workspace.settings import Workspace

TEMPLATE_SUFFIX = ".j2"

LetterProgress = Callable[[int], AbstractContextManager[Callable[[Delivery, str], None]]]
"""Entered with the number of letters; the callback takes each delivery and its recipient."""


def load_sender(workspace: Workspace) -> SenderProfile:
    """Who writes, and with which templates: the workspace's own override the program's."""
    shipped = resource_folder("templates")
    sources = read_texts(shipped / "mail", TEMPLATE_SUFFIX, MAX_TEMPLATE_BYTES, within=shipped)
    own = workspace.root / "templates" / "mail"
    sources |= read_texts(own, TEMPLATE_SUFFIX, MAX_TEMPLATE_BYTES, within=workspace.root)
    return SenderProfile(
        workspace.mail.sender, workspace.mail.reply_to, Templates(sources), workspace.portal.public_url
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
    progress: LetterProgress,
    stop: Callable[[], bool],
) -> DeliveryReport:
    """Send these owed letters. ``progress`` is entered with their number; it takes each delivery."""
    if not owed:
        return DeliveryReport()
    with progress(len(owed)) as on_letter:
        try:
            transport = open_mail_transport(workspace)
        except MailError as problem:
            # the portal's steps stay done, and the letters stay owed
            return DeliveryReport(problem=problem)
        return deliver_outbox(ledger, portal, transport, sender, owed, stop=stop, on_letter=on_letter)
