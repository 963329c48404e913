"""The bounds that no other test has at n and at n + 1, and a look at whether any is forgotten."""

from __future__ import annotations

import re
from itertools import chain, repeat
from pathlib import Path

import pytest

from provisioner import limits
from provisioner.errors import MailError
from provisioner.limits import MAX_RENDER_SECONDS
from provisioner.mail.message import Templates


def test_a_letter_may_take_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (MAX_RENDER_SECONDS, MAX_RENDER_SECONDS + 0.001):
        clock = chain([0.0], repeat(seconds))
        monkeypatch.setattr("provisioner.mail.message.time.monotonic", lambda clock=clock: next(clock))
        if seconds == MAX_RENDER_SECONDS:
            assert Templates({"a": "Bonjour"}).render("a", {}) == "Bonjour"
        else:
            with pytest.raises(MailError, match="too much"):
                Templates({"a": "Bonjour"}).render("a", {})
    monkeypatch.undo()


def test_every_bound_is_used_and_tested() -> None:
    """Rule 9; what a test does with a bound is for people to read."""
    here = Path(__file__).parent
    tests = "".join(path.read_text(encoding="utf-8") for path in here.glob("test_*.py"))
    program = "".join(
        path.read_text(encoding="utf-8")
        for path in (here.parent / "provisioner").rglob("*.py")
        if path.name != "limits.py"
    )
    for bound in (name for name in vars(limits) if name.startswith("MAX_")):
        assert re.search(rf"\b{bound}\b", tests), f"{bound} is in no test"
        assert re.search(rf"\b{bound}\b", program), f"{bound} bounds nothing"
