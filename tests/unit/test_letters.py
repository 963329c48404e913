"""Letters in both languages: their texts, names that cannot add a header, and the maildir transport."""

from __future__ import annotations

import ctypes
import email
import email.policy
import errno
import os
import re
from collections.abc import Callable, Sequence
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letter_support import DATED, TEMPLATES, letter

from provisioner import limits
from provisioner.errors import MailError
from provisioner.mail import maildir as maildir_module
from provisioner.mail.delivery import Delivery, Message
from provisioner.mail.maildir import Maildir
from provisioner.mail.message import Letter, Rendered, compose, message_id, render
from provisioner.mail.template_sandbox import Templates

SENDER = "Cabinet Durand & Associés <acces@durand-associes.fr>"
LINK = "https://portail.example.com/activation/u.1.2.abc"


def received(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def written(one: Letter, link: str = LINK) -> EmailMessage:
    return received(compose(one, render(one, link, TEMPLATES), sender=SENDER, reply_to="contact@example.fr"))


@pytest.mark.parametrize(
    ("language", "subject", "greeting", "button"),
    [
        ("fr", "Votre accès en ligne", "Bonjour Éloïse Martin,", "Choisir mon mot de passe"),
        ("en", "Your online access", "Dear Éloïse Martin,", "Choose my password"),
    ],
)
def test_a_welcome_reads_well_in_both_languages(
    language: str, subject: str, greeting: str, button: str
) -> None:
    message = written(letter(language))
    text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    assert text is not None
    assert html is not None
    assert message["Subject"].startswith(subject)
    for part in (text, html):
        assert greeting in part.get_content()
        assert LINK in part.get_content()
        assert "eloise@boulangerie-martin.fr" in part.get_content()
    assert button in html.get_content()
    assert f'lang="{language}"' in html.get_content()


def test_the_headers_are_those_of_an_automatic_letter() -> None:
    message = written(letter())
    assert message["From"] == SENDER
    assert message["To"] == "eloise@boulangerie-martin.fr"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Content-Language"] == "fr"
    assert message["Message-ID"] == message_id("ab" * 32, SENDER) == f"<{'ab' * 20}@durand-associes.fr>"
    assert message["Date"] == "Tue, 24 Nov 2026 09:30:00 +0000"
    assert "List-Unsubscribe" not in message


def test_the_same_letter_has_the_same_bytes_within_the_lines_that_mail_allows() -> None:
    one = letter(company="É" * 900)
    first, second = (compose(one, render(one, LINK, TEMPLATES), sender=SENDER) for _ in range(2))
    assert first == second
    assert all(len(line) <= 76 for line in first.split(b"\r\n"))
    assert b"\n" not in first.replace(b"\r\n", b"")


@pytest.mark.parametrize("language", ["fr", "en"])
@pytest.mark.parametrize("log_in", ["https://portail.example.fr", ""])
def test_a_letter_without_a_link_says_where_to_log_in(language: str, log_in: str) -> None:
    rendered = render(letter(language=language), "", TEMPLATES, log_in)
    usual = render(letter(language=language), "", TEMPLATES)
    for linkless, known in ((rendered.text, usual.text), (rendered.html, usual.html)):
        assert linkless != known
        assert ("https://portail.example.fr" in linkless) == bool(log_in)
        assert "oubli" in linkless or "Forgotten" in linkless
    # an address that a reader's program makes a link of is a line of its own
    assert ("https://portail.example.fr" in rendered.text.splitlines()) == bool(log_in)
    assert "\n\n\n" not in rendered.text


def test_a_letter_to_an_account_with_a_password_has_no_link() -> None:
    body = written(letter(), link="").get_body(("plain",))
    assert body is not None
    assert "mot de passe que vous avez déjà choisi" in body.get_content()
    assert "http" not in body.get_content()


def test_nothing_remote_is_loaded() -> None:
    html = render(letter(), LINK, TEMPLATES).html
    assert "src=" not in html
    assert "@import" not in html
    assert html.count("http") == html.count(LINK)


def test_names_are_text_in_html() -> None:
    html = render(letter(first_name="<script>alert(1)</script>", company='A & B "C"'), LINK, TEMPLATES).html
    assert "<script>alert" not in html
    assert "A &amp; B" in html


HOSTILE = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            "a\r\nBcc: x@evil.example", "a\nSubject: other", "\r\n\r\nbody", "=?utf-8?q?Bcc:_x?=",
            "\r\n.\r\nMAIL FROM:<x>",
            "\x00", "\u2028Bcc: x", "\x85Bcc: x", "{{ 7*7 }}", "{% for x in y %}", "x" * 5000, "\u202eevil",
        ]
    ),
)  # fmt: skip


