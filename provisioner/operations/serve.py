"""Serves the embedded portal over HTTP: checks the options, listens, and runs the service."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.embedded.server.rate_limit import ServerLimits
from provisioner.errors import ProvisionerError, UsageError, install_hint
from provisioner.manifest.fields import InvalidField
from provisioner.manifest.urls import web_address
from provisioner.model import Clock
from provisioner.operations.served import open_served, served_access

if TYPE_CHECKING:
    from provisioner.embedded.server.access_log import AccessLog


@dataclass(frozen=True, slots=True)
class Listening:
    """The address of the service and its certificate."""

    host: str
    port: int
    """0 takes any free port."""
    certificate: Path | None
    """A PEM file with its chain; None for plain HTTP."""
    key: Path | None
    """A PEM file; None if the key is in the certificate's file."""
    behind_proxy: bool
    """A proxy in front of the service terminates TLS and forwards the client's address."""


def serve_portal(
    folder: Path,
    *,
    url: str | None,
    listening: Listening,
    rate: float,
    failed_logins: float,
    token_seconds: int,
    public_url: str | None,
    clock: Clock,
    open_log: Callable[[], AccessLog],
    on_ready: Callable[[str, Path, bool], None],
) -> None:
    """Serve the portal at ``url``, or that of the workspace, until SIGTERM or Ctrl-C.

    ``on_ready`` takes the service's address, the folder of its portal and whether a client may log in. Raises
    :class:`ProvisionerError`.
    """
    _require_safe(listening)
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
        rate=rate,
        failed_logins=failed_logins,
        token_seconds=token_seconds,
        behind_proxy=listening.behind_proxy,
    )
    with closing(open_served(access)) as portal:
        about = portal.about()
        if public_url is not None and about.public_url != public_url:
            portal.configure(about.terms, public_url)
        clients = ApiClients(portal)
        with closing(_listen(listening)) as listener, closing(open_log()) as log:
            service = Service(portal.reopen, clock, time.monotonic)
            where = _address(listening, listener)

            def ready() -> None:
                on_ready(where, access.root, any(client.disabled is None for client in clients.all()))

            run(
                PortalApp(service, limits, log),
                listener,
                certificate=str(listening.certificate) if listening.certificate else None,
                key=str(listening.key) if listening.key else None,
                listening=ready,
            )


def _checked_url(public_url: str | None) -> str | None:
    """The normalised url. The error does not repeat the url, which may contain a password."""
    if public_url is None:
        return None
    try:
        return web_address(public_url)
    except InvalidField as refused:
        raise UsageError(f"--public-url cannot be used: {refused.reason}.", refused.remedy) from None


def _require_safe(listening: Listening) -> None:
    """Raise :class:`UsageError` if log-ins and names would travel in clear."""
    if not listening.host:
        raise UsageError("Name the address to listen at.", "For example: --host 127.0.0.1")
    if listening.key is not None and listening.certificate is None:
        raise UsageError("There is a key and no certificate.", "Add --certificate FILE.")
    if listening.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # without a password argument OpenSSL asks for one on the terminal
            context.load_cert_chain(listening.certificate, listening.key, password="")
        except FileNotFoundError:
            missing = next(
                (path for path in (listening.certificate, listening.key) if path and not path.exists()), ""
            )
            raise ProvisionerError(f"There is no file {missing}.", "Check --certificate and --key.") from None
        except (OSError, ssl.SSLError, ValueError) as problem:
            reason = getattr(problem, "reason", None) or getattr(problem, "strerror", None) or problem
            raise ProvisionerError(
                f"The certificate {listening.certificate} and its key cannot be used: {reason}.",
                "Both are PEM files; the certificate's comes with its chain, the key's has no password.",
            ) from None
    elif not listening.behind_proxy and not _is_this_machine(listening.host):
        raise UsageError(
            f"{listening.host} can be reached from other machines, and without a certificate everything "
            "would travel in clear.",
            "Add --certificate FILE --key FILE; or --behind-proxy, where a proxy before it speaks TLS.",
        )


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _listen(listening: Listening) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listening.host, listening.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as problem:
        raise ProvisionerError(
            f"{listening.host} is no address of this machine: {problem.strerror or problem}.",
            "For example: --host 127.0.0.1",
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as problem:
        listener.close()
        raise ProvisionerError(
            f"Cannot listen at {listening.host}, port {listening.port}: {problem.strerror or problem}.",
            "Stop what listens there, or choose another one: --port 0 takes any that is free.",
        ) from None
    return listener


def _address(listening: Listening, listener: socket.socket) -> str:
    scheme = "https" if listening.certificate else "http"
    host = f"[{listening.host}]" if ":" in listening.host else listening.host
    return f"{scheme}://{host}:{listener.getsockname()[1]}"
