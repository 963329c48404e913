"""The state of a letter after each fault of a mail server, and after the next run.

``provisioner mail send`` runs twice, first with a server that has the fault,
then with a server without faults.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from outbox_support import Outbox, be_impatient, owed_letter
from smtp_support import CUT, SILENCE, smtp_server
from test_smtp import FAULTS

FURTHER: dict[str, tuple[dict[str, bytes], str, bool]] = {
    "greeting half": ({"greeting": b"220 wel" + CUT}, "owed", False),
    "greeting endless": ({"greeting": b"220-" + b"x" * 100_000 + b"\r\n" + CUT}, "owed", False),
    "EHLO garbage": ({"EHLO": b"\x00\xff\xfe\r\n"}, "owed", False),
    "MAIL 421": ({"MAIL": b"421 closing\r\n" + CUT}, "owed", False),
    "MAIL cut": ({"MAIL": CUT}, "owed", False),
    "MAIL garbage": ({"MAIL": b"\xff\xff\r\n"}, "owed", False),
    "RCPT 421": ({"RCPT": b"421 closing\r\n" + CUT}, "owed", False),
    "RCPT garbage": ({"RCPT": b"hello\r\n"}, "owed", False),
    "RCPT silence": ({"RCPT": SILENCE}, "owed", False),
    "half an answer after the dot": ({"body": b"25" + CUT}, "unknown", True),
    "an answer without its end after the dot": ({"body": b"250 ok" + CUT}, "unknown", True),
    "354 after the dot": ({"body": b"354 go on\r\n"}, "unknown", True),
    "421 after the dot": ({"body": b"421 closing\r\n" + CUT}, "owed", True),
    "552 after the dot": ({"body": b"552 too big\r\n"}, "failed", True),
}
"""Faults of a mail server that test_smtp.py does not test. Each value contains the script of the server, the
state of the letter, and True if the body of the letter may arrive."""

NEXT_RUN = {
    # state: whether the next run sends it, how it ends, and the state afterwards
    "owed": (True, 0, "sent"),
    "sent": (False, 0, "sent"),
    "failed": (False, 0, "failed"),
    "unknown": (False, 0, "unknown"),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Outbox:
    return owed_letter(tmp_path_factory.mktemp("owed") / "firm")


@pytest.fixture
def outbox(prepared: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outbox:
    be_impatient(monkeypatch)
    return prepared.copy(tmp_path / "firm")


# three attempts of a second each, and test_smtp.py waits for them already
TOLD_ELSEWHERE = {"greeting silence"}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS | FURTHER if fault not in TOLD_ELSEWHERE])
def test_each_fault_ends_in_its_outbox_state_and_no_letter_is_sent_twice(fault: str, outbox: Outbox) -> None:
    script, state, body = (FAULTS | FURTHER)[fault]
    lines = "  tls: none\n  timeout: 1\n"
    with smtp_server(script) as ill:
        code, said = outbox.run("mail", "send", transport=f"smtp://127.0.0.1:{ill.port}", lines=lines)
    assert outbox.state() == state, said
    assert code == (0 if state == "sent" else 7), said
    # an answer that never came through may have been a yes
    reached = body and not {"DATA", "in body"} & script.keys()
    taken = reached and script.get("body", b"250").startswith(b"250")
    assert len(ill.accepted) == taken

    goes, ends, afterwards = NEXT_RUN[state]
    with smtp_server() as well:
        code, said = outbox.run("mail", "send", transport=f"smtp://127.0.0.1:{well.port}", lines=lines)
    assert len(well.accepted) == goes, said
    assert code == ends, said
    assert outbox.state() == afterwards
