"""No password is readable on a connection that an attacker records or changes.

A tap between the program and the mail server records every byte. The tap may
change the bytes that the server sends.
"""

from __future__ import annotations

import base64
import datetime
import gc
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from outbox_support import Outbox, be_impatient, owed_letter
from postfix_support import PASSWORD, USERNAME, running_postfix
from smtp_support import smtp_server

LOGIN = f"  username: {USERNAME}\n  password_env: SMTP_PASSWORD\n  timeout: 5\n"


def spellings(secret: str) -> set[bytes]:
    """Return the forms of a secret on a connection: plain, hex, UTF-16, and base64 at each of 3 offsets."""
    plain = secret.encode()
    looks = {plain, plain.hex().encode(), secret.encode("utf-16-le")}
    for lead in range(3):
        coded = base64.b64encode(b"\0" * lead + plain)
        # the first and last characters depend on the neighbours
        looks.add(coded[(lead * 8 + 5) // 6 : len(coded) // 4 * 4 - 4])
    # nothing so short that chance writes it into an encrypted line
    assert all(len(look) > 12 for look in looks)
    return looks


def heard(line: bytes, secret: str = PASSWORD) -> bool:
    return any(look in line for look in spellings(secret))


@pytest.mark.parametrize(
    "line",
    [
        base64.b64encode(f"\0{USERNAME}\0{PASSWORD}".encode()),
        base64.b64encode(f"{USERNAME}\0{USERNAME}\0{PASSWORD}".encode()),
        base64.b64encode(f"x\0{USERNAME}\0{PASSWORD}".encode()),
        base64.b64encode(PASSWORD.encode()),
        PASSWORD.encode(),
    ],
)
def test_a_password_on_the_line_is_found(line: bytes) -> None:
    assert heard(b"AUTH PLAIN " + line + b"\r\n")
    assert not heard(b"AUTH PLAIN " + base64.b64encode(b"\0somebody\0else") + b"\r\n")


@dataclass
class Line:
    """The bytes from the program (``sent``) and from the server (``answered``). The tap is at ``port``."""

    port: int = 0
    sent: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)


@contextmanager
def tapped(port: int, change: Callable[[bytes], bytes] = bytes) -> Iterator[Line]:
    """Run a tap in front of the server at ``port``. ``change`` alters the bytes that the server sends."""
    line = Line()
    listener = socket.create_server(("127.0.0.1", 0))
    line.port = listener.getsockname()[1]
    threads: list[threading.Thread] = []

    def start(work: Callable[..., None], *arguments: object) -> None:
        threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        threads[-1].start()

    def carry(
        source: socket.socket, target: socket.socket, log: bytearray, change: Callable[[bytes], bytes]
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                data = change(data)
                log.extend(data)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port), 5)
                ends.extend((near, far))
                start(carry, near, far, line.sent, bytes)
                start(carry, far, near, line.answered, change)

    ends: list[socket.socket] = []
    start(accept)
    try:
        yield line
    finally:
        for end in (listener, *ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        for end in (listener, *ends):
            end.close()


@dataclass(frozen=True)
class Authority:
    """The certificate authority that the program trusts."""

    ca: trustme.CA
    file: Path

    def server(
        self,
        *names: str,
        not_before: datetime.datetime | None = None,
        not_after: datetime.datetime | None = None,
    ) -> ssl.SSLContext:
        return _server_context(self.ca.issue_cert(*names, not_before=not_before, not_after=not_after))


def _server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    ca = trustme.CA()
    ca.cert_pem.write_to_path(file)
    return Authority(ca, file)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Outbox:
    return owed_letter(tmp_path_factory.mktemp("owed") / "firm")


@pytest.fixture
def outbox(prepared: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outbox:
    be_impatient(monkeypatch)
    monkeypatch.setenv("SMTP_PASSWORD", PASSWORD)
    return prepared.copy(tmp_path / "firm")


def send(
    outbox: Outbox, line: Line, ca_file: Path | None, *, scheme: str = "smtp", host: str = "localhost"
) -> str:
    """Send the letter over this line and return the output of the program."""
    lines = LOGIN if ca_file is None else f"{LOGIN}  ca_file: {ca_file}\n"
    code, said = outbox.run("mail", "send", transport=f"{scheme}://{host}:{line.port}", lines=lines)
    assert code == (0 if outbox.state() == "sent" else 7)
    assert PASSWORD not in said
    return said


def require_no_secret(outbox: Outbox, line: Line) -> None:
    """Assert that the letter is owed, and that neither the password nor an address was on the line."""
    assert outbox.state() == "owed"
    assert line.sent
    for secret in (PASSWORD, USERNAME, "nadia.lefevre@garage-lefevre.fr"):
        assert not heard(bytes(line.sent), secret)
    for word in (b"AUTH", b"MAIL FROM", b"RCPT"):
        assert word not in line.sent.upper()


def without_starttls(answer: bytes) -> bytes:
    """Replace the offer of STARTTLS by the offer of a login in clear text, as an attacker would do."""
    return answer.replace(b"STARTTLS", b"AUTH PLAIN LOGIN")


MIDDLEMEN: dict[str, Callable[[bytes], bytes]] = {
    "takes the offer out": without_starttls,
    "overwrites the offer": lambda answer: answer.replace(b"STARTTLS", b"XXXXXXXA"),
    "refuses it for now": lambda answer: answer.replace(
        b"220 2.0.0 Ready to start TLS", b"454 4.7.0 not now"
    ),
    "refuses it for good": lambda answer: answer.replace(
        b"220 2.0.0 Ready to start TLS", b"502 5.5.1 unknown"
    ),
    "goes on in clear": lambda answer: answer if not answer.startswith(b"\x16") else b"250 AUTH PLAIN\r\n",
}


@pytest.mark.external
@pytest.mark.parametrize("middleman", MIDDLEMEN)
def test_stripping_starttls_from_postfix_yields_no_secret(middleman: str, outbox: Outbox) -> None:
    with running_postfix() as postfix, tapped(postfix.port, MIDDLEMEN[middleman]) as line:
        send(outbox, line, postfix.ca_file)
        require_no_secret(outbox, line)
        assert postfix.mails(0) == {}


@pytest.mark.external
def test_a_letter_is_sent_over_an_unchanged_line_without_a_word_in_clear(
    outbox: Outbox,
) -> None:
    with running_postfix() as postfix, tapped(postfix.port) as line:
        postfix.give_mailboxes(["nadia.lefevre@garage-lefevre.fr"])
        send(outbox, line, postfix.ca_file)
        assert outbox.state() == "sent"
        assert len(postfix.mails(1)) == 1
    assert b"STARTTLS" in line.sent
    for secret in (PASSWORD, USERNAME, "nadia.lefevre@garage-lefevre.fr"):
        assert not heard(bytes(line.sent), secret)


LONG_AGO = datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC)
AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
LATER = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)


