"""The sabotages: each replaces a named function or method of the program by one without a safeguard.

A sabotage is applied before the program is imported. It therefore imports only the module it changes, and
changes it before another module binds the name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from typing_extensions import override

if TYPE_CHECKING:
    from datetime import date

    from provisioner.diagnostics import Diagnostic
    from provisioner.embedded.decide import StoredReceipt
    from provisioner.embedded.portal_types import AuthorisedCall
    from provisioner.ledger.journal import Intent, Journal, LedgerEffect
    from provisioner.ledger.outbox import Outbox, OutboxEntry
    from provisioner.mail.message import Letter
    from provisioner.model import Address, Resource, User
    from provisioner.planning.plan import Change
    from provisioner.planning.steps import Step
    from provisioner.portal import Receipt
    from provisioner.storage.database import Connection

MOST = 25
"""The gravest alone: the whole table is run with every change."""

P = ParamSpec("P")
R = TypeVar("R")


class Sabotage(NamedTuple):
    """One safeguard to take out, and the tests that have to see it."""

    name: str
    reason: str
    """What may happen without the safeguard."""
    apply: Callable[[], None]
    file: str
    """The test file, below ``tests/``."""
    test: str
    """A test in it; empty for all of them."""

    @property
    def target(self) -> str:
        """The argument for pytest."""
        return f"tests/{self.file}" + (f"::{self.test}" if self.test else "")


SABOTAGES: dict[str, Sabotage] = {}
"""By name."""


def seen_by(file: str, test: str = "") -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Add a function to the table; its name and its docstring are those of the sabotage."""

    def add(apply: Callable[[], None]) -> Callable[[], None]:
        name = apply.__name__.replace("_", "-")
        if name in SABOTAGES:
            raise ValueError(f"two sabotages have the name {name}")
        SABOTAGES[name] = Sabotage(name, apply.__doc__ or "", apply, file, test)
        return apply

    return add


def replace_in(owner: ModuleType | type, original: Callable[P, R], replacement: Callable[P, R]) -> None:
    """Replace a function of a module or a method of a class, which is given by itself to follow renames."""
    names = [name for name, value in vars(owner).items() if value is original]
    if not names:
        raise ValueError(f"{owner} has no {original}")
    for name in names:
        setattr(owner, name, replacement)


# --- what is stored, and in which order ---


@seen_by("test_apply.py", "test_every_commit_is_on_the_disk_before_it_returns")
def no_full_sync() -> None:
    """A commit that returned is lost in a power failure."""
    from provisioner.storage.sqlite import SqliteDatabase

    open_database = SqliteDatabase._open

    def open_without_sync(self: SqliteDatabase, *arguments: Any, **named: Any) -> Any:
        connection = open_database(self, *arguments, **named)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    replace_in(SqliteDatabase, SqliteDatabase._open, open_without_sync)


@seen_by("test_killed.py", "test_a_run_killed_anywhere_is_finished_by_running_it_again")
def call_before_intent() -> None:
    """A run that is killed after the portal call does not know that it made one."""
    from provisioner.ledger.journal import Journal

    intend, settle = Journal.intend, Journal.settle
    delayed: list[Intent] = []

    def intend_later(self: Journal, intents: Sequence[Intent]) -> None:
        delayed.extend(intents)

    def settle_both(self: Journal, receipts: Sequence[Receipt], portal: str) -> None:
        intend(self, delayed)
        delayed.clear()
        settle(self, receipts, portal)

    replace_in(Journal, Journal.intend, intend_later)
    replace_in(Journal, Journal.settle, settle_both)


@seen_by("test_killed.py", "test_a_run_killed_anywhere_is_finished_by_running_it_again")
def letters_settled_apart() -> None:
    """A run that is killed between the two commits has settled a step and lost the letter it earned."""
    from provisioner.ledger import outbox

    insert = outbox.insert_letters
    delayed: list[tuple[str, str, Letter]] = []

    def insert_later(connection: Connection, letters: Iterable[tuple[str, str, Letter]], now: str) -> None:
        delayed.extend(letters)

    replace_in(outbox, outbox.insert_letters, insert_later)
    from provisioner.ledger.journal import Journal

    settle = Journal.settle

    def settle_twice(self: Journal, receipts: Sequence[Receipt], portal: str) -> None:
        settle(self, receipts, portal)
        with self._store.writing() as connection:
            insert(connection, delayed, self._store.timestamp())
        delayed.clear()

    replace_in(Journal, Journal.settle, settle_twice)


