"""Delivery of the outbox: each owed letter is sent once, or parked until a person decides what to do.

A run sets an ``owed`` letter to ``connecting``, and to ``body`` before it sends the body. Then the letter is

    sent      if the mail server accepted the letter
    owed      if the server refused the letter temporarily (4xx), or there was no connection
    failed    if the server refused the letter permanently (5xx)
    unknown   if the connection was lost between the DATA command and the server's answer

A letter is sent to the present address of its account, because the address may have changed after the plan
was made. A *claim* is the portal's record of the run that sends a letter. A letter that another ledger has
claimed is parked as *failed*. A letter that a copy of this ledger has claimed is recorded as *sent* if the
copy has recorded on the portal that the letter was sent, and is parked as *unknown* otherwise. Activation
links are requested just before a letter is sent; neither plans nor the ledger contain activation links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from provisioner.errors import MailError, ProvisionerError
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.outbox import OutboxEntry, OutboxState
from provisioner.limits import MAX_TEMPLATE_BYTES
from provisioner.mail.delivery import Delivery, DeliveryState, Message, Record, Transport
from provisioner.mail.message import Letter, TemplateRenderer, compose, render
from provisioner.mail.transport import TransportOptions, open_transport
from provisioner.model import Status, User, email_key
from provisioner.planning.plan import Plan
from provisioner.portal import SENT, Portal
from provisioner.workspace.files import read_texts, resource_folder
from provisioner.workspace.secrets import secret_of
from provisioner.workspace.settings import Workspace

CLAIM = 1_000
"""The maximum number of letters whose claims and links are requested from the portal at once."""

CUT_OFF = "the program was stopped while the mail server was taking it"
"""The reason for an unknown letter whose run was interrupted."""

RESTORED = "the ledger was restored from a backup, and the letter may have been sent since then"
"""The reason recorded for an unknown letter that a restored ledger owed, on a portal without claims."""

COPIED = (
    "another copy of this ledger, or this one before it was restored, had it in hand and may have sent it"
)
"""The reason recorded for an unknown letter: a run of a copy of this ledger has claimed the letter."""

TEMPLATE_SUFFIX = ".j2"

LetterProgress = Callable[[int], AbstractContextManager[Callable[[Delivery, str], None]]]
"""A function that takes the number of letters and returns a context manager. The context manager yields a
callback, which is called for each letter with the delivery and the recipient."""


@dataclass(frozen=True, slots=True)
class SenderProfile:
    """The sender of the letters, and the templates of the letters."""

    address: str
    """The sender's address with the display name: ``Cabinet Durand <acces@durand-associes.fr>``."""
    reply_to: str
    templates: TemplateRenderer
    log_in: str = ""
    """The URL where users log in. Letters contain this URL if the portal makes no activation links."""

    @property
    def envelope(self) -> str:
        """The sender's address without the display name, for the SMTP command MAIL FROM."""
        return self.address.rpartition("<")[2].rstrip(">").strip()


@dataclass(slots=True)
class DeliveryReport:
    """The result of one delivery run."""

    sent: int = 0
    """The number of letters that this run has sent."""
    trouble: list[Delivery] = field(default_factory=list)
    """The deliveries of letters that were not sent."""
    problem: MailError | None = None
    """The error that stopped the delivery; None if all letters were tried."""


@contextmanager
def load_sender(workspace: Workspace) -> Iterator[SenderProfile]:
    """Yield the sender. A template of the workspace replaces the program's template of the same name.

    If the workspace has its own templates, a second process renders all templates in the ``with`` block.
    """
    shipped = resource_folder("templates")
    sources = read_texts(shipped / "mail", TEMPLATE_SUFFIX, MAX_TEMPLATE_BYTES, within=shipped)
    folder = workspace.root / "templates" / "mail"
    own = read_texts(folder, TEMPLATE_SUFFIX, MAX_TEMPLATE_BYTES, within=workspace.root)
    templates: TemplateRenderer
    if own.items() <= sources.items():
        from provisioner.mail.template_sandbox import Templates

        templates = Templates(sources)
    else:
        from provisioner.mail.template_worker import WorkerTemplates

        templates = WorkerTemplates(sources | own)
    mail = workspace.settings.mail
    with closing(templates):
        yield SenderProfile(mail.sender, mail.reply_to, templates, workspace.settings.portal.public_url)


def open_mail_transport(workspace: Workspace) -> Transport:
    """Return the mail transport that the settings name, with the mail password of the workspace.

    Raises :class:`MailError` if no driver has the scheme, or if the password or a certificate is missing.
    """
    mail = workspace.settings.mail
    password = secret_of(
        workspace.root, mail.password_env, mail.password_file, what="the mail password", error=MailError
    )
    return open_transport(
        mail.transport,
        TransportOptions(
            workspace.root, mail.username, password, mail.tls, mail.ca_file, mail.connections, mail.timeout
        ),
    )


