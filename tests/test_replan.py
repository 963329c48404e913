"""A plan from what moved since the last one is the plan of everything, whatever moved."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bench.generate import write_manifests, write_settings
from people import NOW

from provisioner import cache
from provisioner.cache import Remembered, recall, remember, trusted
from provisioner.cli import run
from provisioner.commands import planning
from provisioner.commands.planning import plan_workspace
from provisioner.commands.world import Planned, Selection
from provisioner.errors import ManifestsInvalid
from provisioner.files import Signature
from provisioner.model import Terms
from provisioner.portals import sql
from provisioner.watching import Tell
from provisioner.workspace import load_workspace, read_manifests

USERS = 330
"""In 60 files."""
EDITS = 120 if os.environ.get("CI") else 60


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test edits sooner than anybody; each of its edits makes a new file, so that it shows all the same."""
    monkeypatch.setattr(cache, "_LIKELY_RACE", 0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "provisioner"


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often everything is read."""
    counted: list[int] = []
    original = read_manifests

    def counting(*arguments: Any, **options: Any) -> Any:
        counted.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(planning, "read_manifests", counting)
    return counted


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A firm whose portal is as its manifests say."""
    folder = tmp_path_factory.mktemp("settled")
    write_manifests(folder, USERS)
    write_settings(folder)
    assert run(["-C", str(folder), "apply", "--auto-approve"]) == 0
    return folder


@pytest.fixture
def firm(settled: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(settled, tmp_path / "firm"))


def planned(firm: Path, *, cached: bool, now: datetime = NOW, digests: bool = True) -> Planned:
    workspace = load_workspace(firm)
    return plan_workspace(workspace, Selection(), lambda: now, digests=digests, cached=cached)


def answer(firm: Path, *, cached: bool, now: datetime = NOW) -> tuple[Any, ...]:
    """Everything that is said of a workspace."""
    try:
        made = planned(firm, cached=cached, now=now)
    except ManifestsInvalid as invalid:
        return ("invalid", invalid.diagnostics)
    return (made.plan, list(made.plan.companies.items()), dict(made.declared.digests), made.complete)


def write(path: Path, text: str) -> None:
    """As editors do: a new file takes the old one's place."""
    fresh = path.with_name("~")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def files_of(firm: Path) -> list[Path]:
    return sorted((firm / "clients").rglob("*.yaml"))


# --- what may happen to a workspace between two plans ---

Edit = Callable[[random.Random, Path], object]


def _replaced(old: str, new: str) -> Edit:
    def edit(choose: random.Random, firm: Path) -> None:
        having = [path for path in files_of(firm) if old in path.read_text(encoding="utf-8")]
        if having:
            path = choose.choice(having)
            write(path, path.read_text(encoding="utf-8").replace(old, new, choose.choice((1, 99))))

    return edit


def _user_lines(text: str) -> list[str]:
    """The entries of a manifest's users, each as its text."""
    head, *users = text.split("  - email: ")
    return [head, *(f"  - email: {user}" for user in users)]


def _someone_leaves(choose: random.Random, firm: Path) -> None:
    path = choose.choice(files_of(firm))
    parts = _user_lines(path.read_text(encoding="utf-8"))
    if len(parts) > 2:
        write(path, "".join(part for part in parts if part is not choose.choice(parts[1:])))


def _someone_arrives(choose: random.Random, firm: Path) -> None:
    path = choose.choice(files_of(firm))
    name = f"new{choose.randrange(10_000)}"
    entry = f"  - email: {name}@example.fr\n    first_name: {name}\n    last_name: X\n    type: standard\n"
    write(path, path.read_text(encoding="utf-8") + entry + "    production: full\n")


def _a_stranger_is_declared(choose: random.Random, firm: Path) -> None:
    path = choose.choice(files_of(firm))
    stranger = entry(choose.choice(("guest@example.net", "own@example.net")))
    write(path, path.read_text(encoding="utf-8") + stranger)


def _someone_moves(choose: random.Random, firm: Path) -> None:
    origin, goal = choose.sample(files_of(firm), 2)
    parts = _user_lines(origin.read_text(encoding="utf-8"))
    if len(parts) > 1:
        mover = choose.choice(parts[1:])
        write(origin, "".join(part for part in parts if part is not mover))
        write(goal, goal.read_text(encoding="utf-8") + mover)


def _someone_stands_twice(choose: random.Random, firm: Path) -> None:
    origin, goal = choose.sample(files_of(firm), 2)
    parts = _user_lines(origin.read_text(encoding="utf-8"))
    if len(parts) > 1:
        write(goal, goal.read_text(encoding="utf-8") + choose.choice(parts[1:]))


def _an_address_changes(choose: random.Random, firm: Path) -> None:
    path = choose.choice(files_of(firm))
    parts = _user_lines(path.read_text(encoding="utf-8"))
    if len(parts) > 1:
        at = choose.randrange(1, len(parts))
        old = parts[at].split("\n", 1)[0].removeprefix("  - email: ")
        former = choose.choice((f"    previous_email: {old}\n", ""))
        address = choose.choice(
            (f"moved{choose.randrange(9999)}@example.fr", "user0@client000007.example.fr")
        )
        rest = "\n".join(line for line in parts[at].split("\n")[1:] if "previous_email" not in line)
        parts[at] = f"  - email: {address}\n{former}{rest}"
        write(path, "".join(parts))


def _a_dossier_is_renumbered(choose: random.Random, firm: Path) -> None:
    path = choose.choice(files_of(firm))
    text = path.read_text(encoding="utf-8")
    start = text.index('"') + 1
    number = f"{choose.choice((choose.randrange(60), 900_000 + choose.randrange(99))):06}"
    write(path, text[:start] + number + text[start + 6 :])


def _a_file_goes(choose: random.Random, firm: Path) -> None:
    choose.choice(files_of(firm)).unlink()


def _a_file_is_renamed(choose: random.Random, firm: Path) -> None:
    path = choose.choice(files_of(firm))
    path.rename(path.with_name(f"z{choose.randrange(10_000)}.yaml"))


def _a_copy_is_made(choose: random.Random, firm: Path) -> None:
    path = choose.choice(files_of(firm))
    write(path.with_name("copy.yaml"), path.read_text(encoding="utf-8"))


def _in_the_portal(*command: str) -> Edit:
    def edit(choose: random.Random, firm: Path) -> None:
        address = f"user{choose.randrange(4)}@client{choose.randrange(60):06}.example.fr"
        run(["-C", str(firm), "portal", *(address if word == "USER" else word for word in command)])

    return edit


def _applied(choose: random.Random, firm: Path) -> None:
    run(["-C", str(firm), "apply", "--auto-approve"])


def _settings_change(choose: random.Random, firm: Path) -> None:
    settings = firm / "provisioner.yaml"
    lines = [line for line in settings.read_text(encoding="utf-8").splitlines() if "safety" not in line]
    extra = choose.choice(
        ("safety: {absent: close}", "safety: {max_closures: 0}", "safety: {self_service: restore}", "")
    )
    write(settings, "\n".join([*lines, extra]) + "\n")


EDITS_OF_A_DAY: tuple[Edit, ...] = (
    _replaced("first_name: ", "first_name: Anne-"), _replaced("type: standard", "type: administrator"),
    _replaced("type: administrator", "type: standard"),
    _replaced("production: full", "production: consultation"),
    _replaced("apps: [", "apps: [Scan, "), _replaced("apps: [", "removal: immediate\n    apps: ["),
    _replaced("users:", "# nothing changes\nusers:"), _replaced('number: "0', "number: 0"),
    _replaced("offer: Confort", "offer: Essentiel"), _replaced("offer: Confort", "offer: Conford"),
    _replaced("    last_name:", "    lastname:"), _replaced("user1@", "contact@"),
    _replaced("    type: standard", "    companies: [\"000003\"]\n    type: standard"),
    _replaced("    type: standard", "    companies: [\"777777\"]\n    type: standard"),
    _replaced("    type: standard", "    status: closed\n    type: standard"),
    _replaced("    status: closed\n", ""),
    _someone_leaves, _someone_leaves, _someone_arrives, _someone_arrives, _someone_moves, _someone_moves,
    _someone_stands_twice, _an_address_changes, _an_address_changes, _a_dossier_is_renumbered, _a_file_goes,
    _a_stranger_is_declared, _a_file_is_renamed, _a_copy_is_made,
    _in_the_portal("close", "USER"), _in_the_portal("reopen", "USER"),
    _in_the_portal("user-changes", "USER", "--email", "own@example.net"),
    _in_the_portal("user-changes", "USER", "--phone", "+33199000000"),
    _in_the_portal("requests-app", "USER", "Image"),
    _in_the_portal("client-creates", "USER", "guest@example.net", "Guest", "X"), _applied, _settings_change,
)  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_moved_the_cached_plan_is_the_plan_of_everything(
    seed: int, firm: Path, readings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    choose = random.Random(seed)
    sound = {path: path.read_text(encoding="utf-8") for path in files_of(firm)}
    cached = 0
    for number in range(EDITS):
        edits = choose.sample(EDITS_OF_A_DAY, choose.choice((1, 1, 1, 2)))
        for edit in edits:
            edit(choose, firm)
        readings.clear()
        remembered = answer(firm, cached=True)
        cached += not readings
        assert remembered == answer(firm, cached=False), (number, edits)
        assert answer(firm, cached=True) == remembered, (number, edits)
        if remembered[0] == "invalid" or not remembered[0].applyable or number % 10 == 9:
            # somebody puts it right again
            for path in set(files_of(firm)) - sound.keys():
                path.unlink()
            for path, text in sound.items():
                write(path, text)
            write_settings(firm)
            run(["-C", str(firm), "apply", "--auto-approve"])
            answer(firm, cached=True)
        capsys.readouterr()
    assert cached > EDITS // 4, "the cache was hardly ever asked"


def entry(address: str, more: str = "", *, type: str = "standard") -> str:
    """One more user of a manifest."""
    lines = f"  - email: {address}\n    first_name: Ada\n    last_name: Martin\n    type: {type}\n"
    return f"{lines}    production: full\n{more}"


CLOSED = entry("gone@example.fr", "    status: closed\n")
RENAMED = entry("later@example.fr", "    previous_email: before@example.fr\n")
PORTAL_S = ("portal", "client-creates", "user0@client000002.example.fr", "guest@example.net", "Guest", "X")
OWN = ("portal", "user-changes", "user0@client000002.example.fr", "--email", "own@example.net")


@pytest.mark.parametrize(
    ("before", "command", "moved"),
    [
        (CLOSED, (), CLOSED),
        (RENAMED, (), entry("before@example.fr")),
        (RENAMED, (), entry("else@example.fr", "    previous_email: before@example.fr\n")),
        ("", PORTAL_S, entry("guest@example.net")),
        ("", PORTAL_S, entry("new@example.fr", "    previous_email: guest@example.net\n")),
        ("", OWN, entry("own@example.net")),
        ("", (), entry("new@example.fr", '    companies: ["000002"]\n')),
        ("", (), entry("new@example.fr", '    companies: ["000099"]\n')),
        (entry("only@example.fr"), ("mail", "status"), entry("only@example.fr", type="administrator")),
    ],
)
def test_files_that_share_nothing_but_a_name_are_read_together(
    before: str, command: tuple[str, ...], moved: str, firm: Path, readings: list[int]
) -> None:
    """What one file says changes what another, at rest and not moved, means."""
    quiet, other = files_of(firm)[2], files_of(firm)[7]
    write(quiet, quiet.read_text(encoding="utf-8") + before)
    for verb in (("apply", "--auto-approve"), command or ("validate",)):
        assert run(["-C", str(firm), *verb]) == 0
    answer(firm, cached=True)
    write(other, other.read_text(encoding="utf-8") + moved)
    assert answer(firm, cached=True) == answer(firm, cached=False)


def test_a_closed_account_is_known_by_its_name_wherever_that_is_declared(firm: Path) -> None:
    """Closed accounts are left as they were, so this one's company says nothing of the file that names it."""
    leaver = "user3@client000002.example.fr"
    first, second, third = (files_of(firm)[at] for at in (2, 5, 7))
    parts = _user_lines(first.read_text(encoding="utf-8"))
    write(first, "".join(part for part in parts if leaver not in part))
    write(second, second.read_text(encoding="utf-8") + entry(leaver, "    status: closed\n"))
    for verb in (
        ("portal", "user-changes", leaver, "--email", "own@example.net"),
        ("apply", "--auto-approve"),
    ):
        assert run(["-C", str(firm), *verb]) == 0
    answer(firm, cached=True)
    write(third, third.read_text(encoding="utf-8") + entry("own@example.net"))
    assert answer(firm, cached=True) == answer(firm, cached=False)


def test_a_dossier_that_is_declared_no_more_is_there_for_who_is_given_it(
    firm: Path, readings: list[int]
) -> None:
    quiet, gone = files_of(firm)[2], files_of(firm)[7]
    write(quiet, quiet.read_text(encoding="utf-8") + entry("new@example.fr", '    companies: ["000007"]\n'))
    assert run(["-C", str(firm), "apply", "--auto-approve"]) == 0
    answer(firm, cached=True)
    gone.unlink()
    readings.clear()
    remembered = answer(firm, cached=True)
    assert readings == []
    assert remembered == answer(firm, cached=False)


def test_the_address_that_a_closed_account_gave_up_may_be_that_of_another_account(firm: Path) -> None:
    """That one is told apart from the declared user, in whose file nothing has moved."""
    leaver = "user3@client000002.example.fr"
    path = files_of(firm)[2]
    closed = leaver + "\n    status: closed"
    write(path, path.read_text(encoding="utf-8").replace(leaver, closed))
    administrator = "user0@client000002.example.fr"
    for verb in (
        ("portal", "user-changes", leaver, "--email", "own@example.net"),
        ("apply", "--auto-approve"),
        ("portal", "client-creates", administrator, leaver, "Guest", "X"),
    ):
        assert run(["-C", str(firm), *verb]) == 0
    answer(firm, cached=True)
    assert answer(firm, cached=True) == answer(firm, cached=False)


def test_a_closed_account_is_given_a_dossier_of_which_only_another_file_knows(firm: Path) -> None:
    quiet, other = files_of(firm)[2], firm / "clients" / "new.yaml"
    more = '    status: closed\n    companies: ["888888"]\n'
    write(quiet, quiet.read_text(encoding="utf-8") + entry("gone@example.fr", more))
    head = 'company:\n  number: "888888"\n  name: Neuf\nusers:\n'
    write(other, head + entry("boss@example.fr", type="administrator"))
    assert answer(firm, cached=True)[0] != "invalid"
    other.unlink()
    told = answer(firm, cached=True)
    assert told[0] == "invalid"
    assert told == answer(firm, cached=False)


def test_settings_that_change_while_a_plan_is_made_are_not_those_of_that_plan(firm: Path) -> None:
    settings = firm / "provisioner.yaml"
    text = settings.read_text(encoding="utf-8")

    @contextmanager
    def watch(label: str) -> Iterator[Tell]:
        if label == "Planning":
            write(settings, text + 'defaults: {companies: ["000001"]}\n')
        yield lambda done, total: None

    options: dict[str, bool] = {"digests": True, "cached": True}
    plan_workspace(load_workspace(firm), Selection(), lambda: NOW, watch=watch, **options)
    remembered = answer(firm, cached=True)
    assert remembered[0].has_changes
    assert remembered == answer(firm, cached=False)


def test_who_writes_by_hand_while_the_portal_is_read_is_not_part_of_what_was_read(firm: Path) -> None:
    """Whoever writes there without this program gives the content no stamp; only the file has moved."""
    original = sql._terms
    with closing(sqlite3.connect(firm / "portal.db", isolation_level=None)) as other:
        other.execute("UPDATE client_user SET version = version")

        def terms(connection: sqlite3.Connection) -> Terms:
            # once the users are read
            other.execute(
                "UPDATE client_user SET first_name = 'Grace' WHERE email LIKE 'user1@%3.example.fr'"
            )
            return original(connection)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sql, "_terms", terms)
            assert not planned(firm, cached=True).plan.changes
        remembered = answer(firm, cached=True)
        assert remembered[0].changes
        assert remembered == answer(firm, cached=False)


def test_reading_and_planning_tell_how_far_they_are(tmp_path: Path) -> None:
    write_manifests(tmp_path, USERS)
    write_settings(tmp_path)
    told: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def watch(label: str) -> Iterator[Tell]:
        yield lambda done, total: told.setdefault(label, []).append((done, total))

    plan = plan_workspace(load_workspace(tmp_path), Selection(), lambda: NOW, watch=watch).plan
    for label, total in (("Reading", 60), ("Planning", len(plan.steps))):
        assert told[label] == [(done, total) for done in range(1, total + 1)]


def test_a_plan_after_a_plan_reads_no_file_again(firm: Path, readings: list[int]) -> None:
    planned(firm, cached=True)
    readings.clear()
    assert not planned(firm, cached=True).plan.has_changes
    assert readings == []


def test_another_month_another_program_or_another_setting_is_another_world(
    firm: Path, readings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(firm, cached=True)
    for change in (
        lambda: planned(firm, cached=True, now=NOW + timedelta(days=31)),
        lambda: write(firm / "provisioner.yaml", (firm / "provisioner.yaml").read_text() + "# x\n"),
        lambda: monkeypatch.setattr(cache, "__version__", "99"),
    ):
        readings.clear()
        planned(firm, cached=True)
        change()
        planned(firm, cached=True)
        assert readings
    readings.clear()
    planned(firm, cached=True, now=NOW + timedelta(days=1))
    assert readings == [], "a day of the same month changes nothing"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"0" * 64 + content[64:],
        lambda content: b"not at all",
    ],
)
def test_a_cache_that_is_not_whole_is_no_cache(
    spoil: Callable[[bytes], bytes], firm: Path, own_cache: Path, readings: list[int]
) -> None:
    expected = answer(firm, cached=True)
    (file,) = own_cache.iterdir()
    file.write_bytes(spoil(file.read_bytes()))
    readings.clear()
    assert answer(firm, cached=True) == expected
    assert readings


