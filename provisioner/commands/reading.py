"""What commands read first: workspace, manifests, portal, ledger; and the plan of it all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from provisioner.commands.console import Console
from provisioner.commands.secrets import secret_of
from provisioner.database import Place, open_place
from provisioner.diagnostics import Diagnostic, Source, error
from provisioner.errors import LedgerError, PortalError, UsageError, WorkspaceError
from provisioner.files import read_bytes
from provisioner.ledger import Books
from provisioner.limits import MAX_FILE_BYTES
from provisioner.manifest.check import check
from provisioner.manifest.declared import Declared
from provisioner.manifest.resolve import Policy, Resolution
from provisioner.model import (
    Address,
    Clock,
    Notice,
    NoticeKind,
    Operator,
    State,
    email_key,
    paris_date,
    user_address,
    value,
)
from provisioner.planning.plan import Limits, Plan
from provisioner.planning.planner import Wanted, chosen, make_plan, select
from provisioner.portals import open_portal
from provisioner.portals.base import Access, Portal, Snapshot
from provisioner.watching import Tell, untold
from provisioner.workspace import Workspace, read_manifests

PARALLELISM = 10
"""Steps under way at once, unless ``--parallelism`` says otherwise."""


def utc_now() -> datetime:
    """The system's clock, aware of its zone."""
    return datetime.now(UTC)


@value
class Selection:
    """``--target`` and ``--exclude``."""

    targets: frozenset[Address] = frozenset()
    excludes: frozenset[Address] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.targets or self.excludes)


@value
class Planned:
    """A plan with what it was made from."""

    plan: Plan
    declared: Declared
    complete: bool


def parse_addresses(words: Iterable[str]) -> frozenset[Address]:
    """``company:004217`` and ``user:claire@example.fr`` as addresses. Raises :class:`UsageError`."""
    addresses = set()
    for word in words:
        kind, colon, key = word.partition(":")
        if not colon or kind not in ("company", "user") or not key:
            raise UsageError(
                f"{word!r} is no address.", "Write company:NUMBER or user:E-MAIL, as the plan does."
            )
        addresses.add(Address(kind, email_key(key) if kind == "user" else key))
    return frozenset(addresses)


def read_declared(workspace: Workspace, tell: Tell = untold) -> tuple[Declared, list[Diagnostic]]:
    """The manifests and every problem in them that shows without asking the portal."""
    declared, problems = read_manifests(workspace, digests=False, tell=tell)
    return declared, [*problems, *check(declared, workspace.check_settings)]


def portal_of(
    workspace: Workspace, *, writing: bool, clock: Clock = utc_now, parallelism: int = PARALLELISM
) -> Portal:
    """The workspace's portal, opened for its operator."""
    place = workspace.portal
    return open_portal(
        Access(
            url=place.url,
            root=workspace.root,
            operator=workspace.operator,
            terms=workspace.terms,
            public_url=workspace.public_url,
            clock=clock,
            writing=writing,
            client_id=place.client_id or os.environ.get("PROVISIONER_PORTAL_CLIENT", ""),
            secret=secret_of(
                workspace.root,
                place.secret_env,
                place.secret_file,
                what="the portal's secret",
                error=PortalError,
                usual="PROVISIONER_PORTAL_SECRET",
            ),
            ca_file=place.ca_file,
            proxy=place.proxy,
            paths=place.paths,
            scim=place.scim,
            parallelism=parallelism,
        )
    )


def ledger_of(workspace: Workspace) -> Place:
    """Where the workspace's ledger is; opens nothing."""
    place = workspace.ledger
    secret = ""
    if not place.url.startswith("sqlite:"):
        secret = secret_of(
            workspace.root,
            place.secret_env,
            place.secret_file,
            what="the ledger's password",
            error=LedgerError,
            usual="PROVISIONER_LEDGER_SECRET",
        )
    return open_place(place.url, workspace.root, secret)


def read_snapshot(workspace: Workspace, clock: Clock = utc_now) -> Snapshot:
    """Everything the portal holds; writes nothing."""
    portal = portal_of(workspace, writing=False, clock=clock)
    try:
        return portal.snapshot()
    finally:
        portal.close()


def show_problems(console: Console, workspace_root: Path, problems: Iterable[Diagnostic]) -> None:
    """Problems with the lines they are about, on stderr."""
    found = list(problems)
    if found:
        from provisioner.review.problems import render_problems

        text = render_problems(
            found, _line_reader(workspace_root), colour=console.colour, width=console.width
        )
        console.say(text)


