"""Files of a workspace are found only inside it, read without blocking, and written atomically."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import provisioner
from provisioner import limits
from provisioner.diagnostics import Diagnostic, Source
from provisioner.errors import WorkspaceError
from provisioner.workspace.files import (
    find_workspace,
    manifest_files,
    read_bytes,
    resource_folder,
    sync_folder,
    write_private,
)

UNPRIVILEGED = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "clients" / "deep").mkdir(parents=True)
    (tmp_path / "provisioner.yaml").write_text("version: 1")
    (tmp_path / "clients" / "b.yaml").write_text("b")
    (tmp_path / "clients" / "deep" / "a.yml").write_text("a")
    (tmp_path / "clients" / ".hidden.yaml").write_text("h")
    (tmp_path / "clients" / "notes.txt").write_text("n")
    return tmp_path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike the folders that pytest creates."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        subprocess.run(["chmod", "-R", "u+rwx", str(folder)], check=True)
        shutil.rmtree(folder)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Run the block as an unprivileged user, because permissions do not restrict root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(UNPRIVILEGED)
    try:
        yield
    finally:
        os.seteuid(0)


def found_in(root: Path, *entries: str) -> list[str]:
    files, problems = manifest_files(root, entries)
    assert problems == []
    return files


def refused(root: Path, entry: str) -> Diagnostic:
    files, (problem,) = manifest_files(root, [entry])
    assert files == []
    assert f'"{entry}"' in problem.detail
    assert problem.remedy
    return problem


def failure(function: object, *arguments: object) -> WorkspaceError:
    assert callable(function)
    with pytest.raises(WorkspaceError) as caught:
        function(*arguments)
    assert caught.value.sentence.endswith(".")
    assert caught.value.remedy
    return caught.value


# --- the workspace ---


def test_the_workspace_is_the_nearest_folder_upward(root: Path) -> None:
    assert find_workspace(root / "clients" / "deep") == root
    assert find_workspace(root) == root


def test_a_missing_workspace_names_the_command_that_makes_one(root: Path) -> None:
    assert "provisioner init" in failure(find_workspace, Path("/proc")).remedy
    assert "There is no folder" in failure(find_workspace, root / "nowhere").sentence
    assert "There is no folder" in failure(find_workspace, root / "provisioner.yaml").sentence


def test_a_workspace_without_access_is_an_error_sentence(open_folder: Path) -> None:
    (open_folder / "closed" / "below").mkdir(parents=True)
    (open_folder / "closed").chmod(0)
    with without_privileges():
        assert "Permission denied" in failure(find_workspace, open_folder / "closed").sentence
        assert "Permission denied" in failure(find_workspace, open_folder / "closed" / "below").sentence


# --- manifests ---


def test_manifests_are_found_in_a_stable_order(root: Path) -> None:
    (root / "clients" / ".git").mkdir()
    (root / "clients" / ".git" / "x.yaml").write_text("x")
    (root / "clients" / "C.YAML").write_text("c")
    (root / "clients" / "z.yaml").mkdir()
    (root / "clients" / "z.yaml" / "in.yaml").write_text("z")
    expected = ["clients/C.YAML", "clients/b.yaml", "clients/deep/a.yml", "clients/z.yaml/in.yaml"]
    several = ["clients/deep/", "clients/b.yaml", "clients", "."]
    for entries in (["clients/"], ["clients"], ["./clients"], several, several[::-1]):
        assert found_in(root, *entries) == expected


def test_a_file_may_be_named_and_provisioner_yaml_is_no_manifest(root: Path) -> None:
    assert found_in(root, "clients/b.yaml") == ["clients/b.yaml"]
    assert found_in(root, "clients/notes.txt") == ["clients/notes.txt"]
    assert found_in(root, ".") == ["clients/b.yaml", "clients/deep/a.yml"]
    assert found_in(root) == []


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("../", "goes up"),
        ("..", "goes up"),
        ("clients/../../x", "goes up"),
        ("clients/..", "goes up"),
        ("/etc", "absolute"),
        ("C:/clients", "absolute"),
        ("~/x", "begins with ~"),
        ("~root", "begins with ~"),
        ("clients\\deep", "backslash"),
        ("clients/*.yaml", "pattern"),
        ("", "no name"),
        ("  ", "no name"),
        ("clients\0", "no name"),
        ("nowhere/", "does not exist"),
        ("clients/b.yaml/x", "does not exist"),
        ("clients/nowhere/x", "does not exist"),
    ],
)
def test_an_entry_that_leads_out_or_nowhere_is_refused(root: Path, entry: str, reason: str) -> None:
    problem = refused(root, entry)
    assert problem.code == "file-path"
    assert reason in problem.detail


def test_a_problem_has_the_place_of_its_entry(root: Path) -> None:
    assert refused(root, "client/").source == Source("provisioner.yaml", 1, 1)
    sources = [Source("provisioner.yaml", 3, line) for line in range(3)]
    files, problems = manifest_files(root, ["x", "clients", "y"], sources)
    assert len(files) == 2
    assert [problem.source for problem in problems] == [sources[0], sources[2]]


def test_a_missing_folder_gets_a_hint_with_a_similar_name(root: Path) -> None:
    assert refused(root, "client/").detail.endswith('Did you mean "clients"?')
    assert refused(root, "clients/deeep").detail.endswith('Did you mean "deep"?')
    assert refused(root, "clients/bb.yaml").detail.endswith('Did you mean "b.yaml"?')


def test_a_link_that_leaves_the_workspace_is_refused(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "x.yaml").write_text("secret")
    (root / "clients" / "file.yaml").symlink_to(outside / "x.yaml")
    (root / "clients" / "folder").symlink_to(outside)
    (root / "twin").symlink_to(outside)
    (root / "clients" / "notes").symlink_to(outside / "x.yaml")  # its name is not that of a manifest
    files, problems = manifest_files(root, ["clients/", "twin", "twin/x.yaml"])
    assert files == ["clients/b.yaml", "clients/deep/a.yml"]
    assert [problem.code for problem in problems] == ["file-path"] * 4
    assert [problem.detail for problem in problems] == [
        'clients/file.yaml is a link that leaves the workspace (under "clients/" in manifests:).',
        'clients/folder is a link that leaves the workspace (under "clients/" in manifests:).',
        'twin is a link that leaves the workspace (under "twin" in manifests:).',
        'twin/x.yaml is a link that leaves the workspace (under "twin/x.yaml" in manifests:).',
    ]


def test_a_folder_beside_the_workspace_with_a_longer_name_is_outside_it(tmp_path: Path) -> None:
    (tmp_path / "firm" / "clients").mkdir(parents=True)
    (tmp_path / "firm-secrets").mkdir()
    (tmp_path / "firm" / "clients" / "x").symlink_to(tmp_path / "firm-secrets")
    _, (problem,) = manifest_files(tmp_path / "firm", ["clients"])
    assert "leaves the workspace" in problem.detail


def test_links_within_the_workspace_give_each_file_once(root: Path) -> None:
    (root / "clients" / "round").symlink_to(root / "clients")
    (root / "clients" / "deep" / "up").symlink_to(root)
    (root / "clients" / "again.yaml").symlink_to(root / "clients" / "b.yaml")
    assert found_in(root, "clients") == ["clients/again.yaml", "clients/deep/a.yml"]


def test_a_workspace_reached_by_a_link_is_like_any_other(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert found_in(tmp_path / "link", "clients") == ["clients/b.yaml", "clients/deep/a.yml"]


def test_a_path_that_is_no_file_is_refused_without_waiting(root: Path) -> None:
    os.mkfifo(root / "clients" / "pipe.yaml")
    (root / "clients" / "dangling.yaml").symlink_to(root / "nowhere")
    (root / "clients" / "self.yaml").symlink_to(root / "clients" / "self.yaml")
    files, problems = manifest_files(root, ["clients", "clients/pipe.yaml"])
    assert len(files) == 2
    assert {problem.code for problem in problems} == {"file-unreadable"}
    assert [problem.detail.partition(" (under")[0] for problem in problems] == [
        "clients/dangling.yaml cannot be read: No such file or directory",
        "clients/pipe.yaml is neither a file nor a folder",
        "clients/self.yaml cannot be read: Too many levels of symbolic links",
        "clients/pipe.yaml is neither a file nor a folder",
    ]


def test_the_depth_of_folders_is_limited(root: Path) -> None:
    deepest = root / "deep" / "/".join("d" * limits.MAX_FOLDER_DEPTH)
    deepest.mkdir(parents=True)
    (deepest / "x.yaml").write_text("x")
    assert len(found_in(root, "deep")) == 1
    (deepest / "d").mkdir()
    (deepest / "d" / "y.yaml").write_text("y")
    files, (problem,) = manifest_files(root, ["deep"])
    assert [file.rpartition("/")[2] for file in files] == ["x.yaml"]
    assert problem.code == "file-path"
    assert "lies more than 32 folders deep" in problem.detail


def test_five_thousand_nested_folders_are_an_error_sentence(root: Path) -> None:
    top = root / "abyss"
    top.mkdir()
    folder = os.open(top, os.O_RDONLY)
    for _ in range(5_000):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    try:
        assert "folders deep" in refused(root, "abyss").detail
    finally:
        subprocess.run(["rm", "-rf", str(top)], check=True)  # deeper than Python can remove


def test_the_number_of_files_is_limited(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_FILES", 2)
    assert len(found_in(root, "clients")) == 2
    monkeypatch.setattr(limits, "MAX_FILES", 1)
    files, (problem,) = manifest_files(root, ["clients"])
    assert len(files) == 1
    assert problem.detail == 'There are more than 1 files (under "clients" in manifests:).'


def test_a_name_that_is_not_utf_8_is_refused_and_can_be_shown(root: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(root / "clients") + b"/caf\xe9.yaml")).write_text("x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    _, (problem,) = manifest_files(root, ["clients"])
    assert "'clients/caf\\udce9.yaml'" in problem.detail
    assert problem.detail.isascii()


def test_folders_and_files_that_may_not_be_read_are_named(open_folder: Path) -> None:
    (open_folder / "clients" / "closed").mkdir(parents=True)
    (open_folder / "clients" / "a.yaml").write_text("a")
    (open_folder / "clients" / "a.yaml").chmod(0)
    (open_folder / "clients" / "closed").chmod(0)
    with without_privileges():
        files, (problem,) = manifest_files(open_folder, ["clients"])
        assert problem.code == "file-unreadable"
        assert problem.detail.startswith("clients/closed cannot be read: Permission denied")
        (_, inside) = manifest_files(open_folder, ["clients/closed/x"])
        assert [problem.code for problem in inside] == ["file-unreadable"]
        assert "Permission denied" in failure(read_bytes, open_folder / files[0], 10).sentence


# --- reading ---


def test_a_file_is_read_to_one_byte_beyond_the_limit(root: Path) -> None:
    path = root / "x"
    for size in (0, 1, 99, 100, 101, 300_000):
        path.write_bytes(b"x" * size)
        assert read_bytes(path, 100) == path.read_bytes()[:101]
    assert len(read_bytes(path, 1_000_000)) == 300_000


def test_a_file_that_reports_no_size_is_read_whole() -> None:
    assert Path("/proc/self/limits").stat().st_size == 0
    assert read_bytes(Path("/proc/self/limits"), 100_000) == Path("/proc/self/limits").read_bytes()


def test_a_named_pipe_or_a_device_never_hangs_a_run(root: Path) -> None:
    pipe = root / "clients" / "pipe.yaml"
    os.mkfifo(pipe)
    before = len(os.listdir("/proc/self/fd"))
    for path in (pipe, Path("/dev/zero"), root / "clients"):
        assert failure(read_bytes, path, 100).sentence == f"{path} is not a regular file."
    assert "No such file" in failure(read_bytes, root / "nowhere", 100).sentence
    assert "Not a directory" in failure(read_bytes, root / "provisioner.yaml" / "x", 100).sentence
    assert len(os.listdir("/proc/self/fd")) == before


# --- writing ---


def test_a_file_is_written_for_its_owner_alone(root: Path) -> None:
    path = root / "plan.json"
    path.write_bytes(b"before")
    path.chmod(0o644)
    unmasked = os.umask(0)
    try:
        write_private(path, b"first")
        write_private(path, b"second")
    finally:
        os.umask(unmasked)
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_no_file(root: Path) -> None:
    before = sorted(root.rglob("*"))
    for bad in (
        root / "nowhere" / "x",
        Path("/proc/x"),
        root / "provisioner.yaml" / "x",
        root / "clients",
        root / ("x" * 300),
    ):
        failure(write_private, bad, b"x")
    assert sorted(root.rglob("*")) == before


def test_a_full_disk_leaves_the_old_file_and_no_other(root: Path) -> None:
    path = root / "plan.json"
    write_private(path, b"old")
    before = sorted(root.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        assert "File too large" in failure(write_private, path, b"x" * 10_000).sentence
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert sorted(root.rglob("*")) == before


def test_a_file_is_synced_before_its_rename_and_its_folder_after(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is synced before its rename, and its folder is synced after the rename.

    Otherwise a crash of the machine could leave an empty file under the final name.
    """
    happened: list[str] = []
    sync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        status = os.fstat(descriptor)
        happened.append("folder" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} bytes")
        sync(descriptor)

    def renamed(source: str, target: Path) -> None:
        happened.append("name")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_private(root / "plan.json", b"x" * 10_000)
    assert happened == ["10000 bytes", "name", "folder"]


