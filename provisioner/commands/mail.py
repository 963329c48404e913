"""``provisioner mail``: letters previewed, counted, sent and settled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from provisioner.commands.report import letter_progress
from provisioner.diagnostics import count_of
from provisioner.errors import Cancelled, Partial, UsageError
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.outbox import OutboxEntry, letter_key, read_letters
from provisioner.ledger.outbox_state import OutboxState
from provisioner.mail.delivery import Delivery
from provisioner.mail.message import Letter, render
from provisioner.model import Clock, Status, User, email_key
from provisioner.operations.deliver import (
    DeliveryReport,
    check_templates,
    deliver,
    load_sender,
    preview_letters,
    recover_outbox,
    write,
)
from provisioner.operations.open import ledger_location, read_declared, read_snapshot, utc_now
from provisioner.operations.saved_plan import read_plan
from provisioner.operations.session import writing_session
from provisioner.planning.diff import letter_context
from provisioner.portal import Portal
from provisioner.portals.registry import makes_links
from provisioner.render.sanitize import printable, printable_json
from provisioner.terminal.console import Console, interruptible
from provisioner.workspace.files import make_folder, write_private
from provisioner.workspace.settings import Workspace, load_workspace

PREVIEW_LINK = "https://example.com/activation-link-made-when-the-letter-is-sent"


def preview(
    folder: Path, subject: str, console: Console, *, out: Path | None = None, clock: Clock = utc_now
) -> int:
    """The letter of one user, or all letters of a saved plan: shown, or written as .eml and .html."""
    workspace = load_workspace(folder)
    with load_sender(workspace) as sender:
        letters = list(_letters_about(workspace, subject, clock))
        linkless = not makes_links(workspace.portal.url)
        link = "" if linkless else PREVIEW_LINK
        for letter in letters:
            rendered = render(letter, link, sender.templates, sender.log_in if linkless else None)
            if out is None:
                text = "\n".join(map(printable, rendered.text.splitlines()))
                console.answer(
                    f"To: {printable(letter.recipient)}\nSubject: {printable(rendered.subject)}\n\n{text}\n"
                )
            else:
                name = email_key(letter.recipient).replace("/", "_")
                make_folder(out)
                write_private(out / f"{name}.eml", write(letter, link, sender, linkless=linkless))
                write_private(out / f"{name}.html", rendered.html.encode())
                console.answer(f"{out / name}.eml\n{out / name}.html")
    if not letters:
        console.answer("No e-mail would be sent.")
    return 0


def status(folder: Path, console: Console, *, as_json: bool = False) -> int:
    """How far each letter got; 0 however that is."""
    letters = read_letters(ledger_location(load_workspace(folder)))
    if as_json:
        rows = [
            {
                "user": posted.user,
                "recipient": posted.letter.recipient,
                "state": posted.state,
                "attempts": posted.attempts,
                "changed": posted.changed,
                "detail": posted.detail,
            }
            for posted in letters
        ]
        console.answer(printable_json(rows))
        return 0
    counts: dict[OutboxState, int] = {}
    for posted in letters:
        counts[posted.state] = counts.get(posted.state, 0) + 1
        detail = f" ({printable(posted.detail)})" if posted.detail else ""
        console.answer(
            f"{posted.state:<10} {posted.changed}  "
            f"{printable(posted.letter.recipient)}{detail}{_advice(posted)}"
        )
    words = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    console.answer(words + "." if words else "No e-mail has been owed so far.")
    return 0


def send(
    folder: Path,
    user: str | None,
    console: Console,
    *,
    again: bool = False,
    lock_timeout: float = 0,
    clock: Clock = utc_now,
) -> int:
    """Send what is owed; for one user, also a welcome that was never owed."""
    workspace = load_workspace(folder)
    with (
        load_sender(workspace) as sender,
        writing_session(
            workspace,
            "mail send",
            on_wait=console.say,
            interruptible=partial(interruptible, console),
            lock_timeout=lock_timeout,
            clock=clock,
        ) as work,
    ):
        ledger, portal = work.ledger, work.portal
        # what this ledger owes is owed to accounts of its own portal
        ledger.bind_portal(_portal_id(portal))
        parked = recover_outbox(ledger, portal, resend_unknown=workspace.mail.on_unknown == "resend")
        only = None if user is None else _owed_to(workspace, user, ledger, portal, again, clock)
        owed = ledger.outbox.letters(OutboxState.OWED)
        check_templates((posted.letter for posted in owed), sender)
        if only is not None:
            owed = [posted for posted in owed if posted.letter.key == only]
        tally = deliver(workspace, ledger, portal, sender, owed, partial(letter_progress, console), work.stop)
    return _concluded(tally, parked, console, stopped=work.stop())


def _concluded(tally: DeliveryReport, parked: Sequence[Delivery], console: Console, *, stopped: bool) -> int:
    """Say what was sent and what was not; the exit code."""
    if tally.problem is not None:
        console.say(f"{tally.problem.sentence}\n  {tally.problem.remedy}")
    for delivery in parked:
        console.say(f"E-mail not sent ({delivery.state}): {printable(delivery.detail)}")
    if stopped:
        rest = console.invocation or "provisioner mail send"
        console.say(f"Stopped. To send the rest: {rest} (no e-mail goes out twice)")
    console.answer(f"{count_of(tally.sent, 'e-mail')} sent.")
    if stopped:
        return Cancelled.exit_code
    return Partial.exit_code if parked or tally.trouble or tally.problem else 0


def settle(
    folder: Path,
    user: str,
    console: Console,
    *,
    arrived: bool,
    lock_timeout: float = 0,
    clock: Clock = utc_now,
) -> int:
    """Decide what became of a letter whose fate is unknown: it arrived, or it is to go once more."""
    workspace = load_workspace(folder)
    with (
        closing(Ledger(ledger_location(workspace), clock)) as ledger,
        ledger.lock.hold("mail settle", lock_timeout, on_wait=console.say),
    ):
        ledger.outbox.reset_interrupted()
        found = [posted for posted in _letters_to(ledger, user) if posted.state is OutboxState.UNKNOWN]
        if not found:
            raise UsageError(
                f"No e-mail to {user} is in an unknown state.",
                "To see the e-mails: provisioner mail status",
            )
        for posted in found:
            if arrived:
                ledger.outbox.mark([posted.letter.key], OutboxState.SENT, "settled by hand")
            else:
                ledger.outbox.resend(posted.letter.key)
    word = "counts as sent" if arrived else "is owed once more; to send it: provisioner mail send"
    console.answer(f"The welcome e-mail to {printable(found[0].letter.recipient)} {word}")
    return 0


def _letters_to(ledger: Ledger, user: str) -> list[OutboxEntry]:
    """Those to the account that has this name, also under one that it had before; else to this address."""
    key = email_key(user)
    known = ledger.snapshot().managed.get(key)
    if known is not None:
        return [posted for posted in ledger.outbox.letters() if posted.user_id == known.id]
    return [
        posted
        for posted in ledger.outbox.letters()
        if key in (posted.user, email_key(posted.letter.recipient))
    ]


def _advice(posted: OutboxEntry) -> str:
    if posted.state is OutboxState.UNKNOWN:
        return f"\n           to decide: provisioner mail settle {posted.user} --sent, or --resend"
    return ""


def _letters_about(workspace: Workspace, subject: str, clock: Clock) -> Iterator[Letter]:
    if Path(subject).is_file():
        _, saved = read_plan(Path(subject))
        yield from preview_letters(saved.plan, clock())
        return
    declared, _ = read_declared(workspace)
    user = declared.users.get(email_key(subject))
    if user is None:
        raise UsageError(
            f"{subject} is neither a saved plan nor a user of the manifests.",
            "Give the e-mail of a declared user, or the file that provisioner plan --out wrote.",
        )
    company = declared.companies.get(user.billed)
    context = letter_context(user, company.name if company else user.billed, workspace.firm.name)
    yield Letter("0" * 64, user.email, user.language, context, clock())


def _owed_to(
    workspace: Workspace, user: str, ledger: Ledger, portal: Portal, again: bool, clock: Clock
) -> str:
    """The key of the letter owed to this user, which is put into the outbox. Raises :class:`UsageError`."""
    mine = _letters_to(ledger, user)
    waiting = next((posted for posted in mine if posted.state is OutboxState.OWED), None)
    if waiting is not None:
        return waiting.letter.key
    if any(posted.state is OutboxState.UNKNOWN for posted in mine):
        raise UsageError(
            f"Whether the welcome e-mail to {user} arrived is not known.",
            f"Decide first: provisioner mail settle {user} --sent, or --resend",
        )
    failed = next((posted for posted in mine if posted.state is OutboxState.FAILED), None)
    if failed is not None and not again:
        ledger.outbox.mark([failed.letter.key], OutboxState.OWED)
        return failed.letter.key
    sent = [posted for posted in mine if posted.state is OutboxState.SENT]
    if sent and not again:
        raise UsageError(
            f"{user} was sent a welcome e-mail already ({sent[-1].changed}).",
            f"To send another one: provisioner mail send {user} --again",
        )
    account = _account(ledger, portal, user)
    letter = _welcome_for(
        workspace,
        account,
        user,
        letter_key(_portal_id(portal), account.id, _generation(ledger, account.id)),
        clock,
    )
    ledger.outbox.enqueue(email_key(user), account.id, letter)
    return letter.key


def _generation(ledger: Ledger, user_id: str) -> int:
    """The number of this account's next letter, whatever name it goes by."""
    return 1 + sum(posted.user_id == user_id for posted in ledger.outbox.letters())


def _portal_id(portal: Portal) -> str:
    return portal.snapshot().portal


def _account(ledger: Ledger, portal: Portal, user: str) -> User:
    key = email_key(user)
    users = portal.snapshot().state.users
    managed = ledger.snapshot().managed.get(key)
    account = next((u for u in users.values() if managed and u.id == managed.id), None) or users.get(key)
    if account is None:
        raise UsageError(f"The portal has no account for {user}.", "To see what is planned: provisioner plan")
    if account.status is not Status.ACTIVE:
        state = "is closed" if account.status is Status.CLOSED else "waits for validation"
        raise UsageError(f"The account of {user} {state}, so it gets no welcome e-mail.", "provisioner plan")
    return account


def _welcome_for(workspace: Workspace, account: User, user: str, key: str, clock: Clock) -> Letter:
    declared, _ = read_declared(workspace)
    wanted = declared.users.get(email_key(user))
    company = declared.companies.get(account.billed)
    name = company.name if company else read_snapshot(workspace, clock).state.companies[account.billed].name
    language = wanted.language if wanted else workspace.firm.language
    context = letter_context(account, name, workspace.firm.name)
    return Letter(key, account.email, language, context, clock())
