"""Bad paths give an error, and the program writes nothing there (row 25).

Bad paths lead out of the workspace, block, never end or cannot exist. test_files.py tests the setting
``manifests:``.
"""

from __future__ import annotations

import os
import resource
import shutil
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from samples_support import ROOT

from provisioner.cli import run
from provisioner.errors import MailError, WorkspaceError
from provisioner.limits import MAX_FILE_BYTES, MAX_TEMPLATE_BYTES
from provisioner.mail.transport import TransportOptions, open_transport
from provisioner.workspace.files import read_texts

MEMORY = 512 * 1024 * 1024
"""The maximum growth of the address space during a test in bytes."""


@contextmanager
def bounded() -> Iterator[None]:
    """Limit the memory, so that reading an endless device fails. pytest's timeout ends a blocked read."""

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_folder(path: Path) -> None:
    path.mkdir()


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere" / "x")


def a_binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


ODD: tuple[Callable[[Path], None], ...] = (a_pipe, a_device, a_folder, a_loop, a_dangling_link, a_binary)
DEEP = "d/" * 5_000
"""A path longer than the system allows."""


@pytest.fixture
def firm(tmp_path: Path) -> Path:
    """Return the folder of a copy of the sample firm's workspace."""
    made = tmp_path / "firm"
    made_by_runs = shutil.ignore_patterns("*.db*", "outbox")
    shutil.copytree(ROOT / "samples" / "onboarding", made, ignore=made_by_runs)
    return made


