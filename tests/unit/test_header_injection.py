"""With hostile names, addresses and templates, exactly one letter arrives, with each header once (row 22)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from manifest_support import SETTINGS, make_workspace, manifest, user
from samples_support import ROOT
from smtp_support import Server, smtp_server

from provisioner.cli import run
from provisioner.errors import MailError
from provisioner.limits import MAX_EMAIL_BYTES
from provisioner.mail.delivery import Delivery, DeliveryState, Message
from provisioner.mail.message import Letter, compose, render
from provisioner.mail.template_sandbox import Templates
from provisioner.mail.transport import TransportOptions, open_transport

TEMPLATES = Templates({path.name: path.read_text() for path in (ROOT / "templates" / "mail").glob("*.j2")})
HEADERS = {
    "From", "To", "Reply-To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version",
    "Content-Type", "Content-Language",
}  # fmt: skip
SENDER = "Cabinet Durand <acces@durand-associes.fr>"

HOSTILE = (
    "a\r\nBcc: x@evil.example", "a\nBcc: x@evil.example", "a\rBcc: x@evil.example",
    "a\r\n Bcc: x@evil.example", "a\r\n\r\nbody", "a\n\nbody",
    "\r\n.\r\nMAIL FROM:<x@evil.example>\r\nRCPT TO:<y@evil.example>\r\nDATA\r\nz",
    "\n.\nMAIL FROM:<x@evil.example>\nRCPT TO:<y@evil.example>\nDATA\nz",
    "\r.\rMAIL FROM:<x@evil.example>\r", "\n.\r\nMAIL FROM:<x@evil.example>\r\n",
    "\r\n.\nMAIL FROM:<x@evil.example>\n", "\r\n.\rQUIT\r", "\x00\r\n.\r\n", "\r\n\x00.\r\nQUIT", ".", "..",
    "\n.", "\n..\n", "\n.x\n", "\n.\x85", "\u2028.\u2028", "a\u2028Bcc: x@evil.example", "a\u2029Bcc: x",
    "a\x85Bcc: x@evil.example", "a\x0bBcc: x", "a\x0cBcc: x", "a\x1cBcc: x", "a\x1eBcc: x", "\x00", "a\x00b",
    "a\x7fb", "a\x08b", "\x1b[31m", "=?utf-8?q?=0D=0ABcc:_x@evil.example?=",
    "=?utf-8?b?DQpCY2M6IHhAZXZpbC5leGFtcGxl?=", "=?utf-8?q?a?= =?utf-8?q?b?=", "=?utf-7?q?+AA0ACg-Bcc?=",
    "=?", "?=", "=0D=0A.=0D=0A", "Bcc: x@evil.example", "x@evil.example", "<x@evil.example>",
    "a, x@evil.example", "a <x@evil.example>", "\"a\" <x@evil.example>", "a; b: c,", "(a)", "a\\", "\\\"",
    "\"", "[a]", "--=_0000", "From a", "\nFrom a b", "Content-Type: text/html", "é" * 400, "x" * 3000,
    "x " * 900, "\u202eevil", "{{ 7*7 }}", "{% include 'x' %}", "\ufeff", "\ud7ff\ue000", "e\u0301" * 300,
    "😀" * 200, "\t", "   ", "",
)  # fmt: skip
"""Texts that some parser may read as the end of a line, a header, a message or an encoded word."""

FIELDS = ("first_name", "last_name", "company", "firm", "email")


@dataclass
class Case:
    """A letter, its sender and its reply address. Some of their texts are hostile."""

    letter: Letter
    sender: str = SENDER
    reply_to: str = "contact@durand-associes.fr"


def letter(name: str = "", **context: str) -> Letter:
    words = {
        "first_name": "Claire", "last_name": "Martin", "company": "Boulangerie Martin",
        "firm": "Cabinet Durand", "email": "claire@example.fr", **context,
    }  # fmt: skip
    key = sha256(repr((name, words)).encode("utf-8", "surrogatepass")).hexdigest()
    return Letter(key, "claire@example.fr", "fr", words, datetime(2026, 11, 24, tzinfo=UTC))


def content_of(case: Case) -> bytes | None:
    """Return the message as it is sent, or None if the program refuses it with a :class:`MailError`."""
    try:
        rendered = render(case.letter, "https://example.com/a", TEMPLATES)
        return compose(case.letter, rendered, sender=case.sender, reply_to=case.reply_to)
    except MailError:
        return None


def has_one_of_each(content: bytes) -> EmailMessage:
    """Parse the letter. Assert that it has each expected header once and no other header."""
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\x00", content), content
    assert content.isascii()
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))
    message = message_from_bytes(content, policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    assert sorted(message.keys()) == sorted(set(message.keys()))
    assert set(message.keys()) <= HEADERS
    assert {"From", "To", "Subject", "Message-ID"} <= set(message.keys())
    for header in ("From", "To"):
        assert len(message[header].addresses) == 1
    assert "\n" not in message["Subject"]
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    return message


def written_address(mailbox: str) -> str:
    """Return the text in angle brackets at the end of ``mailbox``. Without brackets, return ``mailbox``."""
    return re.sub(r"(?s)^.*<([^<]*)>$", r"\1", mailbox)


def delivered(server: Server, messages: Sequence[Message]) -> list[Delivery]:
    """Send the messages over one connection; returns the delivery of each."""
    recorded: list[Delivery] = []
    carrier = open_transport(
        f"smtp://127.0.0.1:{server.port}",
        TransportOptions(root=Path(), tls="none", timeout=20, connections=1),
    )
    carrier.deliver(
        messages, record=lambda bodies, deliveries: recorded.extend(deliveries), stop=lambda: False
    )
    return recorded


def messages_as_the_most_lenient_server_counts_them(stream: bytes) -> int:
    """Return the number of messages that the most lenient mail server would see in the stream.

    Such a server ends a message at a dot between two line ends of any kind.
    """
    return len(re.findall(rb"(?:\r\n|\r|\n)\.(?:\r\n|\r|\n)", stream))


CASES = [
    *(Case(letter(text, **{field: text})) for text in HOSTILE for field in FIELDS),
    *(Case(letter(text, **dict.fromkeys(FIELDS, text))) for text in HOSTILE),
    *(Case(letter(text), sender=f"{text} <acces@durand-associes.fr>") for text in HOSTILE),
    *(Case(letter(text), sender=f'"{text}" <acces@durand-associes.fr>') for text in HOSTILE),
    *(Case(letter(text), reply_to=f"{text} <contact@durand-associes.fr>") for text in HOSTILE),
    *(Case(letter(text), reply_to=text) for text in HOSTILE),
    *(Case(replace(letter(text), language=text)) for text in HOSTILE),
]


def test_no_field_makes_a_second_header_or_message() -> None:
    """No hostile text in any field makes a second header or message.

    All letters are sent over one connection and parsed on arrival.
    """
    letters = [(case, content) for case in CASES if (content := content_of(case)) is not None]
    assert len(letters) > len(HOSTILE) * 6
    with smtp_server() as server:
        recorded = delivered(
            server,
            [
                Message(f"{at}", "acces@durand-associes.fr", case.letter.recipient, content)
                for at, (case, content) in enumerate(letters)
            ],
        )
    assert [delivery.state for delivery in recorded] == [DeliveryState.SENT] * len(letters)
    assert server.accepted == [content for _, content in letters]
    assert messages_as_the_most_lenient_server_counts_them(bytes(server.clear)) == len(letters)
    assert len(server.recipients) == len(letters)
    for (case, _), content in zip(letters, server.accepted, strict=True):
        message = has_one_of_each(content)
        assert message["To"].addresses[0].addr_spec == case.letter.recipient
        assert message["From"].addresses[0].addr_spec == "acces@durand-associes.fr"
        if "Reply-To" in message:
            assert message["Reply-To"].addresses[0].addr_spec == written_address(case.reply_to)


@pytest.mark.parametrize("field", FIELDS)
def test_an_odd_name_arrives_as_it_is_written(field: str) -> None:
    """An unusual name arrives as it is written. Escaping does not change what the recipient sees."""
    for text in (
        "=?utf-8?q?a?=",
        "a <x@evil.example>",
        "{{ 7*7 }}",
        'D\'Été, "Jo"',
        "Bcc: x@evil.example",
        "é" * 90,
    ):
        content = content_of(Case(letter(text, **{field: text})))
        assert content is not None
        body = has_one_of_each(content).get_body(("plain",))
        assert body is not None
        assert text in body.get_content()
        if field == "company":
            assert text in has_one_of_each(content)["Subject"]


def test_an_address_for_a_header_has_254_bytes_at_the_most() -> None:
    """An address of more than 254 bytes is refused, because its header line would be too long."""
    domain = ".".join(["d" * 61] * 3) + ".fr"
    longest = "a" * (MAX_EMAIL_BYTES - len(domain) - 1) + "@" + domain
    assert len(longest) == MAX_EMAIL_BYTES
    content = content_of(Case(replace(letter(), recipient=longest)))
    assert content is not None
    assert has_one_of_each(content)["To"].addresses[0].addr_spec == longest
    assert content_of(Case(replace(letter(), recipient="a" + longest))) is None


def test_a_hostile_recipient_is_refused_or_is_the_only_recipient() -> None:
    """A hostile recipient is refused, or is the only recipient in the header and in the envelope."""
    whole = "claire@example.fr"
    addresses = [
        address
        for text in HOSTILE
        for address in (text, f"{text}@example.fr", f"claire@{text}", f"{whole}{text}", f"{text}{whole}")
    ]
    for address in addresses:
        content = content_of(Case(replace(letter(), recipient=address)))
        if content is not None:
            (reader,) = has_one_of_each(content)["To"].addresses
            assert f"{reader.username}@{reader.domain}" == written_address(address)
    body = b"Subject: x\r\n\r\nx\r\n"
    with smtp_server() as server:
        recorded = delivered(
            server,
            [Message(f"{at}", "acces@example.com", address, body) for at, address in enumerate(addresses)],
        )
    states = {delivery.key: delivery.state for delivery in recorded}
    sent = [address for at, address in enumerate(addresses) if states.pop(f"{at}") is DeliveryState.SENT]
    assert not states
    # nothing that aiosmtplib would read as a comment, a list or a quoted name
    assert all(re.fullmatch(r"[^\s(),:;<>\[\]\\\"]+@[A-Za-z0-9.-]+", address) for address in sent)
    assert 20 < len(sent) < len(addresses) / 2
    assert server.recipients == [b"RCPT TO:<%s>\r" % address.encode("ascii") for address in sent]
    assert server.accepted == [body] * len(sent)
    assert len(re.findall(rb"(?im)^(?:MAIL|RCPT|DATA)\b", bytes(server.clear))) == 3 * len(sent)


def test_a_hostile_sender_never_reaches_the_server() -> None:
    """A message with a hostile sender fails before a part of it reaches the mail server."""
    senders = [text for text in HOSTILE if re.search(r"[\s<>\x00-\x1f]", text)]
    with smtp_server() as server:
        recorded = delivered(server, [Message(text, text, "a@example.fr", b"x\r\n") for text in senders])
    assert [delivery.state for delivery in recorded] == [DeliveryState.FAILED] * len(senders)
    assert not server.accepted
    assert b"MAIL" not in server.clear


@effort(max_examples=150)
@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_no_generated_name_makes_a_second_header(first: str, company: str, firm: str, shown: str) -> None:
    case = Case(
        letter(first_name=first, company=company, firm=firm), sender=f"{shown} <acces@durand-associes.fr>"
    )
    content = content_of(case)
    if content is not None:
        assert has_one_of_each(content)["To"].addresses[0].addr_spec == "claire@example.fr"


def test_a_firm_with_hostile_manifests_sends_one_letter_each(tmp_path: Path) -> None:
    """Hostile names that pass validation arrive unchanged, in one letter for each user."""
    names = [
        "=?utf-8?q?=0D=0ABcc:_x@evil.example?=", "Bcc: x@evil.example", "a, x@evil.example",
        "<x@evil.example>", ". a", "a\\", 'Jo \"a\" <x@y.fr>', "From a", "=0D=0A.=0D=0A", "{{ 7*7 }}",
        "{% raw %}", "--=_0000", "é" * 90,
    ]  # fmt: skip
    people = "".join(
        user(f"u{at}@example.fr", type="administrator").replace(
            "last_name: Martin", f"last_name: {_quoted(name)}"
        )
        for at, name in enumerate(names)
    )
    text = manifest(people).replace("name: Boulangerie Martin\n", "name: 'Subject: x <x@evil.example>'\n")
    with smtp_server() as server:
        settings = SETTINGS.partition("mail: ")[0].replace(
            "Cabinet Durand & Associés", "'=?utf-8?q?=0D=0ABcc:_x?='"
        )
        settings += "portal: {operator: partner, public_url: 'https://portail.example.fr'}\n"
        settings += f"mail: {{transport: 'smtp://127.0.0.1:{server.port}', tls: none, welcome: ours, "
        settings += 'from: "Bcc: x, y <acces@durand-associes.fr>"}\n'
        root = make_workspace(tmp_path, text, settings=settings)
        assert run(["-C", str(root), "apply", "--auto-approve"]) == 0
    assert len(server.accepted) == len(server.recipients) == len(names)
    assert messages_as_the_most_lenient_server_counts_them(bytes(server.clear)) == len(names)
    received = {
        message["To"].addresses[0].addr_spec: message for message in map(has_one_of_each, server.accepted)
    }
    for at, name in enumerate(names):
        body = received[f"u{at}@example.fr"].get_body(("plain",))
        assert body is not None
        assert name in body.get_content()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
