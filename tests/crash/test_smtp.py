"""The state of a letter after each fault of an SMTP server. No letter is sent twice."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtplib import SMTP
from smtp_support import CUT, SILENCE, Server, smtp_server

from provisioner.errors import MailError
from provisioner.mail import group_commit, smtp, smtp_connection
from provisioner.mail.delivery import Delivery, Message
from provisioner.mail.group_commit import GroupCommit
from provisioner.mail.transport import TransportOptions, open_transport


@dataclass
class Log:
    """The keys of recorded bodies, the recorded deliveries, the number of commits, and the error of a run."""

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
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(smtp_connection, "BODY_TIMEOUT", 0.5)


def deliver(
    server: Server, count: int = 1, *, scheme: str = "smtp", host: str = "127.0.0.1", **options: object
) -> Log:
    log = Log()
    settings: dict[str, object] = {"tls": "none", "timeout": 2.0, "connections": 1, **options}
    transport = open_transport(f"{scheme}://{host}:{server.port}", TransportOptions(root=Path(), **settings))  # type: ignore[arg-type]
    try:
        transport.deliver(letters(count), record=log.record, stop=lambda: False)
    except MailError as trouble:
        log.trouble = trouble
    return log


FAULTS: dict[str, tuple[dict[str, bytes], str, bool]] = {
    # what the server does, where the letter ends, whether its body was recorded as leaving
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
    "DATA 250": ({"DATA": b"250 ok\r\n"}, "owed", True),
    "DATA 4xx": ({"DATA": b"451 later\r\n"}, "owed", True),
    "DATA 421": ({"DATA": b"421 closing\r\n" + CUT}, "owed", True),
    "DATA 5xx": ({"DATA": b"554 no\r\n"}, "failed", True),
    # aiosmtplib reports these like the same faults after the final dot
    "DATA cut": ({"DATA": CUT}, "unknown", True),
    "DATA silence": ({"DATA": SILENCE}, "unknown", True),
    "DATA garbage": ({"DATA": b"\xff\r\n"}, "unknown", True),
    "DATA 220": ({"DATA": b"220 what\r\n"}, "unknown", True),
    "cut in the body": ({"in body": CUT}, "unknown", True),
    "cut after the dot": ({"body": CUT}, "unknown", True),
    "silence after the dot": ({"body": SILENCE}, "unknown", True),
    "garbage after the dot": ({"body": b"\xff\xff\r\n"}, "unknown", True),
    "a code that is none after the dot": ({"body": b"999 what\r\n"}, "unknown", True),
    "4xx after the dot": ({"body": b"451 disk\r\n"}, "owed", True),
    "5xx after the dot": ({"body": b"554 spam\r\n"}, "failed", True),
    "cut after acceptance": ({"body": b"250 ok\r\n" + CUT}, "sent", True),
    "QUIT garbage": ({"QUIT": b"\xff\r\n"}, "sent", True),
    "QUIT cut": ({"QUIT": CUT}, "sent", True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_ends_in_its_state(fault: str) -> None:
    script, state, body = FAULTS[fault]
    silent = SILENCE in script.values()
    with smtp_server(script) as server:
        log = deliver(server, timeout=0.5 if silent else 2.0)
    assert log.states == [state]
    assert (log.bodies == ["k0"]) is body
    assert len(server.accepted) == (1 if state == "sent" else 0)


CLOSING = {
    # an answer to a command, and where the letter ends; the connection cannot be used after it
    "MAIL garbage": ({"MAIL": b"hello\r\n"}, "owed"),
    "MAIL 354": ({"MAIL": b"354 go\r\n"}, "owed"),
    "MAIL 421": ({"MAIL": b"421 closing\r\n"}, "owed"),
    "RCPT garbage": ({"RCPT": b"hello\r\n"}, "owed"),
    "RCPT 252": ({"RCPT": b"252 perhaps\r\n"}, "owed"),
    "DATA 250": ({"DATA": b"250 ok\r\n"}, "owed"),
    "DATA 421": ({"DATA": b"421 closing\r\n"}, "owed"),
    "DATA garbage": ({"DATA": b"hello\r\n"}, "unknown"),
    "garbage after the dot": ({"body": b"hello\r\n"}, "unknown"),
    "354 after the dot": ({"body": b"354 more\r\n"}, "unknown"),
    "421 after the dot": ({"body": b"421 closing\r\n"}, "owed"),
    "a line of 8,193 bytes after the dot": ({"body": b"250 " + b"x" * 8_187 + b"\r\n"}, "unknown"),
    "RSET refused": ({"RCPT": b"550 unknown\r\n", "RSET": b"500 what\r\n"}, "failed"),
}


@pytest.mark.parametrize("answer", CLOSING)
def test_a_connection_is_closed_after_an_answer_that_makes_its_state_unsure(answer: str) -> None:
    script, state = CLOSING[answer]
    with smtp_server(script) as server:
        log = deliver(server, 3)
    assert log.states == [state] * 3
    assert server.connections == 3
    assert b"QUIT" not in server.clear


def test_a_250_reply_of_the_longest_line_means_sent() -> None:
    with smtp_server({"body": b"250 " + b"x" * 8_186 + b"\r\n"}) as server:
        log = deliver(server, 3)
    assert log.states == ["sent"] * 3
    assert server.connections == 1


def test_data_waits_600_seconds_and_other_commands_as_long_as_the_setting_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    waits: list[tuple[float | None, float | None]] = []
    data = SMTP.data

    async def watched(client: SMTP, content: bytes, **options: Any) -> Any:
        waits.append((client.timeout, options["timeout"]))
        return await data(client, content, **options)

    monkeypatch.setattr(SMTP, "data", watched)
    with smtp_server() as server:
        assert deliver(server, timeout=7.0).states == ["sent"]
        transport = open_transport(
            f"smtp://127.0.0.1:{server.port}", TransportOptions(root=Path(), tls="none")
        )
        transport.deliver(letters(), record=Log().record, stop=lambda: False)
    assert waits == [(7.0, 600.0), (60.0, 600.0)]


def test_all_letters_stay_owed_when_no_server_answers() -> None:
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


def test_a_lone_dot_does_not_end_the_message() -> None:
    smuggled = Message(
        "k", "a@example.com", "b@example.fr", b"Subject: x\n\na\r\n.\r\nMAIL FROM:<x@y>\n.\n.b\r\r\n"
    )
    log = Log()
    with smtp_server() as server:
        transport = open_transport(
            f"smtp://127.0.0.1:{server.port}", TransportOptions(root=Path(), tls="none")
        )
        transport.deliver([smuggled], record=log.record, stop=lambda: False)
    assert log.states == ["sent"]
    assert len(server.accepted) == 1
    assert b"\r\n.\r\nMAIL FROM" in server.accepted[0]


class Lost(Exception):
    """The ledger's lock was taken away."""


