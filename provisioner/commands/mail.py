"""``provisioner mail``: preview, list, send and settle letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from provisioner.commands.report import letter_progress
from provisioner.diagnostics import count_of
from provisioner.errors import Cancelled, Partial, UsageError
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.outbox import OutboxEntry, OutboxState, letter_key, read_letters
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
    """Print the letter of one user, or all letters of a saved plan; ``out`` is a folder for files instead."""
    workspace = load_workspace(folder)
    with load_sender(workspace) as sender:
        letters = list(_letters_about(workspace, subject, clock))
        linkless = not makes_links(workspace.settings.portal.url)
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
    """Print the state of each letter; returns 0 for any state."""
    letters = read_letters(ledger_location(load_workspace(folder)))
    if as_json:
        rows = [
            {
                "user": entry.user,
                "recipient": entry.letter.recipient,
                "state": entry.state,
                "attempts": entry.attempts,
                "changed": entry.changed,
                "detail": entry.detail,
            }
            for entry in letters
        ]
        console.answer(printable_json(rows))
        return 0
    counts: dict[OutboxState, int] = {}
    for entry in letters:
        counts[entry.state] = counts.get(entry.state, 0) + 1
        detail = f" ({printable(entry.detail)})" if entry.detail else ""
        console.answer(
            f"{entry.state:<10} {entry.changed}  {printable(entry.letter.recipient)}{detail}{_advice(entry)}"
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
    """Send the owed letters; for one user, also a welcome that was never owed."""
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
        ) as session,
    ):
        ledger, portal = session.ledger, session.portal
        # the letters of this ledger belong to accounts of its own portal
        ledger.bind_portal(_portal_id(portal))
        parked = recover_outbox(ledger, portal, resend_unknown=workspace.settings.mail.on_unknown == "resend")
        only = None if user is None else _owed_to(workspace, user, ledger, portal, again, clock)
        owed = ledger.outbox.letters(OutboxState.OWED)
        check_templates((entry.letter for entry in owed), sender)
        if only is not None:
            owed = [entry for entry in owed if entry.letter.key == only]
        outcome = deliver(
            workspace, ledger, portal, sender, owed, partial(letter_progress, console), session.stop
        )
    return _concluded(outcome, parked, console, stopped=session.stop())


def _concluded(
    outcome: DeliveryReport, parked: Sequence[Delivery], console: Console, *, stopped: bool
) -> int:
    """Print what was sent and what was not; returns the exit code."""
    if outcome.problem is not None:
        console.say(f"{outcome.problem.sentence}\n  {outcome.problem.remedy}")
    for delivery in parked:
        console.say(f"E-mail not sent ({delivery.state}): {printable(delivery.detail)}")
    if stopped:
        rest = console.invocation or "provisioner mail send"
        console.say(f"Stopped. To send the rest: {rest} (no e-mail goes out twice)")
    console.answer(f"{count_of(outcome.sent, 'e-mail')} sent.")
    if stopped:
        return Cancelled.exit_code
    return Partial.exit_code if parked or outcome.trouble or outcome.problem else 0


def settle(
    folder: Path,
    user: str,
    console: Console,
    *,
    arrived: bool,
    lock_timeout: float = 0,
    clock: Clock = utc_now,
) -> int:
    """Decide about a letter in an unknown state: it arrived, or it is owed once more."""
    workspace = load_workspace(folder)
    with (
        closing(Ledger(ledger_location(workspace), clock)) as ledger,
        ledger.lock.hold("mail settle", lock_timeout, on_wait=console.say),
    ):
        ledger.outbox.reset_interrupted()
        found = [entry for entry in _letters_to(ledger, user) if entry.state is OutboxState.UNKNOWN]
        if not found:
            raise UsageError(
                f"No e-mail to {user} is in an unknown state.",
                "To see the e-mails: provisioner mail status",
            )
        for entry in found:
            if arrived:
                ledger.outbox.mark([entry.letter.key], OutboxState.SENT, "settled by hand")
            else:
                ledger.outbox.resend(entry.letter.key)
    word = "counts as sent" if arrived else "is owed once more; to send it: provisioner mail send"
    console.answer(f"The welcome e-mail to {printable(found[0].letter.recipient)} {word}")
    return 0


def _letters_to(ledger: Ledger, user: str) -> list[OutboxEntry]:
    """The letters of the account with this e-mail, also under an earlier one; else those to this address."""
    key = email_key(user)
    known = ledger.snapshot().managed.get(key)
    if known is not None:
        return [entry for entry in ledger.outbox.letters() if entry.user_id == known.id]
    return [
        entry for entry in ledger.outbox.letters() if key in (entry.user, email_key(entry.letter.recipient))
    ]


def _advice(entry: OutboxEntry) -> str:
    if entry.state is OutboxState.UNKNOWN:
        return f"\n           to decide: provisioner mail settle {entry.user} --sent, or --resend"
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
    name = company.name if company else user.billed
    context = letter_context(user.first_name, user.last_name, user.email, name, workspace.settings.firm.name)
    yield Letter("0" * 64, user.email, user.language, context, clock())


def _owed_to(
    workspace: Workspace, user: str, ledger: Ledger, portal: Portal, again: bool, clock: Clock
) -> str:
    """Put this user's letter into the outbox, owed; returns its key. Raises :class:`UsageError`."""
    mine = _letters_to(ledger, user)
    waiting = next((entry for entry in mine if entry.state is OutboxState.OWED), None)
    if waiting is not None:
        return waiting.letter.key
    if any(entry.state is OutboxState.UNKNOWN for entry in mine):
        raise UsageError(
            f"Whether the welcome e-mail to {user} arrived is not known.",
            f"Decide first: provisioner mail settle {user} --sent, or --resend",
        )
    failed = next((entry for entry in mine if entry.state is OutboxState.FAILED), None)
    if failed is not None and not again:
        ledger.outbox.mark([failed.letter.key], OutboxState.OWED)
        return failed.letter.key
    sent = [entry for entry in mine if entry.state is OutboxState.SENT]
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
    """The number of this account's next letter, under any e-mail."""
    return 1 + sum(entry.user_id == user_id for entry in ledger.outbox.letters())


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
    language = wanted.language if wanted else workspace.settings.firm.language
    context = letter_context(
        account.first_name, account.last_name, account.email, name, workspace.settings.firm.name
    )
    return Letter(key, account.email, language, context, clock())
