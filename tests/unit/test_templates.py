"""Templates of letters: what they can use, what is refused, and their bounds (row 24)."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from jinja2.filters import FILTERS
from shell_support import ROOT, Shell

from provisioner import limits
from provisioner.errors import MailError
from provisioner.limits import MAX_RENDER_SECONDS, MAX_RENDERED_CHARACTERS
from provisioner.mail import template_worker
from provisioner.mail.template_sandbox import Templates
from provisioner.mail.template_worker import WorkerTemplates

KNOWN = {"first_name": "Claire", "company": "Boulangerie Martin SARL", "link": ""}
HOSTILE = "<i>&\"'"


def rendered(source: str, context: Mapping[str, str] = KNOWN, name: str = "t", **others: str) -> str:
    return Templates({name: source, **others}).render(name, context)


def in_html(source: str, part: str = "") -> str:
    """Render an HTML template with a hostile name. The template can use ``part`` as ``part.txt.j2``."""
    return Templates({"t.html.j2": source, "part.txt.j2": part}).render("t.html.j2", {"name": HOSTILE})


def refused(source: str, **others: str) -> str:
    with pytest.raises(MailError) as caught:
        Templates({"t": source, **others}).render("t", KNOWN)
    return caught.value.sentence


# --- what a template may use ---


def test_a_template_has_values_conditions_filters_blocks_and_other_templates() -> None:
    layout = "<{% block top %}top{% endblock %}|{% block body %}{% endblock %}>{% include 'foot' %}"
    child = (
        "{% extends 'layout' %}{# a comment #}"
        "{% block body %}{% if link %}link{% elif company == 'x' or not first_name %}x{% else %}"
        "{{ first_name|upper|e }} {{ nick|default('–') }} {{ 'a' if nick is defined else 'b' }}"
        "{% endif %}{% raw %}{{ 7*7 }}{% endraw %}{% endblock %}"
    )
    assert rendered(child, layout=layout, foot="foot") == "<top|CLAIRE – b{{ 7*7 }}>foot"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for word in company.split(' ') %}{{ loop.index }} {{ word }},{% endfor %}",
         "1 Boulangerie,2 Martin,3 SARL,"),
        ("{% for n in range(3) %}{{ n }}{% else %}none{% endfor %}", "012"),
        ("{% set words = company|lower|wordcount %}{{ words + 1 }}", "4"),
        ("{% macro greet(name) %}Bonjour {{ name }}{% endmacro %}{{ greet(first_name) }}", "Bonjour Claire"),
        ("{{ ['b', 'a']|sort|join(', ') }} {{ company|replace('SARL', 'SA')|truncate(40) }}",
         "a, b Boulangerie Martin SA"),
        ("{{ {'a': 1}|dictsort|first|join('=') }} {{ [1, 2]|sum }} {{ '%05.1f'|format(2) }}", "a=1 3 002.0"),
        ("{% set ns = namespace(n=0) %}{% for c in 'ab' %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
         "2"),
        ("{% filter upper %}{{ first_name }}{% endfilter %}", "CLAIRE"),
    ],
)  # fmt: skip
def test_a_template_may_loop_compute_and_use_built_in_filters(source: str, text: str) -> None:
    assert rendered(source) == text


@pytest.mark.parametrize(
    "value", ["{{ 7*7 }}", "{% for %}", "{# gone #}", "{{ link }}", "{{", "%}", "{% include 't' %}", "%s {0}"]
)
def test_a_value_is_never_compiled(value: str) -> None:
    source = "{% if first_name %}{{ first_name }}{% endif %}{{ first_name|default('x') }}"
    assert rendered(source, {"first_name": value}) == value * 2


def test_a_syntax_error_is_reported_with_the_line_of_its_template() -> None:
    assert "t:2 is not a valid template" in refused("\n{% for a %}")
    assert "part:3 is not a valid template" in refused("{% include 'part' %}", part="\n\n{{ a. }}")
    # also in a branch that is not taken
    assert "part:1" in refused("{% if link %}{% include 'part' %}{% endif %}", part="{{ a. }}")


def test_a_run_time_error_is_reported_with_the_line_of_its_template() -> None:
    assert "t:2 cannot be rendered" in refused("\n{{ 1 // 0 }}")
    assert "part:3 uses something that does not exist" in refused(
        "{% include 'part' %}", part="\n\n{{ nick }}"
    )


def test_a_template_that_includes_itself_without_end_is_refused() -> None:
    assert "cannot be rendered" in refused("{% include 't' %}")
    assert "cannot be rendered" in refused("{% extends 't' %}")


# --- what stays blocked ---

PAYLOADS = [
    "{{ ''.__class__.__mro__ }}", "{{ first_name.__class__ }}", "{{ first_name.__init__.__globals__ }}",
    "{{ first_name['__class__'] }}", "{{ self.__init__ }}", "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__ }}", "{{ cycler('a') }}", "{{ lipsum() }}", "{{ lipsum.__globals__ }}",
    "{{ joiner.__init__ }}", "{{ joiner() }}", "{{ namespace() }}", "{{ range(10) }}", "{{ range }}",
    "{{ dict(a=1) }}", "{{ config }}", "{{ request }}", "{{ ''|attr('__class__') }}", "{{ super() }}",
    "{{ first_name|map('attr', 'x')|list }}", "{{ first_name|map(attribute='__class__')|join }}",
    "{{ first_name|safe }}", "{{ [1, 2]|random }}",
    "{{ ['x']|map('safe')|join }}", "{{ company|pprint }}", "{{ first_name|tojson }}",
    "{{ first_name|urlize }}", "{{ {'a': 'b'}|xmlattr }}", "{{ first_name|indent }}",
    "{{ first_name.translate({67: '<'}) }}", "{{ (first_name|e)['translate']({67: '<'}) }}",
    "{% autoescape false %}{{ company }}{% endautoescape %}",
    "{% macro m() %}{% autoescape false %}{% endautoescape %}{% endmacro %}",
    "{{ '{0.__class__}'.format(first_name) }}", "{{ '{a.__class__}'.format_map({'a': first_name}) }}",
    "{{ first_name.upper }}", "{{ first_name|map('upper') }}", "{{ [company] }}", "{{ 'x'|batch(3) }}",
    "{% set x = [] %}{{ x.append(1) }}", "{% set x = {} %}{{ x.update(a=1) }}", "{{ none }}",
    "{% include '/etc/passwd' %}", "{% include '../../../etc/passwd' %}", "{% import 'os' as os %}",
    "{% debug %}", "{% do company %}", "{% for %}", "{{ first_name", "{{ x }}", "{{ range(10**9) }}",
    "{% for a in range(10**9) %}{% endfor %}", "{{ ()|first }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
]  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("name", ["t.txt.j2", "t.html.j2"])
def test_a_payload_is_refused_with_a_sentence(payload: str, name: str) -> None:
    with pytest.raises(MailError, match=r"The mail template t\.\w+\.j2"):
        rendered(payload, name=name)


ARGUMENTS = [
    "", "(name)", "(name, name)", "(3)", "(3, name)", "(3, true, name)", "(9, true, name)", "('x', name)",
    "(name, 'x')", "('upper')", "('string')", "({120: name})",
]  # fmt: skip
SUBJECTS = ["name", "(name|e)", "[name, name|e]", "{name: name}", "text"]
TEXT = "{% set text %}a\nx{{ name }}%s{}{a}{% endset %}"
"""Template code that sets ``text`` to escaped text with line ends and with placeholders of both kinds."""


def markup_of(expression: str) -> bool:
    """True if a template with the expression is rendered and writes a name as markup."""
    for source in (
        f"{{{{ {expression} }}}}",
        f"{{{{ {expression}|join }}}}",
        f"{{{{ {expression}|list|join }}}}",
    ):
        with suppress(MailError):
            if {"<", ">", '"', "'"} & set(in_html(TEXT + source)):
                return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FILTERS))
def test_no_filter_makes_markup_of_a_name(name: str) -> None:
    """No built-in filter of the installed Jinja2 release makes markup of a name."""
    found = [
        expression
        for subject in SUBJECTS
        for arguments in ARGUMENTS
        if markup_of(expression := f"{subject}|{name}{arguments}")
    ]
    assert found == []


@pytest.mark.slow
def test_no_method_of_escaped_text_makes_markup_of_a_name() -> None:
    methods = [name for name, _ in inspect.getmembers(str, callable) if not name.startswith("_")]
    arguments = ["()", *filter(None, ARGUMENTS), "([name])", "({'a': name})", "(a=name)"]
    found = [
        expression
        for method in [*methods, "unescape", "striptags", "escape"]
        for argument in arguments
        if markup_of(expression := f"text.{method}{argument}")
    ]
    assert found == []
    assert not markup_of("text % (name, name)")
    assert not markup_of("text ~ name")
    assert not markup_of("text + name")


@pytest.mark.parametrize(
    "source",
    [
        "{% include 'part.txt.j2' %}",
        "{% from 'part.txt.j2' import m %}{{ m(name) }}",
        "{% import 'part.txt.j2' as part %}{{ part.m(name) }}",
        "{% extends 'part.txt.j2' %}",
        "{% set made %}{% include 'part.txt.j2' %}{% endset %}{{ made }}",
    ],
)
def test_a_text_template_inside_an_html_template_escapes_names(source: str) -> None:
    part = "{% macro m(value) %}{{ value }}{% endmacro %}"
    if "import" not in source:
        part += "{{ name }}{% block b %}{{ name }}{% endblock %}"
    text = in_html(source, part)
    assert "&lt;i&gt;" in text
    assert "<" not in text


def test_a_text_template_escapes_nothing() -> None:
    assert rendered("{{ company }}", {"company": HOSTILE}, "t.txt.j2") == HOSTILE


def test_two_processes_render_the_same_text() -> None:
    source = "{% for key, value in {'b': 1, 'a': company}.items() %}{{ key }}{{ value }}{% endfor %}"
    with worker(source) as first, worker(source) as second:
        assert first.render("t", KNOWN) == second.render("t", KNOWN) == rendered(source)


# --- the worker process ---


@contextmanager
def worker(source: str, **others: str) -> Iterator[WorkerTemplates]:
    with closing(WorkerTemplates({"t": source, "well": "{{ company }}", **others})) as templates:
        yield templates


def test_a_worker_renders_like_this_process_and_reports_the_same_errors() -> None:
    sources = {"t": "é {{ company }} \U0001f600", "bad": "\n{{ nick }}", "syntax": "{% if %}"}
    here = Templates(sources)
    with closing(WorkerTemplates(sources)) as there:
        assert there.render("t", KNOWN) == here.render("t", KNOWN)
        for name in ("bad", "syntax", "missing"):
            problems = []
            for templates in (here, there):
                with pytest.raises(MailError) as caught:
                    templates.render(name, KNOWN)
                problems.append((caught.value.sentence, caught.value.remedy))
            assert problems[0] == problems[1]


BOMBS = {
    "a text of 10 GB": "{{ 'x' * 10**10 }}",
    "a list of 10 GB": "{% set x = [0] * 10**10 %}{{ x|length }}",
    "a format of 1 GB": "{{ '%999999999d' % 1 }}",
    "a line of 1 GB": "{{ 'x'.ljust(999999999) }}",
    "a centred line of 1 GB": "{{ 'x'|center(10**9) }}",
    "a text doubled 40 times": "{% set ns = namespace(x='x') %}{% for n in range(40) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "output without end": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "a power": "{{ 9 ** 999999999 }}",
    "conditions inside conditions": "{% if x %}" * 20_000 + "{% endif %}" * 20_000,
    "parentheses": "{{ " + "(" * 100_000 + "x" + ")" * 100_000 + " }}",
    "negations": "{{ " + "not " * 60_000 + "x }}",
    "minus signs": "{{ " + "-" * 200_000 + "1 }}",
    "brackets": "{{ " + "[" * 200_000,
    "digits": "{{ " + "9" * 250_000 + " }}",
    "tags that open": "{{" * 130_000,
    "includes": "{% include 'u' %}" * 100,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_template_bomb_is_an_error_and_the_next_letter_is_rendered(
    bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template that needs too much time or memory is an error, and the next letter is rendered."""
    monkeypatch.setattr(limits, "MAX_RENDER_SECONDS", 2.0)
    layers = {chr(n): f"{{% include '{chr(n + 1)}' %}}" * 100 for n in range(ord("u"), ord("z"))}
    with worker(BOMBS[bomb], **layers, z="x") as templates:
        began = time.monotonic()
        with pytest.raises(MailError, match="The mail template t") as caught:
            templates.render("t", {**KNOWN, "x": "y"})
        assert time.monotonic() - began < 2.0 + 8.0
        assert len(caught.value.sentence) < 2_000
        assert templates.render("well", KNOWN) == KNOWN["company"]


