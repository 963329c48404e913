"""The trace of ``--verbose`` and ``--log``: every exchange is in it, and no secret or personal data is."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from boundaries import workspace
from canary_support import PASSWORD, USERNAME, links_in, searched
from crash_support import TWO_NEWCOMERS
from http_support import Asked
from remote_support import Firm, firm
from scim_support import TOKEN, server, tenant
from shell_support import BAKERY, ROOT, Shell
from smtp_support import smtp_server
from terminal import in_terminal

from provisioner.cli import run
from provisioner.portals.http_messages import without_query_values
from provisioner.storage.traced import TracedConnection
from provisioner.terminal import trace

if TYPE_CHECKING:
    from postgres_support import PostgresServer

EMILY = "emily.clarke@clarke-ceramics.com"
PERSONAL = {
    "first name": "Zénobie-Canary",
    "last name": "d'Aquitaine-Canary",
    "phone": "+33 1 99 00 77 13",
    "company": "Canary & Söhne Keramik",
}
LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (http|scim|sql|smtp) \S.* -> (\S+), \d+\.\d ms(, \d.*)?"
)


def name_canaries(folder: Path) -> None:
    """Give one user and the company names and a phone that occur nowhere else, also not in an address."""
    (manifest,) = (folder / "clients").glob(TWO_NEWCOMERS)
    text = manifest.read_text()
    for old, new in (
        ("first_name: Emily", f"first_name: {PERSONAL['first name']}"),
        ("last_name: Clarke\n    phone", f"last_name: {PERSONAL['last name']}\n    phone"),
        ("+33 1 99 00 45 12", PERSONAL["phone"]),
        ("Clarke & Sons Ceramics SARL", PERSONAL["company"]),
    ):
        assert old in text
        text = text.replace(old, new)
    manifest.write_text(text)


def personal_data() -> dict[str, bytes]:
    written = PERSONAL | {"phone as stored": PERSONAL["phone"].replace(" ", "")}
    return {what: text.encode() for what, text in written.items()}


def exchanges(log: Path) -> list[tuple[str, str, str]]:
    """Return kind, exchange and result of each line of a trace file. Every line must have the right form."""
    heading, *lines = log.read_text().splitlines()
    assert heading == trace.HEADING.strip()
    found = []
    for line in lines:
        matched = LINE.fullmatch(line)
        assert matched, line
        found.append((matched[1], line.partition(f"Z {matched[1]} ")[2].rpartition(" -> ")[0], matched[2]))
    return found


def post_to(folder: Path, port: int, authority: trustme.CA) -> None:
    """Configure the workspace to send through the mail server at ``port``, with TLS and a password."""
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    settings = folder / "provisioner.yaml"
    settings.write_text(
        re.sub(
            r'transport: ".*"(\n  username: .*\n.*\n.*)?',
            f'transport: "smtp://localhost:{port}"\n  username: {USERNAME}\n'
            "  password_env: CANARY_PASSWORD\n  ca_file: ca.pem",
            settings.read_text(),
        )
    )


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def mail_context(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    monkeypatch.setenv("CANARY_PASSWORD", PASSWORD)
    return context


@pytest.fixture
def remote(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Firm]:
    with firm(memory_path / "firm", monkeypatch) as mine:
        name_canaries(mine.folder)
        yield mine


# --- no secret and no personal data ---


def test_no_secret_in_the_trace_of_an_apply_over_http_and_smtp(
    remote: Firm, authority: trustme.CA, mail_context: ssl.SSLContext, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A portal that refuses the first requests, and a mail server that repeats secrets in its refusals."""
    tokens: list[bytes] = []

    def listen(number: int, asked: Asked, answer: Callable[[], bytes]) -> bytes:
        if number in (2, 4):
            return b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
        said = answer()
        tokens.extend(found.encode() for found in re.findall(r'"access_token": ?"([^"]+)"', said.decode()))
        return said

    remote.spoilt(listen)
    log = tmp_path / "trace.log"
    words = ["-C", str(remote.folder), "--log", str(log)]
    refusal = b"535 " + " ".join([PASSWORD, *PERSONAL.values()]).encode() + b"\r\n"
    with smtp_server({"AUTH": refusal}, tls=mail_context) as refusing:
        post_to(remote.folder, refusing.port, authority)
        assert run([*words, "apply", "--auto-approve"]) == 7
    refusal = refusal.replace(b"535", b"450")
    with smtp_server({"RCPT": refusal}, tls=mail_context) as refusing:
        post_to(remote.folder, refusing.port, authority)
        assert run([*words, "mail", "send"]) == 7
    with smtp_server(tls=mail_context) as accepting:
        post_to(remote.folder, accepting.port, authority)
        assert run([*words, "mail", "send"]) == 0
    assert len(accepting.accepted) == 2
    found = exchanges(log)
    assert {kind for kind, _, _ in found} == {"http", "sql", "smtp"}
    for kind, what, result in (
        ("http", f"POST {remote.relay.url}/oauth/token", "200"),
        ("http", f"GET {remote.relay.url}/v1/", "503"),
        ("smtp", "AUTH", "535"),
        ("smtp", f"RCPT TO:<{EMILY}>", "450"),
        ("smtp", f"RCPT TO:<{EMILY}>", "250"),
        ("smtp", "DATA", "250"),
        ("sql", "ledger: INSERT INTO journal", "ok"),
    ):
        assert any(one[0] == kind and what in one[1] and one[2] == result for one in found), (what, result)
    assert tokens
    secrets = {"password": PASSWORD.encode()} | personal_data() | links_in(accepting.accepted)
    secrets |= {f"token {number}": token for number, token in enumerate(tokens)}
    secrets["client secret"] = os.environ["PROVISIONER_PORTAL_SECRET"].encode()
    searched(secrets, {"the trace": log.read_bytes()})