def old_protocol(authority: Authority) -> ssl.SSLContext:
    context = authority.server("localhost")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        # Python warns about it
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    return context


FLAWS: dict[str, Callable[[Authority], ssl.SSLContext]] = {
    "somebody else's authority": lambda authority: _server_context(trustme.CA().issue_cert("localhost")),
    "wrong host": lambda authority: authority.server("mail.example.com"),
    "a part of the host": lambda authority: authority.server("host", "local", "*.localhost"),
    "expired": lambda authority: authority.server("localhost", not_before=LONG_AGO, not_after=AGO),
    "not valid yet": lambda authority: authority.server(
        "localhost", not_before=LATER, not_after=LATER + datetime.timedelta(days=90)
    ),
    "TLS 1.0 only": old_protocol,
}


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("flaw", FLAWS)
def test_a_server_without_a_valid_certificate_gets_no_secret(
    flaw: str, scheme: str, authority: Authority, outbox: Outbox
) -> None:
    context = FLAWS[flaw](authority)
    with smtp_server(tls=context, implicit=scheme == "smtps") as server, tapped(server.port) as line:
        said = send(outbox, line, authority.file, scheme=scheme)
        require_no_secret(outbox, line)
    assert "cannot be used" in said


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_without_ca_file_only_the_certificates_of_the_system_are_trusted(
    scheme: str, authority: Authority, outbox: Outbox
) -> None:
    """Without ``ca_file``, a valid certificate is refused if its authority is not one of the system's."""
    context = authority.server("localhost")
    with smtp_server(tls=context, implicit=scheme == "smtps") as server, tapped(server.port) as line:
        said = send(outbox, line, None, scheme=scheme)
        require_no_secret(outbox, line)
    assert "cannot be used" in said


def test_a_certificate_for_a_name_is_not_valid_for_its_address(authority: Authority, outbox: Outbox) -> None:
    with smtp_server(tls=authority.server("localhost")) as server, tapped(server.port) as line:
        send(outbox, line, authority.file, host="127.0.0.1")
        require_no_secret(outbox, line)


def test_smtps_with_a_server_that_speaks_in_clear_gets_nothing(authority: Authority, outbox: Outbox) -> None:
    with smtp_server({"EHLO": b"250-me\r\n250 AUTH PLAIN LOGIN\r\n"}) as server, tapped(server.port) as line:
        send(outbox, line, authority.file, scheme="smtps")
        require_no_secret(outbox, line)


def test_replies_injected_before_tls_are_discarded(authority: Authority, outbox: Outbox) -> None:
    """Replies that an attacker injects in clear text after the reply 220 to STARTTLS are discarded."""
    slipped = {"STARTTLS": b"220 go\r\n250-me\r\n250 AUTH PLAIN\r\n550 no\r\n550 no\r\n550 no\r\n"}
    with smtp_server(slipped, tls=authority.server("localhost")) as server, tapped(server.port) as line:
        send(outbox, line, authority.file)
    assert outbox.state() == "sent"
    assert len(server.accepted) == 1
    assert not heard(bytes(line.sent))


def test_a_server_that_is_slow_to_end_tls_leaves_no_socket_open(
    authority: Authority, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaks: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", leaks.append)
    with smtp_server(tls=authority.server("localhost"), lingers=True) as server:
        outbox.run(
            "mail", "send", transport=f"smtp://localhost:{server.port}",
            lines=f"{LOGIN}  ca_file: {authority.file}\n",
        )  # fmt: skip
        gc.collect()
    assert outbox.state() == "sent"
    assert leaks == []
