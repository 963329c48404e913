"""After any sequence of events, ``apply`` reaches the declared state and sends each welcome once.

A state machine edits manifests, lets other writers change the portal (also during a run), changes the
operator, the settings and the clock, plans, applies, and stops runs at any commit of the ledger or the
portal. The invariants are checked at every commit. Changes of the run are distinguished from changes of other
writers.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from people import all_violations
from shell_support import Clerk, Said, tables

from provisioner.commands.history import unlock
from provisioner.embedded import portal
from provisioner.embedded.portal import SqlPortal
from provisioner.embedded.read_only import ReadOnlyPortal
from provisioner.ledger import lock, store
from provisioner.ledger.lock import read_lock
from provisioner.ledger.outbox import read_letters
from provisioner.ledger.snapshot import read_ledger
from provisioner.model import AppState, Operator, PortalTerms, State, Status, User, month_end, paris_date
from provisioner.planning.steps import CloseUser, EditApps, ReopenUser, Step, ValidateUser
from provisioner.portal import Call, Capabilities, Receipt
from provisioner.rules import StateIndex
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import NOW

TERMS = PortalTerms(
    frozenset({"Essentiel", "Confort"}), frozenset({"Documents", "Scan"}), frozenset({"firm.example"})
)
NAMES = ("ann", "bob", "cid", "dan", "eve")
NUMBERS = ("1", "2", "3")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A folder in memory, where commits are fast; None if the machine has no such folder.

Other tests check that commits reach the disk.
"""

SETTINGS = """
version: 1
firm: {{name: Cabinet, email_domains: [firm.example]}}
manifests: [clients/]
catalogue: {{offers: [Essentiel, Confort], apps: [Documents, Scan]}}
portal: {{url: "sqlite:///portal.db", operator: {operator}, public_url: "https://portal.example.com"}}
ledger: {{url: "sqlite:///ledger.db"}}
mail: {{transport: "maildir:outbox", from: "Cabinet <acces@firm.example>"}}
safety: {{absent: {absent}, self_service: {self_service}, max_closures: 1000, max_closures_percent: 100}}
"""


class Died(BaseException):
    """The simulated death of a run. The run does nothing afterwards."""


