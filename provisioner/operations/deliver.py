"""The outbox, emptied: each letter owed is sent once, or parked where a person decides.

    owed ─▶ connecting ─▶ body ─▶ sent
      ▲         │           ├──▶ failed     refused for good (5xx)
      └─────────┴───────────┤               refused for now, or no connection: owed again
                            └──▶ unknown    cut off between the body's first byte and the answer

It goes to where its reader has his mail by then: the address that it was written for may have been corrected.
A letter that another ledger sends is parked as *failed*: the portal knows whose it is, for ever. Where it is
a run of a copy of this ledger that has it, the letter is parked as *unknown* until the portal is told by that
run that it is sent, which it is then here as well.
Activation links are derived as a letter is written and stand in no file of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from provisioner.errors import MailError, ProvisionerError
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.outbox import OutboxEntry
from provisioner.ledger.outbox_state import OutboxState
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
"""How many letters are claimed, and given their links, in one commit each."""

COPIED = "another copy of this ledger had it in hand, and may have sent it"

TEMPLATE_SUFFIX = ".j2"

LetterProgress = Callable[[int], AbstractContextManager[Callable[[Delivery, str], None]]]
"""Entered with the number of letters; the callback takes each delivery and its recipient."""


@dataclass(frozen=True, slots=True)
class SenderProfile:
    """Whom the letters come from, and what they are made of."""

    address: str
    """With the display name: ``Cabinet Durand <acces@durand-associes.fr>``."""
    reply_to: str
    templates: TemplateRenderer
    log_in: str = ""
    """Where readers log in: told where the portal makes no links."""

    @property
    def envelope(self) -> str:
        """The bare address, for MAIL FROM."""
        return self.address.rpartition("<")[2].rstrip(">").strip()


@dataclass(slots=True)
class DeliveryReport:
    """What became of the letters of one run."""

    sent: int = 0
    trouble: list[Delivery] = field(default_factory=list)
    """Everything that is not sent, with its state and why."""
    problem: MailError | None = None
    """What stopped the whole delivery, if anything did."""


@contextmanager
def load_sender(workspace: Workspace) -> Iterator[SenderProfile]:
    """The sender, with the program's templates and the workspace's own, which replace those of the same name.

    A workspace's own templates are rendered in a second process, which ends with the block.
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
    mail = workspace.mail
    with closing(templates):
        yield SenderProfile(mail.sender, mail.reply_to, templates, workspace.portal.public_url)


def open_mail_transport(workspace: Workspace) -> Transport:
    """The transport of the settings; reads the password from where the workspace names it."""
    mail = workspace.mail
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
    """The plan's letters as they would be written, without a link."""
    for letter in plan.letters:
        yield Letter("0" * 64, letter.recipient, letter.language, letter.context, now)


def check_templates(letters: Iterable[Letter], sender: SenderProfile) -> None:
    """Write one letter a language without sending it: a broken template stops a run before its first write.

    Raises :class:`MailError`.
    """
    for letter in {(letter.template, letter.language): letter for letter in letters}.values():
        write(letter, "https://example.com/", sender)


def write(letter: Letter, link: str, sender: SenderProfile, *, linkless: bool = False) -> bytes:
    """The letter as it travels; ``linkless`` where the portal makes no links."""
    rendered = render(letter, link, sender.templates, sender.log_in if linkless else None)
    return compose(letter, rendered, sender=sender.address, reply_to=sender.reply_to)


def recover_outbox(ledger: Ledger, portal: Portal, *, resend_unknown: bool) -> list[Delivery]:
    """Settle what a killed run left; under ``on_unknown: resend`` owe each unknown letter once more.

    Returns the letters that are parked by this.
    """
    close_claims(ledger, portal)
    cut_off = ledger.outbox.reset_interrupted()
    if resend_unknown:
        for posted in ledger.outbox.letters(OutboxState.UNKNOWN):
            if not posted.resent:
                ledger.outbox.resend(posted.letter.key)
        cut_off = [posted for posted in cut_off if posted.resent]
    return [
        Delivery(
            posted.letter.key,
            DeliveryState.UNKNOWN,
            f"{posted.letter.recipient}: the program was stopped while the mail server was taking it; "
            f"to decide: provisioner mail settle {posted.user} --sent, or --resend",
        )
        for posted in cut_off
    ]


def close_claims(ledger: Ledger, portal: Portal) -> None:
    """Tell the portal which letters are gone: a copy of the ledger may know us as one of its own runs."""
    if sent := ledger.outbox.sent_claims():
        portal.claim(SENT, sent)
        ledger.outbox.end_claims(sent)


def _not_ours(posted: OutboxEntry, holder: str) -> Delivery:
    """What becomes of a letter that is with this holder, and not with us."""
    key, recipient = posted.letter.key, posted.letter.recipient
    if holder == SENT:
        return Delivery(key, DeliveryState.SENT, "another copy of this ledger sent it")
    if holder:
        return Delivery(
            key,
            DeliveryState.UNKNOWN,
            f"{recipient}: {COPIED}; to decide: provisioner mail settle {posted.user} --sent, or --resend",
        )
    return Delivery(
        key,
        DeliveryState.FAILED,
        f"{recipient}: another workspace, with a ledger of its own, sends this e-mail; "
        f"should it not: provisioner mail send {posted.user} --again",
    )


