"""The lease on a portal is renewed during a run or taken by a later run. Letters are claimed one by one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from boundaries import mailed, workspace
from crash_support import TWO_NEWCOMERS
from shell_support import Shell

from provisioner.diagnostics import Diagnostic, warning
from provisioner.embedded.portal import SqlPortal
from provisioner.errors import Locked, LockLost
from provisioner.ledger.journal import read_entries
from provisioner.ledger.outbox import letter_key, read_letters
from provisioner.ledger.snapshot import read_ledger
from provisioner.model import Operator, State
from provisioner.operations import apply as apply_module
from provisioner.operations import pipeline as planning_module
from provisioner.operations import portal_lease
from provisioner.operations.apply import record_adoptions
from provisioner.operations.deliver import DeliveryReport
from provisioner.operations.open import open_portal_for, utc_now
from provisioner.operations.portal_lease import hold_portal
from provisioner.portal import Capabilities
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import NOW, TERMS
from provisioner.testing.reference_portal import MemoryPortal
from provisioner.workspace.settings import load_workspace


class CountingPortal(MemoryPortal):
    """A portal that counts the calls of ``hold`` and records the threads that make these calls."""

    def __init__(self) -> None:
        super().__init__(Operator.PARTNER, TERMS, "", lambda: NOW)
        self.threads: set[int] = set()
        self.beats = 0
        self.awaited = threading.Event()
        self.trouble: Exception | None = None

    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        number = super().hold(ledger, owner, fence, seconds)
        self.threads.add(threading.get_ident())
        self.beats += 1
        if self.beats == 2 and self.trouble:
            raise self.trouble
        if self.beats >= 4:
            self.awaited.set()
        return number


@pytest.mark.parametrize("trouble", [None, Locked("not now"), LockLost("gone")])
def test_heartbeat_renews_the_lease_until_the_run_ends(trouble: Exception | None) -> None:
    portal = CountingPortal()
    portal.trouble = trouble
    with hold_portal(portal, "ledger", "ann", 1, 0):
        assert portal.awaited.wait(20)
        assert portal.lease("ledger") is not None
    beats = portal.beats
    assert len(portal.threads) == 2
    lease = portal.lease("ledger")
    assert lease is not None
    assert not lease.holder
    assert portal.beats == beats


def test_portal_held_by_another_run_is_refused() -> None:
    portal = CountingPortal()
    portal.another(Operator.PARTNER).hold("ledger", "bob", 1, 60)
    with pytest.raises(Locked, match="bob"), hold_portal(portal, "ledger", "ann", 1, 60):
        raise AssertionError
    with pytest.raises(ZeroDivisionError), hold_portal(portal, "another", "ann", 1, 60):
        _ = 1 / 0
    lease = portal.lease("another")
    assert lease is not None
    assert not lease.holder


def test_run_waits_for_the_portal_while_keep_waiting_is_true(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(portal_lease, "POLL_SECONDS", 0)
    portal = CountingPortal()
    other = portal.another(Operator.PARTNER)
    other.hold("ledger", "bob", 1, 60)
    asked, said = iter((True, True)), list[str]()

    def keep_waiting() -> bool:
        if not next(asked, False):
            other.release()
        return True

    with hold_portal(
        portal, "ledger", "ann", 1, 60, keep_waiting=keep_waiting, on_wait=said.append
    ) as number:
        assert number == 2
    (sentence,) = said
    assert "held by bob" in sentence


def test_restored_ledger_continues_with_the_portal_s_fencing_number(
    firm: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that was restored from a backup continues with the fencing number of the portal.

    Otherwise, after a killed run, the next runs would have to wait until the killed run's lease expires.
    """
    assert firm("apply", "--auto-approve").code == 0
    portal, ledger = embedded(firm.folder), read_ledger(SqliteDatabase(firm.folder / "ledger.db")).id
    portal.take_lease(ledger, "before the ledger was restored", "bob", 99, 60)
    portal.drop_lease(ledger, "bob")
    portal.close()
    with monkeypatch.context() as patch:
        patch.setattr(SqlPortal, "drop_lease", lambda *words: None)
        assert firm("mail", "send").code == 0
    assert firm("mail", "send").code == 0


