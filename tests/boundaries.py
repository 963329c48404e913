"""A workspace whose apply is watched at every boundary that a run may end at."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from pathlib import Path
from typing import Any

from provisioner.cli import run

SAMPLES = Path(__file__).parent.parent / "samples"


def workspace(
    folder: Path, *, transport: str = "maildir:outbox", extra: str = "", clients: str = "*.yaml"
) -> Path:
    """The onboarding sample, or some of its clients, in a folder of its own."""
    shutil.copytree(SAMPLES / "onboarding", folder, ignore=shutil.ignore_patterns("*.db*", "outbox"))
    for file in set((folder / "clients").iterdir()) - set((folder / "clients").glob(clients)):
        file.unlink()
    settings = folder / "provisioner.yaml"
    text = settings.read_text()
    text = text.replace('"maildir:outbox"', f'"{transport}"{extra}')
    settings.write_text(text)
    return folder


def apply(folder: Path) -> int:
    """One run, in this process, with its talk thrown away."""
    return run(["-C", str(folder), "apply", "--auto-approve"])


def mailed(folder: Path) -> Counter[str]:
    """How many letters each recipient has in the maildir."""
    box = folder / "outbox"
    files = [file for part in ("new", "cur") for file in (box / part).glob("*")] if box.exists() else []
    return Counter(message_from_bytes(file.read_bytes())["To"] for file in files)


def watch(checkpoint: Callable[[], None]) -> None:
    """Put a checkpoint before, inside and after every commit, before and after what else cannot be undone.

    That is: a batch of letters written, brought to the disk and renamed one by one, a mail body.
    """
    from provisioner import ledger
    from provisioner.mail import maildir, smtp
    from provisioner.portals import sql

    module: Any
    for module in (ledger, sql):
        original = module.transaction

        @contextmanager
        def watched(connection: Any, original: Any = original) -> Iterator[None]:
            checkpoint()
            with original(connection):
                yield
                checkpoint()
            checkpoint()

        setattr(module, "transaction", watched)  # noqa: B010  (mypy: not exported)
    for module, name in ((os, "rename"), (maildir, "_write"), (maildir, "_sync"), (smtp, "_send_body")):
        setattr(module, name, _watched(getattr(module, name), checkpoint))


def _watched(effect: Callable[..., None], checkpoint: Callable[[], None]) -> Callable[..., None]:
    def watched(*words: Any) -> None:
        checkpoint()
        effect(*words)
        checkpoint()

    return watched
