"""Letters over SMTP: whatever the server does, each ends in the right state and none goes out twice."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from smtp_support import CUT, PIPELINING, SILENCE, Server, smtp_server

from provisioner.errors import MailError
from provisioner.mail import smtp as smtp_module
from provisioner.mail.delivery import Delivery, Message
from provisioner.mail.transport import open_transport


@dataclass
class Log:
    """What a delivery told."""

    bodies: list[str] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    trouble: MailError | None = None
    commits: int = 0

    def record(self, bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
        self.bodies += bodies
        self.deliveries += deliveries
        self.commits += 1

    @property
    def states(self) -> list[str]:
        return [str(delivery.state) for delivery in self.deliveries]


def letters(count: int = 1) -> list[Message]:
    return [
        Message(f"k{n}", "acces@example.com", f"user{n}@example.fr", b"Subject: x\r\n\r\nBonjour\r\n.dot\r\n")
        for n in range(count)
    ]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(smtp_module, "BODY_TIMEOUT", 0.5)


def deliver(
    server: Server, count: int = 1, *, scheme: str = "smtp", host: str = "127.0.0.1", **options: object
) -> Log:
    log = Log()
    settings: dict[str, object] = {"tls": "none", "timeout": 2.0, "connections": 1, **options}
    carrier = open_transport(f"{scheme}://{host}:{server.port}", root=Path(), **settings)  # type: ignore[arg-type]
    try:
        carrier.deliver(letters(count), record=log.record, stop=lambda: False)
    except MailError as trouble:
        log.trouble = trouble
    return log


FAULTS: dict[str, tuple[dict[str, bytes], str, bool]] = {
    # what the server does, where the letter ends, whether a body may have left
    "greeting 4xx": ({"greeting": b"421 busy\r\n"}, "owed", False),
    "greeting 5xx": ({"greeting": b"554 no\r\n"}, "owed", False),
    "greeting garbage": ({"greeting": b"\xff\xfe\r\n"}, "owed", False),
    "greeting cut": ({"greeting": CUT}, "owed", False),
    "greeting silence": ({"greeting": SILENCE}, "owed", False),
    "EHLO refused": ({"EHLO": b"550 no\r\n"}, "owed", False),
    "EHLO cut": ({"EHLO": CUT}, "owed", False),
    "MAIL 4xx": ({"MAIL": b"451 later\r\n"}, "owed", False),
    "MAIL 5xx": ({"MAIL": b"553 sender\r\n"}, "failed", False),
    "RCPT 4xx": ({"RCPT": b"450 greylisted\r\n"}, "owed", False),
    "RCPT 5xx": ({"RCPT": b"550 unknown\r\n"}, "failed", False),
    "RCPT cut": ({"RCPT": CUT}, "owed", False),
    "DATA 4xx": ({"DATA": b"451 later\r\n"}, "owed", False),
    "DATA 5xx": ({"DATA": b"554 no\r\n"}, "failed", False),
    "DATA cut": ({"DATA": CUT}, "owed", False),
    "cut in the body": ({"in body": CUT}, "unknown", True),
    "cut after the dot": ({"body": CUT}, "unknown", True),
    "silence after the dot": ({"body": SILENCE}, "unknown", True),
    "garbage after the dot": ({"body": b"\xff\xff\r\n"}, "unknown", True),
    "4xx after the dot": ({"body": b"451 disk\r\n"}, "owed", True),
    "5xx after the dot": ({"body": b"554 spam\r\n"}, "failed", True),
    "cut after acceptance": ({"body": b"250 ok\r\n" + CUT}, "sent", True),
    "QUIT garbage": ({"QUIT": b"\xff\r\n"}, "sent", True),
    "QUIT cut": ({"QUIT": CUT}, "sent", True),
}


@pytest.mark.parametrize("offered", [{}, PIPELINING], ids=["one by one", "pipelined"])
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_ends_in_its_state(fault: str, offered: dict[str, bytes]) -> None:
    """Row 14."""
    script, state, body = FAULTS[fault]
    silent = SILENCE in script.values()
    with smtp_server({**offered, **script}) as server:
        log = deliver(server, timeout=0.5 if silent else 2.0)
    assert log.states == [state]
    assert (log.bodies == ["k0"]) is body
    assert len(server.accepted) == (1 if state == "sent" else 0)


def test_no_server_leaves_everything_owed_with_a_sentence() -> None:
    with smtp_server() as server:
        pass
    log = deliver(server, 3)
    assert set(log.states) == {"owed"}
    assert log.trouble is not None
    assert "cannot be used" in log.trouble.sentence


def test_one_refused_recipient_does_not_hold_up_the_others() -> None:
    with smtp_server(answer_body=lambda message: b"250 ok\r\n") as server:
        log = deliver(server, 5)
    assert log.states == ["sent"] * 5
    assert server.connections == 1


def test_a_body_refused_once_leaves_the_connection_usable() -> None:
    answers = iter([b"554 spam\r\n", b"250 ok\r\n", b"250 ok\r\n"])
    with smtp_server(answer_body=lambda message: next(answers)) as server:
        log = deliver(server, 3)
    assert log.states == ["failed", "sent", "sent"]
    assert server.connections == 1


def test_a_connection_cut_between_letters_is_opened_again() -> None:
    with smtp_server({"body": b"250 ok\r\n" + CUT}) as server:
        log = deliver(server, 3)
    counts = Counter(log.states)
    assert counts["unknown"] == counts["failed"] == 0
    assert counts["sent"] == len(server.accepted) >= 2


def test_a_lone_dot_ends_no_message_and_one_letter_arrives() -> None:
    smuggled = Message(
        "k", "a@example.com", "b@example.fr", b"Subject: x\n\na\r\n.\r\nMAIL FROM:<x@y>\n.\n.b\r\r\n"
    )
    log = Log()
    with smtp_server() as server:
        carrier = open_transport(f"smtp://127.0.0.1:{server.port}", root=Path(), tls="none")
        carrier.deliver([smuggled], record=log.record, stop=lambda: False)
    assert log.states == ["sent"]
    assert len(server.accepted) == 1
    assert b"\r\n.\r\nMAIL FROM" in server.accepted[0]


class Lost(Exception):
    """The ledger's lock was taken away."""