def _cannot_log_in(posted: OutboxEntry) -> Delivery:
    return Delivery(
        posted.letter.key,
        DeliveryState.FAILED,
        f"{posted.letter.recipient}: the account is closed, or waits for validation; "
        f"once it is open: provisioner mail send {posted.user}",
    )


def _gone_elsewhere(posted: OutboxEntry, account: User) -> Delivery:
    return Delivery(
        posted.letter.key,
        DeliveryState.UNKNOWN,
        f"{posted.letter.recipient}: whether it arrived there is not known, and {account.email} is the "
        f"account's address now; to send it there: provisioner mail settle {posted.user} --sent, "
        f"and then provisioner mail send {account.email} --again",
    )


def _ready(
    claimed: Sequence[OutboxEntry], links: Mapping[str, str], portal: Portal, ledger: Ledger, record: Record
) -> list[OutboxEntry]:
    """Those that may go, each to where its reader has his mail now; the others are parked."""
    accounts = portal.users(list(links))
    ready, moved, parked = list[OutboxEntry](), list[Letter](), list[Delivery]()
    for posted in claimed:
        account, letter = accounts.get(posted.user_id), posted.letter
        # without a link: who has his password already, and also whoever cannot log in
        if not links[posted.user_id] and (account is None or account.status is not Status.ACTIVE):
            parked.append(_cannot_log_in(posted))
        elif account is None or email_key(account.email) == email_key(letter.recipient):
            ready.append(posted)
        elif posted.resent:
            parked.append(_gone_elsewhere(posted, account))
        else:
            there = {**letter.context, "email": account.email}
            moved.append(replace(letter, recipient=account.email, context=there))
            ready.append(posted._replace(letter=moved[-1]))
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


def deliver_outbox(
    ledger: Ledger,
    portal: Portal,
    transport: Transport,
    sender: SenderProfile,
    owed: Sequence[OutboxEntry],
    *,
    stop: Callable[[], bool],
    on_letter: Callable[[Delivery, str], None],
) -> DeliveryReport:
    """Send these letters, which the outbox owes; each ends in a state of the outbox.

    ``on_letter`` is told what became of each, and the address that it went to.
    """
    tally = DeliveryReport()
    recipients = {posted.letter.key: posted.letter.recipient for posted in owed}

    def record(bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
        ledger.outbox.record(
            [
                *((key, OutboxState.BODY, "") for key in bodies),
                *((delivery.key, OutboxState(delivery.state), delivery.detail) for delivery in deliveries),
            ]
        )
        tell(deliveries)

    def tell(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.state is not DeliveryState.SENT:
                tally.trouble.append(delivery)
            elif not delivery.detail:
                tally.sent += 1
            on_letter(delivery, recipients[delivery.key])

    def messages() -> Iterator[Message]:
        for message in _messages(owed, ledger, portal, sender, record, tell):
            recipients[message.key] = message.recipient
            yield message

    try:
        transport.deliver(messages(), record=record, stop=stop)
    except MailError as problem:
        tally.problem = problem
    finally:
        ledger.outbox.release_claims()
    # the letters are gone all the same; the next run says it
    with suppress(ProvisionerError):
        close_claims(ledger, portal)
    return tally


def _messages(
    owed: Sequence[OutboxEntry],
    ledger: Ledger,
    portal: Portal,
    sender: SenderProfile,
    record: Record,
    tell: Callable[[Sequence[Delivery]], None],
) -> Iterator[Message]:
    linkless = not portal.capabilities().activation_links
    for start in range(0, len(owed), CLAIM):
        wanted = owed[start : start + CLAIM]
        ledger.outbox.begin_delivery([posted.letter.key for posted in wanted])
        holders = portal.claim(
            ledger.outbox.claimant, {posted.letter.key: posted.claims for posted in wanted}
        )
        claimed = [posted for posted in wanted if holders[posted.letter.key] == ledger.outbox.claimant]
        refused = [
            _not_ours(posted, holders[posted.letter.key])
            for posted in wanted
            if holders[posted.letter.key] != ledger.outbox.claimant
        ]
        ledger.outbox.record_claims(
            holders,
            [
                (key, OutboxState(state), COPIED if state is DeliveryState.UNKNOWN else detail)
                for key, state, detail in refused
            ],
        )
        tell(refused)
        links = portal.activation_links([posted.user_id for posted in claimed])
        for posted in _ready(claimed, links, portal, ledger, record):
            key, recipient = posted.letter.key, posted.letter.recipient
            try:
                content = write(posted.letter, links[posted.user_id], sender, linkless=linkless)
            except MailError as problem:
                record((), [Delivery(key, DeliveryState.FAILED, problem.sentence)])
            else:
                yield Message(key, sender.envelope, recipient, content)
