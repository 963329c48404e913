"""How letters travel: into a maildir, or to a mail server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from provisioner.errors import MailError, WorkspaceError
from provisioner.limits import MAX_FILE_BYTES
from provisioner.mail.delivery import Transport
from provisioner.workspace.files import read_bytes

if TYPE_CHECKING:
    import ssl


def open_transport(
    url: str,
    *,
    root: Path,
    username: str = "",
    password: str = "",
    tls: str = "required",
    ca_file: str = "",
    connections: int = 16,
    timeout: float = 60.0,
) -> Transport:
    """The transport behind ``maildir:PATH``, ``smtp://HOST[:PORT]`` or ``smtps://HOST[:PORT]``."""
    scheme, _, rest = url.partition(":")
    if scheme == "maildir" and rest:
        from provisioner.mail.maildir import Maildir

        return Maildir(root / rest)
    if scheme in ("smtp", "smtps"):
        from provisioner.mail.smtp import Smtp
        from provisioner.mail.smtp_connection import Server

        parts = urlsplit(url)
        if not parts.hostname:
            raise MailError(f"{url} names no mail server.", "Write smtp://mail.example.com:587")
        server = Server(
            host=parts.hostname,
            port=parts.port or (465 if scheme == "smtps" else 587),
            implicit_tls=scheme == "smtps",
            starttls=scheme == "smtp" and tls == "required",
            context=_tls_context(root, ca_file) if scheme == "smtps" or tls == "required" else None,
            username=username,
            password=password,
            timeout=timeout,
        )
        return Smtp(server, connections)
    raise MailError(f"No transport for {url}.", "Use maildir:PATH, smtp://HOST:PORT or smtps://HOST:PORT.")


def _tls_context(root: Path, ca_file: str) -> ssl.SSLContext:
    import ssl

    if not ca_file:
        return ssl.create_default_context()
    try:
        certificates = read_bytes(root / ca_file, MAX_FILE_BYTES).decode("ascii")
        # without a text, the system's certificates would be trusted instead
        return ssl.create_default_context(cadata=certificates or "none")
    except (WorkspaceError, ValueError, ssl.SSLError) as problem:
        raise MailError(
            f"The certificates of {ca_file} cannot be read: {problem}.", "Check ca_file."
        ) from problem