def test_a_read_only_folder_is_an_error_sentence(open_folder: Path) -> None:
    (open_folder / "closed").mkdir()
    (open_folder / "closed").chmod(0o555)
    with without_privileges():
        assert "Permission denied" in failure(write_private, open_folder / "closed" / "x", b"x").sentence
    assert list((open_folder / "closed").iterdir()) == []


def test_a_folder_that_may_be_written_but_not_listed_takes_a_file(open_folder: Path) -> None:
    (open_folder / "letterbox").mkdir()
    (open_folder / "letterbox").chmod(0o333)
    with without_privileges():
        write_private(open_folder / "letterbox" / "x", b"x")
    assert (open_folder / "letterbox" / "x").read_bytes() == b"x"


def test_pipes_and_devices_are_not_replaced_and_links_are_not_followed(root: Path) -> None:
    os.mkfifo(root / "pipe")
    for there in (root / "pipe", Path("/dev/null"), root / "clients"):
        assert "is not a file" in failure(write_private, there, b"x").sentence
    assert (root / "pipe").is_fifo()
    (root / "link").symlink_to(root / "provisioner.yaml")
    write_private(root / "link", b"x")
    assert not (root / "link").is_symlink()
    assert (root / "provisioner.yaml").read_text() == "version: 1"


def test_only_a_failing_disk_stops_the_syncing_of_a_folder(root: Path) -> None:
    sync_folder(root)
    sync_folder(Path("/proc"))  # a file system without such a call
    with pytest.raises(FileNotFoundError):
        sync_folder(root / "nowhere")


# --- the program's own files ---

_WHERE = "from provisioner.workspace.files import resource_folder; print(resource_folder('schemas'))"


def _where(site: Path) -> str:
    child = subprocess.run(
        [sys.executable, "-c", _WHERE],
        env={"PYTHONPATH": str(site)}, cwd=site, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return child.stdout.strip() or child.stderr.strip().splitlines()[-1]


def test_templates_and_schemas_are_found_in_a_checkout() -> None:
    checkout = Path(provisioner.__file__).resolve().parent.parent
    assert resource_folder("templates") == checkout / "templates"
    assert resource_folder("schemas") == checkout / "schemas"


def test_templates_and_schemas_are_found_in_an_installed_package(tmp_path: Path) -> None:
    package = tmp_path / "provisioner"
    shutil.copytree(Path(provisioner.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    assert "This installation of provisioner lacks its schemas." in _where(tmp_path)
    (package / "_shipped" / "schemas").mkdir(parents=True)
    (tmp_path / "schemas").mkdir()  # of another package, beside this one in site-packages
    assert _where(tmp_path) == str(package / "_shipped" / "schemas")