@given(HOSTILE, HOSTILE, HOSTILE)
def test_nothing_in_a_name_makes_a_second_header_or_message(first: str, company: str, firm: str) -> None:
    one = letter(first_name=first, company=company, firm=firm)
    try:
        content = compose(one, render(one, LINK, TEMPLATES), sender=SENDER)
    except MailError:
        return
    message = received(content)
    for header in ("From", "To", "Subject", "Date", "Message-ID"):
        assert len(message.get_all(header, [])) == 1
    assert "Bcc" not in message
    assert message["To"] == "eloise@boulangerie-martin.fr"
    assert "49" not in (message["Subject"] or "") or "49" in first + company + firm


PRINTED = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=1, max_size=120
)
"""Texts without control characters and line ends."""

NAMES = st.one_of(PRINTED, st.sampled_from(['A, B "C" \\ <d>', "=?utf-8?q?x?=", "a" * 300, "é" * 300, "(x)"]))
LOCALS = st.text("abcXYZ019!#$%&'*+/=?^_`{|}~-.", min_size=1, max_size=60).filter(
    lambda text: not re.search(r"=\?.*\?[bqBQ]\?.*\?=", text)  # refused: test_header_injection.py
)


def one_line(text: str) -> str:
    """The text with each run of white space replaced by one blank."""
    return " ".join(text.split())


@given(NAMES, LOCALS, NAMES, st.text(), st.text(), st.sampled_from(["fr", "en"]))
def test_a_parser_reads_back_what_was_written(
    name: str, local: str, subject: str, text: str, html: str, language: str
) -> None:
    """A parser finds each header once, with the text that was written."""
    name, subject = one_line(name), one_line(subject)
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    sender = f'"{quoted}" <acces@durand-associes.fr>'
    one = Letter("ab" * 32, f"{local}@example.fr", language, {}, DATED)
    content = compose(one, Rendered(subject, text, html), sender=sender, reply_to="contact@example.fr")
    assert content.isascii()
    assert all(len(line) <= 98 for line in content.split(b"\r\n"))
    assert b"\n" not in content.replace(b"\r\n", b"")
    message = received(content)
    assert not message.defects
    assert message.keys() == [
        "From", "To", "Reply-To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version",
        "Content-Type", "Content-Language",
    ]  # fmt: skip
    # read by the parser that knows RFC 2047 whole: the newer one puts a blank between two encoded words
    author, address = parseaddr(email.message_from_bytes(content)["From"])
    assert str(make_header(decode_header(author))) == name
    assert address == "acces@durand-associes.fr"
    (reader,) = message["To"].addresses
    assert (reader.username, reader.domain, reader.display_name) == (local, "example.fr", "")
    assert message["Reply-To"] == "contact@example.fr"
    assert message["Subject"] == subject
    assert message["Date"].datetime == DATED
    assert message["Message-ID"] == message_id("ab" * 32, sender)
    assert message["Content-Language"] == language
    plain, rich = message.iter_parts()
    for part, kind, body in ((plain, "text/plain", text), (rich, "text/html", html)):
        assert part.get_content_type() == kind
        assert not part.defects
        assert part.get_content() == "\r\n".join(body.replace("\x00", "").splitlines()) + "\r\n"


@pytest.mark.parametrize(
    ("recipient", "written"),
    [
        ("ann@example.fr", "ann@example.fr"),
        ("a..b@example.fr", '"a..b"@example.fr'),
        ('"a b"@example.fr', None),
        ("Ann <ann@example.fr>", "Ann <ann@example.fr>"),
        ("é <ann@example.fr>", "=?utf-8?q?=C3=A9?= <ann@example.fr>"),
        ("O'Hara, Ann <ann@example.fr>", "=?utf-8?q?O=27Hara=2C_Ann?= <ann@example.fr>"),
        (f"{'a' * 64}@{'b' * 60}.example.fr", f"\r\n {'a' * 64}@{'b' * 60}.example.fr"),
        ("ann@exa_mple.fr", None),
        ("ann@example.fr\x00", None),
    ],
)
def test_an_address_is_quoted_as_rfc_5322_says_or_refused(recipient: str, written: str | None) -> None:
    one = Letter("ab" * 32, recipient, "fr", {}, DATED)
    if written is None:
        with pytest.raises(MailError, match="cannot be written"):
            compose(one, Rendered("s", "t", "h"), sender=SENDER)
    else:
        content = compose(one, Rendered("s", "t", "h"), sender=SENDER)
        assert f"\r\nTo: {written}\r\nSubject:".encode() in content


