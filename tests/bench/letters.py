"""Compares ``mail send`` over pooled connections with one connection a letter, to a local mail server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .generate import write_manifests, write_settings
from .measure import HERE, Side, Table, baseline, in_turn, provisioner

PARTLY = 7
POOLED = {10_000: 0.5}
"""The largest ratio of ``mail send`` to bare aiosmtplib with one connection a letter, by number of users."""
DATABASES = ("portal.db", "portal.db.key", "ledger.db")
PLAIN = "  tls: none\n"


def active_users(folder: Path) -> int:
    """Return the number of declared users that are activated immediately and therefore get a letter."""
    texts = [path.read_text(encoding="utf-8") for path in (folder / "clients").rglob("*.yaml")]
    return sum(text.count("- email:") - text.count("activation: later") for text in texts)


def require_letters(folder: Path, expected: int) -> None:
    """End the benchmark if the maildir of the workspace does not hold ``expected`` letters."""
    new = folder / "outbox" / "new"
    written = len(os.listdir(new)) if new.exists() else 0
    if written != expected:
        sys.exit(f"{written} letters in {new}, not {expected}")


def copy_databases(source: Path, target: Path) -> None:
    """Copy the portal and the ledger of one workspace into another one."""
    for name in DATABASES:
        if (source / name).exists():
            shutil.copy(source / name, target / name)


def mails(table: Table, work: Path, users: int, times: int) -> None:
    """Compare ``mail send`` with itself and with bare aiosmtplib, both with one connection a letter.

    The bare side neither renders nor records the letters.
    """
    folder, owing = work / "mail", work / "mail-owed"
    folder.mkdir()
    owing.mkdir()
    write_manifests(folder, users)
    letters = active_users(folder)
    # no server listens on this port, so that every letter stays owed
    write_settings(folder, welcome="ours", transport=f"smtp://127.0.0.1:{closed_port()}", mail=PLAIN)
    provisioner(folder, "plan", "--out", str(folder / "plan.json")).run()
    provisioner(folder, "mail", "preview", str(folder / "plan.json"), "--out", str(folder / "letters")).run()
    provisioner(folder, "apply", str(folder / "plan.json")).run(expected=PARTLY)
    copy_databases(folder, owing)

    def owe_again() -> None:
        copy_databases(owing, folder)

    with sink(expected=3 * times * letters) as port:
        write_settings(folder, welcome="ours", transport=f"smtp://127.0.0.1:{port}", mail=PLAIN)
        ours = provisioner(folder, "mail", "send", prepare=owe_again)
        single = [sys.executable, "-m", "tests.bench.one_a_connection", "-C", str(folder), "mail", "send"]
        itself = Side(single, owe_again)
        bare = baseline("send", str(port), str(folder / "letters"))
        in_turn(times, ours, itself, bare)
    what = f"mail send, {letters:,} letters by SMTP"
    table.row(what, ours.time, itself.time, "same, one connection a letter")
    table.row(what, ours.time, bare.time, "aiosmtplib, one a connection", bound=POOLED.get(users))


def closed_port() -> int:
    """Return a local port on which no server listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def sink(expected: int) -> Iterator[int]:
    """Run a mail server in its own process, and yield its port.

    Ends the benchmark if the server did not accept exactly ``expected`` letters.
    """
    with subprocess.Popen(
        [sys.executable, str(HERE / "sink.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.stdin.close()
        taken = int(server.stdout.readline())
    if taken != expected:
        sys.exit(f"the sink took {taken} letters, not {expected}")
