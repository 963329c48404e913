"""Welcome e-mails through Debian's Postfix, with TLS and a password, read again by two other libraries.

Each test has a Postfix of its own on loopback (postfix_support.py); what it delivered is parsed by Perl's
MIME::Parser and by Python's parser.
"""

from __future__ import annotations

import email
import email.policy
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from needs import need
from postfix_support import PASSWORD, USERNAME, Postfix, running_postfix

from provisioner.cli import run

pytestmark = pytest.mark.external

ROOT = Path(__file__).parents[2]
FIRM = "Cabinet Durand & Associés"
SENDER = f"{FIRM} <acces@durand-associes.fr>"

CLAIRE = "claire.martin@boulangerie-martin.fr"
NEWCOMERS = {
    CLAIRE: ("fr", "Claire Martin", "Boulangerie Martin SARL"),
    "julien.martin@boulangerie-martin.fr": ("fr", "Julien Martin", "Boulangerie Martin SARL"),
    "samira.benali@boulangerie-martin.fr": ("fr", "Samira Benali", "Boulangerie Martin SARL"),
    "paul.girard@boulangerie-martin.fr": ("fr", "Paul Girard", "Boulangerie Martin SARL"),
    "emily.clarke@clarke-ceramics.com": ("en", "Emily Clarke", "Clarke & Sons Ceramics SARL"),
    "james.clarke@clarke-ceramics.com": ("en", "James Clarke", "Clarke & Sons Ceramics SARL"),
    "nadia.lefevre@garage-lefevre.fr": ("fr", "Nadia Lefèvre", "Garage Lefèvre SARL"),
    "henri.lefevre@lefevre-participations.fr": ("fr", "Henri Lefèvre", "Lefèvre Participations SAS"),
    "sophie.arnaud@lefevre-participations.fr": ("fr", "Sophie Arnaud", "Lefèvre Participations SAS"),
    "monique.dubois@les-petits-pas.fr": ("fr", "Monique Dubois", "Association Les Petits Pas"),
    "camille.faure@menuiserie-roussel.fr": ("fr", "Camille Faure", "Menuiserie Roussel EURL"),
    "bruno.roussel@menuiserie-roussel.fr": ("fr", "Bruno Roussel", "Menuiserie Roussel EURL"),
    "hugo.lambert@menuiserie-roussel.fr": ("fr", "Hugo Lambert", "Menuiserie Roussel EURL"),
    "isabelle.moreau@pharmacie-du-port.fr": ("fr", "Isabelle Moreau", "Pharmacie du Port SELARL"),
    "tristan.le-goff@pharmacie-du-port.fr": ("fr", "Tristan Le Goff", "Pharmacie du Port SELARL"),
}
"""The users of samples/onboarding who get a welcome: 15 of 17."""

SUBJECT = {"fr": "Votre accès en ligne au dossier {company}", "en": "Your online access to {company}"}
TEXT = {
    "fr": """\
Bonjour {name},

{firm} vous ouvre un accès à son portail en ligne, pour le dossier {company}.

Votre identifiant : {user}

Pour vous connecter, choisissez d’abord votre mot de passe :
{link}

Ce lien vous est personnel : ne le transmettez à personne. Il ne sert qu’une fois et reste valable 30 jours.

Bien cordialement,
{firm}

Vous n’attendiez pas ce message ? N’ouvrez pas le lien, et prévenez-nous.
""",
    "en": """\
Dear {name},

{firm} has given you access to its online portal, for {company}.

Your login: {user}

To log in, first choose your password:
{link}

This link is yours alone: please do not pass it on. It works once, and for 30 days.

Kind regards,
{firm}

You did not expect this message? Do not open the link, and let us know.
""",
}
LINK = re.compile(r"https://portail\.durand-associes\.fr/\S+")


@dataclass
class Firm:
    """The workspace, its Postfix, and the last output of the program."""

    folder: Path
    postfix: Postfix
    say: Callable[[], str]
    said: str = ""

    def do(self, *words: str) -> int:
        self.say()
        code = run(["-C", str(self.folder), *words])
        self.said = self.say()
        assert "Traceback" not in self.said
        assert PASSWORD not in self.said
        return code

    def states(self) -> dict[str, str]:
        """The state of each user's letter."""
        assert self.do("mail", "status", "--json") == 0
        return {row["user"]: row["state"] for row in json.loads(self.said)}