@pytest.mark.parametrize("language", ["fr\r\nBcc: x@y.fr", "fr\n", "é"])
def test_no_field_of_a_letter_ends_its_line(language: str) -> None:
    """A field that contains a line end is refused."""
    one = Letter("ab" * 32, "a@b.fr", language, {}, DATED)
    with pytest.raises(MailError, match="cannot be written"):
        compose(one, Rendered("s", "t", "h"), sender=SENDER)


@pytest.mark.parametrize(
    "address",
    [
        "a@b.fr\r\nBcc: x@y.fr",
        "a@b.fr, x@y.fr",
        "a b@c.fr",
        "",
        "é@example.fr",
        "a@",
        "@b.fr",
        "<a@b.fr> x@y.fr",
    ],
)
def test_an_address_that_is_not_one_is_refused(address: str) -> None:
    one = letter()
    hostile = Letter(one.key, address, "fr", one.context, DATED)
    try:
        content = compose(hostile, render(one, LINK, TEMPLATES), sender=SENDER)
    except MailError:
        return
    assert received(content)["To"].count("@") == 1
    assert "Bcc" not in received(content)


def broken(source: str) -> MailError:
    with pytest.raises(MailError) as caught:
        Templates({"welcome.fr.txt.j2": source}).render("welcome.fr.txt.j2", {"first_name": "Ann", "n": "9"})
    return caught.value


def test_an_unknown_variable_is_named_with_its_place_and_those_that_exist() -> None:
    problem = broken("Bonjour\n{{ prenom }}")
    assert "welcome.fr.txt.j2:2" in problem.sentence
    assert "'prenom' is undefined" in problem.sentence
    assert "first_name" in problem.remedy


def test_a_rendered_part_is_bounded_at_n_and_n_plus_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_RENDERED_CHARACTERS", 10)
    assert Templates({"a": "x" * 10}).render("a", {}) == "x" * 10
    with pytest.raises(MailError, match="too much"):
        Templates({"a": "x" * 11}).render("a", {})
    assert limits.MAX_RENDER_SECONDS == 5


