"""The command line: exit codes, error sentences, and no partial writes."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, nullcontext
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import click
import pytest
from shell_support import BAKERY, CLAIRE, ROOT, Said, Shell, process
from smtp_support import CUT, smtp_server

from provisioner.cli import cli, run
from provisioner.commands.options import Command, Group
from provisioner.ledger.ledger import Ledger
from provisioner.operations.open import utc_now
from provisioner.render.commands import COMMANDS, in_folder
from provisioner.render.formats import FORMATS
from provisioner.storage.sqlite import SqliteDatabase


def test_the_home_folder_is_empty(empty_home: Path) -> None:
    assert Path.home() == empty_home


# --- exit codes and the plan's last line ---


def test_plan_says_what_would_change_and_changes_nothing(shell: Shell) -> None:
    before = shell.print_of()
    said = shell("plan")
    assert said.code == 0
    assert said.out.rstrip().splitlines()[-1].startswith("Plan: 25 to add, 0 to change, 0 to close")
    assert shell.print_of() == before


def test_planning_an_existing_portal_writes_nothing_either(applied: Shell) -> None:
    applied.edit(BAKERY, "Claire", "Clara")
    before = applied.print_of()
    for words in (["plan"], ["plan", "--json"], ["validate"], ["mail", "status"], ["history"], ["unlock"]):
        assert applied(*words).code == 0
    assert applied.print_of() == before


def test_detailed_exitcode_distinguishes_changes_none_and_errors(shell: Shell) -> None:
    assert shell("plan", "-detailed-exitcode").code == 2
    shell("apply", "--auto-approve")
    assert shell("plan", "--detailed-exitcode").code == 0
    shell.edit(BAKERY, "type: administrator", "type: boss")
    assert shell("plan", "--detailed-exitcode").code == 3


def test_a_second_apply_changes_nothing_and_sends_nothing(applied: Shell) -> None:
    letters = applied.letters()
    assert letters == 15
    said = applied("apply", "--auto-approve")
    assert said.code == 0
    assert "No changes" in said.out
    assert applied.letters() == letters


def test_apply_without_a_terminal_requires_auto_approve(shell: Shell) -> None:
    said = shell("apply")
    assert said.code == 64
    assert "--auto-approve" in said.err
    assert not (shell.folder / "portal.db").exists()


@pytest.mark.parametrize(
    "words",
    [["plna"], ["plan", "--jsn"], ["apply", "--target", "claire"], ["mail"], ["history", "x"], ["show"], []],
)
def test_wrong_usage_is_64_and_never_2(shell: Shell, words: list[str]) -> None:
    assert shell(*words).code == 64


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["api-client", "add", "x"],
            "Missing option '--role'. Choose from: administrator, partner, customer_manager",
        ),
        (["history", "abc"], "'abc' is not a valid whole number."),
        (["plan", "--lock-timeout"], "To see what it takes: provisioner plan --help"),
        (["apply", "--lock-timeout", "soon"], "'soon' is not a valid number of seconds."),
        (["apply", "--parallelism"], "To see what it takes: provisioner apply --help"),
        (["serve", "--rate", "many"], "'many' is not a valid number."),
        (["serve", "--host", ""], "Name the address to listen at"),
        (["plan", "-C", "o"], "Write it before the command: provisioner -C FOLDER plan"),
        (["mail", "status", "--chdir", "o"], "before the command: provisioner -C FOLDER mail status"),
        (["plann"], "No such command 'plann'. Did you mean \"plan\"?\n"),
        (["mail", "staus"], "No such command 'staus'. Did you mean \"status\"?\n"),
        (["help"], "To see the commands: provisioner --help"),
        (["version"], "To see the version: provisioner --version"),
        (["restore"], '"Backups and restores" in provisioner/portals/README.md'),
        (["-C"], "To see what it takes: provisioner --help"),
    ],
)
def test_wrong_usage_is_explained_in_a_sentence(shell: Shell, words: list[str], sentence: str) -> None:
    said = shell(*words)
    assert said.code == 64
    assert sentence in said.err


@pytest.mark.parametrize("group", [[], ["mail"], ["simulate"], ["api-client"]])
def test_help_cuts_no_sentence_short(shell: Shell, group: list[str]) -> None:
    listed = shell(*group, "--help").out.partition("Commands:")[2]
    assert len(listed.splitlines()) > 3
    assert "..." not in listed


@pytest.mark.parametrize(
    ("command", "twins"),
    [
        (["plan"], ["target", "exclude", "out", "detailed-exitcode", "no-color"]),
        (["apply"], ["target", "exclude", "auto-approve", "input", "lock-timeout", "parallelism"]),
        (["mail", "preview"], ["out"]),
        ([], ["no-color"]),
    ],
)
def test_single_dash_options_are_accepted_and_hidden_from_help(
    shell: Shell, command: list[str], twins: list[str]
) -> None:
    shown = shell(*command, "--help").out
    for name in twins:
        assert f"--{name}" in shown
        assert not re.search(rf"(?<!-)-{name}\b", shown)
        said = shell(*command, f"-{name}")
        assert "No such option" not in said.err
    assert "No such option" in shell(*command, "-nonsense").err


COMMAND = re.compile(r"(?:^|[:;,] )provisioner ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")


def test_every_command_that_a_sentence_names_exists() -> None:
    named = set()
    title = "provisioner portal"  # of the OpenAPI document, no command
    for path in sorted((ROOT / "provisioner").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value != title:
                # after a colon, or alone as a remedy
                named.update(COMMAND.findall(node.value))
    assert len(named) > 12
    for verb, word in sorted(named):
        command = cli.commands[verb]
        assert not isinstance(command, click.Group) or word in command.commands, (verb, word)


def test_the_commands_that_get_a_folder_are_those_that_use_one() -> None:
    assert sorted(COMMANDS) == sorted(set(cli.commands) - {"init", "explain", "schema", "completion"})


@pytest.mark.parametrize(
    ("text", "located"),
    [
        ("provisioner portal users", "provisioner -C o portal users"),
        ("To see it: provisioner plan\n    provisioner show x", "To see it: provisioner -C o plan\n"
         "    provisioner -C o show x"),
        ("See (provisioner plan --json)", "See (provisioner -C o plan --json)"),
        ("apply, or provisioner mail send, sends it.", "apply, or provisioner -C o mail send, sends it."),
        ("was taken away, by provisioner unlock", "was taken away, by provisioner unlock"),
        ("make one: provisioner init FOLDER", "make one: provisioner init FOLDER"),
        ("To finish: provisioner -C o apply", "To finish: provisioner -C o apply"),
        ("Check provisioner.yaml: provisioner planned", "Check provisioner.yaml: provisioner planned"),
    ],
)  # fmt: skip
def test_a_command_to_copy_gets_the_folder(text: str, located: str) -> None:
    assert in_folder(text, "o") == located
    assert in_folder(text, "") == text


def test_every_command_that_is_printed_keeps_the_folder_given(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder has a space, so it must be quoted. Each printed command is copied and run as it is."""
    shell.folder = shell.folder.rename(tmp_path / "the firm")
    monkeypatch.chdir(tmp_path)

    def there(*words: str) -> Said:
        code = run(["-C", "the firm", *words])
        return Said(code, *capsys.readouterr())

    command = "provisioner -C 'the firm'"
    assert there("plan", "--out", "a plan").err == f"Saved. To do exactly this: {command} apply 'a plan'\n"
    shell.edit(BAKERY, "Claire", "Clara")
    assert f"Make a new plan: {command} plan --out" in there("apply", "a plan").err
    assert there("apply", "--auto-approve").code == 0
    assert f"To see the runs: {command} history" in there("history", "9").err
    assert f"To send another one: {command} mail send {CLAIRE} --again" in there("mail", "send", CLAIRE).err
    shell.edit(BAKERY, CLAIRE, "new@boulangerie-martin.fr")
    text, data = there("plan").out, there("plan", "--json").out
    assert not re.search(r"provisioner (?!-C)[a-z-]+ ", " ".join(text.split()))
    assert "the firm" not in data


