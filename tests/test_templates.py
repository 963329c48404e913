"""Templates of letters: what they may say is little, and what they make of it is bounded (row 24)."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from provisioner.errors import MailError
from provisioner.limits import (
    MAX_TEMPLATE_BYTES,
    MAX_TEMPLATE_DEPTH,
    MAX_TEMPLATE_NODES,
    MAX_TEMPLATE_PARTS,
)
from provisioner.mail import template_sandbox
from provisioner.mail.message import Templates

KNOWN = {"first_name": "Claire", "company": "Boulangerie Martin SARL", "link": ""}


def written(source: str, **others: str) -> str:
    return Templates({"t": source, **others}).render("t", KNOWN)


def refused(source: str, **others: str) -> str:
    with pytest.raises(MailError) as caught:
        written(source, **others)
    return caught.value.sentence


# --- what a template may say ---


def test_a_template_has_values_conditions_filters_blocks_and_other_templates() -> None:
    layout = "<{% block top %}top{% endblock %}|{% block body %}{% endblock %}>{% include 'foot' %}"
    child = (
        "{% extends 'layout' %}{# a comment #}"
        "{% block body %}{% if link %}link{% elif company == 'x' or not first_name %}x{% else %}"
        "{{ first_name|upper|e }} {{ nick|default('–') }} {{ 'a' if nick is defined else 'b' }}"
        "{% endif %}{% raw %}{{ 7*7 }}{% endraw %}{% endblock %}"
    )
    assert written(child, layout=layout, foot="foot") == "<top|CLAIRE – b{{ 7*7 }}>foot"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("{% for a in company %}{% endfor %}", "a loop"),
        ("{% for a in company %}" * 9 + "{% endfor %}" * 9, "a loop"),
        ("{% for a in range(10**9) %}{% endfor %}", "a loop"),
        ("{% for a in [company] recursive %}{{ loop([company]) }}{% endfor %}", "a loop"),
        ("{{ ''.__class__ }}", "an attribute"),
        ("{{ first_name['__class__'] }}", "an index"),
        ("{{ cycler('a') }}", "a call"),
        ("{{ ''.join(company) }}", "a call"),
        ("{% block a %}{{ super() }}{% endblock %}", "a call"),
        ("{{ super }}", "super"),
        ("{{ self }}", "self"),
        ("{% block a %}{{ self.a() }}{% endblock %}", "a call"),
        ("{% block a %}{% block b %}{% endblock %}{% endblock %}", "a block cannot stand inside another"),
        ("{% set a = company %}", "a variable of its own"),
        ("{% set a %}{{ company }}{% endset %}", "a variable of its own"),
        ("{% with a = company %}{% endwith %}", "with"),
        ("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}", "a macro"),
        ("{% call m() %}{% endcall %}", "a macro"),
        ("{% filter upper %}a{% endfilter %}", "filterblock"),
        ("{% import 't' as t %}", "an import"),
        ("{% from 't' import m %}", "an import"),
        ("{% include company %}", "named by a text"),
        ("{% extends company %}", "named by a text"),
        ("{% include ['t', 't'] %}", "named by a text"),
        ("{{ company * 10**9 }}", "an operator that computes"),
        ("{{ '%999999999d' % 1 }}", "an operator that computes"),
        ("{{ 9 ** 9 ** 9 }}", "an operator that computes"),
        ("{{ -first_name }}", "an operator that computes"),
        ("{{ company ~ company ~ company }}", "the operator ~"),
        ("{{ [company, company] }}", "a list"),
        ("{{ {'a': company} }}", "a mapping"),
        ("{{ company[1:2] }}", "an index"),
        ("{{ company|e(*company) }}", "a star"),
        ("{{ company|e(**company) }}", "a star"),
        ("{% autoescape false %}{{ company }}{% endautoescape %}", "autoescape"),
        ("{{ company|attr('x') }}", "attr"),
        ("{{ company|list }}", "list"),
        ("{{ company|wordwrap(1) }}", "wordwrap"),
        ("{{ company|indent(10**9) }}", "an operator that computes"),
        ("{{ company|center(999999999) }}", "center"),
        ("{{ company|replace('', company) }}", "replace"),
        ("{{ company|safe }}", "safe"),
        ("{{ company is callable }}", "callable"),
        ("{% debug %}", "debug"),
        ("{% do company %}", "do"),
        ("{% include '/etc/passwd' %}", "/etc/passwd"),
        ("{% include '../../../etc/passwd' %}", "passwd"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_words(source: str, what: str) -> None:
    """Row 24."""
    assert what in refused(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ first_name.__class__ }}",
        "{{ first_name['__class__'] }}",
        "{{ first_name|attr('__class__') }}",
        "{{ first_name.upper() }}",
        "{{ (first_name.format)('x') }}",
        "{{ [].append(company) }}",
        "{{ {}.update(a=company) }}",
    ],
)
def test_a_hole_in_the_first_fence_leads_to_a_second(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever syntax is let through by mistake, it reaches nothing inside a value and calls nothing."""
    monkeypatch.setattr(template_sandbox, "_fault", lambda node, *, in_block: "")
    assert refused(source)


