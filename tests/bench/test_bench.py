"""The benchmark measures a corpus like a firm's, and reports each ratio that is above its bound."""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml

from bench import generate
from bench.generate import write_manifests
from bench.measure import Side, Table, megabytes


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("corpus")
    write_manifests(folder, 2_000)
    return [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.yaml"))]


def test_eight_percent_of_the_generated_users_wait_for_validation(corpus: list[str]) -> None:
    users = sum(text.count("- email:") for text in corpus)
    assert users == 2_000
    assert 0.07 < sum(text.count("activation: later") for text in corpus) / users < 0.09


def test_a_third_of_the_manifests_writes_plain_names_the_others_quoted_ones(corpus: list[str]) -> None:
    for start in (r"\w", '"', "'"):
        written = [text for text in corpus if re.search(rf"last_name: {start}", text)]
        assert 0.25 < len(written) / len(corpus) < 0.42
        assert all(
            len(re.findall(rf"last_name: {start}", text)) == text.count("last_name") for text in written
        )


def test_generated_names_come_from_a_dozen_languages_and_six_scripts(corpus: list[str]) -> None:
    assert len(generate.NAMES) >= 12
    found = {
        user["last_name"]
        for text in corpus
        for user in yaml.load(text, yaml.CSafeLoader)["users"]  # noqa: TID251
    }
    assert found == {name for _, last_names in generate.NAMES for name in last_names}
    letters = {unicodedata.name(letter).split()[0] for name in found for letter in name if letter.isalpha()}
    assert letters == {"LATIN", "GREEK", "CYRILLIC", "ARABIC", "HEBREW", "CJK"}


def test_the_generated_manifests_are_the_same_at_every_call(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        write_manifests(tmp_path / name, 60)
        texts.append([path.read_text(encoding="utf-8") for path in sorted((tmp_path / name).rglob("*.yaml"))])
    assert texts[0] == texts[1]


def test_a_ratio_above_its_bound_is_reported_and_one_at_its_bound_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table()
    table.row("plan", 3.0, 2.0, "load", bound=1.5)
    table.row("memory", 50e6, 40e6, "limit", bound=1.2, unit=megabytes)
    table.row("start", 9.0, 1.0, "python")
    assert table.missed == ["memory"]
    plan, memory, start = capsys.readouterr().out.splitlines()
    assert plan.split() == ["plan", "3.000", "s", "2.000", "s", "load", "1.50", "1.50"]
    assert memory.split()[-3:] == ["1.25", "1.20", "missed"]
    assert start.split()[-1] == "9.00"


def test_peak_memory_is_that_of_the_command_and_an_unexpected_exit_code_ends_the_run() -> None:
    small = Side([sys.executable, "-c", "pass"])
    large = Side([sys.executable, "-c", "len(b'x' * 300_000_000)"])
    for side in (small, large):
        side.run()
    assert 300e6 < large.peak < small.peak + 320e6
    with pytest.raises(SystemExit, match="ended with 3, not 0"):
        Side([sys.executable, "-c", "raise SystemExit(3)"]).run()


@pytest.mark.slow
def test_every_comparison_of_the_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    from bench.__main__ import Sizes, run

    run(Sizes(plans=(10, 100), created=20, mailed=20, renamed=10, times=1))
    lines = capsys.readouterr().out.splitlines()
    for what in (
        "--version",
        "plan, 100 users, peak",
        "apply, 20 new, with",
        "mail send",
        "HTTP: plan",
        "HTTP 20 ms",
    ):
        assert any(line.startswith(what) for line in lines), what
    assert all(float(re.findall(r" (\d+\.\d\d)\b", line)[-1]) > 0 for line in lines[1:])
