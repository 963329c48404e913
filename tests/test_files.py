"""Files of a workspace: nothing outside it, nothing that hangs, nothing half-written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provisioner.errors import WorkspaceError
from provisioner.files import find_workspace, manifest_files, read_bytes, write_private


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "clients" / "deep").mkdir(parents=True)
    (tmp_path / "provisioner.yaml").write_text("version: 1")
    (tmp_path / "clients" / "b.yaml").write_text("b")
    (tmp_path / "clients" / "deep" / "a.yml").write_text("a")
    (tmp_path / "clients" / ".hidden.yaml").write_text("h")
    (tmp_path / "clients" / "notes.txt").write_text("n")
    return tmp_path


def test_manifests_are_found_in_a_stable_order_and_others_passed_over(root: Path) -> None:
    found, problems = manifest_files(root, ["clients/"])
    assert [path.name for path in found] == ["b.yaml", "a.yml"]
    assert problems == []


@pytest.mark.parametrize("entry", ["../", "/etc", "~/x", "clients/../../x", "nowhere/"])
def test_an_entry_that_leads_out_or_nowhere_is_refused(root: Path, entry: str) -> None:
    found, problems = manifest_files(root, [entry])
    assert found == []
    assert problems
    assert all(problem.remedy for problem in problems)


def test_a_renamed_folder_is_hinted_at(root: Path) -> None:
    _, problems = manifest_files(root, ["client/"])
    assert "clients" in problems[0].detail


def test_a_link_that_leaves_the_workspace_is_refused(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "x.yaml"
    outside.write_text("secret")
    (root / "clients" / "link.yaml").symlink_to(outside)
    found, problems = manifest_files(root, ["clients/"])
    assert "link.yaml" not in {path.name for path in found}
    assert problems


def test_a_named_pipe_or_a_device_never_hangs_a_run(root: Path) -> None:
    pipe = root / "clients" / "pipe.yaml"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), root / "clients", root / "nowhere"):
        with pytest.raises(WorkspaceError) as caught:
            read_bytes(path, 100)
        assert caught.value.remedy


def test_the_workspace_is_the_nearest_folder_upward(root: Path) -> None:
    assert find_workspace(root / "clients" / "deep") == root
    with pytest.raises(WorkspaceError) as caught:
        find_workspace(Path("/proc"))
    assert "provisioner init" in caught.value.remedy


def test_a_file_is_written_whole_for_its_owner_or_not_at_all(root: Path) -> None:
    path = root / "plan.json"
    write_private(path, b"first")
    write_private(path, b"second")
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o077 == 0
    before = sorted(root.rglob("*"))
    for bad in (root / "nowhere" / "x", Path("/proc/x"), root / "provisioner.yaml" / "x"):
        with pytest.raises(WorkspaceError) as caught:
            write_private(bad, b"x")
        assert caught.value.remedy
    assert sorted(root.rglob("*")) == before