def test_init_names_the_folder_that_it_made(shell: Shell, tmp_path: Path) -> None:
    made = tmp_path / "new firm"
    answer = f"A workspace in {made}: edit provisioner.yaml and clients/, then run"
    assert shell("init", made).out == f"{answer} provisioner -C '{made}' plan.\n"
    assert f"Go on with: provisioner -C '{made}' validate" in shell("init", made).err


def commands_of(group: click.Group) -> Iterator[Command]:
    for command in group.commands.values():
        if isinstance(command, Group):
            yield from commands_of(command)
        else:
            assert isinstance(command, Command)
            yield command


@pytest.mark.parametrize("command", list(commands_of(cli)), ids=lambda command: command.target)
def test_a_command_gives_its_function_exactly_the_arguments_it_takes(command: Command) -> None:
    given = {"folder", "console", *command.fixed}
    given |= {param.name for param in command.params if param.expose_value and param.name}
    taken = dict(inspect.signature(command.function()).parameters)
    if taken.pop("files", None):
        given -= FORMATS.keys()
    required = {name for name, parameter in taken.items() if parameter.default is parameter.empty}
    assert required <= given <= set(taken) - {"clock"}


@pytest.mark.parametrize("command", list(commands_of(cli)), ids=lambda command: command.target)
def test_a_required_option_that_is_missing_gets_no_value(command: Command) -> None:
    """Click 8.3 gives a required flag pair the value False if it is missing, without an error."""
    for option in command.params:
        if option.required and isinstance(option, click.Option):
            assert not option.is_flag
            with pytest.raises(click.MissingParameter):
                option.handle_parse_result(click.Context(command), {}, [])


