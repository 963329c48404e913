"""Creates test workspaces, and calls a checkpoint at every boundary where a run may be killed."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from email import message_from_bytes
from functools import partial
from pathlib import Path
from typing import Any

from provisioner.cli import run

SAMPLES = Path(__file__).parents[2] / "samples"


def workspace(
    folder: Path,
    *,
    transport: str = "maildir:outbox",
    extra: str = "",
    clients: str = "*.yaml",
    portal: str = "sqlite:///portal.db",
    ledger: str = "sqlite:///ledger.db",
) -> Path:
    """Copy the onboarding sample to ``folder``, with only the manifests that match ``clients``.

    ``extra`` contains additional lines after the setting ``transport``.
    """
    shutil.copytree(SAMPLES / "onboarding", folder, ignore=shutil.ignore_patterns("*.db*", "outbox"))
    for file in set((folder / "clients").iterdir()) - set((folder / "clients").glob(clients)):
        file.unlink()
    settings = folder / "provisioner.yaml"
    text = settings.read_text()
    text = text.replace('"maildir:outbox"', f'"{transport}"{extra}')
    text = text.replace('"sqlite:///portal.db"', f'"{portal}"').replace(
        '"sqlite:///ledger.db"', f'"{ledger}"'
    )
    settings.write_text(text)
    return folder


def apply(folder: Path) -> int:
    """Run ``apply`` in this process. Return the exit code."""
    return run(["-C", str(folder), "apply", "--auto-approve"])


def mailed(folder: Path) -> Counter[str]:
    """Return the number of letters in the maildir for each recipient."""
    box = folder / "outbox"
    files = [file for part in ("new", "cur") for file in (box / part).glob("*")] if box.exists() else []
    return Counter(message_from_bytes(file.read_bytes())["To"] for file in files)


def watch(
    checkpoint: Callable[[], None], on_commit: Callable[[sqlite3.Connection], None] | None = None
) -> None:
    """Patch libraries to call ``checkpoint`` before and after each commit, file rename and sent letter.

    ``on_commit`` is called with the connection after each commit. The program's own functions are not
    patched, because they may be rewritten. PostgreSQL is patched only if psycopg is already imported.
    """

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql != "COMMIT":
                return super().execute(sql, *values)
            checkpoint()
            done = super().execute(sql, *values)
            if on_commit is not None:
                on_commit(self)
            checkpoint()
            return done

    sqlite3.connect = partial(sqlite3.connect, factory=Watched)  # type: ignore[assignment]
    if "psycopg" in sys.modules:
        _watch_postgres(checkpoint, on_commit)
    for name in ("rename", "replace", "link"):
        setattr(os, name, _between(checkpoint, getattr(os, name)))
    _watch_bodies(checkpoint)


def _watch_postgres(checkpoint: Callable[[], None], on_commit: Callable[[Any], None] | None) -> None:
    import psycopg

    wire: Any = psycopg.Connection
    original = wire.execute

    def execute(mine: Any, statement: Any, *words: Any, **options: Any) -> Any:
        if statement != "COMMIT":
            return original(mine, statement, *words, **options)
        checkpoint()
        done = original(mine, statement, *words, **options)
        if on_commit is not None:
            on_commit(mine)
        checkpoint()
        return done

    wire.execute = execute


def _between(checkpoint: Callable[[], None], effect: Callable[..., None]) -> Callable[..., None]:
    def watched(*words: Any, **options: Any) -> None:
        checkpoint()
        effect(*words, **options)
        checkpoint()

    return watched


def _watch_bodies(checkpoint: Callable[[], None]) -> None:
    """Call ``checkpoint`` before and after a letter's body is sent, and after the server's answer is read."""
    wire: Any = socket.socket
    awaiting = False

    def sending(original: Callable[..., Any], mine: Any, data: Any, *rest: Any) -> Any:
        nonlocal awaiting
        content = b"".join(data) if isinstance(data, list | tuple) else bytes(data)
        if b"\r\n.\r\n" not in content:
            return original(mine, data, *rest)
        checkpoint()
        done = original(mine, data, *rest)
        checkpoint()
        awaiting = True
        return done

    def receiving(original: Callable[..., Any], mine: Any, *words: Any) -> Any:
        nonlocal awaiting
        answer = original(mine, *words)
        if awaiting:
            awaiting = False
            checkpoint()
        return answer

    for names, watched in ((("send", "sendall", "sendmsg"), sending), (("recv", "recv_into"), receiving)):
        for name in names:
            original = getattr(wire, name)
            setattr(wire, name, _bound(watched, original))


def _bound(watched: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda mine, *words: watched(original, mine, *words)
