"""Packages with entry points, written by hand, because a test has no build backend and no network."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile


def install(folder: Path, name: str, source: str, entry_points: str) -> None:
    """Write a distribution ``name`` with one module of the same name and its entry points into ``folder``."""
    module = name.replace("-", "_")
    for file, text in _files(name, "1.0", {module: source}, entry_points).items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8")


def install_project(project: Path, folder: Path) -> None:
    """Build a wheel of a project with its modules beside pyproject.toml, and install it into ``folder``."""
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entry_points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
        for group, entries in about["entry-points"].items()
    )
    modules = {path.stem: path.read_text(encoding="utf-8") for path in project.glob("*.py")}
    folder.mkdir()
    name = about["name"].replace("-", "_")
    wheel = folder / f"{name}-{about['version']}-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        for file, text in _files(about["name"], about["version"], modules, entry_points).items():
            archive.writestr(file, text)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True)
    wheel.unlink()


def _files(name: str, version: str, modules: Mapping[str, str], entry_points: str) -> dict[str, str]:
    """Return the files of a wheel by path. The list of the files themselves (RECORD) has no hashes."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        **{f"{module}.py": source for module, source in modules.items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": entry_points,
    }
    record = f"{info}/RECORD"
    return {**files, record: "".join(f"{file},,\n" for file in (*files, record))}