def policy_of(workspace: Workspace, clock: Clock, operator: Operator | None = None) -> Policy:
    """What of provisioner.yaml decides how manifests are read against the portal, and the day.

    ``operator`` is whose rights we have, where the portal says so.
    """
    return Policy(
        operator=operator or workspace.operator,
        today=paris_date(clock()),
        close_absent=workspace.safety.absent == "close",
        restore=workspace.safety.self_service == "restore",
        welcome=workspace.mail.welcome == "ours",
    )


def plan_of(
    workspace: Workspace,
    problems: list[Diagnostic],
    snapshot: Snapshot,
    books: Books,
    resolution: Resolution,
    selection: Selection,
    clock: Clock,
    *,
    declared: Declared,
    users_managed: int,
    users_declared: int,
    tell: Tell = untold,
) -> Plan:
    """The plan of what was read and resolved; the two numbers count users, for the limits."""
    desired = select(resolution.current, resolution.desired, selection.targets, selection.excludes)
    records = {
        key: record
        for key, record in resolution.records.items()
        if not selection
        or chosen(user_address(key), resolution.desired, selection.targets, selection.excludes)
    }

    def source_of(address: Address) -> Source | None:
        place = (declared.companies if address.kind == "company" else declared.users).get(address.key)
        return place.source if place is not None else None

    placed = [replace(problem, source=problem.source) for problem in (*problems, *resolution.diagnostics)]
    wanted = Wanted(
        portal=snapshot.portal,
        terms=snapshot.terms,
        firm=workspace.firm.name,
        today=paris_date(clock()),
        limits=Limits(workspace.safety.max_closures, workspace.safety.max_closures_percent),
        welcomes=resolution.welcomes,
        reasons=resolution.reasons,
        records=records,
        notices=(*resolution.notices, *_book_notices(books)),
        diagnostics=[*placed, *_portal_gaps(workspace, users_declared, snapshot, desired)],
        managed=users_managed,
        declared=users_declared,
    )
    return make_plan(resolution.current, desired, wanted, source_of, tell)


def _portal_gaps(
    workspace: Workspace, users_declared: int, snapshot: Snapshot, desired: State
) -> Iterable[Diagnostic]:
    """What the catalogue has and this portal does not offer, and who sends the welcome."""
    configure = "If your catalogue is right, tell the portal: provisioner portal configure"
    for app in sorted(workspace.terms.apps - snapshot.terms.apps):
        if any(grant.app == app for user in desired.users.values() for grant in user.apps):
            yield error("portal-missing", f"The portal does not offer the application {app!r}.", configure)
    for offer in sorted(workspace.terms.offers - snapshot.terms.offers):
        if any(c.billing and c.billing.offer == offer for c in desired.companies.values()):
            yield error("portal-missing", f"The portal does not have the offer {offer!r}.", configure)
    if workspace.mail.welcome == "portal" and users_declared:
        yield error(
            "welcome-by-portal",
            "provisioner.yaml asks the portal to send the welcome e-mails, and this portal sends none.",
            "Write welcome: ours, or welcome: none, under mail: in provisioner.yaml.",
        )


def _book_notices(books: Books) -> Iterable[Notice]:
    kinds = {"unknown": NoticeKind.LETTER_UNKNOWN, "failed": NoticeKind.LETTER_FAILED}
    for posted in books.open_letters:
        kind = kinds.get(posted.state, NoticeKind.LETTER_OWED)
        words = {
            NoticeKind.LETTER_UNKNOWN: f"may or may not have arrived ({posted.detail}). "
            f"To decide: provisioner mail settle {posted.user} --sent or --resend",
            NoticeKind.LETTER_FAILED: f"was refused for good ({posted.detail}). "
            f"Once mended: provisioner mail send {posted.user}",
            NoticeKind.LETTER_OWED: "is owed from an earlier run; apply, or provisioner mail send, sends it.",
        }[kind]
        yield Notice(
            kind, user_address(posted.user), f"The welcome e-mail to {posted.letter.recipient} {words}"
        )
    if books.unsettled:
        run = books.unsettled[0].run
        for entry in books.unsettled:
            kind_, _, key = entry.address.partition(":")
            yield Notice(
                NoticeKind.INTERRUPTED,
                Address(kind_, key),
                f"Run {run} was interrupted during {entry.action} of {entry.address}; "
                "the next apply first asks the portal how it ended.",
            )


def _line_reader(root: Path) -> Callable[[str, int], str | None]:
    texts: dict[str, list[str]] = {}

    def line_of(file: str, line: int) -> str | None:
        if file not in texts:
            try:
                texts[file] = (
                    read_bytes(root / file, MAX_FILE_BYTES).decode("utf-8-sig", "replace").splitlines()
                )
            except WorkspaceError:
                texts[file] = []
        lines = texts[file]
        return lines[line - 1] if 0 < line <= len(lines) else None

    return line_of
