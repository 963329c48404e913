"""How more of this program is installed: from its source. Its bare name is somebody else's on PyPI."""

from __future__ import annotations

UPGRADE = "Take a newer version of it, from where this one came."
"""The remedy where this program is too old."""


def install(extra: str) -> str:
    """The remedy where something is missing that an extra of pyproject.toml brings in."""
    return f"Where the program's source is: .venv/bin/pip install --editable '.[{extra}]'"
