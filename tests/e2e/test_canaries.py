"""Secrets and personal data appear only where they belong. Tests search every output and file for them.

The secrets are the mail password, the activation links and the portal's key. The tests search the output of
every command and every file that it writes, except the secret's own file and the letters.
"""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from canary_support import PASSWORD, USERNAME, links_in, searched
from shell_support import BAKERY, CLAIRE, ROOT, Shell, process
from smtp_support import Server, smtp_server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def post(authority: trustme.CA) -> ssl.SSLContext:
    """Return the TLS context of a mail server whose certificate the workspace trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def posts(shell: Shell, authority: trustme.CA, server: Server, secret: str) -> None:
    """Configure the workspace to send through this mail server. ``secret`` is the setting of the password."""
    authority.cert_pem.write_to_path(str(shell.folder / "ca.pem"))
    shell.edit(
        "provisioner.yaml",
        '"maildir:outbox"',
        f'"smtp://localhost:{server.port}"\n  username: {USERNAME}\n  {secret}\n  ca_file: ca.pem\n'
        "  connections: 1",
    )


def files(folder: Path, *but: str) -> dict[str, bytes]:
    """Return the content of each file below a folder, except paths that start with one of ``but``."""
    return {
        name: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not (name := str(path.relative_to(folder))).startswith(but)
    }


def everything_said(shell: Shell) -> dict[str, bytes]:
    """Run all commands that show data of the workspace; returns the output of each command."""
    said = {}
    preview = str(shell.folder / "preview")
    for words in (
        *(["validate"], ["plan"], ["history"], ["history", "1"], ["mail", "status"], ["portal", "users"]),
        *(["mail", "preview", CLAIRE], ["mail", "preview", CLAIRE, "--out", preview]),
        *(["mail", "send"], ["mail", "send", CLAIRE], ["unlock"], ["schema", "provisioner"]),
        *(["export", str(shell.folder / "exported")], ["plan", "--json"], ["validate", "--json"]),
        *(["history", "--json"], ["history", "1", "--json"], ["mail", "status", "--json"]),
        ["portal", "users", "--json"],
    ):
        answer = shell(*words)
        said[" ".join(words)] = (answer.out + answer.err).encode()
    return said


@pytest.mark.parametrize("place", ["password_env", "password_file"])
def test_no_secret_is_printed_or_written(
    place: str, shell: Shell, authority: trustme.CA, post: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log-in that is refused first and then accepted prints and writes no secret."""
    secret = "password_env: CANARY_PASSWORD" if place == "password_env" else "password_file: smtp.password"
    if place == "password_env":
        monkeypatch.setenv("CANARY_PASSWORD", PASSWORD)
    else:
        (shell.folder / "smtp.password").write_text(PASSWORD + "\n")
    planfile = shell.folder / "plan.json"
    said: dict[str, bytes] = {}
    with smtp_server({"AUTH": b"535 5.7.8 no: " + PASSWORD.encode()[:6] + b"\r\n"}, tls=post) as server:
        posts(shell, authority, server, secret)
        for words in (
            ["plan", "--out", str(planfile), "--markdown", str(shell.folder / "plan.md")],
            ["show", str(planfile)],
            ["apply", str(planfile)],
            ["mail", "send"],
        ):
            answer = shell(*words)
            said[f"refused {words}"] = (answer.out + answer.err).encode()
        assert answer.code == 7
        refused = server
    with smtp_server(tls=post) as server:
        shell.edit("provisioner.yaml", f"localhost:{refused.port}", f"localhost:{server.port}")
        answer = shell("mail", "send")
        assert answer.code == 0, answer.err
        said["accepted"] = (answer.out + answer.err).encode()
    assert len(server.accepted) == 15
    said |= everything_said(shell)
    key = (shell.folder / "portal.db.key").read_bytes()
    secrets = {"password": PASSWORD.encode(), "portal's key": key} | links_in(server.accepted)
    assert len(secrets) == 2 + 2 * 15
    written = files(shell.folder, "portal.db.key", "smtp.password")
    assert {"ledger.db", "portal.db", "plan.json", "plan.md", "provisioner.yaml"} <= written.keys()
    wire = {"the wire before TLS": bytes(server.clear + refused.clear)}
    searched(secrets, said | written | wire)


CRASH = """
import sys
from provisioner import cli

def crash(place, name):
    import importlib
    module = importlib.import_module(place)
    owner, _, attribute = name.rpartition(".")
    owner = getattr(module, owner) if owner else module
    real = getattr(owner, attribute)
    def crashing(*words, **options):
        answer = real(*words, **options)
        raise RuntimeError("an unexpected error")
    setattr(owner, attribute, crashing)

crash(sys.argv.pop(1), sys.argv.pop(1))
cli.main()
"""

CRASHES = {
    "as the password was read": ("provisioner.operations.deliver", "secret_of"),
    "as the transport was made": ("provisioner.operations.deliver", "open_mail_transport"),
    "as a letter was written": ("provisioner.operations.deliver", "write"),
    "as the portal was asked": ("provisioner.embedded.portal", "SqlPortal.execute"),
    "as the key was read": ("provisioner.embedded.portal", "SqlPortal._secret"),
    "as the run was about to end": ("provisioner.ledger.journal", "Journal.end"),
}


