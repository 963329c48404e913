"""The sabotages: each one replaces a function or method of the program by a version without one safeguard.

A sabotage is applied before the rest of the program is imported. Each function below therefore imports only
the module that it changes. The change is made before another module imports the changed name.
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
"""The maximum number of sabotages. Only the gravest are in the table, because all run for every change."""

P = ParamSpec("P")
R = TypeVar("R")


class Sabotage(NamedTuple):
    """One safeguard to remove, and the tests that have to detect its removal."""

    name: str
    reason: str
    """What may happen without the safeguard."""
    apply: Callable[[], None]
    file: str
    """The path of the test file in ``tests/``."""
    test: str
    """The name of one test in the file; empty for all tests of the file."""

    @property
    def target(self) -> str:
        """The pytest argument that selects the tests."""
        return f"tests/{self.file}" + (f"::{self.test}" if self.test else "")


SABOTAGES: dict[str, Sabotage] = {}
"""The sabotages by name."""


def seen_by(file: str, test: str = "") -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Return a decorator that adds a function to the table, with the tests that have to detect the sabotage.

    The name and the docstring of the function become the name and the reason of the sabotage.
    """

    def add(apply: Callable[[], None]) -> Callable[[], None]:
        name = apply.__name__.replace("_", "-")
        if name in SABOTAGES:
            raise ValueError(f"two sabotages have the name {name}")
        SABOTAGES[name] = Sabotage(name, apply.__doc__ or "", apply, file, test)
        return apply

    return add


def replace_in(owner: ModuleType | type, original: Callable[P, R], replacement: Callable[P, R]) -> None:
    """Replace a function of a module or a method of a class.

    ``original`` is the function itself instead of its name, because the name may change.
    """
    names = [name for name, value in vars(owner).items() if value is original]
    if not names:
        raise ValueError(f"{owner} has no {original}")
    for name in names:
        setattr(owner, name, replacement)


# --- what is stored, and in which order ---


@seen_by("e2e/test_apply.py", "test_every_commit_is_on_the_disk_before_it_returns")
def no_full_sync() -> None:
    """A committed transaction is lost in a power failure."""
    from provisioner.storage.sqlite import SqliteDatabase

    open_database = SqliteDatabase._open

    def open_without_sync(self: SqliteDatabase, *arguments: Any, **named: Any) -> Any:
        connection = open_database(self, *arguments, **named)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    replace_in(SqliteDatabase, SqliteDatabase._open, open_without_sync)


@seen_by("crash/test_killed.py", "test_a_run_killed_anywhere_is_finished_by_running_it_again")
def call_before_intent() -> None:
    """If a run is killed after the portal call, the next run does not know that the call was made."""
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


@seen_by("crash/test_killed.py", "test_a_run_killed_anywhere_is_finished_by_running_it_again")
def letters_settled_apart() -> None:
    """If a run is killed between the commit of a step and the commit of its letter, the letter is lost."""
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


@seen_by("contract/test_database.py", "test_second_sqlite_writer_waits_before_it_reads")
def deferred_begin() -> None:
    """One of two concurrent writers fails instead of waiting."""
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


@seen_by("unit/test_files.py")
def readable_files() -> None:
    """Every account of the machine can read saved plans and keys."""
    from provisioner.workspace import files

    write_private = files.write_private

    def write_public(path: Path, content: bytes) -> None:
        write_private(path, content)
        path.chmod(0o644)

    replace_in(files, files.write_private, write_public)


# --- who writes, and whether it may ---


@seen_by("e2e/test_apply.py")
def lock_not_checked() -> None:
    """A run goes on writing after its lock was taken away."""
    from provisioner.ledger.store import Store

    replace_in(Store, Store.writing, Store.unguarded_write)


@seen_by("e2e/test_apply.py")
def no_version_check() -> None:
    """A change that another writer made after the plan was made is overwritten."""
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


@seen_by("crash/test_portal_held.py")
def fence_ignored() -> None:
    """A run that was suspended continues to write, although another run has taken its place."""
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


@seen_by("e2e/test_apply.py")
def random_step_key() -> None:
    """A step that is repeated takes effect twice."""
    from provisioner.operations import apply

    def key(portal: str, step: Step, id_: str, version: int) -> str:
        return os.urandom(32).hex()

    replace_in(apply, apply.step_key, key)


# --- what is approved is what is applied ---


@seen_by("e2e/test_apply.py")
def stale_plan_applied() -> None:
    """A plan is applied although the resources that it changes have changed since the plan was made."""
    from provisioner.operations import precondition

    steps_done = precondition._steps_done

    def none_done(change: Change, steps: Iterable[Step], found: Resource | None) -> int | None:
        return steps_done(change, steps, found) or 0

    replace_in(precondition, precondition._steps_done, none_done)


@seen_by("e2e/test_tampered_plans.py")
def changed_plan_applied() -> None:
    """A plan file that was changed after its approval is applied."""
    from provisioner.planning import planfile

    def accept(why: str = "") -> None:
        pass

    replace_in(planfile, planfile._refuse_changed, accept)


