"""Clocks: month ends, the leap day, both clock changes in Paris, and a clock that goes back between runs."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from shell_support import BAKERY, CLAIRE, SAMPLES, Clerk, Said, copy_sample

from provisioner.commands.history import unlock
from provisioner.commands.mail import send
from provisioner.commands.simulate import activate, staff
from provisioner.ledger.journal import read_runs
from provisioner.ledger.ledger import Ledger
from provisioner.model import User
from provisioner.operations.open import read_snapshot
from provisioner.storage.sqlite import SqliteDatabase
from provisioner.workspace.settings import load_workspace

PARIS, PAGO_PAGO = ZoneInfo("Europe/Paris"), ZoneInfo("Pacific/Pago_Pago")
JULIEN = "julien.martin@boulangerie-martin.fr"
SCAN = "apps: [Documents, Scan]\n\n  - email: samira"


def utc(*words: int) -> datetime:
    return datetime(*words, tzinfo=UTC)  # type: ignore[misc, arg-type]


@pytest.fixture
def clerk(tmp_path: Path) -> Callable[[datetime], Clerk]:
    """Return a function that applies the onboarding sample at a point in time."""

    def applied(now: datetime) -> Clerk:
        clerk = Clerk(copy_sample(tmp_path / "firm"), now)
        assert clerk.apply().code == 0
        return clerk

    return applied


def edit(clerk: Clerk, old: str, new: str, file: str = BAKERY) -> None:
    path = clerk.folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def without_scan(clerk: Clerk) -> None:
    """Remove the application Scan from Julien. The application then ends at the end of the month."""
    edit(clerk, SCAN, SCAN.replace(", Scan", ""))


def find(clerk: Clerk, email: str) -> User:
    return read_snapshot(load_workspace(clerk.folder), lambda: clerk.now).state.users[email]


def endings(clerk: Clerk, email: str = JULIEN) -> dict[str, date | None]:
    return {grant.app: grant.ends for grant in find(clerk, email).apps}


LAST_MOMENTS = {
    "winter": (utc(2026, 1, 31, 22, 59), date(2026, 1, 31)),
    "already February in Paris": (utc(2026, 1, 31, 23, 0), date(2026, 2, 28)),
    "the last of February": (utc(2026, 2, 28, 22, 59, 59), date(2026, 2, 28)),
    "already March in Paris": (utc(2026, 2, 28, 23, 0), date(2026, 3, 31)),
    "the day before the leap day": (utc(2028, 2, 28, 22, 59), date(2028, 2, 29)),
    "the leap day has begun in Paris": (utc(2028, 2, 28, 23, 0), date(2028, 2, 29)),
    "the end of the leap day": (utc(2028, 2, 29, 22, 59), date(2028, 2, 29)),
    "after the leap day": (utc(2028, 2, 29, 23, 0), date(2028, 3, 31)),
    "a year of hundred without leap day": (utc(2100, 2, 1, 12), date(2100, 2, 28)),
    "a minute before summer time": (utc(2026, 3, 29, 0, 59), date(2026, 3, 31)),
    "a minute after": (utc(2026, 3, 29, 1, 1), date(2026, 3, 31)),
    "still March in summer time": (utc(2026, 3, 31, 21, 59), date(2026, 3, 31)),
    "already April in summer time": (utc(2026, 3, 31, 22, 0), date(2026, 4, 30)),
    "the hour that comes twice": (utc(2026, 10, 25, 0, 30), date(2026, 10, 31)),
    "and comes again": (utc(2026, 10, 25, 1, 30), date(2026, 10, 31)),
    "still October in winter time": (utc(2026, 10, 31, 22, 59), date(2026, 10, 31)),
    "already November": (utc(2026, 10, 31, 23, 0), date(2026, 11, 30)),
    "the year's last minute": (utc(2026, 12, 31, 22, 59), date(2026, 12, 31)),
    "the new year in Paris": (utc(2026, 12, 31, 23, 0), date(2027, 1, 31)),
    "a clock that tells Paris time": (datetime(2026, 3, 31, 23, 59, tzinfo=PARIS), date(2026, 3, 31)),
    "and the same, later": (datetime(2026, 4, 1, 0, 0, tzinfo=PARIS), date(2026, 4, 30)),
    "a clock on an island": (utc(2026, 3, 31, 22, 0).astimezone(PAGO_PAGO), date(2026, 4, 30)),
}  # fmt: skip


def spoken(day: date) -> str:
    return f"{day.day} {day:%B} {day.year}"


@pytest.mark.parametrize("moment", LAST_MOMENTS)
def test_ended_application_causes_no_change_in_later_plans(
    moment: str, clerk: Callable[[datetime], Clerk]
) -> None:
    """An application works until the end of its last day. Its end causes no change in a plan."""
    now, last = LAST_MOMENTS[moment]
    firm = clerk(now)
    without_scan(firm)
    planned = firm.plan()
    assert planned.code == 2
    assert spoken(last) in " ".join(planned.out.split())
    assert firm.apply().code == 0
    assert endings(firm) == {"Documents": None, "Scan": last}
    midnight = datetime(last.year, last.month, last.day, tzinfo=PARIS) + timedelta(days=1)
    firm.now = midnight - timedelta(seconds=1)
    assert endings(firm)["Scan"] == last
    assert firm.plan().code == 0
    firm.now = midnight
    assert endings(firm) == {"Documents": None}
    assert firm.plan().code == 0
    assert firm.apply().code == 0


@pytest.mark.parametrize("moment", LAST_MOMENTS)
def test_billing_stops_with_the_month_in_paris(moment: str, clerk: Callable[[datetime], Clerk]) -> None:
    """R15: billing ends with the month in Paris, in the plan and on the portal."""
    now, last = LAST_MOMENTS[moment]
    firm = clerk(now)
    file = firm.folder / "clients" / "clarke-ceramics.yaml"
    number = re.search(r'number: "(\d+)"', file.read_text())
    assert number is not None
    file.unlink()
    edit(firm, "absent: report", "absent: close", "provisioner.yaml")
    planned = " ".join(firm.plan().out.split())
    assert f"Billing of company {number[1]}" in planned
    assert spoken(last) in planned
    if firm.apply().code == 4:  # closing more than one account in ten needs consent
        edit(firm, "max_closures_percent: 10", "max_closures_percent: 50", "provisioner.yaml")
        assert firm.apply().code == 0
    company = read_snapshot(load_workspace(firm.folder), lambda: now).state.companies[number[1]]
    assert company.billing_ends == last


def test_plan_saved_before_month_end_applies_its_other_steps_after_it(
    clerk: Callable[[datetime], Clerk],
) -> None:
    """If the month ends between approval and run, only the step with the old month end fails."""
    firm = clerk(utc(2026, 11, 30, 22, 59))
    without_scan(firm)
    edit(firm, "first_name: Claire", "first_name: Clara")
    planfile = firm.folder / "plan.json"
    assert firm.plan(planfile).code == 2
    firm.now = utc(2026, 11, 30, 23, 1)
    said = firm.apply(planfile)
    assert said.code == 7
    assert "R9: the month has turned; an application now ends on 2026-12-31" in " ".join(said.err.split())
    assert find(firm, CLAIRE).first_name == "Clara"
    assert endings(firm) == {"Documents": None, "Scan": None}
    assert firm.apply().code == 0
    assert endings(firm)["Scan"] == date(2026, 12, 31)


def test_ending_cancelled_in_the_last_hour_continues_in_the_new_month(
    clerk: Callable[[datetime], Clerk],
) -> None:
    """An application continues if its end is cancelled in the last hour of the month."""
    firm = clerk(utc(2026, 11, 30, 21, 0))
    without_scan(firm)
    assert firm.apply().code == 0
    edit(firm, SCAN.replace(", Scan", ""), SCAN)
    firm.now = utc(2026, 11, 30, 22, 59)
    assert firm.apply().code == 0
    firm.now = utc(2026, 12, 15)
    assert endings(firm) == {"Documents": None, "Scan": None}
    assert firm.plan().code == 0


# --- a clock that goes back ---


@pytest.mark.parametrize(
    "back", [timedelta(seconds=1), timedelta(hours=1), timedelta(days=3), timedelta(days=400)]
)
def test_clock_that_goes_back_between_runs_changes_nothing(
    back: timedelta, clerk: Callable[[datetime], Clerk]
) -> None:
    """If the clock goes back, the runs keep their order, and nothing is applied or sent twice."""
    firm = clerk(utc(2026, 12, 1, 12))
    without_scan(firm)
    assert firm.apply().code == 0
    letters = len(list((firm.folder / "outbox" / "new").iterdir()))
    firm.now -= back
    assert firm.plan().code == 0
    assert "No changes" in firm.apply().out
    edit(firm, "first_name: Claire", "first_name: Clara")
    assert firm.apply().code == 0
    assert firm.plan().code == 0
    runs = read_runs(SqliteDatabase(firm.folder / "ledger.db"), 10)
    assert [run.id for run in runs] == [3, 2, 1]
    assert all(run.ended and run.ended >= run.began for run in runs)
    assert len(list((firm.folder / "outbox" / "new").iterdir())) == letters
    # the application keeps its last day
    assert endings(firm)["Scan"] == date(2026, 12, 31)


def test_clock_that_goes_back_over_a_month_end_causes_no_change(
    clerk: Callable[[datetime], Clerk],
) -> None:
    """A clock that goes back over a month end causes no change in a plan.

    This is true whether or not the row of the ended application was deleted.
    """
    firm = clerk(utc(2026, 11, 20))
    without_scan(firm)
    assert firm.apply().code == 0
    for swept in (False, True):
        firm.now = utc(2026, 12, 2)
        assert endings(firm) == {"Documents": None}
        if swept:
            edit(firm, SCAN.replace(", Scan", ""), SCAN.replace("Scan", "Image"))
            assert firm.apply().code == 0
        firm.now = utc(2026, 11, 30, 12)
        assert firm.plan().code == 0
    assert endings(firm) == {"Documents": None, "Image": None}


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(days=-400), "for less than a minute"),
        (timedelta(hours=-1), "for less than a minute"),
        (timedelta(seconds=-1), "for less than a minute"),
        (timedelta(seconds=59), "for less than a minute"),
        (timedelta(seconds=60), "for 1 minute."),
        (timedelta(minutes=2), "for 2 minutes."),
        (timedelta(minutes=90), "for 90 minutes."),
    ],
)
def test_age_of_a_lock_is_never_negative(age: timedelta, words: str, tmp_path: Path) -> None:
    """The age of a lock is never negative, even in the hour that a clock change skips or repeats."""
    for began in (utc(2026, 11, 24), utc(2026, 3, 29, 0, 59, 30), utc(2026, 10, 25, 0, 59, 30)):
        firm = Clerk(copy_sample(tmp_path / began.isoformat().replace(":", "")), began)
        ledger = Ledger(SqliteDatabase(firm.folder / "ledger.db"), lambda firm=firm: firm.now)  # type: ignore[misc]
        with ledger.lock.hold("apply"):
            for zone in (UTC, PARIS):
                firm.now = (began + age).astimezone(zone)
                said = firm(unlock, None)
                assert said.code == 0
                assert words in said.out
                assert "-" not in said.out.rpartition("for ")[2]
                refused = firm.apply()
                assert refused.code == 6
                assert words in refused.err
        ledger.close()


def links(firm: Clerk) -> dict[str, str]:
    """The newest link sent to each recipient."""
    found = {}
    box = sorted((firm.folder / "outbox" / "new").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    for file in box:
        text = file.read_text().replace("=\n", "")
        to = re.search(r"^To: .*?([\w.+-]+@[\w.-]+)", text, re.MULTILINE)
        link = re.search(r"https://portail\.durand-associes\.fr/[\w.-]+", text)
        assert to is not None
        assert link is not None
        found[to[1]] = link[0]
    return found


def again(firm: Clerk, email: str) -> Said:
    return firm(send_again, email)


def send_again(folder: Path, email: str, console: Any, *, clock: Any) -> int:
    return send(folder, email, console, again=True, clock=clock)


def test_link_works_thirty_days_and_survives_a_clock_that_goes_back(
    clerk: Callable[[datetime], Clerk],
) -> None:
    """A link works for exactly 30 times 24 hours, even if the clock changes or goes back."""
    began = utc(2026, 3, 10, 12)
    firm = clerk(began)
    first = links(firm)[JULIEN]
    firm.now = began - timedelta(days=2)
    assert again(firm, JULIEN).code == 0
    assert links(firm)[JULIEN] == first
    firm.now = began + timedelta(days=30) - timedelta(seconds=1)
    assert again(firm, JULIEN).code == 0
    assert links(firm)[JULIEN] == first
    firm.now = began + timedelta(days=30)
    assert firm(activate, first).code == 64
    assert again(firm, JULIEN).code == 0
    second = links(firm)[JULIEN]
    assert second != first
    # back again: the newer link is valid, and works once
    firm.now = began + timedelta(days=1)
    assert firm(activate, first).code == 64
    assert firm(activate, second).code == 0
    assert firm(activate, second).code == 64


def test_month_of_runs_under_a_jumping_clock_keeps_the_ledger_readable(tmp_path: Path) -> None:
    """The ledger stays readable if the clock jumps forward and back, across both clock changes."""
    firm = Clerk(copy_sample(tmp_path / "firm"), utc(2026, 10, 24, 23, 30))
    instants = [
        utc(2026, 10, 25, 0, 59, 59),
        utc(2026, 10, 25, 1, 0),
        utc(2026, 10, 24, 1),
        utc(2027, 3, 28, 1),
    ]
    assert firm.apply().code == 0
    for number, firm.now in enumerate(instants):
        if number == 0:
            for file in (SAMPLES / "next-month" / "clients").iterdir():
                (firm.folder / "clients" / file.name).write_bytes(file.read_bytes())
        edit(firm, f"first_name: Claire{'e' * number}\n", f"first_name: Claire{'e' * (number + 1)}\n")
        said = firm.apply()
        assert said.code == 0, said.err
        assert firm.plan().code == 0
        assert firm(staff_closes, "paul.girard@boulangerie-martin.fr").code in (0, 1)
    with closing(sqlite3.connect(firm.folder / "ledger.db")) as connection:
        stamps = [
            *connection.execute("SELECT began FROM run UNION ALL SELECT ended FROM run"),
            *connection.execute("SELECT intended FROM journal UNION ALL SELECT settled FROM journal"),
            *connection.execute("SELECT dated FROM outbox UNION ALL SELECT changed FROM outbox"),
        ]
    assert len(stamps) > 100
    assert all(datetime.fromisoformat(stamp).utcoffset() is not None for (stamp,) in stamps)
    assert [run.id for run in read_runs(SqliteDatabase(firm.folder / "ledger.db"), 50)] == [5, 4, 3, 2, 1]


def staff_closes(folder: Path, email: str, console: Any, *, clock: Any) -> int:
    return staff(folder, "close", email, console, clock=clock)