def nothing(bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
    """Record nothing."""


def test_a_maildir_holds_each_letter_once_for_its_owner_only(tmp_path: Path) -> None:
    box = Maildir(tmp_path / "outbox")
    states: list[str] = []
    for _ in range(2):
        box.deliver(
            [Message("k" * 64, "a@b.fr", "c@d.fr", b"Subject: x\r\n\r\nBonjour\r\n")],
            record=lambda bodies, deliveries: states.extend(str(delivery.state) for delivery in deliveries),
            stop=lambda: False,
        )
    (file,) = (tmp_path / "outbox" / "new").iterdir()
    assert states == ["sent", "sent"]
    assert file.stat().st_mode & 0o077 == 0
    assert file.read_bytes() == b"Subject: x\n\nBonjour\n"


def test_a_letter_that_was_read_meanwhile_is_not_delivered_again(tmp_path: Path) -> None:
    box = Maildir(tmp_path / "outbox")
    message = Message("k" * 64, "a@b.fr", "c@d.fr", b"x")
    for _ in range(2):
        box.deliver([message], record=nothing, stop=lambda: False)
        new, cur = tmp_path / "outbox" / "new", tmp_path / "outbox" / "cur"
        for file in new.iterdir():
            file.rename(cur / f"{file.name}:2,S")
    assert len(list(cur.iterdir())) == 1


def test_a_full_maildir_keeps_the_letter_owed_and_no_partial_file(tmp_path: Path) -> None:
    key = "k" * 64
    box = tmp_path / "outbox"
    (box / "tmp").mkdir(parents=True)
    (box / "tmp" / f"{key}.provisioner").symlink_to("/dev/full")
    states: list[str] = []
    with pytest.raises(MailError, match="No space left"):
        Maildir(box).deliver(
            [Message(key, "a@b.fr", "c@d.fr", b"x" * 10_000)],
            record=lambda bodies, deliveries: states.extend(str(delivery.state) for delivery in deliveries),
            stop=lambda: False,
        )
    assert states == ["owed"]
    assert list((box / "new").iterdir()) == []


def test_an_unusable_maildir_is_reported_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("a file")
    with pytest.raises(MailError, match="cannot be used"):
        Maildir(tmp_path / "outbox").deliver([], record=nothing, stop=lambda: False)


def three() -> list[Message]:
    return [
        Message(letter * 64, "a@b.fr", "c@d.fr", f"To: {letter}\r\n\r\nx\r\n".encode()) for letter in "abc"
    ]


@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_is_synced_before_it_is_renamed_and_renamed_before_it_is_recorded(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is written, synced and renamed; then its folder is synced, and then it is recorded.

    Each of these operations ends for the whole batch before the next one begins.
    """
    monkeypatch.setattr(maildir_module, "BATCH", size)
    stages: list[str] = []

    def recorded(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*words: Any) -> Any:
            done = work(*words)
            stages.append(name)
            return done

        return watched

    for name in ("_write", "_sync"):
        monkeypatch.setattr(maildir_module, name, recorded(name, getattr(maildir_module, name)))
    for name in ("rename", "fsync"):
        monkeypatch.setattr(os, name, recorded(name, getattr(os, name)))
    states: list[str] = []

    def record(bodies: Sequence[str], deliveries: Sequence[Delivery]) -> None:
        assert not bodies
        stages.append("record")
        states.extend(delivery.state for delivery in deliveries)

    Maildir(tmp_path / "outbox").deliver(three(), record=record, stop=lambda: False)
    batch = ["_write"] * size + ["_sync"] + ["rename"] * size + ["fsync", "record"]
    assert stages == batch * (3 // size)
    assert states == ["sent"] * 3
    assert len(list((tmp_path / "outbox" / "new").iterdir())) == 3


class NoSyncfs:
    """A C library without ``syncfs``, as on systems other than Linux."""


class BrokenDisk:
    """A disk whose ``syncfs`` fails."""

    @staticmethod
    def syncfs(folder: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1


def test_without_syncfs_each_file_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *words, **names: NoSyncfs())
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    Maildir(tmp_path / "outbox").deliver(three(), record=nothing, stop=lambda: False)
    assert synced == [*(f"{letter * 64}.provisioner" for letter in "abc"), "new"]


def test_a_batch_stays_owed_when_its_sync_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch stays owed if its sync fails, because only the sync reports a failed write."""
    monkeypatch.setattr(ctypes, "CDLL", lambda *words, **names: BrokenDisk())
    seen: list[Delivery] = []
    with pytest.raises(MailError, match="Input/output error"):
        Maildir(tmp_path / "outbox").deliver(
            three(), record=lambda bodies, deliveries: seen.extend(deliveries), stop=lambda: False
        )
    assert [delivery.state for delivery in seen] == ["owed"] * 3
    assert list((tmp_path / "outbox" / "new").iterdir()) == []


def test_letters_written_before_a_disk_is_full_are_delivered(tmp_path: Path) -> None:
    """If the disk is full at one letter, earlier letters are delivered, and later letters are not tried."""
    box = tmp_path / "outbox"
    (box / "tmp").mkdir(parents=True)
    (box / "tmp" / f"{'b' * 64}.provisioner").symlink_to("/dev/full")
    seen: list[Delivery] = []
    with pytest.raises(MailError, match="No space left"):
        Maildir(box).deliver(
            three(), record=lambda bodies, deliveries: seen.extend(deliveries), stop=lambda: False
        )
    assert {delivery.key[0]: str(delivery.state) for delivery in seen} == {"a": "sent", "b": "owed"}
    assert [file.name[0] for file in (box / "new").iterdir()] == ["a"]


def test_stop_lets_a_maildir_finish_the_current_batch(tmp_path: Path) -> None:
    seen: list[Delivery] = []
    Maildir(tmp_path / "outbox").deliver(
        three(), record=lambda bodies, deliveries: seen.extend(deliveries), stop=iter([False, True]).__next__
    )
    assert [delivery.key[0] for delivery in seen] == ["a"]
    assert len(list((tmp_path / "outbox" / "new").iterdir())) == 1