@pytest.mark.parametrize(
    "name", ["close", "reopen", "validate", "client-creates", "user-changes", "requests-app", "activate"]
)
def test_simulate_says_that_it_changes_the_portal(shell: Shell, name: str) -> None:
    shown = " ".join(shell("simulate", name, "--help").out.split())
    assert "This changes the portal at once, without asking." in shown


@pytest.mark.parametrize("url", ["https://portal.example.fr", "scim+https://portal.example.fr/scim/v2"])
def test_simulate_refuses_other_portals_without_opening_them(shell: Shell, url: str) -> None:
    shell.edit("provisioner.yaml", "sqlite:///portal.db", url)
    for words in (("close", CLAIRE), ("activate", "https://example.com/x")):
        said = shell("simulate", *words)
        assert said.code == 64
        assert "simulate works on an embedded portal alone." in said.err


def test_simulate_makes_no_portal(shell: Shell) -> None:
    before = shell.print_of()
    for words in (["close", CLAIRE], ["client-creates", CLAIRE, "eve@example.fr", "Eve", "Noël"],
                  ["user-changes", CLAIRE, "--phone", ""], ["requests-app", CLAIRE, "Scan"],
                  ["activate", "https://example.com/x"]):  # fmt: skip
        said = shell("simulate", *words)
        assert said.code == 1
        assert f"There is no portal {shell.folder / 'portal.db'}." in said.err
        assert "provisioner apply" in said.err
        assert shell.print_of() == before


def test_simulate_user_changes_needs_a_change(applied: Shell) -> None:
    before = applied.tables()
    said = applied("simulate", "user-changes", CLAIRE)
    assert said.code == 64
    assert "--email" in said.err
    assert applied.tables() == before