@pytest.fixture
def postfix() -> Iterator[Postfix]:
    with running_postfix() as instance:
        instance.give_mailboxes(NEWCOMERS)
        yield instance


@pytest.fixture
def firm(
    postfix: Postfix, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Firm:
    return firm_with(postfix, tmp_path, capsys, monkeypatch)


def firm_with(
    postfix: Postfix, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Firm:
    folder = tmp_path / "firm"
    shutil.copytree(ROOT / "samples/onboarding", folder, ignore=shutil.ignore_patterns("*.db*", "outbox"))
    settings = folder / "provisioner.yaml"
    lines = (
        f'  transport: "smtp://localhost:{postfix.port}"\n  username: {USERNAME}\n'
        f"  password_env: SMTP_PASSWORD\n  ca_file: {postfix.ca_file}\n"
    )
    text, changed = re.subn(r"  transport: .*\n", lines, settings.read_text())
    assert changed == 1
    settings.write_text(text)
    monkeypatch.setenv("SMTP_PASSWORD", PASSWORD)

    def say() -> str:
        captured = capsys.readouterr()
        return captured.out + captured.err

    return Firm(folder, postfix, say)


@dataclass(frozen=True)
class Read:
    """A mail as parsed by one library."""

    headers: dict[str, list[str]]
    text: str
    html: str


def read_by_perl(mails: list[bytes], folder: Path) -> list[Read]:
    need("perl")
    folder.mkdir()
    files = [folder / f"{number}.eml" for number in range(len(mails))]
    for file, mail in zip(files, mails, strict=True):
        file.write_bytes(mail)
    parsed = subprocess.run(
        ["perl", ROOT / "tests/support/mime_parser.pl", *files], check=True, capture_output=True, timeout=60
    )
    assert not parsed.stderr
    return [_as_perl_says(one) for one in json.loads(parsed.stdout)]


def _as_perl_says(one: dict[str, Any]) -> Read:
    assert one["problems"] == []
    assert one["type"] == "multipart/alternative"
    assert [part["type"] for part in one["parts"]] == ["text/plain", "text/html"]
    return Read(one["headers"], *(part["text"] for part in one["parts"]))


def read_by_python(content: bytes) -> Read:
    mail = email.message_from_bytes(content, policy=email.policy.default)
    parts = [part for part in mail.walk() if not part.is_multipart()]
    assert not mail.defects
    assert not any(part.defects for part in parts)
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    headers: dict[str, list[str]] = {}
    for name, value in mail.items():
        headers.setdefault(name.lower(), []).append(str(value))
    text, html = (part.get_content() for part in parts)
    return Read(headers, text, html)


def test_each_newcomer_gets_one_mail_as_two_other_libraries_read_it(firm: Firm, tmp_path: Path) -> None:
    assert firm.do("apply", "--auto-approve") == 0
    boxes = firm.postfix.mails(len(NEWCOMERS))
    assert {user: len(mails) for user, mails in boxes.items()} == dict.fromkeys(NEWCOMERS, 1)

    contents = [boxes[user][0] for user in NEWCOMERS]
    by_perl = read_by_perl(contents, tmp_path / "mails")
    by_python = [read_by_python(content) for content in contents]
    links = set()
    for user, ours, other in zip(NEWCOMERS, by_perl, by_python, strict=True):
        for read in (ours, other):
            links.add(_require_the_welcome_of(user, read))
        assert (ours.text, ours.html) == (other.text, other.html)
    assert len(links) == len(NEWCOMERS)
    assert len({read.headers["message-id"][0] for read in by_perl}) == len(NEWCOMERS)


def _require_the_welcome_of(user: str, read: Read) -> str:
    """Assert that this mail is the user's welcome; returns its link."""
    language, name, company = NEWCOMERS[user]
    words = {"name": name, "company": company, "firm": FIRM, "user": user}
    expected = {
        "from": SENDER,
        "to": user,
        "subject": SUBJECT[language].format(**words),
        "auto-submitted": "auto-generated",
        "content-language": language,
        "mime-version": "1.0",
        "return-path": "<acces@durand-associes.fr>",
        "delivered-to": user,
    }
    assert {header: read.headers[header] for header in expected} == {
        header: [value] for header, value in expected.items()
    }
    (identity,), (date,), (received,) = (read.headers[name] for name in ("message-id", "date", "received"))
    assert re.fullmatch(r"<[0-9a-f]{40}@durand-associes\.fr>", identity)
    assert re.fullmatch(r"\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} \+0000", date)
    # ESMTPSA: over TLS (S), with a login (A)
    assert "with ESMTPSA" in received
    assert "cc" not in read.headers
    assert "bcc" not in read.headers
    link = LINK.search(read.text)
    assert link is not None
    assert _spaces(read.text).rstrip("\n") == TEXT[language].format(link=link[0], **words).rstrip("\n")
    html = read.html.replace("&amp;", "&")
    for said in (name, company, user, FIRM, link[0]):
        assert said in html
    return link[0]


def _spaces(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\r\n", "\n")


def test_a_second_run_sends_no_mail(firm: Firm) -> None:
    assert firm.do("apply", "--auto-approve") == 0
    assert firm.do("apply", "--auto-approve") == 0
    assert firm.do("mail", "send") == 0
    boxes = firm.postfix.mails(len(NEWCOMERS))
    assert {len(mails) for mails in boxes.values()} == {1}
    assert firm.postfix.log().count("status=sent") == len(NEWCOMERS)


def test_a_wrong_password_leaves_everything_owed_until_it_is_right(
    firm: Firm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_PASSWORD", "not the password")
    assert firm.do("apply", "--auto-approve") == 7
    assert "refuses the login" in firm.said
    assert "not the password" not in firm.said
    assert set(firm.states().values()) == {"owed"}
    assert firm.postfix.mails(0) == {}
    assert firm.postfix.log().count("authentication failed") == 2  # one connection; PLAIN, then LOGIN
    monkeypatch.setenv("SMTP_PASSWORD", PASSWORD)
    assert firm.do("mail", "send") == 0
    assert {len(mails) for mails in firm.postfix.mails(len(NEWCOMERS)).values()} == {1}


def test_only_the_letter_to_an_unknown_recipient_is_parked(firm: Firm) -> None:
    firm.postfix.give_mailboxes(NEWCOMERS.keys() - {CLAIRE})
    assert firm.do("apply", "--auto-approve") == 7
    assert "550" in firm.said
    assert CLAIRE in firm.said
    assert firm.states() == dict.fromkeys(NEWCOMERS, "sent") | {CLAIRE: "failed"}
    assert CLAIRE not in firm.postfix.mails(len(NEWCOMERS) - 1)
    # parked: it is not tried again before somebody mends the address and says so
    assert firm.do("apply", "--auto-approve") == 0
    assert firm.states()[CLAIRE] == "failed"
    firm.postfix.give_mailboxes(NEWCOMERS)
    assert firm.do("mail", "send", CLAIRE) == 0
    assert {len(mails) for mails in firm.postfix.mails(len(NEWCOMERS)).values()} == {1}


def test_the_next_run_sends_only_the_greylisted_mail(firm: Firm) -> None:
    firm.postfix.refuse({CLAIRE: "450 4.2.0 Greylisted, try again later"})
    assert firm.do("apply", "--auto-approve") == 7
    assert "Greylisted" in firm.said
    assert firm.states() == dict.fromkeys(NEWCOMERS, "sent") | {CLAIRE: "owed"}
    firm.postfix.mails(len(NEWCOMERS) - 1)
    firm.postfix.refuse({})
    assert firm.do("apply", "--auto-approve") == 0
    assert set(firm.states().values()) == {"sent"}
    assert {len(mails) for mails in firm.postfix.mails(len(NEWCOMERS)).values()} == {1}


def test_a_mail_larger_than_the_server_accepts_is_parked_with_its_reply(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_postfix(size=2000) as small:
        small.give_mailboxes(NEWCOMERS)
        firm = firm_with(small, tmp_path, capsys, monkeypatch)
        assert firm.do("apply", "--auto-approve") == 7
        assert "552" in firm.said
        assert firm.states() == dict.fromkeys(NEWCOMERS, "failed")
        assert small.mails(0) == {}


def test_the_machine_s_own_postfix_is_not_touched(postfix: Postfix) -> None:
    folders = ("config_directory", "queue_directory", "data_directory")
    settings = subprocess.run(
        ["postconf", "-c", postfix.home / "etc", "-h", *folders],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout.split()  # fmt: skip
    assert all(setting.startswith(f"{postfix.home}{os.sep}") for setting in settings)
    assert len(settings) == len(folders)