def watch_bodies(monkeypatch: pytest.MonkeyPatch, committed: Collection[str]) -> list[str]:
    """The keys of the bodies that leave, each of which must have been committed before."""
    send_body = smtp_module._send_body
    left: list[str] = []

    def watched(line: Any, content: bytes, following: Message | None) -> None:
        key = content.partition(b"\r\n")[0].partition(b" ")[2].decode()
        assert key in committed
        left.append(key)
        send_body(line, content, following)

    monkeypatch.setattr(smtp_module, "_send_body", watched)
    return left


def told_apart(count: int) -> list[Message]:
    """Letters whose bodies name their keys."""
    return [
        letter._replace(content=f"Subject: {letter.key}\r\n\r\n.\r\n".encode()) for letter in letters(count)
    ]


@pytest.mark.parametrize("offered", [{}, PIPELINING], ids=["one by one", "pipelined"])
def test_no_body_leaves_before_the_commit_that_says_so_has_returned(
    offered: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 15, law 7: also where what several connections have to say is one commit."""
    # no busy machine parts what may go together
    monkeypatch.setattr(smtp_module, "GATHER_SECONDS", 30.0)
    committed: set[str] = set()
    left = watch_bodies(monkeypatch, committed)
    log, commits = Log(), []

    def record(bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
        assert not set(bodies) & set(left)
        log.record(bodies, deliveries)
        commits.append(len(bodies))
        # whatever happens up to here happens before the commit has returned
        committed.update(bodies)

    with smtp_server(offered) as server:
        carrier = open_transport(f"smtp://127.0.0.1:{server.port}", root=Path(), tls="none", connections=4)
        carrier.deliver(told_apart(60), record=record, stop=lambda: False)
    assert Counter(log.states) == {"sent": 60}
    assert sorted(log.bodies) == sorted(left) == sorted(letter.key for letter in letters(60))
    assert len(server.accepted) == 60
    # and they do share commits: one each would be sixty, and as many again for how they ended
    assert max(commits) > 1
    assert len(commits) < 60


@pytest.mark.parametrize("broken", range(1, 6))
def test_once_a_commit_has_failed_no_body_leaves_any_more(
    broken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 7: a run whose lock was taken away sends nothing that it could not write down."""
    committed: set[str] = set()
    left = watch_bodies(monkeypatch, committed)
    tried = 0

    def record(bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
        nonlocal tried
        tried += 1
        if tried >= broken:
            raise Lost
        committed.update(bodies)

    with smtp_server(PIPELINING) as server:
        carrier = open_transport(f"smtp://127.0.0.1:{server.port}", root=Path(), tls="none", connections=3)
        with pytest.raises(Lost):
            carrier.deliver(told_apart(20), record=record, stop=lambda: False)
    assert set(left) == committed
    assert len(server.accepted) <= len(left)
    assert tried == broken


def test_a_refused_recipient_gets_no_body_even_where_the_server_asks_for_it() -> None:
    """RFC 2920, 3.1: DATA is on its way already when RCPT is refused."""
    with smtp_server({**PIPELINING, "RCPT": b"550 unknown\r\n"}) as server:
        log = deliver(server, 3)
    assert log.states == ["failed"] * 3
    assert log.bodies == []
    assert server.accepted == []
    # hung up: whatever came now would be taken for a body
    assert server.clear.endswith(b"DATA\r\n")
    assert b"RSET" not in server.clear
    assert b"QUIT" not in server.clear


def test_a_pipelined_letter_whose_predecessor_cut_the_line_goes_over_a_new_one() -> None:
    answers = iter([b"250 ok\r\n", CUT, b"250 ok\r\n", b"250 ok\r\n"])
    with smtp_server(PIPELINING, answer_body=lambda message: next(answers)) as server:
        log = deliver(server, 4)
    assert sorted(log.states) == ["sent", "sent", "sent", "unknown"]
    assert server.connections == 2


def test_a_server_that_has_enough_of_a_connection_gets_a_new_one_and_every_letter() -> None:
    with smtp_server({**PIPELINING, "body": b"250 ok\r\n" + CUT}) as server:
        log = deliver(server, 4)
    assert log.states == ["sent"] * 4
    assert len(server.accepted) == 4


def test_replies_that_nobody_asked_for_belong_to_no_command() -> None:
    with smtp_server({**PIPELINING, "body": b"250 ok\r\n250 ok\r\n"}) as server:
        log = deliver(server, 1)
    assert log.states == ["sent"]
    assert len(server.accepted) == 1


@pytest.mark.parametrize("recipient", ["a@b.fr>\r\nRCPT TO:<x@y.fr", "a b@c.fr", "é@b.fr", "", "<a@b.fr>"])
def test_an_address_that_would_end_its_command_is_refused_here(recipient: str) -> None:
    """Row 22."""
    log = Log()
    with smtp_server(PIPELINING) as server:
        carrier = open_transport(f"smtp://127.0.0.1:{server.port}", root=Path(), tls="none", connections=1)
        hostile, *others = letters(3)
        messages = [hostile._replace(recipient=recipient), *others]
        carrier.deliver(messages, record=log.record, stop=lambda: False)
    assert sorted(log.states) == ["failed", "sent", "sent"]
    assert sorted(server.recipients) == [b"RCPT TO:<user1@example.fr>\r", b"RCPT TO:<user2@example.fr>\r"]


def test_a_reply_without_end_is_given_up() -> None:
    with smtp_server({"MAIL": b"250-more\r\n" * 4_000}) as server:
        log = deliver(server, 1, timeout=5.0)
    assert log.states == ["owed"]
    assert "without end" in log.deliveries[0].detail


def test_a_server_that_takes_fewer_connections_gets_all_letters_over_those() -> None:
    with smtp_server(PIPELINING, most=2) as server:
        log = deliver(server, 40, connections=6)
    assert Counter(log.states) == {"sent": 40}
    assert log.trouble is None
    assert len(server.accepted) == 40


def test_many_letters_share_few_connections() -> None:
    with smtp_server() as server:
        log = deliver(server, 200, connections=4)
    assert Counter(log.states) == {"sent": 200}
    assert len(server.accepted) == 200
    assert server.connections <= 4


def test_stop_finishes_the_letter_in_hand_and_takes_no_more() -> None:
    log = Log()
    with smtp_server() as server:
        carrier = open_transport(f"smtp://127.0.0.1:{server.port}", root=Path(), tls="none", connections=1)
        carrier.deliver(letters(50), record=log.record, stop=lambda: len(server.accepted) >= 3)
    assert log.states == ["sent"] * 3


# --- TLS and passwords ---

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def context_for(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def secure(server: Server, ca_file: str, **options: object) -> Log:
    words: dict[str, Any] = {
        "tls": "required", "username": "acces", "password": PASSWORD, "ca_file": ca_file, **options,
    }  # fmt: skip
    return deliver(server, host="localhost", **words)


def no_secret(server: Server) -> bool:
    import base64

    spelled = base64.b64encode(f"\0acces\0{PASSWORD}".encode())
    return PASSWORD.encode() not in server.clear and spelled not in server.clear


def test_starttls_then_login_then_the_letter(authority: trustme.CA, ca_file: str) -> None:
    with smtp_server(tls=context_for(authority.issue_cert("localhost"))) as server:
        log = secure(server, ca_file)
    assert log.states == ["sent"]
    assert no_secret(server)


def test_implicit_tls(authority: trustme.CA, ca_file: str) -> None:
    with smtp_server(tls=context_for(authority.issue_cert("localhost")), implicit=True) as server:
        log = secure(server, ca_file, scheme="smtps")
    assert log.states == ["sent"]


def test_a_stripped_starttls_sends_nothing_in_clear(ca_file: str) -> None:
    with smtp_server({"EHLO": b"250-me\r\n250 AUTH PLAIN\r\n"}) as server:
        log = secure(server, ca_file)
    assert log.states == ["owed"]
    assert log.trouble is not None
    assert "STARTTLS" in log.trouble.sentence
    assert no_secret(server)
    assert b"MAIL" not in server.clear


@pytest.mark.parametrize("flaw", ["wrong host", "self-signed", "expired"])
def test_a_certificate_that_does_not_hold_sends_no_password(
    flaw: str, authority: trustme.CA, ca_file: str
) -> None:
    import datetime

    certificate = {
        "wrong host": lambda: authority.issue_cert("mail.example.com"),
        "self-signed": lambda: trustme.CA().issue_cert("localhost"),
        "expired": lambda: authority.issue_cert(
            "localhost", not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
            not_before=datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC),
        ),
    }[flaw]()  # fmt: skip
    with smtp_server(tls=context_for(certificate)) as server:
        log = secure(server, ca_file)
    assert log.states == ["owed"]
    assert log.trouble is not None
    assert no_secret(server)


def test_a_wrong_password_is_tried_once_and_said(authority: trustme.CA, ca_file: str) -> None:
    tls = context_for(authority.issue_cert("localhost"))
    with smtp_server({"AUTH": b"535 bad credentials\r\n"}, tls=tls) as server:
        log = secure(server, ca_file, connections=4)
    assert log.states == ["owed"]
    assert server.connections == 1
    assert log.trouble is not None
    assert "refuses the login" in log.trouble.sentence
    assert PASSWORD not in log.trouble.sentence


def test_a_password_never_goes_over_a_plain_connection() -> None:
    with smtp_server({"EHLO": b"250-me\r\n250 AUTH PLAIN\r\n"}) as server:
        log = deliver(server, username="acces", password=PASSWORD)
    assert log.states == ["owed"]
    assert no_secret(server)