@seen_by("test_database.py", "test_second_sqlite_writer_waits_before_it_reads")
def deferred_begin() -> None:
    """Of two writers one fails instead of waiting."""
    from provisioner.storage import database

    @contextmanager
    def transaction(connection: Connection) -> Iterator[None]:
        try:
            connection.execute("BEGIN")
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    replace_in(database, database.transaction, transaction)


@seen_by("test_files.py")
def readable_files() -> None:
    """Every account of the machine reads saved plans and keys."""
    from provisioner.workspace import files

    write_private = files.write_private

    def write_public(path: Path, content: bytes) -> None:
        write_private(path, content)
        path.chmod(0o644)

    replace_in(files, files.write_private, write_public)


# --- who writes, and whether it may ---


@seen_by("test_apply.py")
def lock_not_checked() -> None:
    """A run goes on writing after its lock was taken away."""
    from provisioner.ledger.store import Store

    replace_in(Store, Store.writing, Store.unguarded_write)


@seen_by("test_apply.py")
def no_version_check() -> None:
    """What another writer changed since the plan is overwritten."""
    from dataclasses import replace

    from provisioner.embedded import decide

    original = decide.decide

    def decide_anyway(
        job: AuthorisedCall,
        lease: int | None,
        stored: StoredReceipt | None,
        found: Resource | None,
        today: date,
    ) -> Receipt | Resource:
        if found is not None and stored is None:
            job = replace(job, call=replace(job.call, version=found.version))
        return original(job, lease, stored, found, today)

    replace_in(decide, decide.decide, decide_anyway)


@seen_by("test_portal_held.py")
def fence_ignored() -> None:
    """A run that was stopped and continues later writes beside the run that took its place."""
    from provisioner.embedded import decide

    original = decide.decide

    def decide_unfenced(
        job: AuthorisedCall,
        lease: int | None,
        stored: StoredReceipt | None,
        found: Resource | None,
        today: date,
    ) -> Receipt | Resource:
        return original(job, job.fence, stored, found, today)

    replace_in(decide, decide.decide, decide_unfenced)


@seen_by("test_apply.py")
def random_step_key() -> None:
    """A step that is repeated is done twice."""
    from provisioner.operations import apply

    def key(portal: str, step: Step, id_: str, version: int) -> str:
        return os.urandom(32).hex()

    replace_in(apply, apply.step_key, key)


# --- what is approved is what is applied ---


@seen_by("test_apply.py")
def stale_plan_applied() -> None:
    """A plan is applied although what it touches has changed since."""
    from provisioner.operations import precondition

    steps_done = precondition._steps_done

    def none_done(change: Change, steps: Iterable[Step], found: Resource | None) -> int | None:
        return steps_done(change, steps, found) or 0

    replace_in(precondition, precondition._steps_done, none_done)


@seen_by("test_tampered_plans.py")
def changed_plan_applied() -> None:
    """A plan file that was changed after its approval is applied."""
    from provisioner.planning import planfile

    def accept(why: str = "") -> None:
        pass

    replace_in(planfile, planfile._refuse_changed, accept)


@seen_by("test_guard.py")
def no_limits() -> None:
    """A moved folder closes every account."""
    from provisioner.planning import guard

    def allow(*arguments: Any, **named: Any) -> Iterator[Diagnostic]:
        return iter(())

    replace_in(guard, guard.guard, allow)


@seen_by("test_resolve.py")
def unmanaged_closed() -> None:
    """Accounts that provisioner does not manage are closed."""
    from dataclasses import replace

    from provisioner.manifest.resolve import _Resolver
    from provisioner.model import Status

    def close(self: _Resolver, key: str, user: User) -> User:
        return replace(user, status=Status.CLOSED)

    replace_in(_Resolver, _Resolver.desired_absent, close)


# --- the order of the steps ---


@seen_by("test_order.py")
def rules_not_asked_on_the_way() -> None:
    """Between two steps a company has no administrator (R2)."""
    from provisioner.planning import order
    from provisioner.rules import StateIndex

    class Silent(StateIndex):
        @override
        def put(self, address: Address, resource: Resource | None) -> list[Diagnostic]:
            super().put(address, resource)
            return []

    replace_in(order, StateIndex, Silent)


@seen_by("test_order.py")
def widening_before_narrowing() -> None:
    """A leaver keeps access while others are given theirs, and for good if the run ends there."""
    from provisioner.planning import steps

    first = steps.PHASES.index(steps.Phase.NARROW)
    steps.PHASES = (*steps.PHASES[:first], steps.Phase.WIDEN, steps.Phase.NARROW)


