"""Hypothesis strategies for whole values: companies, users, states that obey the rules, and plans."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from provisioner.codes import CODES
from provisioner.diagnostics import Diagnostic, Severity, Source
from provisioner.model import (
    Address,
    Company,
    Notice,
    NoticeKind,
    State,
    Status,
    User,
)
from provisioner.planning.plan import Adoption, Change, Limits, Plan, PlannedLetter, PlannedStep
from provisioner.planning.planner import PlanOptions, Resolution, make_plan
from provisioner.planning.steps import PHASES, steps_between
from provisioner.testing.people import TERMS, TODAY
from provisioner.testing.strategies import days, plain_names, states

HOSTILE = (
    "`code`",
    "``` fence",
    "<script>alert(1)</script>",
    "</details><img src=x onerror=y>",
    "<!-- comment -->",
    "a | b",
    "@everyone",
    "#123 GH-123 !123",
    "[link](https://example.com)",
    "![image](https://example.com/x.png)",
    "https://example.com www.example.com",
    "**bold** _emphasis_ ~~struck~~ :tada: $x$",
    "::error::stop",
    "##[error]stop ##vso[task.complete]",
    "two\nlines\r\nand a\ttab",
    "\x1b[31mred\x1b[0m \x9b1m \x07",
    "\u202eturned round\u202c \u200bnothing \ufeff",
    "/close",
    "- item",
    "# heading",
    "> quote",
    "deadbeef deadbeefcafe 0123456789abcdef",
    "&amp; &lt; &#64;someone",
    "\\`escaped\\`",
    "漢字 かな",
    "é́́ combining",
    "  spaces  ",
    "",
)
"""Texts with a special meaning in a terminal, a build log, Markdown or HTML."""

texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(["Claire", "Le Goff", "O'Brien-Lefèvre", "SCI des Tilleuls"]),
)
"""Any text that a portal may have as a name."""


@st.composite
def changes(draw: st.DrawFn, names: st.SearchStrategy[str] = plain_names) -> tuple[State, State]:
    """Generate a current and a desired state. The desired state may violate R2.

    The change from the first to the second state deletes no user. It sets no existing user back to the status
    ``to_validate``.
    """
    current = draw(states(names))
    desired = draw(states(names))
    kept = {key: _later(current.users.get(key), user) for key, user in desired.users.items()}
    return current, State({**current.companies, **desired.companies}, {**current.users, **kept})


def _later(before: User | None, after: User) -> User:
    if before is None:
        return replace(after, id="", version=0) if after.is_open else replace(after, status=Status.ACTIVE)
    waits = after.status is Status.TO_VALIDATE
    status = before.status if waits or not before.is_open else after.status
    if not before.is_open and after.status is Status.ACTIVE:
        status = Status.ACTIVE
    return replace(after, status=status, id=before.id, version=before.version)


languages = st.sampled_from(["fr", "en"])
sources = st.none() | st.builds(Source, texts, st.integers(1, 10**6), st.integers(1, 10**4))
addresses = st.builds(Address, st.sampled_from(["company", "user"]), texts)
notices = st.builds(Notice, st.sampled_from(NoticeKind), addresses, texts, st.none() | days)
_own_problems = st.builds(
    Diagnostic, st.sampled_from(Severity), st.sampled_from(sorted(CODES)), texts, texts, sources, texts
)
_codes = texts.filter(lambda text: bool(text) and text not in CODES)
problems = _own_problems | st.builds(
    lambda problem, code, summary: replace(problem, code=code, driver_summary=summary),
    _own_problems,
    _codes,
    texts.filter(bool),
)
"""Problems with codes of the program, and problems with the codes and summaries of a driver."""
adoptions = st.builds(
    Adoption,
    addresses.filter(lambda address: address.kind == "user"),
    texts,
    st.none() | texts,
    st.none() | texts,
    st.booleans(),
    st.booleans(),
)
limits = st.builds(Limits, st.integers(0, 10**6), st.integers(0, 100))


@st.composite
def plans(draw: st.DrawFn, names: st.SearchStrategy[str] = texts) -> Plan:
    """Generate a plan with any combination of contents. Not every generated plan can be applied."""
    current, desired = draw(changes(names))
    made = [
        Change(address, current.get(address), after, draw(names), draw(sources))
        for address, after in _resources(desired)
        if current.get(address) != after
    ]
    steps = [
        (phase, step)
        for change in made
        for phase, step in steps_between(change.address, change.before, change.after)
    ]
    letters = [
        PlannedLetter(change.address, change.after.email, draw(languages | names), {"firm": draw(names)})
        for change in made
        if isinstance(change.after, User) and draw(st.booleans())
    ]
    return Plan(
        portal=draw(names),
        changes=tuple(made),
        steps=tuple(
            PlannedStep(step, phase, wave)
            for wave, (phase, step) in enumerate(sorted(steps, key=lambda step: PHASES.index(step[0])))
        ),
        letters=tuple(letters),
        adoptions=tuple(draw(st.lists(adoptions, max_size=2))),
        limits=draw(limits),
        notices=tuple(draw(st.lists(notices, max_size=4))),
        diagnostics=tuple(draw(st.lists(problems, max_size=3))),
        companies={number: company.name for number, company in desired.companies.items()},
    )


def _resources(state: State) -> list[tuple[Address, Company | User]]:
    return [
        *((Address("company", number), company) for number, company in state.companies.items()),
        *((Address("user", key), user) for key, user in state.users.items()),
    ]


def planned(current: State, desired: State) -> Plan:
    """Return the plan from ``current`` to ``desired`` under the terms of the sample firm."""
    options = PlanOptions("Cabinet Durand", TODAY)
    return make_plan(Resolution(current, desired), "portal", TERMS, options)
