"""The welcome e-mails as a spam filter sees them: SpamAssassin with its own rules, without network access."""

from __future__ import annotations

import email
import email.policy
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from needs import lack, need

from provisioner.cli import run

pytestmark = pytest.mark.external

SAMPLES = Path(__file__).parents[2] / "samples"
RULES = Path("/usr/share/spamassassin")
"""The rules of the Debian package. Downloaded updates are not used, so that all machines get equal scores."""

AT_MOST = 2.0
"""The maximum score of a letter. The usual threshold of a filter is 5."""

EXPLAINED = {
    "HTML_MESSAGE": "there is an HTML part, beside a plain one that says the same; it scores nothing",
}
"""The rules that a letter may match, each with a reason why the match is acceptable."""

# from an address without a user: those of documentation are "illegal" to SpamAssassin
RELAY = (
    b"Received: from mail.durand-associes.fr (mail.durand-associes.fr [192.88.99.25])\n"
    b"\tby mx.example.com (Postfix) with ESMTPS id 0123456789\n"
)
"""The header that the firm's own mail server adds."""

READERS = {
    "French": "samira.benali@boulangerie-martin.fr",
    "English, an ampersand in the name": "emily.clarke@clarke-ceramics.com",
    "French, accents in the name": "henri.lefevre@lefevre-participations.fr",
}

SPAM = b"""\
From: x@example.com
To: y@example.com
Subject: x
Message-ID: <1@example.com>

XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X
"""


class Verdict(NamedTuple):
    """The score of a mail and the rules that it matched."""

    score: float
    remarks: frozenset[str]


def judged(mails: list[bytes], folder: Path) -> Iterator[Verdict]:
    need("spamassassin")
    if not RULES.is_dir():
        lack(f"{RULES} is not there")
    folder.mkdir()
    files = [folder / f"{number:03}.eml" for number in range(len(mails))]
    for file, mail in zip(files, mails, strict=True):
        file.write_bytes(mail)
    for file in files:
        answer = subprocess.run(
            ["spamassassin", "--local", "--nocreate-prefs", f"--configpath={RULES}", file],
            check=True, capture_output=True, timeout=100,
        ).stdout  # fmt: skip
        status = email.message_from_bytes(answer, policy=email.policy.default)["X-Spam-Status"]
        found = re.search(r"score=(-?[\d.]+) .*?tests=(\S+(?:, ?\S+)*?) autolearn", " ".join(status.split()))
        assert found is not None, status
        yield Verdict(float(found[1]), frozenset(found[2].replace(" ", "").split(",")))


def letters(folder: Path, account: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Send the welcomes of the onboarding sample. Return one letter for each kind in :data:`READERS`.

    Each account id begins with ``account``.
    """
    shutil.copytree(SAMPLES / "onboarding", folder, ignore=shutil.ignore_patterns("*.db*", "outbox"))
    chance, numbers = os.urandom, (number for number in range(0x1111, 0xFFFF) if "0" not in f"{number:x}")
    with monkeypatch.context() as patch:
        patch.setattr(
            os,
            "urandom",
            lambda size: bytes.fromhex(f"{account:b<28}{next(numbers):x}") if size == 16 else chance(size),
        )
        assert run(["-C", str(folder), "apply", "--auto-approve"]) == 0
    written = [path.read_bytes() for path in (folder / "outbox" / "new").iterdir()]
    assert all(b"durand-associes.fr/" + account.encode() in letter for letter in written)
    return {
        kind: next(letter for letter in written if f"\nTo: {user}\n".encode() in letter)
        for kind, user in READERS.items()
    }


def test_a_welcome_is_no_spam_in_either_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = letters(tmp_path / "firm", "a", monkeypatch)
    *verdicts, spam = judged([*(RELAY + letter for letter in ours.values()), SPAM], tmp_path / "mails")
    for kind, verdict in zip(ours, verdicts, strict=True):
        assert verdict.score < AT_MOST, (kind, verdict)
        assert verdict.remarks <= EXPLAINED.keys(), (kind, verdict)
    # and the rules were at work
    assert "GTUBE" in spam.remarks
    assert spam.score > 100


def test_no_link_is_taken_for_a_bitcoin_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No link is taken for a Bitcoin address.

    One account id in sixty looks like a Bitcoin address: it begins with 1 or 3 and has no 0.
    """
    ours = letters(tmp_path / "firm", "1", monkeypatch)
    (verdict,) = judged([RELAY + ours["French"]], tmp_path / "mails")
    assert verdict.remarks <= EXPLAINED.keys()
