"""A plan from what moved since the last one: the same plan, from a small part of the world.

Manifests meet through names: an e-mail, a former one, a dossier number, the portal account behind a user. So
the part is grown from the files that moved, or were not at rest, by every file and account that shares a
name with one of them, until nothing new comes in; then it is planned like any other world. Wherever
something is wrong, or another file's text might be needed to say what, there is no answer from here and
everything is read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from provisioner.cache import Remembered, recall, remember, trusted, world_of
from provisioner.commands.reading import ledger_of, portal_of
from provisioner.commands.world import Planned, Selection, World, fitted, plan_of, policy_of
from provisioner.diagnostics import Diagnostic
from provisioner.files import WORKSPACE_FILE, Signature, manifest_files, signature
from provisioner.ledger import Books, BooksView, look_at_books
from provisioner.manifest.check import check
from provisioner.manifest.declared import Declared, DeclaredUser
from provisioner.manifest.resolve import Policy, Resolution, resolve
from provisioner.model import Address, Clock, State, User, email_key, paris_date
from provisioner.planning.plan import Plan
from provisioner.portals.base import Portal, Snapshot, View
from provisioner.workspace import Workspace, declare_files, with_settings

_SMALL = 50
"""Files that are always worth trying, however few there are in all."""


def replan(workspace: Workspace, clock: Clock, *, digests: bool) -> Planned | None:
    """The plan of the workspace as it is now; None where everything has to be read to tell."""
    remembered = recall(workspace.root)
    if remembered is None or (digests and len(remembered.digests) < len(remembered.files)):
        return None
    ledger = ledger_of(workspace)
    with closing(portal_of(workspace, writing=False, clock=clock)) as portal:
        search = _Search(workspace, clock, remembered, digests, portal)
        return portal.look(lambda view: look_at_books(ledger, lambda books: search.plan(view, books)))


def keep(
    workspace: Workspace,
    clock: Clock,
    signatures: Mapping[str, Signature],
    began: int,
    world: World,
    plan: Plan,
) -> None:
    """Remember which files are at rest, for the next plan. ``began``: when reading began, in nanoseconds."""
    declared, snapshot = world.declared, world.snapshot
    restless = _restless(declared, world.resolution, plan)
    if restless is None or not plan.applyable:
        return
    remember(
        workspace.root,
        Remembered(
            _stamp(workspace, clock, snapshot.portal, snapshot.stamp, world.books.stamp),
            {name: trusted(found, began) for name, found in signatures.items()},
            {name: digest for name, digest in declared.digests.items() if digest},
            _files_of_users(declared),
            _files_of_former(declared),
            {number: company.places.file for number, company in declared.companies.items()},
            tuple(sorted(restless)),
            _undeclared(declared, world.resolution),
        ),
    )


def _stamp(workspace: Workspace, clock: Clock, portal: str, portal_stamp: str, books_stamp: str) -> str:
    """Another one whenever something else than the manifests has moved."""
    month = paris_date(clock()).strftime("%Y-%m")
    return world_of((workspace.written.hex(), portal, portal_stamp, books_stamp, month))


def _files_of_users(declared: Declared) -> dict[str, str]:
    return {key: user.places.file for key, user in declared.users.items()}


def _files_of_former(declared: Declared) -> dict[str, str]:
    return {user.previous_key: user.places.file for user in declared.users.values() if user.previous_key}


def _undeclared(declared: Declared, resolution: Resolution) -> tuple[str, ...]:
    users = resolution.current.users
    if len(users) == len(declared.users) and users.keys() == declared.users.keys():
        return ()
    return tuple(user.id for key, user in users.items() if key not in declared.users)


def _restless(declared: Declared, resolution: Resolution, plan: Plan) -> set[str] | None:
    """The files of which something was said; None where something was said of no file in particular."""
    restless: set[str] = set()
    addresses: list[Address] = [change.address for change in plan.changes]
    addresses += [notice.address for notice in resolution.notices]
    addresses += [Address("user", key) for key in resolution.records]
    for problem in plan.diagnostics:
        if problem.source is not None and problem.source.file != WORKSPACE_FILE:
            restless.add(problem.source.file)
        else:
            return None
    for kind, key in addresses:
        entry = (declared.companies if kind == "company" else declared.users).get(key)
        if entry is not None:
            restless.add(entry.places.file)
    # nothing is planned for a closed account; the dossiers written there may still be another file's alone
    existing = resolution.current.companies.keys()
    restless.update(
        user.places.file
        for user in declared.users.values()
        if user.closed and user.companies and not user.companies <= existing
    )
    return restless


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of the world that has to be planned."""

    declared: Declared
    problems: list[Diagnostic]
    signatures: Mapping[str, Signature]
    accounts: list[User]
    books: Books