def preview_letters(plan: Plan, now: datetime) -> Iterator[Letter]:
    """Yield the plan's letters, dated ``now``, for a preview. The keys of the letters are placeholders."""
    for letter in plan.letters:
        yield Letter("0" * 64, letter.recipient, letter.language, letter.context, now)


def check_templates(letters: Iterable[Letter], sender: SenderProfile) -> None:
    """Compose, but do not send, one letter for each template and language, to find broken templates early.

    Raises :class:`MailError` for a broken template.
    """
    for letter in {(letter.template, letter.language): letter for letter in letters}.values():
        write(letter, "https://example.com/", sender)


def write(letter: Letter, link: str, sender: SenderProfile, *, linkless: bool = False) -> bytes:
    """Return the e-mail as bytes, with the activation ``link`` or, if ``linkless``, with the log-in URL."""
    rendered = render(letter, link, sender.templates, sender.log_in if linkless else None)
    return compose(letter, rendered, sender=sender.address, reply_to=sender.reply_to)


def recover_outbox(ledger: Ledger, portal: Portal, *, resend_unknown: bool) -> list[Delivery]:
    """Settle the letters of an interrupted run. Return a delivery for each letter that becomes unknown.

    With ``resend_unknown``, all unknown letters become owed, except those already sent a second time.
    A letter that becomes owed has no delivery in the result.
    """
    close_claims(ledger, portal)
    parked = [(entry, CUT_OFF) for entry in ledger.outbox.reset_interrupted()]
    parked += [(entry, RESTORED) for entry in _park_restored(ledger, portal)]
    if resend_unknown:
        for entry in ledger.outbox.letters(OutboxState.UNKNOWN):
            if not entry.resent:
                ledger.outbox.resend(entry.letter.key)
        parked = [(entry, reason) for entry, reason in parked if entry.resent]
    return [
        Delivery(
            entry.letter.key,
            DeliveryState.UNKNOWN,
            f"{entry.letter.recipient}: {reason}; "
            f"to decide: provisioner mail settle {entry.user} --sent, or --resend",
        )
        for entry, reason in parked
    ]


def will_send(ledger: Ledger, *, resend_unknown: bool) -> bool:
    """Return True if the outbox has a letter that is sent after :func:`recover_outbox`."""
    if ledger.outbox.letters(OutboxState.OWED, OutboxState.CONNECTING):
        return True
    unknown = ledger.outbox.letters(OutboxState.BODY, OutboxState.UNKNOWN) if resend_unknown else ()
    return any(not entry.resent for entry in unknown)


def _park_restored(ledger: Ledger, portal: Portal) -> list[OutboxEntry]:
    """Park the owed letters of a restored ledger, if the portal does not know which letters were sent since.

    Letters that a person decided to send again stay owed.
    """
    if portal.capabilities().claims or not ledger.snapshot().backup:
        return []
    owed = [entry for entry in ledger.outbox.letters(OutboxState.OWED) if not entry.resent]
    keys = [entry.letter.key for entry in owed]
    ledger.outbox.begin_delivery(keys)
    ledger.outbox.mark(keys, OutboxState.UNKNOWN, RESTORED)
    return owed


def close_claims(ledger: Ledger, portal: Portal) -> None:
    """Record on the portal which letters were sent, so that no copy of this ledger sends them again."""
    if sent := ledger.outbox.sent_claims():
        portal.claim(SENT, sent)
        ledger.outbox.end_claims(sent)


def _claimed_elsewhere(entry: OutboxEntry, holder: str) -> Delivery:
    # holder is a run of a copy of this ledger, or SENT, or "" if another ledger holds the claim
    key, recipient = entry.letter.key, entry.letter.recipient
    if holder == SENT:
        return Delivery(key, DeliveryState.SENT, "another copy of this ledger sent it")
    if holder:
        return Delivery(
            key,
            DeliveryState.UNKNOWN,
            f"{recipient}: {COPIED}; to decide: provisioner mail settle {entry.user} --sent, or --resend",
        )
    return Delivery(
        key,
        DeliveryState.FAILED,
        f"{recipient}: another workspace, with a ledger of its own, sends this e-mail; "
        f"should it not: provisioner mail send {entry.user} --again",
    )


def _cannot_log_in(entry: OutboxEntry) -> Delivery:
    return Delivery(
        entry.letter.key,
        DeliveryState.FAILED,
        f"{entry.letter.recipient}: the account is closed, or waits for validation; "
        f"once it is open: provisioner mail send {entry.user}",
    )


