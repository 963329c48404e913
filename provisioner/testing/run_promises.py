"""The promises of a driver about runs: receipts, claims, leases and activation links."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from provisioner.errors import Locked, LockLost
from provisioner.planning.steps import (
    CloseUser,
    CreateCompany,
    CreateUser,
    EditCompanies,
)
from provisioner.portal import SENT, Call, Verdict
from provisioner.testing.people import (
    NOW,
    PUBLIC_URL,
    user,
)
from provisioner.testing.world import (
    CLAIMS,
    LEASES,
    LINKS,
    MONTHS,
    OTHERS,
    RECEIPTS,
    VERSIONS,
    Desk,
    Promises,
    World,
    needs,
    require,
    same_state,
)

APPLIED, ALREADY, CONFLICT, FAILED = Verdict.APPLIED, Verdict.ALREADY, Verdict.CONFLICT, Verdict.FAILED

ONE, TWO, THREE = (f"{number:064}" for number in (1, 2, 3))


"""The keys of letters."""


class RunPromises(Promises):
    """The promises about what the portal stores of calls, letters and runs to keep the runs apart."""

    def test_lease_is_renewed_from_another_thread(self, desk: Desk) -> None:
        """A run renews its lease in a thread of its own, also while the run writes."""
        portal = desk.portal
        number = portal.hold("ledger", "ann", 1, 60)
        with ThreadPoolExecutor(max_workers=1) as thread:
            renewals = [thread.submit(portal.hold, "ledger", "ann", 1, 60) for _ in range(20)]
            require(desk.do(EditCompanies("ann@example.fr", add=("2",))))
            assert {renewal.result(timeout=30) for renewal in renewals} == {number}
        require(desk.do(EditCompanies("ann@example.fr", remove=("2",))))
        portal.release()

    @needs(RECEIPTS)
    def test_repeated_key_gives_its_first_receipt(self, desk: Desk) -> None:
        """A call that is repeated with its key has one effect and gets the receipt of the first call.

        A run repeats a call if the answer was lost.
        """
        call = desk.call(EditCompanies("ann@example.fr", add=("2",)), "key-1")
        (first,) = desk.portal.execute([call])
        require(desk.do(EditCompanies("ann@example.fr", remove=("2",))))
        assert desk.portal.execute([call]) == [first]
        assert desk.find("ann").companies == {"1"}
        assert desk.portal.receipts(["key-1", "unheard of"], "") == {"key-1": first}
        made = desk.create(user("eve"), "key-2")
        assert desk.portal.execute([Call("key-2", CreateUser("eve@example.fr", user("eve")))]) == [made]
        assert made.id == desk.find("eve").id

    # a portal without claims may know the key of another resource as little as SCIM servers do
    @needs(RECEIPTS, VERSIONS, CLAIMS)
    def test_key_is_refused_for_another_step(self, desk: Desk, world: World) -> None:
        """An idempotency key belongs to the step that used the key first.

        Another step with the same key is refused, also if another run sends this step.
        """
        used = desk.call(EditCompanies("ann@example.fr", add=("2",)), "key-1")
        (first,) = desk.portal.execute([used])
        made = desk.create(user("eve", type="standard"), "key-2")
        bob, ann = desk.find("bob"), desk.find("ann")
        before = desk.state
        others = [
            Call("key-1", CloseUser("bob@example.fr"), bob.id, bob.version),
            Call("key-1", EditCompanies("bob@example.fr", add=("2",)), bob.id, bob.version),
            Call("key-1", EditCompanies("ann@example.fr", add=("2",)), ann.id, ann.version),
            Call("key-1", EditCompanies("ann@example.fr", remove=("2",)), used.id, used.version),
            Call("key-1", CreateCompany("9", "Neuf")),
            Call("key-2", CreateUser("eve@example.fr", user("eve", "2", type="standard"))),
        ]
        for call in others:
            (receipt,) = world.portal().execute([call])
            assert (receipt.verdict, receipt.code, receipt.id) == (FAILED, "key-reused", ""), call
        assert desk.state == before
        # under any name in the manifest, and also in one batch with a call that reuses the key
        again = [replace(used, step=EditCompanies("annie", add=("2",))), others[-1]]
        assert [receipt.code for receipt in desk.portal.execute(again)] == ["", "key-reused"]
        assert desk.portal.execute(again[:1]) == [first]
        assert desk.create(user("eve", type="standard"), "key-2") == made

    @needs(RECEIPTS, CLAIMS, LEASES)
    def test_receipt_says_applied_only_to_the_ledger_of_the_call(self, desk: Desk, world: World) -> None:
        ours, theirs = desk.portal, world.portal()
        ours.hold("ledger-A", "ann", 1, 60)
        theirs.hold("ledger-B", "bob", 1, 60)
        call = Call("key", CreateUser("eve@example.fr", user("eve", type="standard")))
        (first,) = ours.execute([call])
        (second,) = theirs.execute([call])
        assert [first.verdict, second.verdict] == [APPLIED, ALREADY]
        assert second == replace(first, verdict=ALREADY)
        assert world.portal().receipts(["key"], "ledger-A") == {"key": first}
        assert world.portal().receipts(["key"], "ledger-B") == {"key": second}
        assert ours.execute([call]) == [first]

    @needs(CLAIMS, LEASES)
    def test_letter_belongs_to_the_first_ledger_that_claims_it(self, desk: Desk, world: World) -> None:
        ours, theirs = desk.portal, world.portal()
        ours.hold("ledger-A", "ann", 1, 60)
        theirs.hold("ledger-B", "bob", 1, 60)
        assert ours.claim("a", {ONE: (), TWO: ()}) == {ONE: "a", TWO: "a"}
        assert theirs.claim("b", {TWO: (), THREE: ()}) == {TWO: "", THREE: "b"}
        # also if it names the other ledger's run
        assert theirs.claim("b", {TWO: ("a",)}) == {TWO: ""}
        assert theirs.claim(SENT, {TWO: ("a",)}) == {TWO: ""}
        ours.release()
        again = world.portal()
        again.hold("ledger-A", "ann", 2, 60)
        known = {ONE: ("a",), TWO: ("a",), THREE: ("a", "b")}
        assert again.claim("c", known) == {ONE: "c", TWO: "c", THREE: ""}
        assert again.claim("c", {}) == {}

    @needs(CLAIMS, LEASES)
    def test_letter_passes_between_known_runs_of_one_ledger_only(self, desk: Desk, world: World) -> None:
        """A run takes over a claimed letter only if the run knows which run claimed the letter last.

        If two copies of a ledger owe the same letter, only one of them can therefore send the letter.
        """
        portal = desk.portal
        portal.hold("ledger", "ann", 1, 60)
        assert portal.claim("a", {ONE: ()}) == {ONE: "a"}
        # the answer was lost
        assert portal.claim("a", {ONE: ()}) == {ONE: "a"}
        assert portal.claim("b", {ONE: ("a",), TWO: ("a",)}) == {ONE: "b", TWO: "b"}
        for known in ((), ("a",), ("a", "another")):
            assert portal.claim("copy", {ONE: known, THREE: known}) == {ONE: "b", THREE: "copy"}
        # a user has decided
        assert portal.claim("copy", {ONE: ("b",)}) == {ONE: "copy"}
        assert portal.claim("b", {ONE: ("a", "b")}) == {ONE: "copy"}
        assert portal.claim(SENT, {ONE: ("b",), TWO: ("b",)}) == {ONE: "copy", TWO: SENT}
        assert portal.claim("d", {ONE: ("copy",), TWO: ("a", "b", "copy")}) == {ONE: "d", TWO: SENT}

    @needs(LEASES)
    def test_later_run_of_a_ledger_fences_the_earlier_one(self, desk: Desk, world: World) -> None:
        """If a later run of a ledger takes the lease, the earlier run can no longer write or claim letters.

        Example: the earlier run was stopped and is resumed.
        """
        stopped, later = Desk(world.portal()), Desk(world.portal())
        stopped.portal.hold("ledger", "ann", 4, 60)
        require(stopped.do(EditCompanies("ann@example.fr", add=("2",)), "a"))
        later.portal.hold("ledger", "bob", 5, 60)
        before = later.portal.snapshot()
        for attempt in (
            lambda: stopped.do(EditCompanies("ann@example.fr", remove=("2",)), "b"),
            lambda: stopped.do(EditCompanies("ann@example.fr", add=("2",)), "a"),
            lambda: stopped.portal.claim("a", {ONE: ()}),
            lambda: stopped.portal.hold("ledger", "ann", 4, 60),
        ):
            with pytest.raises(LockLost):
                attempt()
        stopped.portal.release()
        same_state(later.state, before.state)
        require(later.do(EditCompanies("ann@example.fr", remove=("2",)), "b"))
        assert later.portal.claim("b", {ONE: ()}) == {ONE: "b"}

    @needs(LEASES)
    def test_copy_of_a_ledger_is_refused_while_the_other_holds_the_lease(
        self, desk: Desk, world: World
    ) -> None:
        ours, copy = world.portal(), world.portal()
        ours.hold("ledger", "ann", 4, 60)
        for number in (4, 3):
            with pytest.raises(Locked, match="ann") as refusal:
                copy.hold("ledger", "bob", number, 60)
            assert not isinstance(refusal.value, LockLost)
        ours.hold("ledger", "ann", 4, 60)
        require(Desk(ours).do(EditCompanies("ann@example.fr", add=("2",)), "a"))
        ours.release()
        copy.hold("ledger", "bob", 4, 60)
        require(Desk(copy).do(EditCompanies("ann@example.fr", remove=("2",)), "b"))
        world.portal().hold("another-ledger", "cid", 1, 60)
        with pytest.raises(Locked):
            world.portal().hold("ledger", "cid", 4, 60)

    @needs(LEASES, MONTHS)
    def test_lease_expires_unless_its_holder_writes(self, desk: Desk, world: World) -> None:
        assert world.set_clock is not None
        slow = Desk(world.portal())
        slow.portal.hold("ledger", "ann", 4, 60)
        world.set_clock(NOW + timedelta(seconds=50))
        require(slow.do(EditCompanies("ann@example.fr", add=("2",)), "a"))
        world.set_clock(NOW + timedelta(seconds=100))
        with pytest.raises(Locked):
            world.portal().hold("ledger", "bob", 4, 60)
        world.set_clock(NOW + timedelta(seconds=111))
        # expired, but no other run holds it
        require(slow.do(EditCompanies("ann@example.fr", remove=("2",)), "b"))
        world.set_clock(NOW + timedelta(seconds=172))
        other = world.portal()
        other.hold("ledger", "bob", 4, 60)
        with pytest.raises(LockLost):
            slow.do(EditCompanies("ann@example.fr", add=("2",)), "c")
        other.release()
        with pytest.raises(LockLost):
            slow.portal.hold("ledger", "ann", 4, 60)

    @needs(LINKS, OTHERS)
    def test_link_is_stable_and_works_once(self, desk: Desk, world: World) -> None:
        assert world.others is not None
        require(desk.create(user("eve", type="standard", status="to_validate")))
        require(desk.do(CloseUser("bob@example.fr")))
        ids = {name: desk.find(name).id for name in ("ann", "bob", "cid", "eve")}
        links = desk.portal.activation_links([*ids.values(), "unknown"])
        assert set(links) == {*ids.values(), "unknown"}
        assert [bool(links[id_]) for id_ in (*ids.values(), "unknown")] == [True, False, True, False, False]
        assert all(links[ids[name]].startswith(PUBLIC_URL + "/") for name in ("ann", "cid"))
        assert world.portal().activation_links([ids["ann"]]) == {ids["ann"]: links[ids["ann"]]}
        if world.files is not None:
            token = links[ids["ann"]].rpartition("/")[2].encode()
            assert not any(token in file.read_bytes() for file in world.files.iterdir())
        assert world.others.consume(links[ids["ann"]])
        assert not world.others.consume(links[ids["ann"]])
        assert not world.others.consume(f"{PUBLIC_URL}/invented")
        assert desk.portal.activation_links([ids["ann"]]) == {ids["ann"]: ""}
        require(desk.do(CloseUser("cid@example.fr")))
        assert not world.others.consume(links[ids["cid"]])

    @needs(LINKS, OTHERS, MONTHS)
    def test_expired_link_is_replaced(self, desk: Desk, world: World) -> None:
        assert world.set_clock is not None
        assert world.others is not None
        ann = desk.find("ann").id
        old = desk.portal.activation_links([ann])[ann]
        world.set_clock(NOW + timedelta(days=31))
        assert not world.others.consume(old)
        new = desk.portal.activation_links([ann])[ann]
        assert new != old
        assert not world.others.consume(old)
        assert world.others.consume(new)
