"""Packages with entry points, written by hand as pip installs them, for tests of drivers from outside."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, name: str, source: str, entry_points: str) -> None:
    """Write a distribution ``name`` with one module of the same name and its entry points into ``folder``."""
    module = name.replace("-", "_")
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
