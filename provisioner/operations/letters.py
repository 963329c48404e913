"""The letters of one user: find them in the outbox, add another welcome e-mail, and preview a letter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from provisioner.errors import UsageError
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.outbox import OutboxEntry, OutboxState, letter_key
from provisioner.mail.message import Letter
from provisioner.model import Clock, Status, User, email_key
from provisioner.operations.deliver import preview_letters
from provisioner.operations.open import read_declared, read_snapshot
from provisioner.operations.saved_plan import read_plan
from provisioner.planning.diff import letter_context
from provisioner.portal import Portal
from provisioner.workspace.settings import Workspace


def letters_to(ledger: Ledger, user: str) -> list[OutboxEntry]:
    """Return the letters to the user with the e-mail ``user``.

    If the ledger manages an account for this e-mail, these are all letters to the account, also those to its
    former addresses. Otherwise, they are the letters to this e-mail.
    """
    key = email_key(user)
    known = ledger.snapshot().managed.get(key)
    if known is not None:
        return [entry for entry in ledger.outbox.letters() if entry.user_id == known.id]
    return [
        entry for entry in ledger.outbox.letters() if key in (entry.user, email_key(entry.letter.recipient))
    ]


def preview_subject(workspace: Workspace, subject: str, clock: Clock) -> Iterator[Letter]:
    """Yield the letters of the plan file ``subject``, or the letter to the user with the e-mail ``subject``.

    Raises :class:`UsageError` if ``subject`` is neither a file nor the e-mail of a declared user.
    """
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


def owe_letter(
    workspace: Workspace, user: str, ledger: Ledger, portal: Portal, again: bool, clock: Clock
) -> str:
    """Make sure that the outbox has an owed letter to this user. Return the key of the letter.

    Raises :class:`UsageError` if the user has no active account or has an ``unknown`` letter. A letter that
    was sent already is also an error, unless ``again`` is true.
    """
    mine = letters_to(ledger, user)
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
    # the number of this letter among all letters of the account, whatever its e-mail was
    generation = 1 + sum(entry.user_id == account.id for entry in ledger.outbox.letters())
    key = letter_key(portal.snapshot().portal, account.id, generation)
    letter = _welcome_for(workspace, account, user, key, clock)
    ledger.outbox.enqueue(email_key(user), account.id, letter)
    return letter.key


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
    """Return the welcome e-mail to this account, in the firm's language if no manifest declares the user."""
    declared, _ = read_declared(workspace)
    wanted = declared.users.get(email_key(user))
    company = declared.companies.get(account.billed)
    name = company.name if company else read_snapshot(workspace, clock).state.companies[account.billed].name
    language = wanted.language if wanted else workspace.settings.firm.language
    context = letter_context(
        account.first_name, account.last_name, account.email, name, workspace.settings.firm.name
    )
    return Letter(key, account.email, language, context, clock())
