"""Faults between driver and SCIM server: lost responses, concurrent writers, killed runs."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from boundaries import apply, mailed, workspace
from crash_support import CRASHED, TWO_NEWCOMERS, ended, forked, nothing_to_do, write_output_to
from http_support import CUT, Asked, reply
from scim_support import TOKEN, ask, between, everything, opened, server, tenant

from provisioner import limits
from provisioner.cli import run
from provisioner.errors import LockLost, Partial, PortalError, StalePlan
from provisioner.ledger.lock import read_lock
from provisioner.model import Production, UserType
from provisioner.planning.steps import (
    CloseUser,
    CreateCompany,
    CreateUser,
    EditApps,
    EditCompanies,
    EditProfile,
    SetBilledCompany,
    SetType,
    Step,
)
from provisioner.portal import Portal, Receipt, Verdict
from provisioner.portals.http import HttpClient
from provisioner.portals.http_messages import (
    Request,
)
from provisioner.portals.scim.path import USER
from provisioner.portals.scim.pending import Pending
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.testing.people import user
from provisioner.testing.world import Desk, require

pytestmark = pytest.mark.external

LEDGER = "1" * 32
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
FIRST_JOIN = 7
"""The ``at`` of :func:`dying` before the first membership. Three earlier writes count twice each."""
NEWCOMERS = dict.fromkeys(("emily.clarke@clarke-ceramics.com", "james.clarke@clarke-ceramics.com"), 1)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without pauses."""
    monkeypatch.setattr(limits, "RETRY_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(limits, "RETRY_JITTER_SECONDS", 0.0)


def furnished(portal: Portal) -> Desk:
    """Create company 1 with the users ann and bob, and company 2 with the user cid."""
    desk = Desk(portal)
    for someone in (user("ann"), user("bob", type="standard"), user("cid", "2")):
        require(desk.create(someone))
    return desk


def done(desk: Desk, step: Step) -> None:
    """Do a step as another writer, and require that it is done."""
    require(desk.do(step, "theirs"))


LADDER: tuple[Step, ...] = (
    CreateCompany("7", "Société 7", "732829320"),
    CreateUser("zoé@example.fr", user("zoé", "7", companies=("1", "2"), apps=("Scan",), phone="+33600000")),
    CreateUser("yan@example.fr", user("yan", "7", "standard", status="to_validate")),
    EditCompanies("zoé@example.fr", add=(), remove=("1",)),
    EditCompanies("bob@example.fr", add=("2", "7")),
    SetType("bob@example.fr", UserType.ADMINISTRATOR),
    SetBilledCompany("bob@example.fr", "7", UserType.STANDARD),
    EditApps("zoé@example.fr", production=Production.CONSULTATION, grant=("Achats",)),
    EditProfile("ann@example.fr", "ann@example.fr", "Anne", "Martin", None),
    CloseUser("yan@example.fr"),
)  # fmt: skip
"""A sequence of steps. Some need one write and some need several. Some change groups and some do not."""


def content(url: str) -> list[Any]:
    """Return the content of a server without ids, dates, versions and receipts."""
    names = {one["id"]: one["userName"] for one in everything(url, "Users")}
    found = []
    for kind in ("Users", "Groups"):
        for one in everything(url, kind):
            kept = {name: held for name, held in one.items() if name not in ("id", "meta")}
            if "members" in kept:
                kept["members"] = sorted(names[member["value"]] for member in kept["members"])
            for held in kept.values():
                if isinstance(held, dict):
                    # the keys of calls are made of versions, which are made of ids
                    held.pop("receipts", None)
            found.append(kept)
    return sorted(found, key=str)


# --- answers lost ---


@pytest.mark.parametrize("profile", ["scim", "scim with nothing"])
def test_each_response_lost_once_leaves_one_effect(profile: str, no_pauses: None) -> None:
    """Each step has one effect, although the first response to each request is lost."""
    calm, url = tenant(server(profile)), tenant(server(profile))
    lost: Counter[str] = Counter()
    effects: Counter[bytes] = Counter()

    def answer(asked: Asked, passed: Callable[[], bytes]) -> Any:
        words = repr((asked.method, asked.path, asked.content, asked.headers.get("if-match")))
        result = passed()
        if asked.method != "GET" and result.startswith(b"HTTP/1.1 2"):
            effects[asked.method.encode() + asked.path.encode() + asked.content] += 1
        lost[words] += 1
        return [result[:20], CUT] if lost[words] % 2 else result

    with opened(calm) as portal:
        walk(furnished(portal))
    with opened(url) as portal:
        furnished(portal)
    with between(url, answer) as troubled, opened(troubled) as portal:
        portal.hold(LEDGER, "ann", 1, 60)
        receipts = walk(Desk(portal))
    assert {receipt.verdict for receipt in receipts} == {Verdict.APPLIED}
    assert sum(lost.values()) > 150
    assert content(url) == content(calm)
    groups = [key for key in effects if b"/Groups/" in key]
    # a membership is said again, which changes nothing; everything else takes effect once
    assert {effects[key] for key in effects if key not in groups} == {1}


def walk(desk: Desk) -> list[Receipt]:
    """Do the steps of :data:`LADDER`, each with a key. Return the receipts."""
    receipts = []
    for number, step in enumerate(LADDER):
        receipts.append(desk.do(step, f"key-{number}"))
        require(receipts[-1])
    return receipts


def test_account_created_by_a_lost_call_is_finished_without_our_schemas(
    no_pauses: None,
) -> None:
    """If the server lacks the extensions, the driver finds the account of a lost call by its externalId."""
    url = tenant(server("scim", ours=False))
    with opened(url) as portal:
        require(Desk(portal).create(user("ann")))
    dropped: list[Asked] = []

    def answer(asked: Asked, passed: Callable[[], bytes]) -> Any:
        result = passed()
        if asked.method == "POST" and not dropped:
            dropped.append(asked)
            return CUT
        return result

    with between(url, answer) as troubled, opened(troubled) as portal:
        portal.hold(LEDGER, "ann", 1, 60)
        desk = Desk(portal)
        result = desk.create(user("bob", type="standard", apps=("Scan",)), "key")
    assert dropped
    assert result.verdict is Verdict.APPLIED
    with opened(url) as portal:
        assert Desk(portal).find("bob") == user("bob", type="standard", apps=("Scan",))
        assert portal.receipts(["key"], LEDGER)
        assert portal.receipts(["key"], "2" * 32)
        ours, theirs = (portal.receipts(["key"], ledger).get("key") for ledger in (LEDGER, "2" * 32))
        assert (ours and ours.verdict, theirs and theirs.verdict) == (Verdict.APPLIED, Verdict.ALREADY)


# --- others, between our reading and our writing ---


@contextmanager
def interrupted(url: str, method: str, meanwhile: Callable[[], object]) -> Iterator[str]:
    """Run ``meanwhile`` after the driver's reads and before its first write with ``method``."""
    done: list[Asked] = []

    def answer(asked: Asked, passed: Callable[[], bytes]) -> Any:
        if asked.method == method and not done:
            done.append(asked)
            meanwhile()
        return passed()

    with between(url, answer) as troubled:
        yield troubled
    assert done


@pytest.mark.parametrize("profile", ["scim", "scim without patch"])
def test_change_between_read_and_write_is_not_overwritten(profile: str) -> None:
    """A change between the driver's read and write is not overwritten, because If-Match rejects the write."""
    url = tenant(server(profile))
    with opened(url) as other:
        theirs = furnished(other)

        def meanwhile() -> None:
            require(theirs.do(EditProfile("bob@example.fr", "bob@example.fr", "Robert", "Martin", None)))

        method = "PATCH" if profile == "scim" else "PUT"
        with interrupted(url, method, meanwhile) as troubled, opened(troubled) as portal:
            result = Desk(portal).do(SetType("bob@example.fr", UserType.ADMINISTRATOR))
        assert (result.verdict, result.code) == (Verdict.CONFLICT, "version-moved")
        assert theirs.find("bob").first_name == "Robert"
        assert not theirs.find("bob").is_administrator


def test_concurrent_creations_make_one_user_or_company() -> None:
    """Two concurrent creations make only one user or company (R1, R13). The later call gets *already*."""
    for ours in (True, False):
        url = tenant(server("scim", ours=ours))
        with opened(url) as other:
            theirs = furnished(other)
            steps: list[Step] = [
                CreateCompany("7", "Seven"),
                CreateUser("eve@example.fr", user("eve", "1", "standard")),
            ]
            for step in steps:
                faster = partial(done, theirs, step)
                with interrupted(url, "POST", faster) as troubled, opened(troubled) as portal:
                    portal.hold(LEDGER, "ann", 1, 60)
                    assert Desk(portal).do(step, "ours").verdict is Verdict.ALREADY
            assert len(everything(url, "Groups")) == 3
            assert len(everything(url, "Users")) == 4


@pytest.mark.parametrize("profile", ["scim", "scim without patch"])
def test_members_added_meanwhile_are_kept(profile: str) -> None:
    """Members that another client adds between the driver's read and write are kept.

    A PATCH contains only the new membership. Before a PUT, the driver reads the whole group again.
    """
    url = tenant(server(profile))
    with opened(url) as other:
        theirs = furnished(other)
        (group,) = [one["id"] for one in everything(url, "Groups") if one["displayName"] == "Company 2"]
        cut: list[str] = []

        def answer(asked: Asked, passed: Callable[[], bytes]) -> bytes:
            if asked.method != "GET" and group in asked.path and not cut:
                cut.append(asked.path)
                require(theirs.do(EditCompanies("bob@example.fr", add=("2",))))
            return passed()

        with between(url, answer) as troubled, opened(troubled) as portal:
            require(Desk(portal).do(EditCompanies("ann@example.fr", add=("2",))))
        assert cut
        assert [theirs.find(name).companies for name in ("ann", "bob")] == [{"1", "2"}] * 2


# --- servers that fail, or refuse ---


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_outcome_is_read_after_a_server_error(after: bool) -> None:
    """After HTTP 500 the outcome is unknown, so the driver reads whether the write took effect."""
    calm, url = tenant(server("scim")), tenant(server("scim"))
    broken: Counter[str] = Counter()

    def answer(asked: Asked, passed: Callable[[], bytes]) -> bytes:
        words = repr((asked.method, asked.path, asked.content, asked.headers.get("if-match")))
        if asked.method == "GET" or broken[words]:
            return passed()
        broken[words] += 1
        if after:
            passed()
        return reply(500, {"detail": "Internal error"}, kind="application/scim+json")

    for where in (calm, url):
        with opened(where) as portal:
            furnished(portal)
    with opened(calm) as portal:
        walk(Desk(portal))
    with between(url, answer) as troubled, opened(troubled) as portal:
        portal.hold(LEDGER, "ann", 1, 60)
        walk(Desk(portal))
    assert sum(broken.values()) > 15
    assert content(url) == content(calm)


def refusing(url: str, status: int, where: str) -> Any:
    """Run a proxy that answers ``status`` to every write whose ``METHOD /path`` contains ``where``."""

    def answer(asked: Asked, passed: Callable[[], bytes]) -> bytes:
        if asked.method != "GET" and where in f"{asked.method} {asked.path}":
            return reply(status, {"detail": "Not for you"}, kind="application/scim+json")
        return passed()

    return between(url, answer)


@pytest.mark.parametrize("status", [400, 403, 500])
def test_refused_step_fails_alone_with_the_server_text(status: int) -> None:
    url = tenant(server("scim"))
    with opened(url) as portal:
        furnished(portal)
    with refusing(url, status, "PATCH /tenant") as troubled, opened(troubled) as portal:
        result = Desk(portal).do(SetType("bob@example.fr", UserType.ADMINISTRATOR), "key")
    assert (result.verdict, result.problem) == (Verdict.FAILED, "The server refuses: Not for you")


@pytest.mark.parametrize("ours", [True, False], ids=["with our schemas", "without"])
def test_step_refused_in_the_middle_is_planned_again(ours: bool) -> None:
    """A step refused in the middle is withdrawn, because users without company block all later plans (R5)."""
    url = tenant(server("scim", ours=ours))
    with opened(url) as portal:
        furnished(portal)
    groups = {one["displayName"]: one["id"] for one in everything(url, "Groups")}
    with refusing(url, 403, groups["Company 2"]) as troubled, opened(troubled) as portal:
        portal.hold(LEDGER, "ann", 1, 60)
        desk = Desk(portal)
        result = desk.create(user("eve", type="standard", companies=("2",)), "key 1")
        moved = desk.do(EditCompanies("bob@example.fr", add=("2",)), "key 2")
    assert [result.verdict, moved.verdict] == [Verdict.FAILED] * 2
    with opened(url) as portal:
        desk = Desk(portal)
        assert desk.find("bob").companies == {"1"}
        assert "eve@example.fr" not in desk.state.users
        assert len(everything(url, "Users")) == 3
        assert sorted(len(one["members"]) for one in everything(url, "Groups")) == [1, 2]
        assert not portal.receipts(["key 1"], LEDGER)
        assert "cut-off" not in [problem.code for problem in portal.project(desk.state)[1]]
        assert desk.create(user("eve", type="standard", companies=("2",)), "key 1").verdict is Verdict.APPLIED
        require(desk.do(EditCompanies("bob@example.fr", add=("2",))))


def on_scim(folder: Path, url: str) -> Path:
    """Create a workspace with two newcomers whose portal is the server at ``url``. Return its folder."""
    return workspace(folder, clients=TWO_NEWCOMERS, portal=f"scim+{url}")


def is_join(asked: Asked) -> bool:
    """True for a request that adds a member."""
    return asked.method == "PATCH" and "/Groups/" in asked.path and b"members" in asked.content


@pytest.mark.parametrize("profile", ["scim", "scim without filter"])
def test_withdrawn_creation_leaves_no_membership_after_a_server_error(profile: str, no_pauses: None) -> None:
    """Before a creation is withdrawn, the groups are read, because a membership may exist after HTTP 500."""
    url = tenant(server(profile))
    with opened(url) as portal:
        furnished(portal)
    before = sorted(len(one["members"]) for one in everything(url, "Groups"))

    def answer(asked: Asked, passed: Callable[[], bytes]) -> bytes:
        result = passed()
        if is_join(asked) and b'"add"' in asked.content:
            return reply(500, {"detail": "Internal error"}, kind="application/scim+json")
        return result

    with between(url, answer) as troubled, opened(troubled) as portal:
        portal.hold(LEDGER, "ann", 1, 60)
        assert Desk(portal).create(user("eve", type="standard"), "key").verdict is Verdict.FAILED
    assert len(everything(url, "Users")) == 3
    assert sorted(len(one["members"]) for one in everything(url, "Groups")) == before


def test_creation_refused_in_the_middle_blocks_no_other_and_is_welcomed_later(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A creation refused in the middle is withdrawn, because users without company block all plans (R5)."""
    monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", TOKEN)
    url = tenant(server("scim"))
    refused: list[Asked] = []

    def answer(asked: Asked, passed: Callable[[], bytes]) -> bytes:
        if is_join(asked) and not refused:
            refused.append(asked)
            return reply(403, {"detail": "Not now"}, kind="application/scim+json")
        return passed()

    with between(url, answer) as troubled:
        folder = on_scim(memory_path / "workspace", troubled)
        assert apply(folder) == Partial.exit_code
        assert sum(mailed(folder).values()) == 1
        assert apply(folder) == 0
        assert mailed(folder) == NEWCOMERS
        assert nothing_to_do(folder, capsys)


@pytest.mark.parametrize("status", [403, 500])
def test_step_neither_finished_nor_withdrawn_is_finished_by_the_next_run(
    status: int,
    memory_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_pauses: None,
) -> None:
    """A step that can be neither finished nor withdrawn is finished by a later run.

    The server refuses a membership and all later changes for a time. At the end, each user has one welcome.
    """
    monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", TOKEN)
    url = tenant(server("scim"))
    refused: list[Asked] = []
    ill = True

    def answer(asked: Asked, passed: Callable[[], bytes]) -> bytes:
        if ill and asked.method in ("PATCH", "DELETE") and (is_join(asked) or refused):
            refused.append(asked)
            return reply(status, {"detail": "Not now"}, kind="application/scim+json")
        return passed()

    with between(url, answer) as troubled:
        folder = on_scim(memory_path / "workspace", troubled)
        # the second run ends before its first write
        for code in (Partial.exit_code, PortalError.exit_code):
            assert apply(folder) == code
            assert "in the middle: the server refuses the rest of it (Not now)" in capsys.readouterr().err
        assert not mailed(folder)
        ill = False
        assert apply(folder) == 0
        assert mailed(folder) == NEWCOMERS
        assert all(one["active"] for one in everything(url, "Users"))
        assert nothing_to_do(folder, capsys)


def test_company_deleted_meanwhile_is_left_and_cannot_be_joined() -> None:
    url = tenant(server("scim"))
    with opened(url) as portal:
        desk = furnished(portal)
        require(desk.do(EditCompanies("bob@example.fr", add=("2",))))
        require(desk.create(user("dan", "3")))
        (gone,) = [one["id"] for one in everything(url, "Groups") if one["displayName"] == "Company 2"]
        calls = [
            desk.call(EditCompanies("ann@example.fr", add=("2",)), "a"),
            desk.call(EditCompanies("bob@example.fr", add=("3",), remove=("2",)), "b"),
        ]
        assert ask(url, "DELETE", f"/Groups/{gone}")[0] == 204
        first, second = portal.execute(calls)
        assert first.verdict is Verdict.FAILED
        assert second.verdict is Verdict.CONFLICT
        assert desk.find("ann").companies == desk.find("bob").companies == {"1"}


def test_address_of_a_hidden_user_is_not_taken() -> None:
    """A user cannot get the address of an account without client access (R1). The server rejects it."""
    url = tenant(server("scim"))
    with opened(url) as portal:
        desk = furnished(portal)
        core = "urn:ietf:params:scim:schemas:core:2.0:User"
        assert ask(url, "POST", "/Users", {"schemas": [core], "userName": "staff@example.org"})[0] == 201
        result = desk.do(EditProfile("bob@example.fr", "staff@example.org", "Bob", "Martin", None))
        assert (result.verdict, result.code) == (Verdict.CONFLICT, "exists")
        assert desk.find("bob").email == "bob@example.fr"


# --- runs killed ---


class Killed(BaseException):
    """An exception that the program does not catch, so it ends a run as a kill would."""


def dying(monkeypatch: pytest.MonkeyPatch, at: int) -> list[Request]:
    """Count each write twice, before and after it, and raise :class:`Killed` at count ``at``.

    If ``at`` is 0, the run is never ended. Return the list of counted requests, which grows during the run.
    """
    passed: list[Request] = []
    original = HttpClient.request

    async def ask_(self: HttpClient, request: Request, credential: Any = None, deadline: Any = None) -> Any:
        async def checkpoint() -> None:
            passed.append(request)
            if len(passed) >= at > 0:
                raise Killed

        if request.method == "GET":
            return await original(self, request, credential, deadline)
        await checkpoint()
        answer = await original(self, request, credential, deadline)
        await checkpoint()
        return answer

    monkeypatch.setattr(HttpClient, "request", ask_)
    return passed


@pytest.mark.parametrize(
    "step",
    [
        CreateUser("zoé@example.fr", user("zoé", companies=("2", "3"), apps=("Scan",))),
        EditCompanies("bob@example.fr", add=("3",), remove=("2",)),
        SetBilledCompany("bob@example.fr", "3", UserType.STANDARD),
        SetBilledCompany("dan@example.fr", "3", UserType.STANDARD),
    ],
    ids=["create", "dossiers", "move", "demoting move"],
)
def test_unfinished_step_reads_as_finished_and_the_next_run_finishes_it(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unfinished step is read as finished, and the next run finishes the step.

    Runs of steps with several requests are killed before and after each write.
    """

    start = tenant(server("scim"))
    with opened(start) as portal:
        first = Desk(portal)
        for someone in (
            user("ann"), user("bob", type="standard", companies=("2",)), user("cid", "3"), user("dan"),
        ):  # fmt: skip
            require(first.create(someone))

    held = {kind: everything(start, kind) for kind in ("Users", "Groups")}

    def prepared() -> str:
        return copied(held, tenant(server("scim")))

    def run(url: str) -> Receipt:
        with opened(url) as portal:
            portal.hold(LEDGER, "ann", 1, 60)
            desk = Desk(portal)
            before = portal.receipts(["key"], LEDGER).get("key")
            return before or desk.do(step, "key")

    calm = prepared()
    with monkeypatch.context() as patched:
        passed = dying(patched, 0)
        assert run(calm).verdict is Verdict.APPLIED
        last = len(passed)
    assert last >= 6
    with opened(calm) as portal:
        expected = portal.snapshot().state
    left = content(calm)
    seen = 0
    for at in range(1, last + 1):
        url = prepared()
        with monkeypatch.context() as patched:
            dying(patched, at)
            with pytest.raises(Killed):
                run(url)
        check_that_no_user_sees_too_much(url, step)
        with opened(url, writing=False) as portal:
            found = portal.snapshot().state
            result, theirs = (portal.receipts(["key"], ledger).get("key") for ledger in (LEDGER, "2" * 32))
            _, problems = portal.project(found)
        assert (result is not None) == (dict(found.users) == dict(expected.users))
        cut_off = [problem for problem in problems if problem.code == "cut-off"]
        seen += len(cut_off)
        if cut_off:
            # another ledger may finish it as well, and gets *already*
            assert result is not None
        assert theirs == (result and replace(result, verdict=Verdict.ALREADY))
        receipt = run(url)
        assert receipt.verdict is Verdict.APPLIED, at
        assert content(url) == left, at
        assert run(url).verdict is Verdict.APPLIED
    assert seen >= 3


def copied(held: dict[str, list[dict[str, Any]]], url: str) -> str:
    """Copy the resources ``held`` to the empty server at ``url`` and return ``url``."""
    ids = {}
    for one in held["Users"]:
        _, made = ask(url, "POST", "/Users", {key: held for key, held in one.items() if key != "meta"})
        ids[one["id"]] = made["id"]
    for one in held["Groups"]:
        members = [{"value": ids[member["value"]]} for member in one.get("members", [])]
        ask(url, "POST", "/Groups", {**one, "members": members})
    return url


def check_that_no_user_sees_too_much(url: str, step: Step) -> None:
    """Check that new users cannot log in yet and that other users lose rights before they get rights."""
    people = {one["userName"]: one for one in everything(url, "Users")}
    members = {
        one[next(name for name in one if name.endswith(":Company"))]["number"]: {
            member["value"] for member in one.get("members", [])
        }
        for one in everything(url, "Groups")
    }
    if isinstance(step, CreateUser):
        someone = people.get("zoé@example.fr")
        assert someone is None or not someone["active"] or "pending" not in someone[USER]
    elif isinstance(step, SetBilledCompany) and people["dan@example.fr"]["id"] in members["3"]:
        assert people["dan@example.fr"]["roles"][0]["value"] == "standard"
    elif isinstance(step, EditCompanies) and people["bob@example.fr"]["id"] in members["3"]:
        assert people["bob@example.fr"]["id"] not in members["2"]


def test_unfinished_step_that_is_refused_is_withdrawn_and_planned_again(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A killed step that is then refused is planned again. There is no traceback and no premature welcome."""
    monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", TOKEN)
    url = tenant(server("scim"))
    refuses = True

    def answer(asked: Asked, passed: Callable[[], bytes]) -> bytes:
        if is_join(asked) and refuses:
            return reply(403, {"detail": "Not now"}, kind="application/scim+json")
        return passed()

    with between(url, answer) as troubled:
        folder = on_scim(memory_path / "workspace", troubled)
        with monkeypatch.context() as patched:
            passed = dying(patched, FIRST_JOIN)
            with pytest.raises(Killed):
                apply(folder)
        assert passed[-1].method == "PATCH"
        assert len(everything(url, "Users")) == 1
        assert apply(folder) in (StalePlan.exit_code, Partial.exit_code), capsys.readouterr()
        assert apply(folder) == Partial.exit_code
        assert not mailed(folder)
        assert everything(url, "Users") == []
        refuses = False
        assert apply(folder) == 0
        assert mailed(folder) == NEWCOMERS
        assert nothing_to_do(folder, capsys)


def test_user_of_an_unfinished_creation_is_changed_in_the_finishing_run(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run that finishes a creation plans from the user as the finished creation leaves the user."""
    monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", TOKEN)
    url = tenant(server("scim"))
    folder = on_scim(memory_path / "workspace", url)
    with monkeypatch.context() as patched:
        dying(patched, FIRST_JOIN)
        with pytest.raises(Killed):
            apply(folder)
    manifest = folder / "clients" / "clarke-ceramics.yaml"
    manifest.write_text(manifest.read_text().replace("last_name: Clarke", "last_name: Clark"))
    assert apply(folder) == 0, capsys.readouterr()
    assert {one["name"]["familyName"] for one in everything(url, "Users")} == {"Clark"}
    assert mailed(folder) == NEWCOMERS
    assert nothing_to_do(folder, capsys)


@pytest.mark.parametrize("theirs", ["finished", "taken back"])
def test_announcement_of_another_run_is_kept(theirs: str) -> None:
    """A step that another run has announced stays announced.

    Before the last write of this run, another run finishes or withdraws the step and announces another step.
    """
    url = tenant(server("scim"))
    with opened(url) as portal:
        require(furnished(portal).create(user("eve", "3")))
        bob = Desk(portal).find("bob").id
    another = Pending("another", "2" * 32, add=("3",))
    said: list[Asked] = []

    def answer(asked: Asked, passed: Callable[[], bytes]) -> bytes:
        result = passed()
        if is_join(asked) and not said:
            said.append(asked)
            if theirs == "finished":
                with opened(url) as other:
                    other.hold("2" * 32, "bob", 2, 60)
                    assert other.receipts(["key"], LEDGER)
            announced = {"op": "add", "path": f"{USER}:pending", "value": another.to_json()}
            assert (
                ask(url, "PATCH", f"/Users/{bob}", {"schemas": [PATCH], "Operations": [announced]})[0] < 300
            )
        return result

    with between(url, answer) as troubled, opened(troubled) as portal:
        portal.hold(LEDGER, "ann", 1, 60)
        portal.snapshot()
        result = Desk(portal).do(EditCompanies("bob@example.fr", add=("2",)), "key")
        pending = portal._mapping.pending(ask(url, "GET", f"/Users/{bob}")[1])
    assert said
    if theirs == "finished":
        assert (result.verdict, pending) == (Verdict.APPLIED, another)
    else:
        # ours is begun again, once theirs is finished
        assert pending is None
        with opened(url) as portal:
            assert Desk(portal).find("bob").companies == {"1", "2", "3"}


@pytest.mark.timeout(120)
def test_run_killed_at_any_write_is_finished_by_running_again(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run killed before or after any write is finished by running again. Each newcomer gets one welcome."""
    monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", TOKEN)

    def fresh(name: str) -> tuple[Path, str]:
        folder, url = workspace(memory_path / name, clients=TWO_NEWCOMERS), tenant(server("scim"))
        settings = folder / "provisioner.yaml"
        settings.write_text(settings.read_text().replace("sqlite:///portal.db", f"scim+{url}"))
        return folder, url

    def killed(folder: Path, at: int) -> int:
        def work() -> int:
            write_output_to(os.devnull)
            original, passed = HttpClient.request, 0

            async def ask_(
                self: HttpClient, request: Request, credential: Any = None, deadline: Any = None
            ) -> Any:
                nonlocal passed
                for when in (0, 1):
                    passed += request.method != "GET"
                    if passed == at and request.method != "GET":
                        os.kill(os.getpid(), signal.SIGKILL)
                    if when == 0:
                        answer = await original(self, request, credential, deadline)
                return answer

            HttpClient.request = ask_  # type: ignore[method-assign]
            return apply(folder)

        return ended(forked(work))

    calm, calm_url = fresh("calm")
    assert apply(calm) == 0
    welcomed, left = mailed(calm), content(calm_url)
    assert set(welcomed.values()) == {1}
    at = 1
    while True:
        folder, url = fresh(f"at-{at}")
        code = killed(folder, at)
        if code == 0:
            break
        assert code == -signal.SIGKILL != CRASHED
        assert apply(folder) == 0, (at, capsys.readouterr())
        assert mailed(folder) == welcomed, at
        assert content(url) == left, at
        assert nothing_to_do(folder, capsys), at
        at += 1
    assert at > 14


def test_suspended_run_sends_no_second_welcome_after_another_took_over(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A SCIM server has no lease, so the ledger and the versions refuse the late run."""
    monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", TOKEN)
    url = tenant(server("scim"))
    asleep, awake = threading.Event(), threading.Event()

    def answer(asked: Asked, passed: Callable[[], bytes]) -> bytes:
        if is_join(asked) and not asleep.is_set():
            asleep.set()
            awake.wait(60)
        return passed()

    with between(url, answer) as slow:
        folder = on_scim(memory_path / "workspace", slow)

        def work() -> int:
            write_output_to(memory_path / "talk.txt")
            return apply(folder)

        client = forked(work)
        assert asleep.wait(60)
        os.kill(client, signal.SIGSTOP)
        try:
            holder = read_lock(SqliteDatabase(folder / "ledger.db"))
            assert holder is not None
            assert run(["-C", str(folder), "unlock", holder.id]) == 0
            assert apply(folder) == 0, capsys.readouterr()
        finally:
            awake.set()
            os.kill(client, signal.SIGCONT)
        assert ended(client) == LockLost.exit_code, (memory_path / "talk.txt").read_text()
        assert mailed(folder) == NEWCOMERS
        assert len(everything(url, "Users")) == 2
        assert nothing_to_do(folder, capsys)