# --- completion in the shell ---


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("provisioner pl", {"plan"}),
        ("provisioner mail s", {"status", "send", "settle"}),
        ("provisioner schema ", {"client", "provisioner", "plan"}),
        ("provisioner plan --ou", {"--out"}),
        ("provisioner plan -o", set()),
        ("provisioner history -", {"--most", "--json", "--no-color", "--verbose", "--log", "-h", "--help"}),
    ],
)
def test_the_bash_script_completes_commands_and_options(
    tmp_path: Path, line: str, completed: set[str]
) -> None:
    """The script is read by bash, and its function is called as bash calls it after the tab key."""
    program = tmp_path / "provisioner"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m provisioner "$@"\n')
    program.chmod(0o755)
    called = """
        eval "$(provisioner completion bash)"
        read -ra COMP_WORDS <<< "$LINE"
        [[ $LINE == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _provisioner_completion provisioner
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = process(called, tmp_path, LINE=line, PATH=path)
    assert done.stderr == ""
    assert set(done.stdout.split()) == completed


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: Shell, tmp_path: Path, shell_name: str) -> None:
    said = shell("completion", shell_name, folder=tmp_path)
    assert said.code == 0
    assert f"_PROVISIONER_COMPLETE={shell_name}_complete" in said.out
    assert not re.search(r"%\(\w+\)s", said.out)


def test_no_line_of_a_help_is_wider_than_a_terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    paths = [[], *([name] for name in cli.commands)]
    for name, group in cli.commands.items():
        paths += [[name, verb] for verb in getattr(group, "commands", ())]
    assert ["mail", "settle"] in paths
    for words in paths:
        for line in shell(*words, "--help").out.splitlines():
            assert len(line) <= 80, line


# --- saved plans ---


def test_a_saved_plan_is_shown_and_applied_as_it_is(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    assert shell("plan", "-out", file).code == 0
    assert file.stat().st_mode & 0o077 == 0
    assert shell("show", file).out == shell("plan").out
    assert json.loads(shell("show", file, "--json").out) == json.loads(file.read_text())
    assert shell("apply", file).code == 0
    assert shell("plan", "--detailed-exitcode").code == 0


@pytest.mark.parametrize("content", ["", "{}", "[1]", "not json", '{"format_version": "99"}', "\x00" * 50])
def test_a_file_that_is_no_plan_is_refused_with_a_sentence(
    shell: Shell, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)
    for verb in ("show", "apply"):
        said = shell(verb, file)
        assert said.code in (1, 5, 64)
        assert said.err.startswith(f"Error: {file}: This ")


# --- targets ---


def test_target_and_exclude_narrow_the_plan(shell: Shell) -> None:
    bakery = shell("plan", "--json", "--target", "company:004217")
    changes = [change["address"] for change in json.loads(bakery.out)["resource_changes"]]
    assert changes[0] == "company:004217"
    assert all(change.endswith("boulangerie-martin.fr") for change in changes[1:])
    rest = shell("plan", "--json", "--exclude", "company:004217")
    others = [change["address"] for change in json.loads(rest.out)["resource_changes"]]
    assert not set(changes) & set(others)
    assert shell("apply", "--auto-approve", "-target", "company:004217").code == 0
    assert shell("apply", "--auto-approve").code == 0
    # an account keeps its name in plans after its user changed the e-mail
    assert shell("simulate", "user-changes", CLAIRE, "--email", "claire@example.fr").code == 0
    moved = shell("plan", "--target", "user:claire@example.fr")
    assert moved.code == 64
    assert f'Did you mean "{CLAIRE}"?' in moved.err


def test_an_unknown_address_is_refused_as_target_or_exclude(shell: Shell) -> None:
    """An unknown address is refused, because a mistyped target would give a plan without changes."""
    said = shell(
        "plan", "--target", "company:4217", "--target", f"user:{CLAIRE}", "--exclude", f"user:x{CLAIRE}"
    )
    assert (said.code, said.out) == (64, "")
    assert 'The plan knows no company:4217. Did you mean "004217"?' in said.err
    assert f'The plan knows no user:x{CLAIRE}. Did you mean "{CLAIRE}"?' in said.err
    assert shell("apply", "--auto-approve", "--target", "user:unknown@example.fr").code == 64
    assert not (shell.folder / "portal.db").exists()


# --- missing and damaged files ---


def test_a_folder_without_a_workspace_is_refused_with_a_remedy(shell: Shell, tmp_path: Path) -> None:
    said = shell("plan", folder=tmp_path)
    assert said.code == 1
    assert "provisioner.yaml" in said.err
    assert "provisioner init" in said.err


def test_a_missing_folder_is_an_error(shell: Shell, tmp_path: Path) -> None:
    assert shell("plan", folder=tmp_path / "nowhere").code == 1


@pytest.mark.parametrize("content", [b"just text\n" * 100, b"", b"SQLite format 3\0garbage" * 50])
def test_a_file_that_is_no_portal_is_refused_and_left_unchanged(shell: Shell, content: bytes) -> None:
    path = shell.folder / "portal.db"
    path.write_bytes(content)
    said = shell("plan")
    if content:
        assert said.code == 1
        assert "not a portal" in said.err
        assert shell("apply", "--auto-approve").code == 1
        assert path.read_bytes() == content
    else:
        assert said.code == 0  # an empty file is a portal not yet made


def test_a_ledger_in_place_of_the_portal_is_refused(applied: Shell) -> None:
    shutil.copy(applied.folder / "ledger.db", applied.folder / "portal.db")
    said = applied("plan")
    assert said.code == 1
    assert "not a portal" in said.err


def test_a_folder_in_place_of_the_portal_is_refused(shell: Shell) -> None:
    (shell.folder / "portal.db").mkdir()
    assert shell("plan").code == 1
    assert shell("apply", "--auto-approve").code == 1


def test_a_ledger_that_cannot_be_written_stops_before_the_portal(shell: Shell) -> None:
    shell.edit("provisioner.yaml", "sqlite:///ledger.db", "sqlite:////proc/ledger.db")
    said = shell("apply", "--auto-approve")
    assert said.code == 1
    assert "ledger" in said.err
    assert not (shell.folder / "portal.db").exists()


def as_unprivileged_user(folder: Path, *words: str) -> int:
    """Run a command in another process, as a user without rights to this folder; returns its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 70
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            code = run(["-C", str(folder), *words])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def test_a_folder_that_cannot_be_written_can_be_planned_and_not_applied(applied: Shell) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        folder = Path(open_to_all) / "firm"
        shutil.copytree(applied.folder, folder)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        here = Shell(folder, applied._capsys)
        before = here.print_of()
        assert as_unprivileged_user(folder, "plan", "--detailed-exitcode") == 0
        assert as_unprivileged_user(folder, "mail", "send") == 1
        assert as_unprivileged_user(folder, "portal", "configure") == 1
        assert here.print_of() == before
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)


