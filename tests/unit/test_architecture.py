"""The functions and files that provisioner/README.md names exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "provisioner" / "README.md").read_text(encoding="utf-8")
NAMES = re.findall(
    r"^\| \d+ \| `([\w.]+)`|on the embedded portal `([\w.]+)` asks `([\w.]+)`", README, re.MULTILINE
)
FUNCTIONS = sorted({name for row in NAMES for name in row if name})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_the_walks_exists(name: str) -> None:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(("provisioner", *parts[:end])))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        assert callable(found)
        return
    raise AssertionError(name)


def test_three_walks_are_described() -> None:
    assert README.count("## How ") == 3
    assert len(FUNCTIONS) > 20


def test_the_table_of_layers_has_every_package_and_module() -> None:
    package = Path(__file__).parents[2] / "provisioner"
    there = {
        path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    first_column = "".join(re.findall(r"^\| (`[^|]+) \|", README.partition("## Laws")[0], re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", first_column)) == there - {"__init__"}


def test_files_to_touch_exist() -> None:
    package = Path(__file__).parents[2] / "provisioner"
    table = README.partition("## To add one more")[2]
    for path in re.findall(r"`((?:\w+/)*\w+\.(?:py|json))`", table):
        assert (package / path).exists() or (package.parent / path).exists(), path