def test_a_cache_that_cannot_be_kept_is_no_problem(
    firm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "occupied").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "occupied"))
    assert answer(firm, cached=True) == answer(firm, cached=False)


def test_the_cache_is_for_its_owners_eyes_and_outside_the_workspace(firm: Path, own_cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in firm.rglob("*")}
    old = os.umask(0)
    try:
        planned(firm, cached=True)
    finally:
        os.umask(old)
    assert {path: path.stat().st_mtime_ns for path in firm.rglob("*")} == before
    (file,) = own_cache.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert own_cache.stat().st_mode & 0o777 == 0o700


def test_a_cache_folder_that_lies_wherever_one_stands_is_passed_over(
    firm: Path, nobody_s_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    monkeypatch.chdir(firm)
    planned(firm, cached=True)
    assert not (firm / "caches").exists()
    assert (nobody_s_home / ".cache" / "provisioner").is_dir()


def test_no_cache_reads_everything_and_remembers_nothing(firm: Path, own_cache: Path) -> None:
    assert run(["-C", str(firm), "plan", "--no-cache"]) == 0
    assert not own_cache.exists()
    assert run(["-C", str(firm), "plan"]) == 0
    assert own_cache.exists()


def _signatures() -> Iterator[tuple[Signature, bool]]:
    now = 10_000_000_000
    yield Signature(1, now - 2_000_000_001, now - 2_000_000_001, 7), True
    yield Signature(1, now - 2_000_000_000, now - 2_000_000_001, 7), True
    yield Signature(1, now - 1_999_999_999, now - 2_000_000_001, 7), False
    yield Signature(1, now - 2_000_000_001, now - 1_999_999_999, 7), False


@pytest.mark.parametrize(("signature", "holds"), tuple(_signatures()))
def test_a_file_that_moved_just_before_it_was_read_is_read_again(
    signature: Signature, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_LIKELY_RACE", 2_000_000_000)
    assert (trusted(signature, 10_000_000_000) == signature) is holds


def test_what_is_remembered_is_recalled(tmp_path: Path) -> None:
    kept = Remembered(
        "w", {"a.yaml": (1, 2, 3, 4)}, {"a.yaml": "d"}, {"u": "a.yaml"}, {}, {"1": "a.yaml"}, (), ("i",)
    )
    assert recall(tmp_path) is None
    remember(tmp_path, kept)
    assert recall(tmp_path) == kept
    assert recall(tmp_path.parent) is None
