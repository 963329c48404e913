"""``provisioner history``, ``lock`` and ``unlock``: show past runs; show or remove the lock of a run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from provisioner.errors import UsageError
from provisioner.ledger.journal import has_run, read_entries, read_runs
from provisioner.ledger.ledger import Ledger
from provisioner.ledger.lock import describe_lock, read_lock
from provisioner.ledger.process import is_alive
from provisioner.ledger.snapshot import read_ledger_id
from provisioner.model import Clock
from provisioner.operations.open import ledger_location, utc_now
from provisioner.render.sanitize import printable, printable_json
from provisioner.storage.database import Database
from provisioner.terminal.console import Console
from provisioner.workspace.settings import load_workspace

JSON_FIELDS = ("id", "owner", "host", "pid", "command", "since", "fence")
"""The attributes of the lock's holder that ``lock --json`` prints; ``expires`` is printed as well."""


def history(folder: Path, run: int | None, console: Console, *, most: int = 20, as_json: bool = False) -> int:
    """Show the steps of run number ``run``. If ``run`` is None, show at most ``most`` runs, newest first."""
    ledger = ledger_location(load_workspace(folder))
    if run is not None:
        return _steps(ledger, run, console, as_json)
    # a run that had begun before the lock was seen free, and has no end after that, is not at work
    begun = {entry.id for entry in read_runs(ledger, most)}
    begun = begun if read_lock(ledger) is None else set()
    runs = read_runs(ledger, most)
    if as_json:
        console.answer(printable_json([entry._asdict() for entry in runs]))
    elif not runs:
        console.answer("Nothing has been applied yet.")
    else:
        for entry in runs:
            unfinished = "interrupted" if entry.id in begun else "interrupted, or still at work"
            outcome = entry.outcome if entry.ended else unfinished
            console.answer(
                f"{entry.id:>4}  {entry.began}  {printable(entry.owner)}  {printable(entry.command)}  "
                f"plan {entry.digest[:12]}\n      {printable(outcome)}"
            )
    return 0


def _steps(ledger: Database, run: int, console: Console, as_json: bool) -> int:
    entries = read_entries(ledger, run)
    if not entries and not has_run(ledger, run):
        raise UsageError(f"There is no run {run}.", "To see the runs: provisioner history")
    if as_json:
        rows = [
            {name: value for name, value in entry._asdict().items() if name != "key"} for entry in entries
        ]
        console.answer(printable_json(rows))
        return 0
    for entry in entries:
        problem = f" ({printable(entry.problem)})" if entry.problem else ""
        verdict = entry.verdict or "interrupted"
        console.answer(f"{entry.action:<17} {printable(entry.address)}: {verdict}{problem}")
    if not entries:
        console.answer("This run changed nothing on the portal.")
    return 0


def lock(folder: Path, console: Console, *, as_json: bool = False, clock: Clock = utc_now) -> int:
    """Show which run holds the lock, since when and until when."""
    ledger = ledger_location(load_workspace(folder))
    holder = read_lock(ledger)
    if as_json:
        shown: dict[str, object] = {"ledger": read_ledger_id(ledger), "held": holder is not None}
        if holder is not None:
            shown |= {name: getattr(holder, name) for name in JSON_FIELDS}
            shown["expires"] = holder.until or None
        console.answer(printable_json(shown))
        return 0
    if holder is None:
        console.answer("Nobody holds the lock.")
        return 0
    console.answer(f"Held by {printable(describe_lock(holder, clock()))}.")
    until = f"{holder.until}, unless it is renewed before" if holder.until else "never"
    for name, value in (
        ("command", printable(holder.command)),
        ("since", holder.since),
        ("expires", until),
        ("fence", str(holder.fence)),
        ("id", printable(holder.id)),
    ):
        console.answer(f"  {name:<8} {value}")
    if is_alive(holder.host, holder.pid, holder.process_start):
        console.say(f"If that run is stuck: provisioner unlock {printable(holder.id)}")
    else:
        console.say("The process of that run has ended, so the next run takes the lock at once.")
    return 0


def unlock(folder: Path, lock_id: str | None, console: Console, *, clock: Clock = utc_now) -> int:
    """Remove the lock with the id ``lock_id``. If ``lock_id`` is None, only show which run holds the lock."""
    ledger = ledger_location(load_workspace(folder))
    holder = read_lock(ledger)
    if holder is None:
        console.answer("Nobody holds the lock.")
        return 0
    if lock_id is None:
        console.answer(f"Lock {printable(holder.id)} is held by {printable(describe_lock(holder, clock()))}.")
        console.say(f"If that run is dead: provisioner unlock {printable(holder.id)}")
        return 0
    with closing(Ledger(ledger, clock)) as opened:
        taken = opened.lock.remove(lock_id)
    console.answer(
        f"Unlocked; it was held by {printable(describe_lock(taken, clock()))}. "
        "That run writes nothing more than what it has in hand."
    )
    return 0
