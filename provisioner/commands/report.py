"""Output that several commands share: problems with their source lines, and the progress of letters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from provisioner.diagnostics import Diagnostic
from provisioner.errors import WorkspaceError
from provisioner.limits import MAX_FILE_BYTES
from provisioner.mail.delivery import Delivery, DeliveryState
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.terminal.progress import progress
from provisioner.workspace.files import read_bytes


def show_problems(console: Console, workspace_root: Path, problems: Iterable[Diagnostic]) -> None:
    """Print the problems on stderr, each with the line of the file in ``workspace_root`` that causes it."""
    found = list(problems)
    if found:
        from provisioner.render.diagnostics import render_problems

        text = render_problems(
            found, _line_reader(workspace_root), colour=console.colour, width=console.width
        )
        console.say_rendered(text)


def _line_reader(root: Path) -> Callable[[str, int], str | None]:
    texts: dict[str, list[str]] = {}

    def line_of(file: str, line: int) -> str | None:
        if file not in texts:
            try:
                texts[file] = (
                    read_bytes(root / file, MAX_FILE_BYTES).decode("utf-8-sig", "replace").splitlines()
                )
            except WorkspaceError:
                texts[file] = []
        lines = texts[file]
        return lines[line - 1] if 0 < line <= len(lines) else None

    return line_of


@contextmanager
def letter_progress(console: Console, total: int) -> Iterator[Callable[[Delivery, str], None]]:
    """Show the progress of the letters; yield a callback that takes each delivery and its recipient."""
    sent = 0
    with progress(console, "Sending", total) as show:

        def on_letter(delivery: Delivery, address: str) -> None:
            nonlocal sent
            recipient = printable(address)
            if delivery.state is DeliveryState.SENT and delivery.detail:
                show(f"welcome e-mail to {recipient}: {delivery.detail}")
            elif delivery.state is DeliveryState.SENT:
                sent += 1
                show(f"[{sent}/{total}] welcome e-mail to {recipient}: sent")
            else:
                show(f"welcome e-mail to {recipient}: {delivery.state} ({printable(delivery.detail)})")

        yield on_letter