def _sent_elsewhere(entry: OutboxEntry, account: User) -> Delivery:
    return Delivery(
        entry.letter.key,
        DeliveryState.UNKNOWN,
        f"{entry.letter.recipient}: whether it arrived there is not known, and {account.email} is the "
        f"account's address now; to send it there: provisioner mail settle {entry.user} --sent, "
        f"and then provisioner mail send {account.email} --again",
    )


def _ready(
    claimed: Sequence[OutboxEntry], links: Mapping[str, str], portal: Portal, ledger: Ledger, record: Record
) -> list[OutboxEntry]:
    """Return the letters that can be sent, with the accounts' present addresses. Park the other letters."""
    accounts = portal.users(list(links))
    ready, moved, parked = list[OutboxEntry](), list[Letter](), list[Delivery]()
    for entry in claimed:
        account, letter = accounts.get(entry.user_id), entry.letter
        # an account without a link has a password already, or cannot log in
        if not links[entry.user_id] and (account is None or account.status is not Status.ACTIVE):
            parked.append(_cannot_log_in(entry))
        elif account is None or email_key(account.email) == email_key(letter.recipient):
            ready.append(entry)
        elif entry.resent:
            parked.append(_sent_elsewhere(entry, account))
        else:
            there = {**letter.context, "email": account.email}
            moved.append(replace(letter, recipient=account.email, context=there))
            ready.append(entry._replace(letter=moved[-1]))
    if parked:
        record((), parked)
    if moved:
        ledger.outbox.readdress(moved)
    return ready


def deliver(
    workspace: Workspace,
    ledger: Ledger,
    portal: Portal,
    sender: SenderProfile,
    owed: Sequence[OutboxEntry],
    progress: LetterProgress,
    stop: Callable[[], bool],
) -> DeliveryReport:
    """Send the letters in ``owed``, record the state of each one in the outbox, and return the result.

    ``progress`` reports each delivery to the user. Once ``stop`` returns True, no other letter is begun.
    """
    outcome = DeliveryReport()
    if not owed:
        return outcome
    recipients = {entry.letter.key: entry.letter.recipient for entry in owed}

    def record(bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
        ledger.outbox.record(
            [
                *((key, OutboxState.BODY, "") for key in bodies),
                *((delivery.key, OutboxState(delivery.state), delivery.detail) for delivery in deliveries),
            ]
        )
        report(deliveries)

    def report(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.state is not DeliveryState.SENT:
                outcome.trouble.append(delivery)
            elif not delivery.detail:
                outcome.sent += 1
            on_letter(delivery, recipients[delivery.key])

    def messages() -> Iterator[Message]:
        for message in _messages(owed, ledger, portal, sender, record, report):
            recipients[message.key] = message.recipient
            yield message

    with progress(len(owed)) as on_letter:
        try:
            open_mail_transport(workspace).deliver(messages(), record=record, stop=stop)
        except MailError as problem:
            # the steps on the portal stay applied, and the letters stay owed
            outcome.problem = problem
        finally:
            ledger.outbox.release_claims()
        # an error here is harmless: the letters are sent, and the next run records that on the portal
        with suppress(ProvisionerError):
            close_claims(ledger, portal)
    return outcome


def _messages(
    owed: Sequence[OutboxEntry],
    ledger: Ledger,
    portal: Portal,
    sender: SenderProfile,
    record: Record,
    report: Callable[[Sequence[Delivery]], None],
) -> Iterator[Message]:
    linkless = not portal.capabilities().activation_links
    for start in range(0, len(owed), CLAIM):
        wanted = owed[start : start + CLAIM]
        ledger.outbox.begin_delivery([entry.letter.key for entry in wanted])
        holders = portal.claim(ledger.outbox.claimant, {entry.letter.key: entry.claims for entry in wanted})
        claimed = [entry for entry in wanted if holders[entry.letter.key] == ledger.outbox.claimant]
        refused = [
            _claimed_elsewhere(entry, holders[entry.letter.key])
            for entry in wanted
            if holders[entry.letter.key] != ledger.outbox.claimant
        ]
        ledger.outbox.record_claims(
            holders,
            [
                (key, OutboxState(state), COPIED if state is DeliveryState.UNKNOWN else detail)
                for key, state, detail in refused
            ],
        )
        report(refused)
        links = portal.activation_links([entry.user_id for entry in claimed])
        for entry in _ready(claimed, links, portal, ledger, record):
            key, recipient = entry.letter.key, entry.letter.recipient
            try:
                content = write(entry.letter, links[entry.user_id], sender, linkless=linkless)
            except MailError as problem:
                record((), [Delivery(key, DeliveryState.FAILED, problem.sentence)])
            else:
                yield Message(key, sender.envelope, recipient, content)
