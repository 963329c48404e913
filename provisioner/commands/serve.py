"""``provisioner serve``: run the embedded portal as an HTTP service."""

from __future__ import annotations

import shlex
import time
from contextlib import closing
from functools import partial
from pathlib import Path

from provisioner.embedded.server.access_log import AccessLog
from provisioner.embedded.server.rate_limit import ServerLimits
from provisioner.errors import ProvisionerError, UsageError, install_hint
from provisioner.manifest.fields import InvalidField
from provisioner.manifest.urls import web_address
from provisioner.model import Clock
from provisioner.operations.listen import Listening, address_of, listen, require_safe
from provisioner.operations.open import utc_now
from provisioner.operations.served import open_served, served_access
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
    """Run the HTTP service of a portal until SIGTERM or Ctrl-C.

    ``url`` is the URL of the portal, or None for the workspace's portal. When the service is ready, it prints
    its address on stderr.
    """
    listening = Listening(host, port, certificate, key, behind_proxy)
    require_safe(listening)
    public_url = _checked_url(public_url)
    try:
        from provisioner.embedded.server.http_protocol import run
    except ModuleNotFoundError as problem:
        raise ProvisionerError(
            f"The service needs more than is installed: {problem.name} is missing.",
            install_hint("serve"),
        ) from problem
    from provisioner.embedded.server.api_clients import ApiClients
    from provisioner.embedded.server.app import PortalApp
    from provisioner.embedded.server.service import Service

    access = served_access(folder, url, clock=clock, public_url=public_url)
    limits = ServerLimits(
        rate=rate, failed_logins=failed_logins, token_seconds=token_seconds, behind_proxy=behind_proxy
    )
    with closing(open_served(access)) as portal:
        about = portal.about()
        if public_url is not None and about.public_url != public_url:
            portal.configure(about.terms, public_url)
        clients = ApiClients(portal)
        with (
            closing(listen(listening)) as listener,
            closing(AccessLog(console.stdout, partial(forget_failure, console.stdout))) as log,
        ):

            def on_ready() -> None:
                hint = ""
                if all(client.disabled is not None for client in clients.all()):
                    hint = f"\nNo client may log in yet. To make one:\n  {_add_command(access.root, url)}"
                # written in one call, so that a program that waits for the address also reads the hint
                console.say_rendered(f"The portal listens at {address_of(listening, listener)}{hint}")

            run(
                PortalApp(Service(portal.reopen, clock, time.monotonic), limits, log),
                listener,
                certificate=str(certificate) if certificate else None,
                key=str(key) if key else None,
                listening=on_ready,
            )
    console.say("Stopped.")
    return 0


def _checked_url(public_url: str | None) -> str | None:
    # error messages omit the URL, because it may contain a password
    if public_url is None:
        return None
    try:
        return web_address(public_url)
    except InvalidField as refused:
        raise UsageError(f"--public-url cannot be used: {refused.reason}.", refused.remedy) from None


def _add_command(root: Path, url: str | None) -> str:
    place = [] if url is None else ["--url", url]
    words = ["-C", str(root.resolve()), "api-client", "add", "NAME", "--role", "administrator", *place]
    return printable(shlex.join(["provisioner", *words]))
