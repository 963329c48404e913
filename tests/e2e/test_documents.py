"""Every document is true: its commands are run, and its links, examples and names are looked up."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import pytest
import yaml
from documents import (
    SHELL,
    Block,
    anchors,
    blocks,
    ci_scripts,
    commands,
    documents,
    inline_code,
    is_shown,
    links,
    prose,
    stories,
)
from samples_support import ONBOARDING, ROOT, copy_samples, environment_of

from provisioner.cli import cli
from provisioner.manifest.models import MODELS, Kind
from provisioner.manifest.validate import read_model
from provisioner.yaml_source.document import read_document

DOCUMENTS = documents()
STORIES = [
    pytest.param(
        story,
        id=f"{document}-{number}",
        marks=[pytest.mark.external] * any("scim2-server" in block.text for block in story),
    )
    for document in DOCUMENTS
    for number, story in enumerate(stories(document), 1)
]
MAX_README_LINES = 160
INSTALLS = re.compile(r"^(?:\.venv/bin/)?(?:pip install|pytest)\b|^python3 -m venv\b")
"""The lines that install packages or run the tests: the tests have installed and started these already."""


class Terminal:
    """A shell in a copy of the samples. Exported variables stay from command to command."""

    def __init__(self, folder: Path) -> None:
        self.folder = copy_samples(folder)
        (folder / "schemas").symlink_to(ROOT / "schemas", target_is_directory=True)
        self.ports: dict[str, int] = {}
        """The free port that stands for a port of the document."""
        self._state = folder / ".state"
        self._state.write_text("")

    def __call__(self, command: str) -> tuple[int, str]:
        """Run a command. Return its exit code, and its output on stdout followed by that on stderr."""
        script = (
            f". {self._state}\n{self.with_ports(command)}\ncode=$?\nexport -p > {self._state}\nexit $code"
        )
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=environment_of(self.folder),
            stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=100, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    @contextmanager
    def serving(self, command: str, port: str) -> Iterator[None]:
        """Run a server on a free port instead of ``port`` until the end of the block."""
        self.ports[port] = free_port()
        command = self.with_ports(command if "--port" in command else f"{command} --port {port}")
        log = self.folder / "server.txt"
        with log.open("wb") as output:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.folder, env=environment_of(self.folder),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            wait_until_it_listens(self.ports[port], server, log)
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)

    def change(self, file: str, text: str) -> None:
        """Replace, in a YAML file with one level of sections, the keys that ``text`` has in its sections."""
        path = self.folder / file
        changed = path.read_text(encoding="utf-8")
        heading = ""
        for line in self.with_ports(text).splitlines():
            if not line.startswith(" "):
                heading = line
                continue
            key = line.partition(":")[0]
            changed, count = re.subn(
                rf"(^{re.escape(heading)}\n(?: .*\n)*?){re.escape(key)}:.*",
                rf"\g<1>{line}",
                changed,
                flags=re.MULTILINE,
            )
            assert count == 1, f"{file} has no {heading} {key}"
        path.write_text(changed, encoding="utf-8")

    def with_ports(self, text: str) -> str:
        for port, free in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        return text


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_until_it_listens(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        else:
            return


@pytest.mark.parametrize("story", STORIES)
def test_the_commands_of_a_document_have_the_results_that_it_shows(
    story: list[Block], tmp_path: Path
) -> None:
    terminal = Terminal(tmp_path)
    with ExitStack() as servers:
        for block in story:
            if (file := block.mark("changes (.+)")) is not None:
                terminal.change(file, block.text)
                continue
            port = block.mark(r"runs until it is stopped, on port (\d+)")
            *before, last = commands(block)
            for command in [*before, last]:
                text = "".join(line for line in command.text.splitlines(True) if not INSTALLS.match(line))
                if port is not None and command is last:
                    servers.enter_context(terminal.serving(text, port))
                    continue
                code, output = terminal(text)
                expected = int(block.mark(r"ends with (\d+)") or 0) if command is last else 0
                assert code == expected, f"{block.place}: {text}\n{output}"
                assert is_shown(command.shown, output), f"{block.place}: {text}\n{output}"


def test_shown_output_is_compared_in_order() -> None:
    assert is_shown(("one", "…", "three"), "one\ntwo\nthree\n")
    assert is_shown(("…", "two", "…"), "one\ntwo\nthree\n")
    assert is_shown((), "one\n")
    assert not is_shown(("two", "…"), "one\ntwo\nthree\n")
    assert not is_shown(("…", "three", "…", "two"), "one\ntwo\nthree\n")


def test_only_blocks_with_a_reason_are_not_run() -> None:
    reasons = {
        block.place: block.marks for document in DOCUMENTS for block in blocks(document) if not block.is_run
    }
    for place, marks in reasons.items():
        assert any(len(mark) > len("not run: because") for mark in marks), place
    assert 0 < len(reasons) < 15


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_code_block_has_a_known_language(document: str) -> None:
    for block in blocks(document):
        assert block.language in {*SHELL, "yaml", "text", "python", "toml"}, block.place


def ci_example(block: Block) -> list[str]:
    """Return the commands of an example of a CI file; none for any other example."""
    return list(ci_scripts(yaml.load(block.text, yaml.CSafeLoader)))  # noqa: TID251  # not a manifest


CI_EXAMPLES = [block for document in DOCUMENTS for block in blocks(document, "yaml") if ci_example(block)]


@pytest.mark.parametrize("block", CI_EXAMPLES, ids=[block.place for block in CI_EXAMPLES])
def test_the_jobs_of_a_ci_example_end_without_an_error(block: Block, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    service = "export GITHUB_OUTPUT=output.txt GITHUB_STEP_SUMMARY=summary.md"
    for script in ci_example(block):
        code, output = terminal(f"cd {ONBOARDING}; {service}; set -e\n{script}")
        assert code == 0, f"{script}\n{output}"
    assert (terminal.folder / ONBOARDING / "plan.md").exists()


def test_both_ci_services_have_an_example() -> None:
    assert [len(ci_example(block)) for block in CI_EXAMPLES] == [3, 1]


# --- links, names and prose ---


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_and_to_a_heading(document: str) -> None:
    for target in links(document):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / document).parent.joinpath(file).resolve() if file else ROOT / document
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.relative_to(ROOT).as_posix()), target


def test_every_document_is_reached_from_the_readme() -> None:
    reached, found = {"README.md"}, ["README.md"]
    while found:
        document = found.pop()
        for target in links(document):
            path = (ROOT / document).parent.joinpath(target.partition("#")[0]).resolve()
            name = os.path.relpath(path, ROOT)
            if name in DOCUMENTS and name not in reached:
                reached.add(name)
                found.append(name)
    assert sorted(reached) == DOCUMENTS


def test_the_readme_has_at_most_160_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def options_of(command: click.Command) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def known_words(words: list[str]) -> None:
    """Assert that the program has this command, and each of the long options in it."""
    command: click.Command = cli
    known = options_of(cli)
    rest = iter(words)
    for word in rest:
        if word == "-C":
            next(rest, None)
        elif isinstance(command, click.Group) and not word.startswith("-"):
            if word in ("…", "VERB"):
                return
            assert word in command.commands, word
            command = command.commands[word]
            known |= options_of(command)
        elif word.startswith("--") and word != "--help":
            assert word.partition("=")[0] in known, word


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_in_the_text_exists_with_its_options(document: str) -> None:
    for code in inline_code(document):
        # the name of the program is often left out
        verb = rf"(?={'|'.join(cli.commands)})\b[^)]+--"
        for words in re.findall(rf"(?:^|\$\()(?:provisioner |{verb})[^)]+", code):
            known_words(shlex.split(words.removeprefix("$(").removeprefix("provisioner "), comments=True))


def test_unknown_commands_and_options_are_noticed() -> None:
    known_words(["-C", "FOLDER", "plan", "--out", "FILE"])
    known_words(["mail", "settle", "USER", "--sent"])
    for words in (["prepare"], ["plan", "--outt", "FILE"], ["mail", "plan"]):
        with pytest.raises(AssertionError):
            known_words(words)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_are_plain_english(document: str) -> None:
    words = "whoever|whomever|nobody|shall|anew|of ours|by now|told|he|him|his|himself|she|her|herself"
    assert re.findall(rf"\b(?:{words})\b", prose(document), re.IGNORECASE) == []


# --- examples in YAML ---

COMPLETE: dict[str, dict[str, object]] = {
    "client": {"company": {"number": "004217", "name": "Boulangerie Martin SARL"}},
    "provisioner": {
        "version": "1",
        "firm": {"name": "Cabinet Durand"},
        "mail": {"from": "acces@durand-associes.fr"},
    },
}


def is_manifest_or_settings(block: Block) -> Kind | None:
    """Return the kind of file that an example is a part of; None for the file of another program."""
    document, _ = read_document(block.place, block.text)
    if document is None or not isinstance(document.data, dict):
        return None
    kinds: tuple[Kind, ...] = ("client", "provisioner")
    for kind in kinds:
        names = {field.alias or name for name, field in MODELS[kind].model_fields.items()}
        if document.data.keys() <= names:
            return kind
    return None


EXAMPLES = [
    (block, kind)
    for document in DOCUMENTS
    for block in blocks(document, "yaml")
    if (kind := is_manifest_or_settings(block))
]


def with_commented_keys(text: str) -> Iterator[str]:
    """Yield the example once for each key in a comment, with this key instead of the present one."""
    for line in text.splitlines(keepends=True):
        if found := re.match(r"( +)# ((\w+):.*\n)", line):
            indent, entry, key = found.groups()
            without = re.sub(rf"^{indent}{key}:.*\n", "", text, flags=re.MULTILINE)
            yield without.replace(line, f"{indent}{entry}")


def test_a_key_in_a_comment_is_checked_too() -> None:
    assert list(with_commented_keys("mail:\n  a: 1\n  # a: 2\n")) == ["mail:\n  a: 2\n"]


@pytest.mark.parametrize(("block", "kind"), EXAMPLES, ids=[block.place for block, _ in EXAMPLES])
def test_an_example_of_a_manifest_or_of_settings_is_valid(block: Block, kind: Kind) -> None:
    for text in [block.text, *with_commented_keys(block.text)]:
        document, problems = read_document(block.place, text)
        assert document is not None, text
        assert not problems, text
        whole, _ = read_document(block.place, json.dumps({**COMPLETE[kind], **document.data}))
        assert whole is not None
        assert read_model(MODELS[kind], whole).problems == (), text