class Firm:
    """A workspace with its portal and ledger. The rules are checked at every commit of the portal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clerk = Clerk(folder, NOW)
        self.declared: dict[str, dict[str, Any]] = {}
        self.words = {"operator": "partner", "absent": "report", "self_service": "keep"}
        self.created: dict[str, str] = {}
        """The declared name of each account that a run created, by the id of the account."""
        self.welcomed: set[str] = set()
        """The ids of the accounts that have to receive exactly one welcome."""
        self.state = State()
        self.ours = False
        self.passed = 0
        self.death = 0
        (folder / "clients").mkdir()
        self.write()

    # --- the workspace ---

    def write(self) -> None:
        """Write provisioner.yaml and one manifest for each company."""
        (self.folder / "provisioner.yaml").write_text(SETTINGS.format(**self.words))
        for number in NUMBERS:
            users = [
                {**words, "email": f"{name}@example.fr", "first_name": name, "last_name": "Martin"}
                for name, words in self.declared.items()
                if words["billed"] == number
            ]
            for words in users:
                words.pop("billed")
            company = {"number": number, "name": f"Company {number}"}
            file = self.folder / "clients" / f"{number}.yaml"
            billing = {"mode": "client", "offer": "Essentiel"}
            file.unlink(missing_ok=True)
            if users:
                file.write_text(json.dumps({"company": company, "billing": billing, "users": users}))

    @property
    def may_validate(self) -> bool:
        return self.words["operator"] != "collaborator"

    # --- the portal ---

    def look(self) -> State:
        return (
            ReadOnlyPortal(SqliteDatabase(self.folder / "portal.db"), TERMS, lambda: self.clerk.now)
            .snapshot()
            .state
        )

    def observe(self) -> None:
        """Check the rules after a commit of the portal.

        After a commit of the run, check also that the run had the right to make its changes.
        """
        state = self.look()
        assert list(all_violations(StateIndex(state, TERMS))) == []
        for user in state.users.values():
            for grant in user.apps:
                assert (grant.ends is not None) is (grant.state is AppState.ENDING)
                assert grant.ends is None or grant.ends == month_end(grant.ends)
            if user.is_open:
                assert state.companies[user.billed].billing_ends is None
        if self.ours:
            self._judge(state)
        self.state = state

    def _judge(self, state: State) -> None:
        before = {user.id: user for user in self.state.users.values()}
        managed = {
            known.id for known in read_ledger(SqliteDatabase(self.folder / "ledger.db")).managed.values()
        }
        for user in state.users.values():
            was = before.get(user.id)
            name = self.created.get(user.id) or user.email.partition("@")[0]
            if was is None:
                assert user.email == f"{name}@example.fr"
                self.created[user.id] = name
            elif was != user:
                # law 8: an account that is neither declared nor managed is not changed
                assert user.id in managed or was.email.partition("@")[0] in self.declared
            if user.status is Status.ACTIVE and (was is None or was.status is not Status.ACTIVE):
                assert self.may_validate  # R7, R8
                arrived = was is None or was.status is Status.TO_VALIDATE
                if arrived and user.id in self.created and self.declared[name]["welcome_email"]:
                    self.welcomed.add(user.id)

    # --- runs of the program ---

    def run(
        self, command: Callable[[], Said], death: int = 0, batch: int = 100,
        meanwhile: Sequence[Callable[[], None]] = (),
    ) -> Said | None:  # fmt: skip
        """Run a command. The functions in ``meanwhile`` write to the portal during the run.

        The run dies at boundary number ``death``, which is a point before or after a commit; 0 means never.
        ``batch`` is the number of steps that the portal accepts in one batch. Returns None if the run died.
        """
        self.passed, self.death, self.ours = 0, death, True
        try:
            with self._watched(batch, meanwhile):
                return command()
        except Died:
            holder = read_lock(SqliteDatabase(self.folder / "ledger.db"))
            if holder is not None:
                assert self.clerk(unlock, holder.id).code == 0
            return None
        finally:
            self.ours = False

    def _boundary(self) -> None:
        if self.ours:
            self.passed += 1
            if 0 < self.death <= self.passed:
                raise Died

    @contextmanager
    def _watched(self, batch: int, meanwhile: Sequence[Callable[[], None]]) -> Iterator[None]:
        ledgers, embedded = (vars(store), vars(lock)), vars(portal)
        execute, capabilities = SqlPortal.execute, SqlPortal.capabilities
        transaction = embedded["transaction"]
        late = list(meanwhile)

        def watching(observe: Callable[[], None]) -> Any:
            @contextmanager
            def watched(connection: Any) -> Iterator[None]:
                self._boundary()
                with transaction(connection):
                    yield
                    self._boundary()
                observe()
                self._boundary()

            return watched

        def later(portal: SqlPortal, calls: Any) -> list[Receipt]:
            while late:
                self.others(late.pop())
            return execute(portal, calls)

        patched: Any = SqlPortal
        for module in ledgers:
            module["transaction"] = watching(lambda: None)
        embedded["transaction"] = watching(self.observe)
        patched.execute = later
        patched.capabilities = lambda portal: Capabilities(batch=batch)
        try:
            yield
        finally:
            for module in (*ledgers, embedded):
                module["transaction"] = transaction
            patched.execute, patched.capabilities = execute, capabilities

    # --- the others ---

    def others(self, deed: Callable[[], None]) -> None:
        """Let another writer change the portal with ``deed``, possibly during a run."""
        was, self.ours = self.ours, False
        try:
            deed()
            self.observe()
        finally:
            self.ours = was

    def by_somebody(self, name: str, deed: Callable[[SqlPortal, User], Receipt]) -> None:
        """Apply ``deed`` to the account with the e-mail of ``name``, if the portal and the account exist."""
        if not (self.folder / "portal.db").exists():
            return
        portal = SqlPortal(
            SqliteDatabase(self.folder / "portal.db"), Operator.PARTNER, TERMS, "", lambda: self.clerk.now
        )
        user = portal.snapshot().state.users.get(f"{name}@example.fr")
        if user is not None:
            deed(portal, user)
        portal.close()


def step(make: Callable[[str], Step]) -> Callable[[SqlPortal, User], Receipt]:
    """Return a function that executes the step from ``make`` for a user, as a colleague does by hand."""

    def deed(portal: SqlPortal, user: User) -> Receipt:
        return portal.execute([Call("", make(user.email), user.id, user.version)])[0]

    return deed


def creates(name: str) -> Callable[[SqlPortal, User], Receipt]:
    """Return a function that creates the user ``name``, as a client administrator does."""
    return lambda portal, user: portal.client_creates_user(
        user.id, replace(user, email=f"{name}@example.fr", first_name="Other", apps=frozenset())
    )


DEEDS: dict[str, Callable[[SqlPortal, User], Receipt]] = {
    "close": step(CloseUser),
    "reopen": step(ReopenUser),
    "validate": step(ValidateUser),
    "takes an application away": step(lambda email: EditApps(email, remove=("Documents",))),
    "phones": lambda portal, user: portal.user_changes_profile(user.id, phone="+33199001234"),
    "changes their e-mail": lambda portal, user: portal.user_changes_profile(
        user.id, email=f"new.{user.email}" if user.email[:4] != "new." else user.email[4:]
    ),
    "asks for an application": lambda portal, user: portal.client_requests_app(user.id, "Scan"),
    **{f"creates {name}": creates(name) for name in (*NAMES, "zoe")},
}

names = st.sampled_from(NAMES)
deeds = st.tuples(names, st.sampled_from(sorted(DEEDS)))
fields = st.sampled_from(
    ["all", "all", "leaves", "type", "production", "apps", "phone", "status", "activation", "billed"]
)
apps = st.sampled_from([[], ["Documents"], ["Scan"], ["Documents", "Scan"]])
people = st.fixed_dictionaries(
    {
        "billed": st.sampled_from(NUMBERS),
        "type": st.sampled_from(["administrator", "standard"]),
        "production": st.sampled_from(["full", "consultation"]),
        "welcome_email": st.booleans(),
    },
    optional={
        "apps": apps,
        "companies": st.just([]),
        "phone": st.sampled_from([None, "+33199001111", "+33199002222"]),
        "activation": st.sampled_from(["immediate", "later"]),
        "removal": st.sampled_from(["immediate", "month_end"]),
        "status": st.just("closed"),
    },
)

Edits = list[tuple[str, dict[str, Any], str]]
Writes = list[tuple[str, str]]
edits = st.lists(st.tuples(names, people, fields), min_size=1, max_size=5)
rarely = st.sampled_from([True, False, False, False]).flatmap(lambda yes: edits if yes else st.just([]))
writes = st.lists(deeds, max_size=3)
batches = st.sampled_from([1, 2, 100])


class Convergence(RuleBasedStateMachine):
    """A state machine: the events of a firm, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="firm-", dir=MEMORY))
        self.firm = Firm(self.folder)

    def teardown(self) -> None:
        """Apply as an operator with every right, and check that a further run changes nothing."""
        try:
            self.firm.words["operator"] = "partner"
            self.firm.write()
            self.apply(0, 100)
        finally:
            shutil.rmtree(self.folder)

    @initialize(
        everybody=st.dictionaries(names, people, min_size=3), absent=st.sampled_from(["report", "close"])
    )
    def begins(self, everybody: dict[str, dict[str, Any]], absent: str) -> None:
        self.firm.words["absent"] = absent
        self.firm.declared = everybody
        self._mend()

    # --- events: an edit, writes of others, and a run ---

    @rule(edits=edits, some=writes, batch=batches)
    def applies(self, edits: Edits, some: Writes, batch: int) -> None:
        self._edit(edits)
        self._others(some)
        self.apply(0, batch)

    @rule(edits=edits, some=writes, death=st.integers(1, 50), batch=batches)
    def dies(self, edits: Edits, some: Writes, death: int, batch: int) -> None:
        self._edit(edits)
        self.apply(death, batch)
        self._others(some)

    @rule(edits=edits, some=writes, meanwhile=writes, batch=batches)
    def is_overtaken(self, edits: Edits, some: Writes, meanwhile: Writes, batch: int) -> None:
        self._edit(edits)
        self._others(some)
        deeds = [partial(self.firm.by_somebody, name, DEEDS[what]) for name, what in meanwhile]
        said = self.firm.run(self.firm.clerk.apply, 0, batch, deeds)
        assert said is not None
        assert said.code in (0, 3, 4, 7), said

    @rule(edits=edits, some=writes, later=rarely, death=st.sampled_from([0, 0, 9, 25]))
    def plans_and_applies_that(self, edits: Edits, some: Writes, later: Edits, death: int) -> None:
        self._edit(edits)
        planfile = self.folder / "plan.json"
        planfile.unlink(missing_ok=True)
        before = self._world()
        assert self.firm.clerk.plan(planfile).code in (0, 2, 3, 4)
        assert self._world() == before
        self._others(some)
        self._edit(later)
        before = self._world()
        if planfile.exists():
            said = self.firm.run(lambda: self.firm.clerk.apply(planfile), death)
            assert said is None or said.code in (0, 3, 5, 7), said
            if said is not None and said.code in (3, 5):
                assert self._world() == before

    @rule(
        operator=st.sampled_from(["partner", "partner", "collaborator"]),
        absent=st.sampled_from(["report", "close"]),
        self_service=st.sampled_from(["keep", "restore"]),
        days=st.sampled_from([-2, 0, 1, 6, 31]),
    )
    def settles_otherwise(self, operator: str, absent: str, self_service: str, days: int) -> None:
        self.firm.words = {"operator": operator, "absent": absent, "self_service": self_service}
        self.firm.clerk.now += timedelta(days=days)
        self.firm.write()

    def _edit(self, edits: Edits) -> None:
        """Add, change or remove users of the manifests."""
        for name, words, field in edits:
            if field == "leaves" and len(self.firm.declared) > 1:
                self.firm.declared.pop(name, None)
            elif field == "all" or name not in self.firm.declared:
                self.firm.declared[name] = dict(words)
            else:
                self.firm.declared[name].pop(field, None)
                self.firm.declared[name].update({key: words[key] for key in words if key == field})
        self._mend()

    def _others(self, some: Writes) -> None:
        for name, what in some:
            self.firm.others(partial(self.firm.by_somebody, name, DEEDS[what]))

    def _mend(self) -> None:
        """In each company without an administrator, make the first open user administrator."""
        for number in NUMBERS:
            people = [
                words
                for words in self.firm.declared.values()
                if words["billed"] == number and words.get("status") != "closed"
            ]
            if people and not any(words["type"] == "administrator" for words in people):
                people[0]["type"] = "administrator"
                people[0]["activation"] = "immediate"
        self.firm.write()

    def apply(self, death: int, batch: int) -> None:
        """Apply the manifests. ``death`` and ``batch`` have the same meaning as in :meth:`Firm.run`.

        If the run succeeds, check that the portal is as declared and that a second run changes nothing.
        """
        before = self._world()
        said = self.firm.run(self.firm.clerk.apply, death, batch)
        if said is None:
            return
        assert said.code in (0, 3, 4, 7), said
        if said.code in (3, 4):
            assert self._world() == before
            return
        if said.code == 7:
            # the account was closed before its letter was sent: the letter is parked and reported once
            assert "Not done" not in said.err
            assert "E-mail not sent (failed)" in said.err
        self._as_declared()
        self._each_welcome_once()
        after = self._world()
        assert self.firm.clerk.plan().code == 0
        again = self.firm.run(self.firm.clerk.apply)
        assert again is not None
        assert again.code == 0
        assert "No changes" in again.out
        assert self._world() == after

    # --- what holds ---

    @invariant()
    def each_owed_welcome_is_earned_and_owed_once(self) -> None:
        owed = [posted.user_id for posted in read_letters(SqliteDatabase(self.folder / "ledger.db"))]
        assert len(owed) == len(set(owed))
        assert set(owed) <= self.firm.welcomed

    def _each_welcome_once(self) -> None:
        letters = read_letters(SqliteDatabase(self.folder / "ledger.db"))
        assert {posted.user_id for posted in letters} == self.firm.welcomed
        sent = [posted for posted in letters if posted.state == "sent"]
        assert all("the account is closed" in posted.detail for posted in letters if posted not in sent)
        box = self.folder / "outbox" / "new"
        assert len(os.listdir(box) if box.exists() else ()) == len(sent)
        assert read_ledger(SqliteDatabase(self.folder / "ledger.db")).unsettled == ()

    def _as_declared(self) -> None:
        managed = read_ledger(SqliteDatabase(self.folder / "ledger.db")).managed
        accounts = {user.id: user for user in self.firm.look().users.values()}
        for name, words in self.firm.declared.items():
            if f"{name}@example.fr" not in managed:
                assert words.get("status") == "closed"
                continue
            user = accounts[managed[f"{name}@example.fr"].id]
            if words.get("status") == "closed":
                assert not user.is_open
                continue
            if not user.is_open:
                assert not self.firm.may_validate
                continue
            assert (user.first_name, user.last_name) == (name, "Martin")
            assert (user.type, user.production, user.billed) == (
                words["type"], words["production"], words["billed"],
            )  # fmt: skip
            if self.firm.may_validate and words.get("activation") != "later":
                assert user.status is Status.ACTIVE
            if "apps" in words:
                active = {grant.app for grant in user.apps if grant.state is AppState.ACTIVE}
                assert active == set(words["apps"])
                if words.get("removal") == "immediate":
                    assert AppState.ENDING not in {grant.state for grant in user.apps}
            if "companies" in words:
                assert user.companies == {words["billed"], *words["companies"]}
        today = paris_date(self.firm.clerk.now)
        for user in accounts.values():
            assert all(grant.ends is None or grant.ends >= today for grant in user.apps)

    def _world(self) -> dict[str, list[Any]]:
        """The rows of each table of the portal and of the outbox, by the name of the table."""
        there = [path for name in ("portal.db", "ledger.db") if (path := self.folder / name).exists()]
        found = tables(*there)
        return {
            name: rows
            for name, rows in found.items()
            if rows and (name.startswith("portal.db") or name == "ledger.db:outbox")
        }


