"""The listening socket of the HTTP service, and the check that its address and certificate are safe."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from provisioner.errors import ProvisionerError, UsageError


@dataclass(frozen=True, slots=True)
class Listening:
    """The address and the TLS certificate of the service."""

    host: str
    port: int
    """The TCP port; 0 for any free port."""
    certificate: Path | None
    """A PEM file with the certificate and its chain; None for HTTP without TLS."""
    key: Path | None
    """A PEM file with the private key; None if the file of the certificate also contains the key."""
    behind_proxy: bool
    """True if a proxy in front of the service terminates TLS and forwards the client's address."""


def require_safe(listening: Listening) -> None:
    """Raise :class:`UsageError` if passwords and names would be sent unencrypted to other machines.

    Raises :class:`ProvisionerError` if the certificate or the private key cannot be used.
    """
    if not listening.host:
        raise UsageError("Name the address to listen at.", "For example: --host 127.0.0.1")
    if listening.key is not None and listening.certificate is None:
        raise UsageError("There is a key and no certificate.", "Add --certificate FILE.")
    if listening.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # if no password is given, OpenSSL asks for a password on the terminal
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


def listen(listening: Listening) -> socket.socket:
    """Return a listening socket. Raises :class:`ProvisionerError` if the address cannot be used."""
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


def address_of(listening: Listening, listener: socket.socket) -> str:
    """Return the URL of the service with the actual port, which the system chose if ``port`` is 0."""
    scheme = "https" if listening.certificate else "http"
    host = f"[{listening.host}]" if ":" in listening.host else listening.host
    return f"{scheme}://{host}:{listener.getsockname()[1]}"
