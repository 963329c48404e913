"""The bounds that no other test has at n and at n + 1, and a look at whether any is forgotten."""

from __future__ import annotations

import asyncio
import re
from itertools import chain, repeat
from pathlib import Path
from typing import Any, cast

import pytest

from provisioner import limits
from provisioner.errors import MailError
from provisioner.limits import MAX_MAIL_REPLY_BYTES, MAX_RENDER_SECONDS
from provisioner.mail.message import Templates
from provisioner.mail.smtp import _Line


def test_a_mail_server_s_reply_may_have_so_many_bytes_and_no_more() -> None:
    class Wire:
        closed = False

        def close(self) -> None:
            self.closed = True

    async def listen() -> None:
        wire = Wire()
        line = _Line(cast(Any, wire), pipelining=False, timeout=1)
        line.data_received(b"250-" + b"x" * (MAX_MAIL_REPLY_BYTES - 4))
        assert not line.is_lost
        assert not wire.closed
        line.data_received(b"x")
        assert line.is_lost
        assert wire.closed

    asyncio.run(listen())


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