def test_a_fault_is_told_with_the_line_of_the_template_that_has_it() -> None:
    assert "t:2 is not a valid template" in refused("\n{% set a = 1 %}\n{% for a in company %}{% endfor %}")
    assert "part:3 is not a valid template" in refused("{% include 'part' %}", part="\n\n{{ a.b }}")
    # also where it would never be drawn in
    assert "part:1" in refused("{% if link %}{% include 'part' %}{% endif %}", part="{{ a.b }}")


@pytest.mark.parametrize(
    "value", ["{{ 7*7 }}", "{% for %}", "{# gone #}", "{{ link }}", "{{", "%}", "{% include 't' %}", "%s {0}"]
)
def test_a_value_is_never_taken_for_a_template(value: str) -> None:
    """Row 24."""
    source = "{% if first_name %}{{ first_name }}{% endif %}{{ first_name|default('x') }}"
    assert Templates({"t": source}).render("t", {"first_name": value}) == value * 2


# --- bounds, each at n and at n + 1 ---


def test_a_template_may_have_so_many_bytes_and_no_more() -> None:
    room = "é" * (MAX_TEMPLATE_BYTES // 2)
    assert written(room) == room
    assert f"longer than {MAX_TEMPLATE_BYTES:,} bytes" in refused(room + "x")
    assert "part:1" in refused("{% include 'part' %}", part=room + "x")


def test_a_template_may_have_so_many_tags_and_values_and_no_more() -> None:
    # an if without a body is two: itself and its condition
    room = "{% if link %}{% endif %}" * (MAX_TEMPLATE_NODES // 2)
    assert written(room) == ""
    assert "more than 10,000 tags" in refused(room.replace("link", "not link", 1))


@pytest.mark.parametrize(
    ("opening", "inmost", "closing", "uses"),
    [
        ("{% if company %}", "", "{% endif %}", 1),
        ("{% if company %}", "x", "{% endif %}", 2),
        ("not ", "company", "", 2),
        ("company if link else ", "company", "", 2),
        ("company|default(", "company", ")", 2),
    ],
)
def test_a_template_may_nest_so_deep_and_no_deeper(
    opening: str, inmost: str, closing: str, uses: int
) -> None:
    for depth in (MAX_TEMPLATE_DEPTH, MAX_TEMPLATE_DEPTH + 1):
        levels = depth - uses
        source = opening * levels + inmost + closing * levels
        if "{%" not in source:
            source = "{{ " + source + " }}"
        if depth == MAX_TEMPLATE_DEPTH:
            written(source)
        else:
            assert "more than 60 tags and expressions inside one another" in refused(source)


def test_a_template_may_draw_in_so_many_others_and_no_more() -> None:
    others = {"a": "{% include 'b' %}{% include 'b' %}", "b": "b"}
    room = "{% include 'b' %}" * (MAX_TEMPLATE_PARTS - 3)
    assert written(room + "{% include 'a' %}", **others) == "b" * (MAX_TEMPLATE_PARTS - 1)
    assert "more than 200 others" in refused(room + "{% include 'b' %}{% include 'a' %}", **others)


@pytest.mark.parametrize(
    "templates",
    [
        {"t": "{% include 't' %}"},
        {"t": "{% extends 't' %}"},
        {"t": "{% extends 'b' %}", "b": "{% block x %}{% include 't' %}{% endblock %}"},
        {"t": "{% include '0' %}", "60": ""} | {f"{n}": f"{{% include '{n + 1}' %}}" * 2 for n in range(60)},
    ],
)  # fmt: skip
def test_templates_that_draw_in_themselves_or_one_another_without_end_are_refused(
    templates: dict[str, str],
) -> None:
    """Row 24."""
    with pytest.raises(MailError, match="more than 200 others, or itself"):
        Templates(templates).render("t", KNOWN)


# --- bombs, in bounded memory ---

BOMBS = {
    "tags that open": ("{{", ""), "statements that open": ("{%", ""), "comments that open": ("{#", ""),
    "raw that opens": ("{% raw %}", ""), "blanks": (" \n", "{%-"), "values": ("{{x}}", ""),
    "conditions without end": ("{% if x %}", ""), "conditions": ("{% if x %}{% endif %}", ""),
    "alternatives": ("{% elif x %}", "{% endif %}"), "parentheses": ("(", "x}}"), "brackets": ("[", "}}"),
    "negations": ("not ", "x}}"), "minus signs": ("-", "1}}"), "ands": ("x and ", "x}}"),
    "comparisons": ("x<", "x}}"), "filters": ("x|e|", "x}}"),
    "attributes": ("x.", "x}}"), "choices": ("x if x else ", "x}}"),
    "a quote that never closes": ("a", ""), "backslashes": ("\\", ""), "digits": ("9", "}}"),
    "a hexadecimal number": ("f", "}}"), "underscores": ("1_", "}}"), "one name": ("a", "}}"),
    "blocks": ("{% block a %}", ""), "layouts": ("{% extends 'a' %}", ""), "colons": (":", "}}"),
    "powers": ("9**", "9}}"), "formats": ("'%9999999d'%", "9}}"),
}  # fmt: skip
"""A unit that is repeated to the last byte, and an end; what it needs before it is put there."""

_BEFORE = {
    "alternatives": "{% if x %}", "a quote that never closes": "{{ '", "backslashes": "{{ '",
    "a hexadecimal number": "{{ 0x",
}  # fmt: skip

_CHILD = """
import json, resource, sys
from provisioner.errors import MailError
from provisioner.mail.message import Templates
memory = 512 * 1024 * 1024
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
said = {}
for name, source in json.load(sys.stdin).items():
    try:
        said[name] = f"{len(Templates({'a': source}).render('a', {'x': 'y' * 100}))} characters"
    except MailError as problem:
        said[name] = problem.sentence
json.dump(said, sys.stdout)
"""


def _bomb(name: str) -> str:
    unit, end = BOMBS[name]
    before = _BEFORE.get(name, "" if unit.startswith(("{", " ")) else "{{ ")
    return before + unit * ((MAX_TEMPLATE_BYTES - len(before + end)) // len(unit)) + end


def test_template_bombs_end_in_a_sentence_in_bounded_memory() -> None:
    """Row 24."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=json.dumps({name: _bomb(name) for name in BOMBS}),
        capture_output=True, text=True, encoding="utf-8", timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert set(said) == set(BOMBS)
    assert all(sentence.startswith("The mail template a") for sentence in said.values()), said


def test_the_largest_templates_that_are_accepted_are_rendered_in_bounded_time() -> None:
    """Row 24; the child has ten seconds of processor time, and takes half of one."""
    part = "{{ company }}" + "{% if link %}{% endif %}" * (MAX_TEMPLATE_NODES // 2 - 2)
    templates = {"t": "{% include 'p' %}" * MAX_TEMPLATE_PARTS, "p": part}
    child = (
        "import json, sys; from provisioner.mail.message import Templates; "
        "print(len(Templates(json.load(sys.stdin)).render('t', {'company': 'y' * 100, 'link': ''})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", child],
        input=json.dumps(templates), capture_output=True, text=True, timeout=100, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (10, 10)),
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.stdout == f"{100 * MAX_TEMPLATE_PARTS}\n", done.stderr[-2000:]
