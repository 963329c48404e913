"""The files for CI services and the pages for contributors name only what exists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
import yaml
from samples_support import ROOT

CI_FILES = (".github/workflows/ci.yml", ".gitlab-ci.yml")
PAGES = (".github/CONTRIBUTING.md", ".github/SECURITY.md")


def scripts(value: object) -> Iterator[str]:
    """Yield the commands of a CI file: the values of ``run`` and the items of ``script``."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "run":
                yield inner
            elif key == "script":
                yield from inner
            else:
                yield from scripts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from scripts(inner)


@pytest.mark.parametrize("name", CI_FILES)
def test_both_ci_services_call_the_same_script_and_nothing_else(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert list(scripts(yaml.load(text, yaml.CSafeLoader))) == [".ci/run"]  # noqa: TID251  # not a manifest
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_for_contributors_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:]+)(#[\w-]+)?\)", text):
        file = (ROOT / page).parent / target
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in [heading.lower().replace(" ", "-") for heading in headings], target


@pytest.mark.parametrize("page", PAGES)
def test_a_page_for_contributors_invents_no_address(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not re.search(r"[\w.]+@[\w.]+|https?://|mailto:", text)
