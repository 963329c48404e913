"""``.ci/constraints.txt`` pins one version of each library that any extra of the program installs."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
OWN = "provisioner"
CI_MACHINE = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.2",
    "python_version": "3.11",
    "sys_platform": "linux",
}
"""The machine that the constraints are for: that of the CI files."""

Library = tuple[str, list[str]]
"""An installed library: its version and its requirements."""


def read_pins(text: str) -> dict[str, str]:
    """Return the versions of a constraints file, by name. Each line has to be ``NAME==VERSION``."""
    pairs = [line.split("==") for line in text.splitlines()]
    return {canonicalize_name(name): version for name, version in pairs}


def declared() -> list[str]:
    """Return the requirements of pyproject.toml, those of all extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [line for lines in groups for line in lines if Requirement(line).name != OWN]


def installed(name: str) -> Library | None:
    """Return an installed library, or None if it is not installed."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    return found.version, list(found.requires or ())


def problems(
    pins: Mapping[str, str], wanted: Iterable[str], library: Callable[[str], Library | None]
) -> list[str]:
    """Return what is wrong with the pins: missing ones, those outside a range, and those without a use.

    Follows the requirements of each library that is installed in its pinned version. Another version can have
    other requirements: then nothing is said about pins without a use.
    """
    found: list[str] = []
    followed: set[tuple[str, str]] = set()
    complete = True
    queue = [(line, "") for line in wanted]
    while queue:
        line, extra = queue.pop()
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({**CI_MACHINE, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in pins:
            found.append(f"{name} is not pinned")
        elif not requirement.specifier.contains(pins[name], prereleases=True):
            found.append(f"{name}=={pins[name]} is outside of {line}")
        here = library(name)
        if here is None or here[0] != pins.get(name):
            complete = False
            continue
        for each in {"", *requirement.extras} - {extra for of, extra in followed if of == name}:
            followed.add((name, each))
            queue += [(inner, each) for inner in here[1]]
    if complete:
        found += [f"{name} is pinned without a use" for name in pins.keys() - {name for name, _ in followed}]
    return sorted(set(found))


def test_every_library_that_an_extra_needs_is_pinned_to_a_version_in_its_range() -> None:
    pins = read_pins((ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8"))
    assert problems(pins, declared(), installed) == [], (
        ".github/CONTRIBUTING.md says how to make the file again"
    )


LIBRARIES: Mapping[str, Library] = {
    "a": ("1.0", ["b>=2", 'c; extra == "more"', 'd; sys_platform == "win32"']),
    "b": ("2.1", ["a"]),
    "c": ("3.0", []),
}


def test_missing_pins_those_outside_a_range_and_those_without_a_use_are_found() -> None:
    pins = {"a": "1.0", "b": "2.1"}
    assert problems(pins, ["a"], LIBRARIES.get) == []
    assert problems(pins, ["A[more]"], LIBRARIES.get) == ["c is not pinned"]
    assert problems(pins, ["a", "a[more]"], LIBRARIES.get) == ["c is not pinned"]
    assert problems({**pins, "c": "3.0"}, ["a[more]"], LIBRARIES.get) == []
    assert problems({**pins, "c": "3.0"}, ["a"], LIBRARIES.get) == ["c is pinned without a use"]
    assert problems({"a": "1.0"}, ["a"], LIBRARIES.get) == ["b is not pinned"]
    assert problems({**pins, "b": "1.9"}, ["a"], LIBRARIES.get) == ["b==1.9 is outside of b>=2"]
    assert problems(pins, ["a<1"], LIBRARIES.get) == ["a==1.0 is outside of a<1"]


def test_a_library_in_another_version_than_the_pinned_one_is_not_followed() -> None:
    assert problems({"a": "1.1", "z": "1"}, ["a"], LIBRARIES.get) == []


def test_the_ci_script_installs_the_pinned_versions() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "export PIP_CONSTRAINT=" in script
    assert script.index("export PIP_CONSTRAINT=") < script.index("bash -euo pipefail -c")