def test_an_outbox_that_cannot_be_written_leaves_letters_owed(shell: Shell) -> None:
    box = shell.folder / "outbox"
    box.mkdir()
    (box / "tmp").symlink_to("/proc/self/fdinfo")
    said = shell("apply", "--auto-approve")
    assert said.code == 7
    assert "outbox" in said.err
    assert "15 owed" in shell("mail", "status").out
    (box / "tmp").unlink()
    assert shell("apply", "--auto-approve").code == 0
    assert shell.letters() == 15


def test_an_unreachable_mail_server_leaves_letters_owed(shell: Shell) -> None:
    with smtp_server() as server:
        pass
    shell.edit("provisioner.yaml", '"maildir:outbox"', f'"smtp://127.0.0.1:{server.port}"\n  tls: none')
    said = shell("apply", "--auto-approve")
    assert said.code == 7
    assert "cannot be used" in said.err
    assert "provisioner mail send" in said.err
    with smtp_server() as server:
        text = (shell.folder / "provisioner.yaml").read_text()
        port = text.partition("127.0.0.1:")[2].partition('"')[0]
        (shell.folder / "provisioner.yaml").write_text(text.replace(port, str(server.port)))
        assert shell("mail", "send").code == 0
    assert len(server.accepted) == 15


BROKEN_TRANSPORTS = {
    "driver": ('"smpt://mail"', "No driver is installed for smpt:// URLs."),
    "password": (
        '"smtp://127.0.0.1:25"\n  username: acces\n  password_env: NO_SUCH_PASSWORD',
        "The environment variable NO_SUCH_PASSWORD, which holds the mail password, is not set.",
    ),
    "certificates": (
        '"smtp://127.0.0.1:25"\n  ca_file: nowhere.pem',
        "The certificates of nowhere.pem cannot be read",
    ),
}


@pytest.mark.parametrize("broken", BROKEN_TRANSPORTS)
def test_a_broken_transport_stops_before_the_first_write(shell: Shell, tmp_path: Path, broken: str) -> None:
    transport, sentence = BROKEN_TRANSPORTS[broken]
    shell.edit("provisioner.yaml", '"maildir:outbox"', transport)
    plan = tmp_path / "plan.json"
    planned = shell("plan", "--out", plan)
    assert planned.code == 0
    assert (sentence in " ".join(planned.out.split())) == (broken == "driver")
    for words in (["--auto-approve"], [plan]):
        said = shell("apply", *words)
        assert said.code == 1
        assert sentence in said.err
        assert not (shell.folder / "portal.db").exists()
        assert not (shell.folder / "ledger.db").exists()


@pytest.mark.parametrize("broken", BROKEN_TRANSPORTS)
def test_a_broken_transport_stops_only_a_run_with_letters(applied: Shell, broken: str) -> None:
    """A run without new letters writes to the portal, unless the ledger owes letters from an earlier run."""
    transport, sentence = BROKEN_TRANSPORTS[broken]
    applied.edit("provisioner.yaml", '"maildir:outbox"', transport)
    applied.edit(BAKERY, "Claire", "Clara")
    assert applied("apply", "--auto-approve").code == 0
    applied.edit(BAKERY, "Clara", "Claire")
    with closing(sqlite3.connect(applied.folder / "ledger.db")) as connection, connection:
        connection.execute("UPDATE outbox SET state = 'owed' WHERE rowid = 1")
    before = applied.tables()
    said = applied("apply", "--auto-approve")
    assert said.code == 1
    assert sentence in said.err
    after = applied.tables()
    assert {name: rows for name, rows in after.items() if name.startswith("portal.db")} == {
        name: rows for name, rows in before.items() if name.startswith("portal.db")
    }


