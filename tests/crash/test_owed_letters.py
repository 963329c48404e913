"""An owed letter whose portal, account or address changed before it was sent."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from boundaries import mailed, workspace
from crash_support import TWO_NEWCOMERS
from shell_support import Shell

from provisioner.ledger.ledger import Ledger
from provisioner.ledger.outbox import OutboxState, read_letters
from provisioner.operations import apply as apply_module
from provisioner.operations.deliver import DeliveryReport
from provisioner.operations.open import utc_now
from provisioner.storage.sqlite import SqliteDatabase

EMILY, JAMES = "emily.clarke@clarke-ceramics.com", "james.clarke@clarke-ceramics.com"
RENAMED = "emily.baker@clarke-ceramics.com"


@pytest.fixture
def owing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return a firm with two new accounts on the portal. The letters to both accounts are owed."""
    firm = Shell(workspace(tmp_path / "firm", clients=TWO_NEWCOMERS), capsys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply_module, "deliver", lambda *words: DeliveryReport())
        assert firm("apply", "--auto-approve").code == 0
    assert states(firm) == {EMILY: ["owed"], JAMES: ["owed"]}
    return firm


def states(firm: Shell) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for posted in read_letters(SqliteDatabase(firm.folder / "ledger.db")):
        found.setdefault(posted.letter.recipient, []).append(posted.state)
    return found


def rename_emily(firm: Shell) -> None:
    (file,) = (firm.folder / "clients").glob(TWO_NEWCOMERS)
    firm.edit(f"clients/{file.name}", EMILY, f"{RENAMED}\n    previous_email: {EMILY}")


def mark_emily(firm: Shell, state: OutboxState) -> None:
    ledger = Ledger(SqliteDatabase(firm.folder / "ledger.db"), utc_now)
    with closing(ledger), ledger.lock.hold("test"):
        key = ledger.outbox.letters()[0].letter.key
        for step in (OutboxState.CONNECTING, state):
            ledger.outbox.mark([key], step)


def test_a_letter_that_one_portal_owes_is_not_sent_with_the_links_of_another(owing: Shell) -> None:
    owing.edit("provisioner.yaml", "sqlite:///portal.db", "sqlite:///another.db")
    for words in (("mail", "send"), ("mail", "send", EMILY)):
        said = owing(*words)
        assert said.code == 1
        assert "belongs to another portal" in said.err
    assert states(owing) == {EMILY: ["owed"], JAMES: ["owed"]}
    owing.edit("provisioner.yaml", "sqlite:///another.db", "sqlite:///portal.db")
    assert owing("mail", "send").code == 0
    assert mailed(owing.folder) == {EMILY: 1, JAMES: 1}


def test_no_letter_to_an_account_that_was_closed_before_it_was_sent(
    owing: Shell,
) -> None:
    (file,) = (owing.folder / "clients").glob(TWO_NEWCOMERS)
    closing = ("first_name: James", "status: closed\n    first_name: James")
    owing.edit(f"clients/{file.name}", *closing)
    said = owing("apply", "--auto-approve")
    assert said.code == 7
    assert f"once it is open: provisioner mail send {JAMES}" in said.err + said.out
    assert states(owing) == {EMILY: ["sent"], JAMES: ["failed"]}
    assert owing("mail", "send", JAMES).code == 7
    assert mailed(owing.folder) == {EMILY: 1}
    owing.edit(f"clients/{file.name}", *reversed(closing))
    assert owing("apply", "--auto-approve").code == 0
    assert owing("mail", "send", JAMES).code == 0
    assert mailed(owing.folder) == {EMILY: 1, JAMES: 1}


@pytest.mark.parametrize("state", [OutboxState.OWED, OutboxState.FAILED])
def test_a_letter_goes_to_the_present_address_of_the_account(owing: Shell, state: OutboxState) -> None:
    """If an address is corrected before its letter is sent, only the corrected address gets the letter."""
    mark_emily(owing, state)
    rename_emily(owing)
    said = owing("apply", "--auto-approve")
    if state is OutboxState.FAILED:
        said = owing("mail", "send", RENAMED)
    assert said.code == 0
    assert f"welcome e-mail to {RENAMED}: sent" in said.err
    assert mailed(owing.folder) == {RENAMED: 1, JAMES: 1}
    emily = read_letters(SqliteDatabase(owing.folder / "ledger.db"))[0]
    assert (emily.letter.recipient, emily.letter.context["email"]) == (RENAMED, RENAMED)


def test_a_letter_that_may_have_arrived_at_a_former_address_is_parked(
    owing: Shell,
) -> None:
    mark_emily(owing, OutboxState.UNKNOWN)
    rename_emily(owing)
    owing.edit("provisioner.yaml", "mail:\n", "mail:\n  on_unknown: resend\n")
    said = owing("apply", "--auto-approve")
    assert said.code == 7
    assert f"provisioner mail settle {EMILY} --sent" in said.err
    assert f"provisioner mail send {RENAMED} --again" in said.err
    assert states(owing) == {EMILY: ["unknown"], JAMES: ["sent"]}
    assert owing("mail", "send").code == 0
    assert owing("mail", "settle", EMILY, "--sent").code == 0
    assert owing("mail", "send", RENAMED, "--again").code == 0
    assert mailed(owing.folder) == {RENAMED: 1, JAMES: 1}


def test_a_letter_is_found_under_the_present_email_of_the_account(owing: Shell) -> None:
    assert owing("mail", "send").code == 0
    rename_emily(owing)
    assert owing("apply", "--auto-approve").code == 0
    said = owing("mail", "send", RENAMED)
    assert said.code == 64
    assert "was sent a welcome e-mail already" in said.err
    assert owing("mail", "send", RENAMED, "--again").out == "1 e-mail sent.\n"
    assert mailed(owing.folder) == {EMILY: 1, JAMES: 1, RENAMED: 1}