@pytest.mark.slow
def test_a_template_of_many_tags_is_rendered_or_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick machine renders a template of many tags in time. A slow machine refuses it in time."""
    monkeypatch.setattr(limits, "MAX_RENDER_SECONDS", 2.0)
    with worker("{% if x %}{% endif %}" * 12_000) as templates:
        began = time.monotonic()
        with suppress(MailError):
            assert templates.render("t", {**KNOWN, "x": "y"}) == ""
        assert time.monotonic() - began < 2.0 + 8.0
        assert templates.render("well", KNOWN) == KNOWN["company"]


def test_the_worker_has_bounded_memory() -> None:
    """A text that fits into memory is rendered; a text as large as the limit is refused."""
    size = template_worker.MEMORY_BYTES
    with worker("{{ ('x' * (size|int))|length }}") as templates:
        assert templates.render("t", {"size": str(size // 8)}) == str(size // 8)
        with pytest.raises(MailError, match="makes too much"):
            templates.render("t", {"size": str(size)})
        assert templates.render("well", KNOWN) == KNOWN["company"]


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_rendering_is_stopped_after_max_render_seconds(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rendering is stopped after MAX_RENDER_SECONDS. The worker is suspended for less and for more time."""
    assert MAX_RENDER_SECONDS == 5.0
    monkeypatch.setattr(limits, "MAX_RENDER_SECONDS", 1.5)
    with worker("x") as templates:
        templates.render("well", KNOWN)
        (process,) = children()
        os.kill(process, signal.SIGSTOP)
        threading.Timer(seconds, lambda: suppressed_kill(process, signal.SIGCONT)).start()
        if seconds < 1.5:
            assert templates.render("well", KNOWN) == KNOWN["company"]
        else:
            with pytest.raises(MailError, match="makes too much"):
                templates.render("well", KNOWN)
            assert children() == []


