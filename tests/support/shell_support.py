"""Two ways to run the program in a workspace: its command line, and its functions with a settable clock."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from provisioner.cli import run
from provisioner.commands.apply import apply
from provisioner.commands.plan import plan
from provisioner.errors import ProvisionerError
from provisioner.terminal.console import Console

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples"
BAKERY = "clients/boulangerie-martin.yaml"
CLAIRE = "claire.martin@boulangerie-martin.fr"


def copy_sample(folder: Path, name: str = "onboarding") -> Path:
    """Copy a sample workspace without portal, ledger and outbox."""
    shutil.copytree(SAMPLES / name, folder, ignore=shutil.ignore_patterns("*.db*", "outbox"))
    return folder


@dataclass
class Said:
    """The exit code and output of one command."""

    code: int
    out: str
    err: str


class Shell:
    """The command line of the program in one workspace.

    The output is as if the command had been typed in the folder: the commands that it names lack ``-C``.
    """

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *words: str | Path, folder: Path | None = None) -> Said:
        self._capsys.readouterr()
        code = run(["-C", str(folder or self.folder), *map(str, words)])
        said = self._capsys.readouterr()
        here = re.escape(shlex.quote(str(folder or self.folder)))
        out, err = (re.sub(rf"provisioner\s+-C {here}\s+", "provisioner ", text) for text in said)
        assert "Traceback" not in said.out + said.err
        return Said(code, out, err)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def letters(self) -> int:
        box = self.folder / "outbox" / "new"
        return len(list(box.iterdir())) if box.exists() else 0

    def tables(self) -> dict[str, list[Any]]:
        """Return all rows of the databases of the portal and the ledger."""
        return tables(self.folder / "portal.db", self.folder / "ledger.db")

    def print_of(self) -> dict[str, str]:
        """Return a digest of each file, for a comparison before and after a command."""
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


class Clerk:
    """The functions of the commands, called in one workspace with a clock that the test sets."""

    def __init__(self, folder: Path, now: datetime) -> None:
        self.folder = folder
        self.now = now

    def __call__(self, command: Callable[..., int], *words: object, **options: Any) -> Said:
        """Call the function of a command. An error is converted to its exit code, as on the command line."""
        out, err = io.StringIO(), io.StringIO()
        try:
            code = command(self.folder, *words, Console(out, err), clock=lambda: self.now, **options)
        except ProvisionerError as problem:
            code = problem.exit_code
            err.write("".join(f"{found.code}: {found.detail}\n" for found in problem.diagnostics))
            err.write(f"{problem.sentence}\n{problem.remedy}\n")
        return Said(code, out.getvalue(), err.getvalue())

    def plan(self, out: Path | None = None) -> Said:
        """Run ``plan --detailed-exitcode``."""
        return self(plan, out=out, detailed_exitcode=True)

    def apply(self, planfile: Path | None = None) -> Said:
        """Run ``apply --auto-approve``."""
        return self(apply, planfile, auto_approve=True)


def tables(*databases: Path) -> dict[str, list[Any]]:
    """Return all rows of all tables, for a comparison before and after a command.

    Rows that change although nothing else is written are left out.
    """
    found: dict[str, list[Any]] = {}
    for path in databases:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
            for (name,) in names.fetchall():
                rows = connection.execute(f'SELECT * FROM "{name}"').fetchall()
                # stamp and fence also change when nothing else is written
                passing = (("fact", "stamp"), ("fact", "fence"))
                kept = [row for row in rows if (name, row[0]) not in passing and name != "lease"]
                found[f"{path.name}:{name}"] = sorted(kept, key=repr)
    return found


def process(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in ``folder``. The command ``provisioner`` in the script runs the program there.

    ``environment`` contains additional environment variables.
    """
    named = 'provisioner() { "$PYTHON" -m provisioner -C "$FOLDER" "$@"; }; '
    return subprocess.run(
        ["bash", "-c", named + script],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT),
             "PYTHON": sys.executable, "FOLDER": str(folder), **environment},
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
        errors="replace", timeout=60, check=False,
    )  # fmt: skip