@pytest.fixture
def in_memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="firm-", dir=MEMORY) as folder:
        yield Path(folder)


# the largest tier draws two hundred histories
TestConvergence = pytest.mark.timeout(600)(Convergence.TestCase)
TestConvergence.settings = settings(
    stateful_step_count=12,
    # shrinking a failing example takes minutes: add Phase.shrink by hand when you need it
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_user_created_by_an_interrupted_run_is_welcomed_on_validation(in_memory: Path) -> None:
    """A user whom an interrupted run created receives a welcome after the validation.

    The run dies at each boundary, also between the commit of the portal and the commit of the ledger.
    """
    cut_off = 0
    for death in range(1, 100):
        folder = in_memory / str(death)
        folder.mkdir()
        firm = Firm(folder)
        words = {"billed": "1", "type": "administrator", "production": "full", "welcome_email": True}
        firm.declared = {"ann": dict(words)}
        firm.write()
        assert firm.run(firm.clerk.apply)
        firm.declared["bob"] = {**words, "type": "standard"}
        firm.words["operator"] = "collaborator"
        firm.write()
        if firm.run(firm.clerk.apply, death) is not None:
            break
        cut_off += bool(read_ledger(SqliteDatabase(folder / "ledger.db")).unsettled)
        firm.words["operator"] = "partner"
        firm.write()
        assert firm.run(firm.clerk.apply)
        letters = {posted.user_id for posted in read_letters(SqliteDatabase(folder / "ledger.db"))}
        assert letters == firm.welcomed, death
        assert len(letters) == 2
    assert cut_off


def test_former_address_of_an_account_can_be_given_to_a_new_account(tmp_path: Path) -> None:
    """The former address of an account can be given to a new account.

    The second creation has the same fields and base version as the first one, but another key.
    """
    firm = Firm(tmp_path)
    words = {"billed": "1", "type": "administrator", "production": "full", "welcome_email": True}
    firm.declared = {"ann": dict(words), "bob": dict(words)}
    firm.write()
    assert firm.clerk.apply().code == 0
    firm.declared = {"ann": dict(words), "cid": {**words, "previous_email": "bob@example.fr"}}
    firm.write()
    assert firm.clerk.apply().code == 0
    assert set(firm.look().users) == {"ann@example.fr", "cid@example.fr"}
    firm.declared = {name: dict(words) for name in ("ann", "bob", "cid")}
    firm.write()
    said = firm.clerk.apply()
    assert said.code == 0, said.err
    assert set(firm.look().users) == {"ann@example.fr", "bob@example.fr", "cid@example.fr"}
    assert len(read_letters(SqliteDatabase(tmp_path / "ledger.db"))) == 3