def test_an_unknown_template_variable_stops_before_the_first_write(shell: Shell) -> None:
    folder = shell.folder / "templates" / "mail"
    folder.mkdir(parents=True)
    (folder / "welcome.fr.txt.j2").write_text("Bonjour\n{{ prenom }}\n")
    said = shell("apply", "--auto-approve")
    assert said.code == 1
    assert "welcome.fr.txt.j2:2" in said.err
    assert "first_name" in said.err
    assert not (shell.folder / "portal.db").exists()


def test_a_template_of_the_workspace_replaces_the_shipped_one(shell: Shell) -> None:
    folder = shell.folder / "templates" / "mail"
    folder.mkdir(parents=True)
    (folder / "welcome.fr.subject.j2").write_text("Bienvenue chez {{ firm }}\n")
    assert "Subject: Bienvenue chez Cabinet Durand" in shell("mail", "preview", CLAIRE).out


# --- letters ---


def test_a_preview_writes_the_mail_and_its_html_without_a_real_link(shell: Shell, tmp_path: Path) -> None:
    said = shell("mail", "preview", CLAIRE, "--out", tmp_path / "preview")
    assert said.code == 0
    assert sorted(path.suffix for path in (tmp_path / "preview").iterdir()) == [".eml", ".html"]
    shell("plan", "--out", tmp_path / "plan.json")
    assert shell("mail", "preview", tmp_path / "plan.json").out.count("Subject: ") == 15


def test_a_second_welcome_is_refused_unless_asked_for(applied: Shell) -> None:
    said = applied("mail", "send", CLAIRE)
    assert said.code == 64
    assert "--again" in said.err
    assert applied("mail", "send", CLAIRE, "--again").code == 0
    assert applied.letters() == 16


def test_a_welcome_can_be_sent_to_someone_created_without(applied: Shell) -> None:
    ines = "ines.caron@boulangerie-martin.fr"
    assert applied("mail", "send", ines).code == 0
    assert applied("mail", "send", ines).code == 64
    assert applied.letters() == 16


def test_no_welcome_to_an_account_that_cannot_log_in(applied: Shell) -> None:
    assert applied("mail", "send", "karim.haddad@les-petits-pas.fr").code == 64
    assert applied("mail", "send", "unknown@example.fr").code == 64


def test_a_letter_in_unknown_state_waits_for_settle(shell: Shell) -> None:
    with smtp_server({"body": CUT}) as server:
        server_url = f'"smtp://127.0.0.1:{server.port}"\n  tls: none\n  connections: 1'
        shell.edit("provisioner.yaml", '"maildir:outbox"', server_url)
        assert shell("apply", "--auto-approve", "--target", "company:004512").code == 7
    unknown = [row["user"] for row in json.loads(shell("mail", "status", "--json").out)]
    assert len(unknown) == 2
    said = shell("plan", "--target", "company:004512").out
    for user in unknown:
        assert f"settle {user} --sent or --resend" in " ".join(said.split())
    assert shell("mail", "send", unknown[0]).code == 64
    before = shell.tables()
    for words in ([], ["--sent", "--resend"]):
        refused = shell("mail", "settle", unknown[0], *words)
        assert refused.code == 64
        assert "--sent or --resend" in refused.err
    assert shell.tables() == before
    assert shell("mail", "settle", unknown[0], "--sent").code == 0
    assert shell("mail", "settle", unknown[0], "--sent").code == 64
    assert shell("mail", "settle", unknown[1], "--resend").code == 0
    shell.edit("provisioner.yaml", server_url, '"maildir:outbox"')
    assert shell("mail", "send").code == 0
    assert "2 sent" in shell("mail", "status").out
    assert shell.letters() == 1


