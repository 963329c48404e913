"""``provisioner history`` and ``provisioner unlock``: who did what, and who is at it now."""

from __future__ import annotations

from pathlib import Path

from provisioner.commands.console import Console
from provisioner.commands.reading import utc_now
from provisioner.errors import LedgerError, UsageError
from provisioner.ledger import Ledger, describe_holder, read_entries, read_holder, read_runs
from provisioner.model import Clock
from provisioner.review.visible import visible, visible_json
from provisioner.workspace import load_workspace


def history(folder: Path, run: int | None, console: Console, *, most: int = 20, as_json: bool = False) -> int:
    """The latest runs, newest first; or the steps of one run."""
    path = load_workspace(folder).ledger_path
    if run is not None:
        return _steps(path, run, console, as_json)
    runs = read_runs(path, most)
    if as_json:
        console.answer(visible_json([run._asdict() for run in runs]))
    elif not runs:
        console.answer("Nothing has been applied yet.")
    else:
        for entry in runs:
            outcome = entry.outcome if entry.ended else "interrupted, or still at work"
            console.answer(
                f"{entry.id:>4}  {entry.began}  {visible(entry.owner)}  {visible(entry.command)}  "
                f"plan {entry.digest[:12]}\n      {visible(outcome)}"
            )
    return 0


def _steps(path: Path, run: int, console: Console, as_json: bool) -> int:
    entries = read_entries(path, run)
    if as_json:
        words = [{k: v for k, v in entry._asdict().items() if k != "key"} for entry in entries]
        console.answer(visible_json(words))
        return 0
    if not entries and run not in {found.id for found in read_runs(path, run + 1_000_000)}:
        raise UsageError(f"There is no run {run}.", "To see the runs: provisioner history")
    for entry in entries:
        problem = f" ({visible(entry.problem)})" if entry.problem else ""
        verdict = entry.verdict or "interrupted"
        console.answer(f"{entry.action:<17} {visible(entry.address)}: {verdict}{problem}")
    if not entries:
        console.answer("This run changed nothing on the portal.")
    return 0


def unlock(folder: Path, lock_id: str | None, console: Console, *, clock: Clock = utc_now) -> int:
    """Take the lock from the run that holds it; without an id, say who that is."""
    path = load_workspace(folder).ledger_path
    holder = read_holder(path)
    if holder is None:
        console.answer("Nobody holds the lock.")
        return 0
    if lock_id is None:
        console.answer(f"Lock {holder.id} is held by {describe_holder(holder, clock())}.")
        console.say(f"If that run is dead: provisioner unlock {holder.id}")
        return 0
    ledger = Ledger(path, clock)
    try:
        taken = ledger.unlock(lock_id)
    except LedgerError as problem:
        raise UsageError(problem.sentence, problem.remedy) from problem
    finally:
        ledger.close()
    console.answer(
        f"Unlocked; it was held by {describe_holder(taken, clock())}. That run writes nothing more."
    )
    return 0