def watch_bodies(monkeypatch: pytest.MonkeyPatch, committed: Collection[str]) -> list[str]:
    """Return a list to which each DATA command adds the key of its letter.

    Each DATA command asserts that ``committed`` already contains this key.
    """
    data = SMTP.data
    started: list[str] = []

    async def watched(client: SMTP, content: bytes, **options: Any) -> Any:
        key = content.partition(b"\r\n")[0].partition(b" ")[2].decode()
        assert key in committed
        started.append(key)
        return await data(client, content, **options)

    monkeypatch.setattr(SMTP, "data", watched)
    return started


def with_keys(count: int) -> list[Message]:
    """Return ``count`` letters. The subject of each letter is its key."""
    return [
        letter._replace(content=f"Subject: {letter.key}\r\n\r\n.\r\n".encode()) for letter in letters(count)
    ]


def test_data_is_sent_only_after_the_commit_of_the_body_has_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connections share commits, and DATA is sent only after the commit of the body has returned."""
    # on a busy machine the connections still share their commits
    for pause in ("GATHER_SECONDS", "DELIVERY_SECONDS"):
        monkeypatch.setattr(group_commit, pause, 30.0)
    committed: set[str] = set()
    started = watch_bodies(monkeypatch, committed)
    log, commits = Log(), []

    def record(bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
        assert not set(bodies) & set(started)
        log.record(bodies, deliveries)
        commits.append(len(bodies))
        # everything up to here happens before the commit has returned
        committed.update(bodies)

    with smtp_server() as server:
        transport = open_transport(
            f"smtp://127.0.0.1:{server.port}", TransportOptions(root=Path(), tls="none", connections=4)
        )
        transport.deliver(with_keys(60), record=record, stop=lambda: False)
    assert Counter(log.states) == {"sent": 60}
    assert sorted(log.bodies) == sorted(started) == sorted(letter.key for letter in letters(60))
    assert len(server.accepted) == 60
    # with a commit for each body and each delivery there would be 120
    assert max(commits) > 1
    assert len(commits) < 60


def test_a_delivery_is_recorded_with_the_next_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each commit records the next body together with the delivery of the previous body."""
    monkeypatch.setattr(group_commit, "DELIVERY_SECONDS", 30.0)
    log, commits = Log(), []

    def record(bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
        log.record(bodies, deliveries)
        commits.append((len(bodies), len(deliveries)))

    with smtp_server() as server:
        transport = open_transport(
            f"smtp://127.0.0.1:{server.port}", TransportOptions(root=Path(), tls="none", connections=1)
        )
        transport.deliver(with_keys(4), record=record, stop=lambda: False)
    assert commits == [(1, 0), (1, 1), (1, 1), (1, 1), (0, 1)]


@pytest.mark.parametrize("broken", range(1, 6))
def test_no_body_is_sent_after_a_commit_has_failed(broken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has lost its lock cannot record a body, so it sends no further body."""
    committed: set[str] = set()
    started = watch_bodies(monkeypatch, committed)
    tried = 0

    def record(bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
        nonlocal tried
        tried += 1
        if tried >= broken:
            raise Lost
        committed.update(bodies)

    with smtp_server() as server:
        transport = open_transport(
            f"smtp://127.0.0.1:{server.port}", TransportOptions(root=Path(), tls="none", connections=3)
        )
        with pytest.raises(Lost):
            transport.deliver(with_keys(20), record=record, stop=lambda: False)
    assert set(started) == committed
    assert len(server.accepted) <= len(started)
    assert tried == broken


def test_a_letter_whose_connection_closes_before_data_is_sent_over_another() -> None:
    log = Log()
    with smtp_server() as server:
        transport = open_transport(
            f"smtp://127.0.0.1:{server.port}", TransportOptions(root=Path(), tls="none", connections=1)
        )

        def record(bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
            log.record(bodies, deliveries)
            if log.bodies == ["k0", "k1"]:
                server.hang_up()

        transport.deliver(letters(3), record=record, stop=lambda: False)
    assert log.states == ["sent"] * 3
    assert log.bodies == ["k0", "k1", "k2"]
    assert len(server.accepted) == 3
    assert server.connections == 2


def test_a_letter_recorded_as_body_whose_data_was_not_called_is_owed_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log()

    def interrupted(commit: GroupCommit, key: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(GroupCommit, "body_started", interrupted)
    with smtp_server() as server:
        transport = open_transport(
            f"smtp://127.0.0.1:{server.port}", TransportOptions(root=Path(), tls="none", connections=1)
        )
        with pytest.raises(KeyboardInterrupt):
            transport.deliver(letters(2), record=log.record, stop=lambda: False)
    assert log.bodies == ["k0"]
    assert log.states == ["owed"]
    assert server.accepted == []


def test_a_refused_recipient_gets_no_data_and_the_connection_is_used_again() -> None:
    with smtp_server({"RCPT": b"550 unknown\r\n"}) as server:
        log = deliver(server, 3)
    assert log.states == ["failed"] * 3
    assert log.bodies == []
    assert server.accepted == []
    assert server.connections == 1
    assert b"DATA" not in server.clear
    assert server.clear.count(b"RSET") == 3


def test_only_the_letter_in_hand_is_unknown_when_the_server_cuts_the_line() -> None:
    answers = iter([b"250 ok\r\n", CUT, b"250 ok\r\n", b"250 ok\r\n"])
    with smtp_server(answer_body=lambda message: next(answers)) as server:
        log = deliver(server, 4)
    assert sorted(log.states) == ["sent", "sent", "sent", "unknown"]
    assert server.connections == 2


def test_a_server_that_closes_after_each_letter_gets_every_letter() -> None:
    with smtp_server({"body": b"250 ok\r\n" + CUT}) as server:
        log = deliver(server, 4)
    assert log.states == ["sent"] * 4
    assert len(server.accepted) == 4


def test_a_surplus_reply_is_never_the_answer_to_a_body() -> None:
    """A surplus reply would shift all later replies by one command, so the next letter stays owed."""
    with smtp_server({"body": b"250 ok\r\n250 ok\r\n"}) as server:
        log = deliver(server, 4)
    assert set(log.states) == {"sent", "owed"}
    assert log.states.count("sent") == len(server.accepted)


@pytest.mark.parametrize(
    "recipient", ["a@b.fr>\r\nRCPT TO:<x@y.fr", "a b@c.fr", "é@b.fr", "", "<a@b.fr>", "a,b@c.fr", "a(b)@c.fr"]
)
def test_an_address_that_is_not_plain_is_refused_before_it_is_sent(recipient: str) -> None:
    log = Log()
    with smtp_server() as server:
        transport = open_transport(
            f"smtp://127.0.0.1:{server.port}", TransportOptions(root=Path(), tls="none", connections=1)
        )
        hostile, *others = letters(3)
        messages = [hostile._replace(recipient=recipient), *others]
        transport.deliver(messages, record=log.record, stop=lambda: False)
    assert sorted(log.states) == ["failed", "sent", "sent"]
    assert sorted(server.recipients) == [b"RCPT TO:<user1@example.fr>\r", b"RCPT TO:<user2@example.fr>\r"]


def test_a_reply_without_end_leaves_the_letter_owed() -> None:
    with smtp_server({"MAIL": b"250-more\r\n" * 4_000}) as server:
        log = deliver(server, 1, timeout=5.0)
    assert log.states == ["owed"]
    assert "Response too long" in log.deliveries[0].detail


def test_a_server_that_accepts_few_connections_gets_all_letters_over_them() -> None:
    with smtp_server(most=2) as server:
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


def test_stop_finishes_the_letter_in_hand_and_begins_no_other() -> None:
    log = Log()
    with smtp_server() as server:
        transport = open_transport(
            f"smtp://127.0.0.1:{server.port}", TransportOptions(root=Path(), tls="none", connections=1)
        )
        transport.deliver(letters(50), record=log.record, stop=lambda: len(server.accepted) >= 3)
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
def test_no_password_is_sent_to_a_server_with_an_invalid_certificate(
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


def test_a_wrong_password_is_tried_once_and_reported(authority: trustme.CA, ca_file: str) -> None:
    tls = context_for(authority.issue_cert("localhost"))
    with smtp_server({"AUTH": b"535 bad credentials\r\n"}, tls=tls) as server:
        log = secure(server, ca_file, connections=4)
    assert log.states == ["owed"]
    assert server.connections == 1
    assert log.trouble is not None
    assert "refuses the login" in log.trouble.sentence
    assert PASSWORD not in log.trouble.sentence


def test_no_password_is_sent_over_a_plain_connection() -> None:
    with smtp_server({"EHLO": b"250-me\r\n250 AUTH PLAIN\r\n"}) as server:
        log = deliver(server, username="acces", password=PASSWORD)
    assert log.states == ["owed"]
    assert no_secret(server)
