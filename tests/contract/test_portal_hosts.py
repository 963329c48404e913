"""The portal's interface for several clients is the same in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from worlds import HOSTS, parameters

from provisioner.embedded.portal import SqlPortal
from provisioner.embedded.portal_types import AuthorisedCall
from provisioner.embedded.read_only import ReadOnlyPortal
from provisioner.errors import Locked, LockLost, PortalError
from provisioner.model import Operator, User, UserType, email_key
from provisioner.planning.steps import (
    CloseUser,
    CreateCompany,
    CreateUser,
    EditCompanies,
    ReopenUser,
    SetType,
)
from provisioner.portal import Call, Verdict
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import NOW, PUBLIC_URL, TERMS, user
from provisioner.testing.reference_portal import MemoryPortal
from provisioner.testing.world import Desk, World, require

if TYPE_CHECKING:
    from postgres_support import PostgresServer


@pytest.fixture(params=parameters(HOSTS))
def world(request: pytest.FixtureRequest, memory_path: Path) -> Iterator[World]:
    with HOSTS[request.param](memory_path) as world:
        yield world
        world.close()


@pytest.fixture
def desk(world: World) -> Desk:
    """Companies 1 and 2 with five users: ann, bob and cid at 1, dan and eve at 2."""
    desk = Desk(world.portal())
    for name, number in (("ann", "1"), ("bob", "1"), ("cid", "1"), ("dan", "2"), ("eve", "2")):
        require(desk.create(user(name, number)))
    return desk


def host(desk: Desk) -> MemoryPortal | SqlPortal:
    assert isinstance(desk.portal, MemoryPortal | SqlPortal)
    return desk.portal


def names(users: tuple[User, ...]) -> list[str]:
    return [found.first_name.lower() for found in users]


def test_pages_follow_the_order_of_creation(desk: Desk) -> None:
    one = host(desk).page_of_users(limit=2)
    assert one.next is not None
    two = host(desk).page_of_users(after=one.next, limit=2)
    assert two.next is not None
    three = host(desk).page_of_users(after=two.next, limit=2)
    assert [names(page.items) for page in (one, two, three)] == [["ann", "bob"], ["cid", "dan"], ["eve"]]
    assert three.next is None
    assert host(desk).page_of_users(limit=5).next is None
    assert {page.counter for page in (one, two, three)} == {host(desk).about().counter}
    everybody = desk.state.users.values()
    assert [*one.items, *two.items, *three.items] == list(everybody)
    assert [found.version for found in one.items] == [1, 1]
    companies = host(desk).page_of_companies(limit=1)
    assert companies.items == (desk.state.companies["1"],)
    assert companies.next is not None
    assert host(desk).page_of_companies(after=companies.next).items == (desk.state.companies["2"],)


def test_since_a_counter_only_later_changes_are_returned(desk: Desk) -> None:
    """A request for the changes since a counter returns only resources that changed later.

    After reading all pages, a client makes this request to get the state at one instant.
    """
    before = host(desk).about()
    assert host(desk).page_of_users(since=before.counter).items == ()
    assert desk.do(CloseUser("eve@example.fr"), "k").verdict is Verdict.APPLIED
    require(desk.do(CloseUser("dan@example.fr")))
    after = host(desk).about()
    assert after.counter == before.counter + 2
    assert after.stamp != before.stamp
    assert names(host(desk).page_of_users(since=before.counter).items) == ["dan", "eve"]
    assert names(host(desk).page_of_users(since=before.counter + 1).items) == ["dan"]
    # R15 marks a company without a new version
    assert host(desk).page_of_companies(since=before.counter).items == (desk.state.companies["2"],)
    assert host(desk).page_of_companies(since=after.counter).items == ()
    require(desk.do(ReopenUser("dan@example.fr")))
    assert [c.billing_ends for c in host(desk).page_of_companies(since=after.counter).items] == [None]


def test_counter_and_stamp_change_only_with_the_content(desk: Desk) -> None:
    portal, before = host(desk), host(desk).about()
    ann = desk.find("ann")
    portal.execute([Call("x", EditCompanies("ann@example.fr", remove=("1",)), ann.id, ann.version)])
    portal.execute([Call("y", CreateUser("ann@example.fr", ann))])
    lease = portal.take_lease("ledger", "ann", "nonce", 1, 60)
    portal.claim_letters("ledger", lease.fence, "run", {"1" * 64: ()})
    portal.activation_links([ann.id])
    portal.drop_lease("ledger", "nonce")
    portal.configure(before.terms, before.public_url)
    assert portal.about() == before
    portal.configure(replace(before.terms, staff=frozenset()), before.public_url)
    assert portal.about().counter == before.counter + 1
    assert portal.snapshot().terms.staff == frozenset()


def test_one_batch_checks_rights_and_lease_of_each_call(desk: Desk) -> None:
    portal = host(desk)
    lease = portal.take_lease("ledger-A", "ann", "nonce", 7, 60)
    portal.take_lease("ledger-B", "bob", "nonce", 3, 60)
    before = portal.about().counter
    newcomers = [user(name, type="standard") for name in ("fay", "gus", "hal", "ida")]
    calls = [Call(f"k{n}", CreateUser(email_key(u.email), u)) for n, u in enumerate(newcomers)]
    receipts = portal.work(
        [
            AuthorisedCall(calls[0], Operator.COLLABORATOR, "ledger-A", 7),
            AuthorisedCall(calls[1], Operator.PARTNER, "ledger-A", 7),
            AuthorisedCall(calls[2], Operator.PARTNER, "ledger-B", 2),
            AuthorisedCall(calls[2], Operator.PARTNER, "ledger-C", 1),
            AuthorisedCall(calls[3], Operator.PARTNER),
        ]
    )
    assert [(receipt.verdict.value, receipt.code) for receipt in receipts] == [
        ("failed", "no-right"), ("applied", ""), ("fenced", "fenced"), ("fenced", "fenced"), ("applied", ""),
    ]  # fmt: skip
    assert portal.about().counter == before + 1
    assert lease.fence == 7
    assert portal.user(receipts[1].id) == desk.find("gus")
    assert portal.user("unknown") is None
    assert portal.company("2") == desk.state.companies["2"]
    assert portal.company("99") is None


def test_run_with_a_fast_clock_takes_over_no_lease(postgres: PostgresServer) -> None:
    """A run with a fast clock does not take over the lease of another run.

    Leases expire by the clock of the shared database server, not by the clocks of the runs.
    """
    database, now = postgres.place(), datetime.now(UTC)
    opened = partial(SqlPortal, database, Operator.PARTNER, TERMS, PUBLIC_URL)
    early, late = opened(lambda: now), opened(lambda: now + timedelta(minutes=2))
    with closing(early), closing(late):
        early.hold("ledger", "ann", 5, 60)
        with pytest.raises(Locked):
            late.hold("ledger", "bob", 5, 60)
        late.hold("another", "bob", 5, 60)
        late.claim("run", {})
        with pytest.raises(Locked):
            early.hold("another", "ann", 5, 60)


def test_planning_after_a_killed_run_opens_one_connection(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planning after a killed run opens one connection, even if many steps are unsettled."""
    from provisioner.storage.postgres_connection import PostgresConnection

    database = postgres.place()
    reached: list[PostgresConnection] = []
    with closing(SqlPortal(database, Operator.PARTNER, TERMS, PUBLIC_URL, lambda: NOW)) as portal:
        calls = [Call(f"key-{number}", CreateCompany(f"{number}", "x")) for number in range(1, 4)]
        done = portal.execute(calls)
    reach = PostgresConnection._connect

    def counted(self: PostgresConnection) -> object:
        reached.append(self)
        return reach(self)

    monkeypatch.setattr(PostgresConnection, "_connect", counted)
    planning = ReadOnlyPortal(database, TERMS, lambda: NOW)
    assert planning.receipts(["key-1", "key-2", "key-3", "key-4"], "") == {
        receipt.key: receipt for receipt in done
    }
    assert len(reached) == 1