def test_activation_links_appear_in_letters_alone(shell: Shell, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    said = [
        shell("plan", "--out", plan),
        shell("apply", plan),
        shell("history", "1"),
        shell("mail", "status"),
    ]
    box = shell.folder / "outbox" / "new"
    letters = [message_from_bytes(file.read_bytes(), policy=policy.default) for file in box.iterdir()]
    bodies = [letter.get_body(("plain",)) for letter in letters if isinstance(letter, EmailMessage)]
    links = [re.findall(r"https://portail\S+", body.get_content()) for body in bodies if body is not None]
    tokens = [link[0].rpartition("/")[2].encode() for link in links]
    assert len(set(tokens)) == 15
    written = [path for path in shell.folder.rglob("*") if path.is_file() and path.parent != box]
    everything = b"".join(path.read_bytes() for path in [*written, plan])
    everything += "".join(one.out + one.err for one in said).encode()
    for token in tokens:
        assert token not in everything
        assert token.rpartition(b".")[2] not in everything


# --- other writers ---


def test_a_client_administrator_s_user_is_reported_and_left_alone(applied: Shell) -> None:
    applied("simulate", "client-creates", CLAIRE, "eve@example.fr", "Eve", "Noël")
    said = applied("plan", "--detailed-exitcode")
    assert said.code == 0
    assert "eve@example.fr" in said.out


def test_a_phone_changed_by_its_user_is_reported_and_kept(applied: Shell) -> None:
    applied("simulate", "user-changes", CLAIRE, "--phone", "01 99 00 88 88")
    said = applied("plan", "--detailed-exitcode")
    assert said.code == 0
    assert "changed their own" in said.out


def test_an_export_plans_to_nothing_and_adopts(applied: Shell, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    assert applied("export", out).code == 0
    said = applied("plan", "--detailed-exitcode", folder=out)
    assert said.code == 0
    assert "No changes" in said.out
    assert applied("apply", "--auto-approve", folder=out).code == 0
    assert not (out / "outbox").exists()


# --- streams ---


def test_stdout_has_the_json_alone(shell: Shell) -> None:
    for words in (["plan", "--json"], ["validate", "--json"]):
        json.loads(shell(*words).out)
    shell("apply", "--auto-approve")
    for words in (["history", "--json"], ["history", "1", "--json"], ["mail", "status", "--json"]):
        json.loads(shell(*words).out)


def test_history_names_each_run_and_each_step(applied: Shell) -> None:
    assert "32 steps done, 15 e-mails sent" in applied("history").out
    assert f"user:{CLAIRE}: applied" in applied("history", "1").out
    assert applied("history", "7").code == 64
    for number in ("0", "9" * 20):
        assert applied("history", number).code == applied("history", "--most", number).code == 64


@pytest.mark.parametrize("held", [False, True])
def test_history_says_that_a_killed_run_was_interrupted(applied: Shell, held: bool) -> None:
    with closing(sqlite3.connect(applied.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE run SET ended = NULL, outcome = ''")
    database = SqliteDatabase(applied.folder / "ledger.db")
    with closing(Ledger(database, utc_now)) as opened, opened.lock.hold("x") if held else nullcontext():
        last = applied("history").out.splitlines()[-1].strip()
    assert last == ("interrupted, or still at work" if held else "interrupted")


def test_an_address_is_shown_in_utf_8_whatever_the_locale(applied: Shell) -> None:
    done = process("provisioner plan --target company:é", applied.folder, LC_ALL="C", PYTHONUTF8="0")
    assert done.returncode == 64
    assert "The plan knows no company:\\xe9." in done.stderr


def test_version_and_help_load_nothing_heavy() -> None:
    program = (
        "import sys; from provisioner.cli import cli, run; code = run([sys.argv[1]]); "
        "heavy = {'pydantic', 'jinja2', 'aiosmtplib', 'yaml', 'sqlite3', 'asyncio', 'rich', 'phonenumbers'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    for flag in ("--version", "--help"):
        done = subprocess.run(
            [sys.executable, "-c", program, flag], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr.strip()) == (0, "[]")


def test_ctrl_c_finishes_the_current_step_and_names_the_command(shell: Shell) -> None:
    with smtp_server() as server:
        shell.edit("provisioner.yaml", '"maildir:outbox"', f'"smtp://127.0.0.1:{server.port}"\n  tls: none')
        running = subprocess.Popen(
            [sys.executable, "-m", "provisioner", "-C", str(shell.folder), "apply", "--auto-approve"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("[1/"):
                running.send_signal(signal.SIGINT)
                break
        out, err = running.communicate(timeout=30)
        assert running.returncode in (0, 8)
        if running.returncode == 8:
            assert f"To finish: provisioner -C {shell.folder} apply --auto-approve" in err
            assert "Stopped" in out
        assert shell("apply", "--auto-approve").code == 0
    assert len(server.accepted) == 15
