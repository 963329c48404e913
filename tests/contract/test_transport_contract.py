"""The contract of transports, on each built-in transport."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smtp_support import smtp_server

from provisioner.mail.transport import TransportOptions, open_transport
from provisioner.testing import Mailbox, TransportContract


class TestMaildir(TransportContract):
    @contextmanager
    def make_mailbox(self, folder: Path) -> Iterator[Mailbox]:
        transport = open_transport("maildir:outbox", TransportOptions(folder))
        new = folder / "outbox" / "new"
        yield Mailbox(transport, lambda: [path.read_bytes() for path in new.glob("*")], repeatable=True)


class TestSmtp(TransportContract):
    connections = 1

    @contextmanager
    def make_mailbox(self, folder: Path) -> Iterator[Mailbox]:
        with smtp_server() as server:
            options = TransportOptions(folder, tls="none", timeout=5, connections=self.connections)
            transport = open_transport(f"smtp://127.0.0.1:{server.port}", options)
            yield Mailbox(transport, lambda: list(server.accepted))


class TestSmtpOverSeveralConnections(TestSmtp):
    connections = 4
