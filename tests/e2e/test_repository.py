"""The files for CI services and the pages for contributors name only what exists."""

from __future__ import annotations

import os
import re

import pytest
import yaml
from documents import ci_scripts
from samples_support import ROOT

CI_FILES = (".github/workflows/ci.yml", ".gitlab-ci.yml")
PAGES = (".github/CONTRIBUTING.md", ".github/SECURITY.md")


@pytest.mark.parametrize("name", CI_FILES)
def test_both_ci_services_call_the_same_script_and_nothing_else(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert list(ci_scripts(yaml.load(text, yaml.CSafeLoader))) == [".ci/run"]  # noqa: TID251  # not a manifest
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_for_contributors_invents_no_address(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not re.search(r"[\w.]+@[\w.]+|https?://|mailto:", text)
