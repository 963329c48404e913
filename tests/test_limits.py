"""Every bound is used by the program and named by a test."""

from __future__ import annotations

import re
from pathlib import Path

from provisioner import limits


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