# --- letters ---


@seen_by("test_owed_letters.py")
def letters_to_the_old_address() -> None:
    """The holder of a mistyped address gets the link to another account, and its owner gets nothing."""
    from provisioner.model import email_key
    from provisioner.operations import deliver

    def same(email: str) -> str:
        return ""

    replace_in(deliver, email_key, same)


@seen_by("test_portal_held.py")
def claims_ignored() -> None:
    """Two ledgers both send the welcome of one account."""
    from provisioner.embedded.portal import SqlPortal

    def claim(
        self: SqlPortal, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        return dict.fromkeys(letters, run)

    replace_in(SqlPortal, SqlPortal.claim_letters, claim)


@seen_by("test_killed.py", "test_a_run_killed_while_mailing_loses_and_silently_doubles_no_letter")
def interrupted_letters_owed() -> None:
    """A letter that a killed run was sending is sent again, perhaps a second time."""
    from provisioner.ledger.outbox import Outbox

    reset = Outbox.reset_interrupted

    def owe(self: Outbox) -> list[OutboxEntry]:
        for entry in reset(self):
            self.resend(entry.letter.key)
        return []

    replace_in(Outbox, Outbox.reset_interrupted, owe)


@seen_by("test_smtp.py")
def sent_before_data() -> None:
    """A letter that never left counts as sent."""
    from provisioner.mail.delivery import Delivery, DeliveryState
    from provisioner.mail.group_commit import GroupCommit

    body = GroupCommit.body

    async def body_and_delivery(self: GroupCommit, key: str) -> None:
        await body(self, key)
        self.delivered(Delivery(key, DeliveryState.SENT))

    replace_in(GroupCommit, GroupCommit.body, body_and_delivery)


@seen_by("test_smtp_tls.py")
def any_certificate() -> None:
    """A machine between the program and the mail server reads the password and the letters."""
    import ssl

    from provisioner.mail import transport

    def unverified(root: Path, ca_file: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    replace_in(transport, transport._tls_context, unverified)


@seen_by("test_templates.py", "test_a_payload_is_refused_with_a_sentence")
def sandbox_off() -> None:
    """A template of a letter reaches inside values, and a name becomes markup."""
    from provisioner.mail.template_sandbox import Sandbox

    def allow(self: Sandbox, obj: object, attr: str, value: object) -> bool:
        return True

    replace_in(Sandbox, Sandbox.is_safe_attribute, allow)


@seen_by("test_apply.py")
def welcome_for_existing_accounts() -> None:
    """An account that someone else created gets a welcome."""
    from dataclasses import replace

    from provisioner.ledger import journal
    from provisioner.portal import Verdict

    store_effects = journal._store_effects

    def store_as_applied(
        connection: Connection, effects: Iterable[tuple[LedgerEffect, Receipt]], portal: str, now: str
    ) -> None:
        ours = [
            (
                effect,
                replace(receipt, verdict=Verdict.APPLIED) if receipt.verdict is Verdict.ALREADY else receipt,
            )
            for effect, receipt in effects
        ]
        store_effects(connection, ours, portal, now)

    replace_in(journal, journal._store_effects, store_as_applied)


# --- what is read, and what is shown ---


@seen_by("test_document.py")
def duplicate_keys_accepted() -> None:
    """Of two values under one key the first is dropped without a word."""
    from provisioner.yaml_source.events import EventReader

    def accept(self: EventReader, key: str, event: object, data: object, at: int) -> bool:
        return False

    replace_in(EventReader, EventReader._refuse_key, accept)


@seen_by("test_planfile.py")
def unknown_fields_accepted() -> None:
    """A field that the program does not know, of a plan or a journal, is ignored."""
    from provisioner.planning import codec

    record_reader = codec._record_reader

    def lenient_reader(hint: object) -> Callable[[codec.Json], Any]:
        read, known = record_reader(hint), codec.record_fields(hint)

        def read_known(value: codec.Json) -> Any:
            try:
                return read(value)
            except codec.InvalidJson:
                if type(value) is not dict:
                    raise
                return read({name: item for name, item in value.items() if name in known})

        return read_known

    replace_in(codec, codec._record_reader, lenient_reader)


@seen_by("test_output_injection.py")
def names_shown_as_they_are() -> None:
    """A name moves the cursor of a terminal, or gives commands to a CI system."""
    from provisioner.render import sanitize

    def same(text: str) -> str:
        return text

    replace_in(sanitize, sanitize.printable, same)