def says(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    """Run a command with limited memory and return its exit code and stderr."""
    capsys.readouterr()
    with bounded():
        code = run([str(word) for word in words])
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert code in (0, 1, 3, 7, 64)
    return code, said.err


def set_to(firm: Path, key: str, value: str) -> None:
    """Set ``key`` (``section.name``) to ``value`` in provisioner.yaml."""
    path = firm / "provisioner.yaml"
    section, _, name = key.partition(".")
    lines = path.read_text().splitlines()
    at = lines.index(f"{section}:")
    here = [n for n, line in enumerate(lines) if n > at and line.startswith(f"  {name}:")]
    new = f'  {name}: "{value}"'
    if here:
        lines[here[0]] = new
    else:
        lines.insert(at + 1, new)
    path.write_text("\n".join(lines) + "\n")


# --- the workspace itself ---


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_file_for_provisioner_yaml_is_an_error_sentence(
    firm: Path, capsys: pytest.CaptureFixture[str], odd: Callable[[Path], None]
) -> None:
    (firm / "provisioner.yaml").unlink()
    odd(firm / "provisioner.yaml")
    code, err = says(capsys, "-C", firm, "plan")
    assert code in (1, 3)
    assert err.startswith("Error: ")


@pytest.mark.parametrize("folder", ["~", "..", "/dev/null", "/dev/zero", DEEP, "", "-"])
def test_an_odd_folder_after_chdir_is_an_error_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """A folder without a workspace after ``-C`` gives an error sentence.

    The name ``~`` is an ordinary name for the program, because only the shell expands ``~``.
    """
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, err = says(capsys, "-C", folder, "plan")
    assert code in (1, 64)
    assert err


# --- databases ---


@pytest.mark.parametrize("key", ["portal.url", "ledger.url"])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_file_for_a_database_is_an_error_sentence(
    firm: Path, capsys: pytest.CaptureFixture[str], key: str, odd: Callable[[Path], None]
) -> None:
    odd(firm / "odd.db")
    set_to(firm, key, "sqlite:///odd.db")
    before = sorted(firm.iterdir())
    for words in (["plan"], ["apply", "--auto-approve"], ["history"]):
        code, err = says(capsys, "-C", firm, *words)
        if code:
            assert err.startswith("Error: ")
    code, err = says(capsys, "-C", firm, "apply", "--auto-approve")
    assert code == 1
    assert {path.name for path in firm.iterdir()} - {path.name for path in before} <= {
        "portal.db", "portal.db.key", "ledger.db", "ledger.db.lock"
    }  # fmt: skip


@pytest.mark.parametrize("key", ["portal.url", "ledger.url"])
@pytest.mark.parametrize(
    "path", [DEEP + "x.db", "nowhere/x.db", "clients/garage-lefevre.yaml/x.db", "~/x.db"]
)
def test_a_database_that_cannot_be_created_is_an_error_sentence(
    firm: Path, capsys: pytest.CaptureFixture[str], key: str, path: str
) -> None:
    set_to(firm, key, f"sqlite:///{path}")
    code, err = says(capsys, "-C", firm, "apply", "--auto-approve")
    assert code in (1, 3)
    assert err.startswith("Error: ")
    assert not (firm / "~").exists()
    assert not (Path.home() / "x.db").exists()


# --- mail ---


@pytest.mark.parametrize("odd", [a_pipe, a_device, a_loop, a_dangling_link, a_binary])
def test_an_odd_file_for_the_outbox_leaves_letters_owed(
    firm: Path, capsys: pytest.CaptureFixture[str], odd: Callable[[Path], None]
) -> None:
    odd(firm / "outbox")
    code, err = says(capsys, "-C", firm, "apply", "--auto-approve")
    assert code == 7
    assert "outbox" in err


@pytest.mark.parametrize("folder", [DEEP + "x", "clients/garage-lefevre.yaml/x"])
def test_an_outbox_that_cannot_be_created_leaves_letters_owed(
    firm: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    set_to(firm, "mail.transport", f"maildir:{folder}")
    code, err = says(capsys, "-C", firm, "apply", "--auto-approve")
    assert code == 7
    assert err


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_file_for_certificates_is_an_error_sentence(
    tmp_path: Path, odd: Callable[[Path], None]
) -> None:
    """If the certificates cannot be read, the result is an error. The system's certificates are not used."""
    odd(tmp_path / "ca.pem")
    with bounded(), pytest.raises(MailError, match=r"certificates of ca\.pem cannot be read"):
        open_transport("smtps://localhost", TransportOptions(root=tmp_path, ca_file="ca.pem"))


@pytest.mark.parametrize("content", [b"", b"\n", b"no certificate", b"-----BEGIN CERTIFICATE-----\nx\n"])
def test_a_file_without_certificates_is_an_error_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(MailError, match=r"certificates of ca\.pem cannot be read"):
        open_transport("smtps://localhost", TransportOptions(root=tmp_path, ca_file="ca.pem"))


def test_certificates_are_read_to_the_limit_of_a_file(tmp_path: Path) -> None:
    pem = trustme.CA().cert_pem.bytes()
    path = tmp_path / "ca.pem"
    path.write_bytes(pem + b"\n" * (MAX_FILE_BYTES - len(pem)))
    open_transport("smtps://localhost", TransportOptions(root=tmp_path, ca_file="ca.pem"))
    assert ssl.create_default_context(cafile=str(path)).cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_file_for_the_password_stops_the_letters_alone(
    firm: Path, capsys: pytest.CaptureFixture[str], odd: Callable[[Path], None]
) -> None:
    odd(firm / "secret")
    set_to(firm, "mail.transport", "smtp://127.0.0.1:9")
    set_to(firm, "mail.username", "acces")
    set_to(firm, "mail.password_file", "secret")
    code, err = says(capsys, "-C", firm, "apply", "--auto-approve")
    assert code in (1, 7)
    assert "password cannot be read" in err


# --- templates ---


def own_templates(firm: Path) -> Path:
    folder = firm / "templates" / "mail"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_file_among_the_templates_stops_before_a_write(
    firm: Path, capsys: pytest.CaptureFixture[str], odd: Callable[[Path], None]
) -> None:
    odd(own_templates(firm) / "welcome.fr.txt.j2")
    code, err = says(capsys, "-C", firm, "apply", "--auto-approve")
    assert code == 1
    assert "welcome.fr.txt.j2" in err
    assert not (firm / "portal.db").exists()


@pytest.mark.parametrize("what", ["file", "folder", "folder above"])
def test_a_template_outside_the_workspace_is_not_read(
    firm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """A template outside the workspace is not read.

    Otherwise a letter could contain any file of the machine.
    """
    outside = tmp_path / "outside"
    (outside / "mail").mkdir(parents=True)
    (outside / "mail" / "welcome.fr.txt.j2").write_text("secret")
    if what == "file":
        (own_templates(firm) / "welcome.fr.txt.j2").symlink_to(outside / "mail" / "welcome.fr.txt.j2")
    elif what == "folder":
        (firm / "templates").mkdir()
        (firm / "templates" / "mail").symlink_to(outside / "mail")
    else:
        (firm / "templates").symlink_to(outside)
    code, err = says(capsys, "-C", firm, "apply", "--auto-approve")
    assert code == 1
    assert "is a link that leaves the workspace" in err
    assert "secret" not in err


def test_a_link_within_the_workspace_is_a_template_like_any_other(firm: Path) -> None:
    (firm / "letters").mkdir()
    (firm / "letters" / "welcome.fr.subject.j2").write_text("Bienvenue\n")
    (firm / "templates").mkdir()
    (firm / "templates" / "mail").symlink_to(firm / "letters")
    assert read_texts(firm / "templates" / "mail", ".j2", 100, within=firm) == {
        "welcome.fr.subject.j2": "Bienvenue\n"
    }


def test_a_template_is_read_to_its_limit_and_no_further(tmp_path: Path) -> None:
    """A template of ``MAX_TEMPLATE_BYTES`` bytes is read, and a longer template is an error."""
    path = tmp_path / "a.j2"
    path.write_bytes(b"\xc3\xa9" * (MAX_TEMPLATE_BYTES // 2))
    assert (
        len(read_texts(tmp_path, ".j2", MAX_TEMPLATE_BYTES, within=tmp_path)["a.j2"])
        == path.stat().st_size / 2
    )
    path.write_bytes(b"\xc3\xa9" * (MAX_TEMPLATE_BYTES // 2) + b"x")
    with pytest.raises(WorkspaceError, match="longer than 262,144 bytes"):
        read_texts(tmp_path, ".j2", MAX_TEMPLATE_BYTES, within=tmp_path)


def test_a_file_in_place_of_the_template_folder_is_ignored(tmp_path: Path) -> None:
    assert read_texts(tmp_path / "nowhere", ".j2", 1, within=tmp_path) == {}
    (tmp_path / "file").write_text("x")
    assert read_texts(tmp_path / "file", ".j2", 1, within=tmp_path) == {}
    with pytest.raises(WorkspaceError, match="cannot be read"):
        read_texts(tmp_path / DEEP, ".j2", 1, within=tmp_path)


# --- arguments of commands ---

CLAIRE = "claire.martin@boulangerie-martin.fr"
INTO_FOLDERS = (["export"], ["init"], ["mail", "preview", CLAIRE, "--out"])


@pytest.mark.parametrize("odd", [a_pipe, a_device, a_folder, a_loop, a_dangling_link])
@pytest.mark.parametrize("option", ["--out", "--markdown"])
def test_only_regular_files_are_overwritten(
    firm: Path, capsys: pytest.CaptureFixture[str], option: str, odd: Callable[[Path], None]
) -> None:
    """The options ``--out`` and ``--markdown`` refuse a pipe and a folder.

    A link is replaced by the new file, and the target of the link stays unchanged.
    """
    odd(firm / "odd")
    mode = (firm / "odd").lstat().st_mode
    code, err = says(capsys, "-C", firm, "plan", option, firm / "odd")
    if odd in (a_pipe, a_folder):
        assert code == 1
        assert "odd" in err
        assert (firm / "odd").lstat().st_mode == mode
    else:
        assert code == 0
        assert (firm / "odd").is_file()
        assert not (firm / "odd").is_symlink()


@pytest.mark.parametrize("path", [DEEP + "x", "nowhere/x", "/dev/full", "/dev/null", "provisioner.yaml/x"])
@pytest.mark.parametrize("option", ["--out", "--markdown"])
def test_a_file_that_cannot_be_created_is_an_error_sentence(
    firm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str, path: str
) -> None:
    monkeypatch.chdir(firm)
    code, err = says(capsys, "plan", option, path)
    assert code in (1, 64)
    assert err


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("command", ["apply", "show"])
def test_an_odd_file_for_a_plan_is_an_error_sentence(
    firm: Path, capsys: pytest.CaptureFixture[str], command: str, odd: Callable[[Path], None]
) -> None:
    odd(firm / "plan.json")
    code, err = says(capsys, "-C", firm, command, firm / "plan.json")
    assert code in (1, 64)
    assert err.startswith("Error: ")
    assert not (firm / "portal.db").exists()


@pytest.mark.parametrize("odd", [a_pipe, a_device, a_loop, a_dangling_link, a_binary])
@pytest.mark.parametrize("words", INTO_FOLDERS)
def test_a_file_in_place_of_a_folder_is_an_error_sentence(
    firm: Path, capsys: pytest.CaptureFixture[str], words: list[str], odd: Callable[[Path], None]
) -> None:
    odd(firm / "odd")
    mode = (firm / "odd").lstat().st_mode
    code, err = says(capsys, "-C", firm, *words, firm / "odd")
    assert code in (1, 64)
    assert err.startswith("Error: ")
    assert (firm / "odd").lstat().st_mode == mode


@pytest.mark.parametrize("words", INTO_FOLDERS)
@pytest.mark.parametrize("path", [DEEP, "provisioner.yaml/x", "/proc/nowhere"])
def test_a_folder_that_cannot_be_created_is_an_error_sentence(
    firm: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    path: str,
) -> None:
    monkeypatch.chdir(firm)
    code, err = says(capsys, *words, path)
    assert code in (1, 64)
    assert err
