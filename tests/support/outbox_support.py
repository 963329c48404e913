"""A workspace that owes one welcome letter, and the commands that send it to a mail server of the test."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from smtp_support import smtp_server

from provisioner.cli import run

SAMPLES = Path(__file__).parents[2] / "samples"
COMPANY = "garage-lefevre.yaml"


@dataclass
class Outbox:
    """A workspace whose outbox has one letter."""

    folder: Path

    def run(self, *words: str, transport: str, lines: str = "") -> tuple[int, str]:
        """Run a command; returns its exit code and its output.

        In provisioner.yaml, ``transport`` replaces the mail transport, and ``lines`` are added after it.
        """
        settings = self.folder / "provisioner.yaml"
        text, changed = re.subn(
            r'  transport: "[^"]*".*\n(  # more\n(  .*\n)*?  # end\n)?',
            f'  transport: "{transport}"\n  # more\n{lines}  # end\n',
            settings.read_text(encoding="utf-8"),
        )
        assert changed == 1
        settings.write_text(text, encoding="utf-8")
        return self.ask(*words)

    def ask(self, *words: str) -> tuple[int, str]:
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            code = run(["-C", str(self.folder), *words])
        assert "Traceback" not in said.getvalue()
        return code, said.getvalue()

    def state(self) -> str:
        """The state of the letter."""
        _, said = self.ask("mail", "status", "--json")
        (row,) = json.loads(said)
        state: str = row["state"]
        return state

    def copy(self, folder: Path) -> Outbox:
        return Outbox(shutil.copytree(self.folder, folder))


def owed_letter(folder: Path) -> Outbox:
    """Create a workspace whose users exist and whose letter is owed.

    The letter is owed because the mail server was unreachable.
    """
    shutil.copytree(
        SAMPLES / "onboarding", folder, ignore=shutil.ignore_patterns("*.db*", "outbox", "clients")
    )
    (folder / "clients").mkdir()
    shutil.copy(SAMPLES / "onboarding" / "clients" / COMPANY, folder / "clients")
    outbox = Outbox(folder)
    with smtp_server() as gone:
        pass
    code, said = outbox.run(
        "apply", "--auto-approve", transport=f"smtp://127.0.0.1:{gone.port}", lines="  tls: none\n"
    )
    assert code == 7, said
    assert outbox.state() == "owed"
    return outbox


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between attempts and the timeout for the reply to the body of a letter."""
    for constant, seconds in (("RETRY_SECONDS", 0.01), ("BODY_TIMEOUT", 0.5)):
        (home,) = (module for module in _modules_of("provisioner.mail") if hasattr(module, constant))
        monkeypatch.setattr(home, constant, seconds)


def _modules_of(package: str) -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        yield importlib.import_module(found.name)
