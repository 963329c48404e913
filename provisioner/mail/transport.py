"""The transports for letters, by the scheme of the url in ``mail: transport:``.

To add a transport, implement :class:`~provisioner.mail.delivery.Transport` and add its scheme to
:data:`TRANSPORTS`. Another package declares a :class:`TransportDriver` as an entry point instead: see
:mod:`provisioner.entry_points`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from provisioner.entry_points import load_driver
from provisioner.errors import MailError, WorkspaceError
from provisioner.limits import MAX_FILE_BYTES
from provisioner.mail.delivery import Transport
from provisioner.workspace.files import read_bytes

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """The options of a transport. A maildir uses only ``root``."""

    root: Path
    """The folder of the workspace. Relative paths start from this folder."""
    username: str = ""
    password: str = ""
    tls: str = "required"
    """``required`` to send only over TLS, or ``none`` to send without TLS."""
    ca_file: str = ""
    """The file with the trusted CA certificates; if empty, the system's certificates are trusted."""
    connections: int = 16
    timeout: float = 60.0
    """The timeout in seconds for each reply of the mail server."""


@dataclass(frozen=True, slots=True)
class TransportDriver:
    """The driver of a transport, either in :data:`TRANSPORTS` or in an entry point of another package."""

    open: Callable[[str, TransportOptions], Transport]
    """Returns the transport for a URL. Raises :class:`MailError` if this transport cannot be used."""


def _maildir(url: str, options: TransportOptions) -> Transport:
    from provisioner.mail.maildir import Maildir

    return Maildir(options.root / url.partition(":")[2])


def _smtp(url: str, options: TransportOptions) -> Transport:
    from provisioner.mail.smtp import Smtp
    from provisioner.mail.smtp_connection import Server

    parts = urlsplit(url)
    if not parts.hostname:
        raise MailError(f"{url} names no mail server.", "Write smtp://mail.example.com:587")
    implicit = parts.scheme == "smtps"
    starttls = not implicit and options.tls == "required"
    server = Server(
        host=parts.hostname,
        port=parts.port or (465 if implicit else 587),
        implicit_tls=implicit,
        starttls=starttls,
        context=_tls_context(options.root, options.ca_file) if implicit or starttls else None,
        username=options.username,
        password=options.password,
        timeout=options.timeout,
    )
    return Smtp(server, options.connections)


TRANSPORTS: Mapping[str, TransportDriver] = {
    "maildir": TransportDriver(_maildir),
    **dict.fromkeys(("smtp", "smtps"), TransportDriver(_smtp)),
}
"""The built-in drivers, by the scheme of their URLs."""

ENTRY_POINTS = "provisioner.transports"
"""The group of entry points in which other packages declare their transports."""


def transport_for(url: str) -> TransportDriver:
    """Return the driver for the scheme of ``url``, which is built in or comes from another package.

    Raises :class:`MailError` if there is none. The error contains only the scheme of ``url``.
    """
    scheme, separator, rest = url.partition(":")
    if scheme in TRANSPORTS and rest:
        return TRANSPORTS[scheme]
    if not separator or not rest.startswith("//"):
        raise MailError(
            "The URL of the mail transport has no scheme.",
            "Use maildir:PATH, smtp://HOST:PORT or smtps://HOST:PORT.",
        )
    return load_driver(ENTRY_POINTS, scheme, TransportDriver, TRANSPORTS, MailError)


def open_transport(url: str, options: TransportOptions) -> Transport:
    """Return the transport for ``maildir:PATH``, ``smtp[s]://HOST[:PORT]`` or a URL of another driver.

    Raises :class:`MailError` if no driver has the scheme, or if the CA certificates cannot be read.
    """
    return transport_for(url).open(url, options)


def _tls_context(root: Path, ca_file: str) -> ssl.SSLContext:
    import ssl

    if not ca_file:
        return ssl.create_default_context()
    try:
        certificates = read_bytes(root / ca_file, MAX_FILE_BYTES).decode("ascii")
        # an empty text would make ssl trust the system's certificates
        return ssl.create_default_context(cadata=certificates or "none")
    except (WorkspaceError, ValueError, ssl.SSLError) as problem:
        raise MailError(
            f"The certificates of {ca_file} cannot be read: {problem}.", "Check ca_file."
        ) from problem