@pytest.fixture
def firm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return a workspace with two new users."""
    return Shell(workspace(tmp_path / "firm", clients=TWO_NEWCOMERS), capsys)


def embedded(folder: Path) -> SqlPortal:
    portal = open_portal_for(load_workspace(folder), writing=True)
    assert isinstance(portal, SqlPortal)
    return portal


def test_superseded_run_exits_6_and_a_rerun_finishes(firm: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    remember = record_adoptions

    def overtaken(*words: Any) -> None:
        portal = embedded(firm.folder)
        portal.take_lease(
            read_ledger(SqliteDatabase(firm.folder / "ledger.db")).id, "somebody", "later", 99, 60
        )
        portal.drop_lease(read_ledger(SqliteDatabase(firm.folder / "ledger.db")).id, "later")
        portal.close()
        remember(*words)

    monkeypatch.setattr(apply_module, "record_adoptions", overtaken)
    said = firm("apply", "--auto-approve")
    assert said.code == 6
    assert "Another run has taken this one's place on the portal" in said.err
    assert firm("portal", "users").out == "Nobody is on this portal yet.\n"
    monkeypatch.undo()
    assert firm("apply", "--auto-approve").code == 0
    assert sorted(mailed(firm.folder).values()) == [1, 1]
    verdicts = [
        entry.verdict
        for run in (1, 2)
        for entry in read_entries(SqliteDatabase(firm.folder / "ledger.db"), run)
    ]
    assert set(verdicts) == {"skipped", "applied"}


def test_run_exits_6_while_a_copy_of_its_ledger_holds_the_portal(firm: Shell) -> None:
    assert firm("apply", "--auto-approve").code == 0
    portal = embedded(firm.folder)
    portal.take_lease(
        read_ledger(SqliteDatabase(firm.folder / "ledger.db")).id, "bob on beta", "copy", 99, 60
    )
    said = firm("mail", "send")
    assert said.code == 6
    assert "held by bob on beta" in said.err
    portal.close()


def test_letter_that_another_ledger_sends_is_parked_and_reported(firm: Shell) -> None:
    """If two ledgers owe the same letter, one ledger sends it, and the other parks and reports the letter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply_module, "deliver", lambda *words: DeliveryReport())
        assert firm("apply", "--auto-approve").code == 0
    owed = read_letters(SqliteDatabase(firm.folder / "ledger.db"))
    assert [posted.state for posted in owed] == ["owed", "owed"]
    portal = embedded(firm.folder)
    lease = portal.take_lease("another ledger", "bob", "bob", 1, 60)
    key = owed[0].letter.key
    assert portal.claim_letters("another ledger", lease.fence, "a run", {key: ()}) == {key: "a run"}
    portal.close()
    said = firm("mail", "send")
    assert said.code == 7
    assert [posted.state for posted in read_letters(SqliteDatabase(firm.folder / "ledger.db"))] == [
        "failed",
        "sent",
    ]
    assert "another workspace, with a ledger of its own, sends this e-mail" in said.err
    assert mailed(firm.folder) == {owed[1].letter.recipient: 1}
    assert firm("mail", "send", owed[0].letter.recipient).code == 7
    assert sum(mailed(firm.folder).values()) == 1
    assert (
        letter_key(read_ledger(SqliteDatabase(firm.folder / "ledger.db")).portal, owed[0].user_id)
        == owed[0].letter.key
    )


class LimitedPortal:
    """The workspace's portal, with fewer capabilities."""

    def __init__(self, portal: Any, can: Capabilities, gaps: Sequence[Diagnostic] = ()) -> None:
        self._portal, self._can, self._gaps = portal, can, gaps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._portal, name)

    def capabilities(self) -> Capabilities:
        return self._can

    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        return desired, self._gaps


def limit(patch: pytest.MonkeyPatch, can: Capabilities, gaps: Sequence[Diagnostic] = ()) -> None:
    """Limit every portal that is opened later to the capabilities ``can``.

    The method ``project`` of these portals returns ``gaps`` as diagnostics.
    """

    def opened(*words: Any, **options: Any) -> Any:
        return LimitedPortal(open_portal_for(*words, **options), can, gaps)

    patch.setattr(planning_module, "open_portal_for", opened)


def test_missing_version_guard_is_reported_once_and_in_the_plan(
    firm: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, Capabilities(versions=False, claims=False))
    sentence = "This portal cannot guard against a second run at the same time"
    saved = str(firm.folder / "plan.json")
    # without a plan the warning is beside the answer; the last command has nothing to do
    for command, beside in (
        (("plan", "--out", saved), 0), (("plan", "--json"), 1), (("apply", saved), 1),
        (("apply", "--auto-approve"), 0),
    ):  # fmt: skip
        said = firm(*command)
        text = " ".join((said.err if beside else said.out).split())
        assert said.code == 0
        assert (text.count(sentence), said.err.count(sentence)) == (1, beside)
        assert "overwrite what somebody else changes meanwhile or send a second welcome" in text
    monkeypatch.undo()
    limit(monkeypatch, Capabilities())
    assert sentence not in firm("plan").err


def test_what_a_portal_cannot_hold_is_in_every_plan(firm: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert firm("apply", "--auto-approve").code == 0
    assert firm("plan").code == firm("plan").code == 0
    gap = warning("portal-missing", "This portal keeps no phones.", "Nothing to do.")
    limit(monkeypatch, Capabilities(), [gap])
    for _ in range(2):
        assert "This portal keeps no phones." in firm("plan").out


def test_portal_sends_the_welcome_only_if_it_makes_no_links(
    firm: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    firm.edit("provisioner.yaml", "welcome: ours", "welcome: portal")
    before = firm.print_of()
    for command in (("plan",), ("apply", "--auto-approve")):
        said = firm(*command)
        assert said.code == 4
        assert "provisioner.yaml:37:12  The welcome e-mails are left to the portal" in said.out
        assert "Write welcome: ours, or welcome: none." in said.out
    assert firm.print_of() == before
    limit(monkeypatch, Capabilities(activation_links=False))
    planned = firm("plan", "--detailed-exitcode")
    assert planned.code == 2
    assert planned.out.endswith(" 0 e-mails to send.\n")


def test_lease_ends_with_its_run(firm: Shell) -> None:
    assert firm("apply", "--auto-approve").code == 0
    portal = embedded(firm.folder)
    lease = portal.lease(read_ledger(SqliteDatabase(firm.folder / "ledger.db")).id)
    portal.close()
    assert lease is not None
    assert (lease.holder, lease.fence) == ("", 1)
    assert lease.expires <= utc_now()
