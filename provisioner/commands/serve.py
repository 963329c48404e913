"""``provisioner serve``: the embedded portal as an HTTP service."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path

from provisioner.embedded.server.access_log import AccessLog
from provisioner.model import Clock
from provisioner.operations.open import utc_now
from provisioner.operations.serve import Listening, serve_portal
from provisioner.render.sanitize import printable
from provisioner.terminal.console import Console
from provisioner.terminal.streams import forget_failure


def serve(
    folder: Path,
    console: Console,
    *,
    url: str | None,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    behind_proxy: bool,
    public_url: str | None,
    rate: float,
    failed_logins: float,
    token_seconds: int,
    clock: Clock = utc_now,
) -> int:
    """Serve until SIGTERM or Ctrl-C; prints the address on stderr once ready."""

    def on_ready(address: str, root: Path, has_clients: bool) -> None:
        hint = ""
        if not has_clients:
            hint = f"\nNo client may log in yet. To make one:\n  {_add_command(root, url)}"
        # one write, so that a program that waits for the address reads the hint too
        console.say_rendered(f"The portal listens at {address}{hint}")

    serve_portal(
        folder,
        url=url,
        listening=Listening(host, port, certificate, key, behind_proxy),
        rate=rate,
        failed_logins=failed_logins,
        token_seconds=token_seconds,
        public_url=public_url,
        clock=clock,
        open_log=partial(AccessLog, console.stdout, partial(forget_failure, console.stdout)),
        on_ready=on_ready,
    )
    console.say("Stopped.")
    return 0


def _add_command(root: Path, url: str | None) -> str:
    """The command that adds a client to this portal, valid in any folder."""
    place = [] if url is None else ["--url", url]
    words = ["-C", str(root.resolve()), "api-client", "add", "NAME", "--role", "administrator", *place]
    return printable(shlex.join(["provisioner", *words]))