@pytest.mark.parametrize("when", CRASHES)
def test_an_unexpected_crash_shows_no_secret(
    when: str, shell: Shell, authority: trustme.CA, post: ssl.SSLContext
) -> None:
    """An unexpected exception while the secrets are in memory shows no secret.

    The next run succeeds.
    """
    with smtp_server(tls=post) as server:
        posts(shell, authority, server, "password_env: CANARY_PASSWORD")
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(shell.folder), "PYTHONPATH": str(ROOT),
            "CANARY_PASSWORD": PASSWORD, "PYTHONDEVMODE": "1",
        }  # fmt: skip
        words = ["-C", str(shell.folder), "apply", "--auto-approve"]
        crashed = subprocess.run(
            [sys.executable, "-c", CRASH, *CRASHES[when], *words],
            env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
        )  # fmt: skip
        assert crashed.returncode == 1, crashed.stderr
        assert b"an unexpected error" in crashed.stderr
        again = subprocess.run(
            [sys.executable, "-m", "provisioner", *words],
            env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
        )  # fmt: skip
        assert again.returncode == 0, again.stderr
    assert len(server.accepted) == 15
    secrets = {"password": PASSWORD.encode()} | links_in(server.accepted)
    secrets["portal's key"] = (shell.folder / "portal.db.key").read_bytes()
    said = {"the crash": crashed.stdout + crashed.stderr, "the run after it": again.stdout + again.stderr}
    searched(secrets, said | files(shell.folder, "portal.db.key") | {"the wire": bytes(server.clear)})


def test_an_error_about_a_secret_shows_its_place_alone(shell: Shell) -> None:
    """If the password itself is in provisioner.yaml, the error does not repeat the password."""
    shell.edit(
        "provisioner.yaml",
        '"maildir:outbox"',
        f'"smtp://localhost:25"\n  username: x\n  password: "{PASSWORD}"',
    )
    for words in (["validate"], ["validate", "--json"], ["plan"], ["apply", "--auto-approve"]):
        said = shell(*words)
        assert said.code == 3
        haystack = {"out": said.out.encode(), "err": said.err.encode()}
        searched({"password": PASSWORD.encode()}, haystack)


# --- private files ---


def permissions(folder: Path) -> dict[str, str]:
    """The permissions of each file that is not private, by the path of the file."""
    return {
        str(path.relative_to(folder)): oct(mode & 0o777)
        for path in folder.rglob("*")
        if stat.S_ISREG(mode := path.lstat().st_mode) and mode & 0o077
    }


def test_every_written_file_is_private_under_any_umask(shell: Shell, tmp_path: Path) -> None:
    """Every file that a command writes is private under any umask.

    The commands write plans, Markdown, a portal with its key, a ledger, letters, previews and workspaces.
    """
    given = permissions(shell.folder)
    done = process(
        f"""
        set -e
        umask 000
        provisioner plan --out plan.json --markdown plan.md --json >/dev/null
        provisioner apply plan.json
        provisioner mail preview {CLAIRE} --out preview
        provisioner mail preview plan.json --out previews
        provisioner export exported
        provisioner init first
        provisioner portal configure
        """,
        shell.folder,
    )
    assert done.returncode == 0, done.stderr
    written = set(files(shell.folder)) - set(given)
    for name in (
        "plan.json",
        "plan.md",
        "portal.db",
        "portal.db.key",
        "ledger.db",
        "exported/provisioner.yaml",
    ):
        assert name in written
    assert sum(name.startswith("outbox/new/") for name in written) == 15
    assert len(list((shell.folder / "preview").iterdir())) == 2
    assert permissions(shell.folder) == given


def test_a_readable_file_becomes_private_when_it_is_rewritten(shell: Shell) -> None:
    """A file that others can read becomes private when the program rewrites it."""
    planfile = shell.folder / "plan.json"
    planfile.write_text("old")
    planfile.chmod(0o666)
    assert shell("plan", "--out", planfile).code == 0
    assert planfile.stat().st_mode & 0o777 == 0o600


def test_side_files_of_an_open_database_are_private(shell: Shell) -> None:
    """The files -wal and -shm of a database are private, also if a killed run leaves them behind."""
    given = permissions(shell.folder)
    script = (
        "import os, signal, sys; from provisioner import cli; "
        "from provisioner.embedded.portal import SqlPortal; "
        "SqlPortal.execute = lambda portal, calls: os.kill(os.getpid(), signal.SIGKILL); cli.main()"
    )
    done = process(f'umask 000; "$PYTHON" -c \'{script}\' -C "$FOLDER" apply --auto-approve', shell.folder)
    assert done.returncode in (-9, 137), done.stderr
    written = set(files(shell.folder)) - set(given)
    assert {
        "portal.db",
        "portal.db-wal",
        "portal.db-shm",
        "ledger.db",
        "ledger.db-wal",
        "ledger.db-shm",
    } <= written
    assert permissions(shell.folder) == given


def test_history_shows_no_phone(applied: Shell) -> None:
    """``history`` shows the user and the action, but not the values."""
    phone = "+33199001234"
    applied.edit(BAKERY, '"+33 1 99 00 10 01"', f'"{phone}"')
    assert applied("apply", "--auto-approve").code == 0
    said = everything_said(applied)
    shown = {name: content for name, content in said.items() if name.startswith(("history", "unlock"))}
    searched({"phone": phone.encode()}, shown)