@seen_by("unit/test_guard.py")
def no_limits() -> None:
    """All accounts are closed after the folder of the manifests was moved."""
    from provisioner.planning import guard

    def allow(*arguments: Any, **named: Any) -> Iterator[Diagnostic]:
        return iter(())

    replace_in(guard, guard.guard, allow)


@seen_by("unit/test_resolve.py")
def unmanaged_closed() -> None:
    """Accounts that provisioner does not manage are closed."""
    from dataclasses import replace

    from provisioner.manifest.resolve import _Resolver
    from provisioner.model import Status

    def close(self: _Resolver, key: str, user: User) -> User:
        return replace(user, status=Status.CLOSED)

    replace_in(_Resolver, _Resolver.desired_absent, close)


# --- the order of the steps ---


@seen_by("unit/test_order.py")
def rules_not_asked_on_the_way() -> None:
    """A company has no administrator between two steps (R2)."""
    from provisioner.planning import order
    from provisioner.rules import StateIndex

    class Silent(StateIndex):
        @override
        def put(self, address: Address, resource: Resource | None) -> list[Diagnostic]:
            super().put(address, resource)
            return []

    replace_in(order, StateIndex, Silent)


@seen_by("unit/test_order.py")
def widening_before_narrowing() -> None:
    """A user who leaves keeps access until others have got access, and for ever if the run ends early."""
    from provisioner.planning import steps

    first = steps.PHASES.index(steps.Phase.NARROW)
    steps.PHASES = (*steps.PHASES[:first], steps.Phase.WIDEN, steps.Phase.NARROW)


# --- letters ---


@seen_by("crash/test_owed_letters.py")
def letters_to_the_old_address() -> None:
    """After a mistyped address is corrected, the activation link still goes to the mistyped address."""
    from provisioner.model import email_key
    from provisioner.operations import deliver

    def same(email: str) -> str:
        return ""

    replace_in(deliver, email_key, same)


@seen_by("crash/test_portal_held.py")
def claims_ignored() -> None:
    """Two ledgers each send a welcome letter to the same account."""
    from provisioner.embedded.portal import SqlPortal

    def claim(
        self: SqlPortal, ledger: str, fence: int, run: str, letters: Mapping[str, Collection[str]]
    ) -> Mapping[str, str]:
        return dict.fromkeys(letters, run)

    replace_in(SqlPortal, SqlPortal.claim_letters, claim)


@seen_by("crash/test_killed.py", "test_a_run_killed_while_mailing_loses_and_silently_doubles_no_letter")
def interrupted_letters_owed() -> None:
    """A letter that a killed run was sending is sent again, although it may have arrived."""
    from provisioner.ledger.outbox import Outbox

    reset = Outbox.reset_interrupted

    def owe(self: Outbox) -> list[OutboxEntry]:
        for entry in reset(self):
            self.resend(entry.letter.key)
        return []

    replace_in(Outbox, Outbox.reset_interrupted, owe)


@seen_by("crash/test_smtp.py")
def sent_before_data() -> None:
    """A letter that never left the program counts as sent."""
    from provisioner.mail.delivery import Delivery, DeliveryState
    from provisioner.mail.group_commit import GroupCommit

    body = GroupCommit.body

    async def body_and_delivery(self: GroupCommit, key: str) -> None:
        await body(self, key)
        self.delivered(Delivery(key, DeliveryState.SENT))

    replace_in(GroupCommit, GroupCommit.body, body_and_delivery)


@seen_by("crash/test_smtp_tls.py")
def any_certificate() -> None:
    """A machine between the program and the mail server can read the password and the letters."""
    import ssl

    from provisioner.mail import transport

    def unverified(root: Path, ca_file: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    replace_in(transport, transport._tls_context, unverified)


@seen_by("unit/test_templates.py", "test_a_payload_is_refused_with_a_sentence")
def sandbox_off() -> None:
    """A letter template can access the internals of values, and a name can become markup."""
    from provisioner.mail.template_sandbox import Sandbox

    def allow(self: Sandbox, obj: object, attr: str, value: object) -> bool:
        return True

    replace_in(Sandbox, Sandbox.is_safe_attribute, allow)


@seen_by("e2e/test_apply.py")
def welcome_for_existing_accounts() -> None:
    """An account that another person created gets a welcome letter."""
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


@seen_by("unit/test_document.py")
def duplicate_keys_accepted() -> None:
    """If a key occurs twice, one of its values is dropped without an error."""
    from provisioner.yaml_source.events import EventReader

    def accept(self: EventReader, key: str, event: object, data: object, at: int) -> bool:
        return False

    replace_in(EventReader, EventReader._refuse_key, accept)


@seen_by("unit/test_planfile.py")
def unknown_fields_accepted() -> None:
    """An unknown field in a plan or in the journal is ignored instead of being refused."""
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


@seen_by("unit/test_output_injection.py")
def names_shown_as_they_are() -> None:
    """A name can move the cursor of a terminal, or run a command of a CI system."""
    from provisioner.render import sanitize

    def same(text: str) -> str:
        return text

    replace_in(sanitize, sanitize.printable, same)