def test_the_parent_refuses_a_part_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{{ 'x' * (size|int) }}"
    with worker(source) as templates:
        assert len(templates.render("t", {"size": str(MAX_RENDERED_CHARACTERS)})) == MAX_RENDERED_CHARACTERS
        with pytest.raises(MailError, match="makes too much"):
            templates.render("t", {"size": str(MAX_RENDERED_CHARACTERS + 1)})
        # the worker, which started before, still has the larger bound
        monkeypatch.setattr(limits, "MAX_RENDERED_CHARACTERS", 10)
        assert templates.render("t", {"size": "10"}) == "x" * 10
        for size in (11, 300_000):
            with pytest.raises(MailError, match="makes too much"):
                templates.render("t", {"size": str(size)})


def children() -> list[int]:
    """Return the ids of the worker processes that this process started."""
    listed = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="], capture_output=True, text=True, check=False
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "template_worker" in line]


def suppressed_kill(process: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


def test_a_closed_renderer_leaves_no_process() -> None:
    with worker("x") as templates:
        assert templates.render("t", KNOWN) == "x"
        assert len(children()) == 1
    assert children() == []


def test_a_worker_that_was_killed_is_replaced() -> None:
    with worker("x") as templates:
        templates.render("t", KNOWN)
        os.kill(children()[0], signal.SIGKILL)
        with pytest.raises(MailError):
            templates.render("t", KNOWN)
        assert templates.render("t", KNOWN) == "x"


ORPHAN = """
import sys, threading
from provisioner.mail.template_worker import WorkerTemplates
templates = WorkerTemplates({"t": "x", "loop": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}"})
templates.render("t", {})
print(templates._worker.pid, flush=True)
templates.render(sys.argv[1], {}) if sys.argv[1] == "loop" else sys.stdin.read()
"""


@pytest.mark.parametrize("busy", ["idle", pytest.param("loop", marks=pytest.mark.slow)])
def test_a_killed_parent_leaves_no_worker(busy: str) -> None:
    """An idle worker ends when its standard input ends. A busy worker ends at its limit of processor time."""
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    deadline = time.monotonic() + (2 if busy == "idle" else 60)
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """True if the process runs; False for a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


# --- with the whole program ---


def own_template(shell: Shell, text: str, name: str = "welcome.fr.txt.j2") -> None:
    folder = shell.folder / "templates" / "mail"
    folder.mkdir(parents=True)
    (folder / name).write_text(text, encoding="utf-8")


def test_a_workspace_s_own_templates_are_rendered_in_a_worker(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[WorkerTemplates] = []
    start = WorkerTemplates._start

    def counted(templates: WorkerTemplates) -> subprocess.Popen[bytes]:
        started.append(templates)
        return start(templates)

    monkeypatch.setattr(WorkerTemplates, "_start", counted)
    own_template(shell, "{% for n in range(3) %}{{ first_name }} {% endfor %}{{ link }}")
    assert shell("apply", "--auto-approve").code == 0
    texts = [file.read_text() for file in (shell.folder / "outbox" / "new").iterdir()]
    assert any("Nadia Nadia Nadia" in text for text in texts)
    assert len(started) == 1
    assert children() == []


def test_the_program_s_own_templates_start_no_worker(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerTemplates, "_start", lambda templates: pytest.fail("a worker was started"))
    assert shell("apply", "--auto-approve").code == 0


def test_a_broken_template_stops_a_run_before_its_first_write(shell: Shell) -> None:
    own_template(shell, "\n{% for a in company %}{{ nick }}{% endfor %}")
    said = shell("apply", "--auto-approve")
    assert said.code == 1
    assert "welcome.fr.txt.j2:2 uses something that does not exist" in said.err
    assert not (shell.folder / "portal.db").exists()
    assert not (shell.folder / "ledger.db").exists()


def test_a_module_of_the_workspace_is_not_imported_by_the_worker(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_template(shell, "{{ first_name }}")
    for module in ("json", "jinja2", "struct"):
        (shell.folder / f"{module}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(shell.folder)
    assert shell("apply", "--auto-approve").code == 0
