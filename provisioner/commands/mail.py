"""``provisioner mail``: preview, list and send letters; decide whether uncertain letters were sent."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path

from provisioner.commands.letters import letter_progress, parked_at_ctrl_c, say_parked, say_trouble
from provisioner.diagnostics import count_of
from provisioner.errors import Cancelled, Partial, UsageError
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.outbox import OutboxEntry, OutboxState, read_letters
from provisioner.mail.message import render
from provisioner.model import Clock, email_key
from provisioner.operations.deliver import (
    DeliveryReport,
    check_templates,
    deliver,
    load_sender,
    recover_outbox,
    write,
)
from provisioner.operations.letters import letters_to, owe_letter, preview_subject
from provisioner.operations.open import ledger_location, utc_now
from provisioner.operations.session import writing_session
from provisioner.portals.registry import driver_for
from provisioner.render.sanitize import printable, printable_json
from provisioner.terminal.console import Console, interruptible
from provisioner.workspace.files import make_folder, write_private
from provisioner.workspace.settings import Workspace, load_workspace

PREVIEW_LINK = "https://example.com/activation-link-made-when-the-letter-is-sent"


def preview(
    folder: Path, subject: str, console: Console, *, out: Path | None = None, clock: Clock = utc_now
) -> int:
    """Print the letters of ``subject``, which is the e-mail of a user or the file of a saved plan.

    If ``out`` is not None, write the letters to files in this folder, and print only the names of the files.
    """
    workspace = load_workspace(folder)
    with load_sender(workspace) as sender:
        letters = list(preview_subject(workspace, subject, clock))
        linkless = not driver_for(workspace.settings.portal.url).activation_links
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
    """Print the state of each letter; return exit code 0 even if letters failed."""
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
        advice = console.in_folder(detail + _advice(entry))
        console.answer(f"{entry.state:<10} {entry.changed}  {printable(entry.letter.recipient)}{advice}")
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
    """Send all owed letters. If ``user`` is not None, send only the welcome e-mail to this user.

    The welcome e-mail to ``user`` is sent even if the outbox has no owed letter to this user. However, if one
    was sent already, it is sent again only if ``again`` is True; otherwise, raises :class:`UsageError`.
    """
    workspace = load_workspace(folder)
    with (
        parked_at_ctrl_c(console, workspace),
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
        # a ledger belongs to one portal, so its letters must not be sent for another portal
        ledger.bind_portal(portal.snapshot().portal)
        parked = recover_outbox(ledger, portal, resend_unknown=workspace.settings.mail.on_unknown == "resend")
        only = None if user is None else owe_letter(workspace, user, ledger, portal, again, clock)
        owed = ledger.outbox.letters(OutboxState.OWED)
        check_templates((entry.letter for entry in owed), sender)
        if only is not None:
            owed = [entry for entry in owed if entry.letter.key == only]
        outcome = deliver(
            workspace, ledger, portal, sender, owed, partial(letter_progress, console), session.stop
        )
    outcome.trouble[:0] = parked
    return _concluded(outcome, console, workspace, stopped=session.stop())


def _concluded(outcome: DeliveryReport, console: Console, workspace: Workspace, *, stopped: bool) -> int:
    """Print the result and return the exit code."""
    say_trouble(console, outcome)
    say_parked(console, workspace)
    if stopped:
        rest = console.invocation or "provisioner mail send"
        console.say(f"Stopped. To send the rest: {rest} (no e-mail goes out twice)")
    console.answer(f"{count_of(outcome.sent, 'e-mail')} sent.")
    if stopped:
        return Cancelled.exit_code
    return Partial.exit_code if outcome.trouble or outcome.problem else 0


def settle(
    folder: Path,
    user: str,
    console: Console,
    *,
    sent: bool = False,
    resend: bool = False,
    lock_timeout: float = 0,
    clock: Clock = utc_now,
) -> int:
    """Set the user's ``unknown`` letters to ``sent`` if ``sent`` is True, or to ``owed`` if ``resend`` is.

    Raises :class:`UsageError` unless exactly one of the two is True, because neither is a safe default.
    """
    if sent == resend:
        raise UsageError(
            f"Say {'only one of' if sent else 'what became of the e-mail, with'} --sent or --resend.",
            f"It arrived: provisioner mail settle {user} --sent\n"
            f"  Send it once more: provisioner mail settle {user} --resend",
        )
    workspace = load_workspace(folder)
    with (
        closing(Ledger(ledger_location(workspace), clock)) as ledger,
        ledger.lock.hold("mail settle", lock_timeout, on_wait=console.say),
    ):
        ledger.outbox.reset_interrupted()
        found = [entry for entry in letters_to(ledger, user) if entry.state is OutboxState.UNKNOWN]
        if not found:
            raise UsageError(
                f"No e-mail to {user} is in an unknown state.",
                "To see the e-mails: provisioner mail status",
            )
        for entry in found:
            if sent:
                ledger.outbox.mark([entry.letter.key], OutboxState.SENT, "settled by hand")
            else:
                ledger.outbox.resend(entry.letter.key)
    word = "counts as sent" if sent else "is owed once more; to send it: provisioner mail send"
    console.answer(f"The welcome e-mail to {printable(found[0].letter.recipient)} {console.in_folder(word)}")
    return 0


def _advice(entry: OutboxEntry) -> str:
    if entry.state is OutboxState.UNKNOWN:
        return f"\n           to decide: provisioner mail settle {entry.user} --sent, or --resend"
    return ""