@pytest.mark.external
def test_no_secret_in_the_trace_of_an_apply_over_scim(
    memory_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", TOKEN)
    folder = workspace(memory_path / "firm", portal=f"scim+{tenant(server('scim'))}", clients=TWO_NEWCOMERS)
    name_canaries(folder)
    log = tmp_path / "trace.log"
    words = ["-C", str(folder), "--log", str(log)]
    assert run([*words, "apply", "--auto-approve"]) == 0
    assert run([*words, "plan", "--detailed-exitcode"]) == 0
    found = exchanges(log)
    assert {kind for kind, _, _ in found} == {"scim", "sql"}
    assert any(what.startswith("POST ") and result == "201" for _, what, result in found)
    assert any("&filter=…" in what for _, what, _ in found)
    searched(personal_data() | {"token": TOKEN.encode()}, {"the trace": log.read_bytes()})


@pytest.mark.parametrize("place", ["sqlite", pytest.param("postgresql", marks=pytest.mark.external)])
def test_no_secret_in_the_trace_of_sql(
    place: str, memory_path: Path, tmp_path: Path, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The embedded portal stores names, phones and links; links are stored as hashes."""
    urls = {"portal": "sqlite:///portal.db", "ledger": "sqlite:///ledger.db"}
    if place == "postgresql":
        monkeypatch.setenv("PROVISIONER_LEDGER_SECRET", PASSWORD)
        monkeypatch.setenv("PROVISIONER_PORTAL_SECRET", PASSWORD)
        postgres: PostgresServer = request.getfixturevalue("postgres")
        urls = {name: postgres.url(postgres.new_schema()) for name in urls}
    folder = workspace(memory_path / "firm", clients=TWO_NEWCOMERS, **urls)
    name_canaries(folder)
    log = tmp_path / "trace.log"
    words = ["-C", str(folder), "--log", str(log)]
    assert run([*words, "apply", "--auto-approve"]) == 0
    letters = [file.read_bytes() for file in (folder / "outbox" / "new").iterdir()]
    links = links_in(letters)
    assert len(letters) == 2
    changes = ["simulate", "user-changes", EMILY, "--phone", "+33 1 99 00 77 99"]
    assert run([*words, *changes]) == 0
    found = exchanges(log)
    assert {kind for kind, _, _ in found} == {"sql"}
    assert any("INSERT INTO client_user" in what for _, what, _ in found)
    assert any("UPDATE client_user" in what for _, what, _ in found)
    secrets = personal_data() | links | {"password": PASSWORD.encode(), "phone later": b"+33199007799"}
    searched(secrets, {"the trace": log.read_bytes()})


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/Users", "/Users"),
        ("/Users?startIndex=51&count=50", "/Users?startIndex=51&count=50"),
        ("/Users?count=50&filter=name%20eq%20%22Zoé%22", "/Users?count=50&filter=…"),
        ("/v1/users?after=12&limit=10&since=x&limits=y", "/v1/users?after=…&limit=10&since=…&limits=…"),
        ("/x?counted=Zoé&count=1", "/x?counted=…&count=1"),
    ],
)
def test_query_values_are_left_out(path: str, shown: str) -> None:
    assert without_query_values(path) == shown


# --- where the trace goes ---


def test_verbose_and_log_have_the_same_lines(applied: Shell, tmp_path: Path) -> None:
    log = tmp_path / "trace.log"
    plain = applied("plan")
    said = applied("--verbose", "plan", "--log", log)
    assert (said.code, said.out) == (plain.code, plain.out)
    lines = log.read_text().splitlines()[1:]
    assert lines
    assert said.err.splitlines() == [*plain.err.splitlines(), *lines]
    assert applied("plan").err == plain.err
    assert log.read_text().splitlines()[1:] == lines


@pytest.mark.parametrize("verbose", [False, True])
def test_verbose_shows_steps_as_lines_on_a_terminal(shell: Shell, verbose: bool) -> None:
    """A line that is redrawn in place would be torn by the lines of the trace."""
    words = ["-C", str(shell.folder), *(["--verbose"] if verbose else []), "apply", "--auto-approve"]
    shown = in_terminal(words)
    assert shown.code == 0
    assert ("[1/32] Create company" in shown.text) is verbose
    assert (" sql ledger: COMMIT -> ok" in shown.text) is verbose


def test_the_log_is_private_and_gets_longer_with_each_run(applied: Shell, tmp_path: Path) -> None:
    log = tmp_path / "trace.log"
    umask = os.umask(0)
    try:
        assert applied("--log", log, "plan").code == 0
    finally:
        os.umask(umask)
    assert log.stat().st_mode & 0o777 == 0o600
    once = log.read_bytes()
    assert applied("plan", "--log", log).code == 0
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.read_bytes().startswith(once)
    assert len(exchanges(log)) == 2 * once.count(b" sql ")


@pytest.mark.parametrize("content", ["", trace.HEADING])
def test_a_log_that_exists_keeps_its_mode(applied: Shell, tmp_path: Path, content: str) -> None:
    log = tmp_path / "trace.log"
    log.write_text(content)
    log.chmod(0o640)
    assert applied("plan", "--log", log).code == 0
    assert log.stat().st_mode & 0o777 == 0o640
    assert exchanges(log)


@pytest.mark.parametrize("name", ["", "-", ".", "clients"])
@pytest.mark.parametrize("before", [False, True])
def test_a_log_without_a_file_name_is_wrong_usage(
    shell: Shell, name: str, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shell.folder)
    log = ("--log", name)
    said = shell(*log, "plan") if before else shell("plan", *log)
    assert (said.code, said.out) == (64, "")
    assert said.err.startswith("Error: --log needs the name of a file, and ")
    assert not (shell.folder / "-").exists()


def test_a_second_log_is_wrong_usage(shell: Shell, tmp_path: Path) -> None:
    first, second = ("--log", tmp_path / "a"), ("--log", tmp_path / "b")
    for words in ((*first, "plan", *second), (*first, *second, "plan"), ("plan", *first, *second)):
        said = shell(*words)
        assert said.code == 64
        assert said.err.startswith("Error: --log is given twice; the trace goes into one file.")
    assert not list(tmp_path.glob("[ab]"))


@pytest.mark.parametrize("name", ["missing/trace.log", BAKERY, "provisioner.yaml", "pipe", "x" * 300])
def test_a_log_that_cannot_be_written_is_refused_before_the_run(shell: Shell, name: str) -> None:
    os.mkfifo(shell.folder / "pipe")
    before = {path: path.read_bytes() for path in shell.folder.rglob("*") if path.is_file()}
    said = shell("apply", "--auto-approve", "--log", shell.folder / name)
    assert said.code == 1
    assert said.err.startswith(f"Error: {(shell.folder / name)} ")
    assert {path: path.read_bytes() for path in shell.folder.rglob("*") if path.is_file()} == before


def test_a_full_disk_ends_the_trace_and_not_the_run(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "open_to_append", lambda path, heading: os.open("/dev/full", os.O_WRONLY))
    said = shell("apply", "--auto-approve", "--log", tmp_path / "trace.log")
    assert said.code == 0
    assert f"The trace in {tmp_path / 'trace.log'} is incomplete: No space left on device." in said.err
    assert shell.letters() == 15


def test_a_failed_run_leaves_no_trace_switched_on(applied: Shell, tmp_path: Path) -> None:
    log = tmp_path / "trace.log"
    assert applied("apply", "--log", log, tmp_path / "no-plan.json").code == 1
    before = log.read_bytes()
    assert applied("plan").code == 0
    assert log.read_bytes() == before


# --- no cost when it is off ---

MODULES = """
import sys
from provisioner.cli import run
opened = []
import sqlite3
sys.addaudithook(lambda event, of: opened.append(of[0]) if event == "sqlite3.connect/handle" else None)
assert run(["-C", sys.argv[1], "plan", *sys.argv[2:]]) == 0
print("", sorted({"logging", "provisioner.terminal.trace"} & sys.modules.keys()), file=sys.stderr)
print("", sorted({type(one).__name__ for one in opened}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "modules", "connections"),
    [
        ([], [], ["Connection"]),
        (["--log", "trace.log"], ["logging", "provisioner.terminal.trace"], [TracedConnection.__name__]),
    ],
)
def test_a_plan_without_trace_uses_plain_connections_and_no_logging(
    applied: Shell, words: list[str], modules: list[str], connections: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MODULES, str(applied.folder), *words],
        cwd=applied.folder, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-2:] == [f" {modules}", f" {connections}"]