class _Search:
    """One attempt at a plan from memory."""

    def __init__(
        self, workspace: Workspace, clock: Clock, remembered: Remembered, digests: bool, portal: Portal
    ) -> None:
        self._workspace = workspace
        self._clock = clock
        self._old = remembered
        self._digests = digests
        self._portal = portal
        self._policy: Policy = policy_of(workspace, clock)

    def plan(self, view: View, books: BooksView) -> Planned | None:
        """The plan, and what is remembered for the next one."""
        workspace, old = self._workspace, self._old
        if not self._stands_still(view, books):
            return None
        began = time.time_ns()
        files, troubles = manifest_files(workspace.root, workspace.manifests)
        if troubles or not files:
            return None
        moved = set(self._moved(files))
        gone = old.files.keys() - set(files)
        part = self._grown(files, moved | gone | set(old.restless), view, books)
        if part is None or (world := self._resolved(part, view)) is None:
            return None
        after = self._after(gone, part, world.resolution, began)
        plan = plan_of(
            workspace,
            world,
            Selection(),
            self._clock,
            users_managed=books.count_managed(),
            users_declared=len(after.users),
        )
        restless = _restless(part.declared, world.resolution, plan)
        if restless is None or not plan.applyable:
            return None
        after = replace(after, restless=tuple(sorted(restless)))
        if moved or gone or after.restless != old.restless:
            remember(workspace.root, after)
        declared = part.declared
        if self._digests:
            declared = with_settings(replace(declared, digests=after.digests), workspace)
        return Planned(plan, declared, complete=True)

    def _stands_still(self, view: View, books: BooksView) -> bool:
        """Whether nothing but manifests can have moved."""
        stamp = _stamp(self._workspace, self._clock, view.portal, view.stamp, books.stamp)
        return self._old.world == stamp and not books.books(users=(), ids=()).unsettled

    def _moved(self, files: Iterable[str]) -> Iterator[str]:
        """Files whose signature is not the remembered one."""
        root, known, nothing = os.path.join(self._workspace.root, ""), self._old.files, ()
        for name in files:
            try:
                found = signature(os.stat(root + name))
            except OSError:
                yield name
                continue
            if known.get(name, nothing) != found:
                yield name

    def _grown(self, files: list[str], moved: set[str], view: View, books: BooksView) -> _Part | None:
        """The files that moved, with all whose names they share, and the accounts that go with them."""
        old, workspace = self._old, self._workspace
        awake, present, most = moved, set(files), max(_SMALL, len(files) // 4)
        while len(awake) <= most:
            signatures: dict[str, Signature] = {}
            reading = sorted(awake & present)
            declared, problems = declare_files(
                workspace, reading, digests=self._digests, signatures=signatures
            )
            if any(problem.is_error for problem in problems) or len(declared.digests) < len(reading):
                return None
            numbers = {number for number, file in old.companies.items() if file in awake}
            keys = set(_names_of(declared.users.values()))
            keys.update(key for key, file in old.users.items() if file in awake)
            keys.update(key for key, file in old.former.items() if file in awake)
            managed = books.books(users=keys, ids=()).managed
            # whom these names lead to; those whom nobody declares come along, and move nobody else
            reached = view.users(ids={known.id for known in managed.values()}, emails=keys)
            accounts = view.users(ids={*old.undeclared, *(account.id for account in reached)})
            part_of_books = books.books(users=keys, ids={account.id for account in accounts})
            keys.update(part_of_books.managed)
            # an account nobody declares may have the address of somebody whose own is another one
            keys.update(email_key(account.email) for account in accounts)
            numbers |= declared.companies.keys()
            numbers.update(account.billed for account in (accounts if self._policy.close_absent else reached))
            more = {old.users.get(key, "") for key in keys} | {old.former.get(key, "") for key in keys}
            more |= {old.companies.get(number, "") for number in numbers}
            more &= present
            if more <= awake:
                return _Part(declared, problems, signatures, accounts, part_of_books)
            awake |= more
        return None

    def _resolved(self, part: _Part, view: View) -> World | None:
        """The part as a world of its own; None where something is wrong with it."""
        numbers = {number for user in part.accounts for number in user.companies}
        numbers |= part.declared.companies.keys()
        numbers |= {mention.number for mention in part.declared.remainder.mentions}
        companies = view.companies(numbers)
        problems = [*part.problems, *check(part.declared, self._workspace.check_settings, companies)]
        if any(problem.is_error for problem in problems):
            return None
        current = State(companies, {email_key(user.email): user for user in part.accounts})
        resolution = resolve(part.declared, current, part.books.managed, self._policy)
        if not fitted(self._workspace, self._portal, resolution)[1]:
            return None
        snapshot = Snapshot(view.portal, current, view.terms, view.stamp)
        return World(part.declared, problems, snapshot, part.books, resolution)

    def _after(self, gone: set[str], part: _Part, resolution: Resolution, began: int) -> Remembered:
        """What there is to remember now, but for who is restless."""
        old, declared = self._old, part.declared
        read = part.signatures.keys() | gone
        signatures = {name: trusted(found, began) for name, found in part.signatures.items()}
        digests = {name: digest for name, digest in declared.digests.items() if digest}
        return Remembered(
            old.world,
            {name: found for name, found in old.files.items() if name not in gone} | signatures,
            {name: found for name, found in old.digests.items() if name not in read} | digests,
            _others(old.users, read) | _files_of_users(declared),
            _others(old.former, read) | _files_of_former(declared),
            _others(old.companies, read)
            | {number: company.places.file for number, company in declared.companies.items()},
            (),
            _undeclared(declared, resolution),
        )


def _names_of(users: Iterable[DeclaredUser]) -> Iterator[str]:
    for user in users:
        yield email_key(user.email)
        if user.previous_key is not None:
            yield user.previous_key


def _others(names: Mapping[str, str], read: Iterable[str]) -> dict[str, str]:
    """The names that none of these files declares."""
    return {name: file for name, file in names.items() if file not in read}