def test_lease_is_renewed_by_its_holder_only(desk: Desk) -> None:
    portal = host(desk)
    assert portal.lease("ledger") is None
    first = portal.take_lease("ledger", "ann", "a", 5, 60)
    assert portal.lease("ledger") == first
    with pytest.raises(Locked):
        portal.take_lease("ledger", "bob", "b", 5, 60)
    portal.drop_lease("ledger", "b")
    assert portal.lease("ledger") == first
    assert portal.take_lease("ledger", "bob", "b", 9, 60).fence == 9
    with pytest.raises(LockLost):
        portal.claim_letters("ledger", 5, "run", {})
    portal.drop_lease("ledger", "b")
    assert portal.take_lease("ledger", "cid", "c", 2, 60).fence == 10
    ended = portal.lease("ledger")
    assert ended is not None
    assert (ended.owner, ended.holder) == ("cid", "c")


def test_link_names_its_user_until_it_is_used(desk: Desk) -> None:
    portal, ann = host(desk), desk.find("ann")
    link = portal.activation_links([ann.id])[ann.id]
    assert portal.invited(link) == portal.invited(link.rpartition("/")[2]) == ann
    assert portal.invited("invented") is None
    assert portal.consume(link)
    assert portal.invited(link) is None


def test_every_method_may_be_called_from_any_thread(desk: Desk) -> None:
    portal, failures = host(desk), []
    ids = [found.id for found in desk.state.users.values()]

    def busy(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for turn in range(30):
                someone = portal.user(chance.choice(ids))
                assert someone is not None
                kind = UserType(chance.choice(["administrator", "standard"]))
                call = Call(
                    f"{seed}-{turn}", SetType(email_key(someone.email), kind), someone.id, someone.version
                )
                portal.execute([call])
                portal.page_of_users(since=portal.about().counter - 1)
                portal.snapshot()
        except BaseException as problem:
            failures.append(problem)
            raise

    threads = [threading.Thread(target=busy, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    changed = sum(found.version - 1 for found in desk.state.users.values())
    assert changed == portal.about().counter - (2 * len(desk.state.companies) + 5)


# --- a file that was replaced ---


def test_file_removed_or_replaced_while_open_is_not_used_any_more(tmp_path: Path) -> None:
    """A database file that was removed or replaced while it is open is not used any more.

    Writes to a removed file would be lost as soon as the program closes the file.
    """
    file, away = tmp_path / "portal.db", tmp_path / "away.db"
    with (
        closing(SqlPortal(SqliteDatabase(file), Operator.PARTNER, TERMS, "", lambda: NOW)) as opened,
        closing(opened.reopen()) as twin,
    ):
        file.rename(away)
        for beside in (None, b"", away.read_bytes()):
            if beside is not None:
                file.write_bytes(beside)
            for asked in (twin.about, lambda: twin.drop_lease("l", "h"), opened.reopen):
                with pytest.raises(PortalError, match="was removed or replaced"):
                    asked()
            assert (file.read_bytes() if file.exists() else None) == beside
        away.rename(file)
        assert twin.about() == opened.about()
        opened.reopen().close()
