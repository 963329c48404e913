"""Change one thing of a module at a time, and check that a test fails: ``python -m tests.mutate MODULE``.

Each *mutant* is the module with one small change: an inverted comparison, a branch that is always taken, or a
removed statement. The tests of each mutant run in a separate process until one fails. The tests that execute
the changed line run first, the quickest one first. If they pass, all tests run, because code whose result is
cached is not executed in every test. A mutant *survives* if no test fails. It is printed for review: either a
test is missing, or the change has no effect (``<=`` instead of ``<`` for values that are never equal).
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent

MODULES: dict[str, tuple[str, ...]] = {
    "model": (
        "unit/test_fields",
        "unit/test_resolve",
        "contract/test_portal_rules",
        "crash/test_clocks",
        "e2e/test_cli",
    ),
    "rules": ("unit/test_rules", "contract/test_portal_rules", "unit/test_rules_in_plans", "unit/test_order"),
    "planning.diff": ("unit/test_diff", "unit/test_rules_in_plans"),
    "planning.steps": ("unit/test_steps", "contract/test_portal_rules", "unit/test_order"),
    "planning.order": ("unit/test_order", "unit/test_rules_in_plans"),
    "planning.guard": ("unit/test_guard", "e2e/test_mass_change"),
    "yaml_source.events": ("unit/test_document", "generative/test_yaml_texts", "unit/test_implicit_typing"),
    "yaml_source.document": ("unit/test_document", "unit/test_check", "unit/test_schema"),
}
"""The modules to mutate, and the test files that should detect the mutants of each module."""

LONGEST = 30.0
"""The timeout of a mutant in seconds. A mutant that exceeds the timeout counts as detected."""

_TURNED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Add, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip


class Mutant(NamedTuple):
    """One change: its line, the code before and after it, and the syntax tree of the changed module."""

    line: int
    was: str
    is_: str
    tree: ast.Module


def mutants_of(source: str) -> Iterator[Mutant]:
    """Yield each change that is tried."""
    tree = ast.parse(source)
    types = {id(part) for node in ast.walk(tree) for kind in _types_of(node) for part in ast.walk(kind)}
    for node in ast.walk(tree):
        if id(node) in types:
            continue
        for body in ("body", "orelse"):
            statements = getattr(node, body, None)
            if isinstance(statements, list):
                for at, statement in enumerate(statements):
                    yield from _with(tree, statements, at, statement, _statements(statement, at, node))
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.expr) and id(value) not in types:
                yield from _with_field(tree, node, field, value)
            elif isinstance(value, list) and field not in ("body", "orelse", "decorator_list", "bases"):
                for at, item in enumerate(value):
                    if isinstance(item, ast.expr):
                        yield from _with(tree, value, at, item, _expressions(item, node, field))
                    elif isinstance(item, ast.keyword):
                        yield from _with(tree, value, at, item, [None])


def _types_of(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a node that are not changed: its type annotations and its decorators."""
    yield from getattr(node, "decorator_list", ())
    for field in ("annotation", "returns"):
        if isinstance(kind := getattr(node, field, None), ast.AST):
            yield kind


def _with_field(tree: ast.Module, node: ast.AST, field: str, value: ast.expr) -> Iterator[Mutant]:
    for changed in _expressions(value, node, field):
        setattr(node, field, changed)
        yield Mutant(value.lineno, ast.unparse(value), ast.unparse(changed), copy.deepcopy(tree))
        setattr(node, field, value)


def _with(
    tree: ast.Module, items: list[Any], at: int, item: Any, changes: Sequence[ast.AST | None]
) -> Iterator[Mutant]:
    for changed in changes:
        items[at : at + 1] = [] if changed is None else [changed]
        shown = "" if changed is None else ast.unparse(changed)
        yield Mutant(item.lineno, ast.unparse(item).partition("\n")[0], shown, copy.deepcopy(tree))
        items[at : at + (changed is not None)] = [item]


def _statements(statement: ast.stmt, at: int, parent: ast.AST) -> list[ast.AST | None]:
    is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    if is_docstring:
        return []
    changed: ast.stmt | None = None
    if isinstance(statement, ast.Expr | ast.Raise | ast.AugAssign):
        changed = ast.Pass()
    elif isinstance(statement, ast.Return) and not _is_none(statement.value):
        changed = ast.Return(ast.Constant(None))
    elif isinstance(statement, ast.Assign) and not _is_none(statement.value) and _within_code(parent):
        changed = ast.Assign(statement.targets, ast.Constant(None))
    elif isinstance(statement, ast.Continue):
        changed = ast.Break()
    elif isinstance(statement, ast.Break):
        changed = ast.Continue()
    return [] if changed is None else [ast.copy_location(ast.fix_missing_locations(changed), statement)]


def _within_code(parent: ast.AST) -> bool:
    return not isinstance(parent, ast.Module | ast.ClassDef)


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)


def _expressions(value: ast.expr, parent: ast.AST, field: str) -> list[ast.expr]:
    """Return the expressions that replace ``value``, one for each mutant."""
    changes: list[ast.expr] = []
    if (field in ("test", "ifs") and not isinstance(parent, ast.Assert)) or (
        isinstance(parent, ast.BoolOp) and not isinstance(value, ast.BoolOp)
    ):
        changes += [ast.Constant(value=False)] if isinstance(parent, ast.While) else _both()
    match value:
        case ast.Compare(ops=[op]) if type(op) in _TURNED and not changes:
            changes.append(ast.Compare(value.left, [_turned(op)], value.comparators))
        case ast.Compare(ops=[op]) if isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            changes.append(ast.Compare(value.left, [_turned(op)], value.comparators))
        case ast.BoolOp():
            changes.append(ast.BoolOp(_turned(value.op), value.values))
        case ast.BinOp(op=op) if type(op) in _TURNED and not _joins_types(value):
            changes.append(ast.BinOp(value.left, _turned(op), value.right))
        case ast.UnaryOp(op=ast.Not()) if not changes:
            changes.append(value.operand)
        case ast.Constant(value=bool(truth)):
            changes.append(ast.Constant(not truth))
        case ast.Constant(value=int(number)):
            changes.append(ast.Constant(number + 1))
        case ast.Constant(value=str(text)) if not isinstance(parent, ast.Expr | ast.JoinedStr):
            changes.append(ast.Constant(f"X{text}"))
    for changed in changes:
        ast.fix_missing_locations(ast.copy_location(changed, value))
    return changes


def _both() -> list[ast.expr]:
    return [ast.Constant(value=True), ast.Constant(value=False)]


def _turned(op: ast.AST) -> Any:
    return _TURNED[type(op)]()


def _joins_types(value: ast.BinOp) -> bool:
    """True if ``|`` joins types, as in ``Company | None``. All names in such a union are capitalized."""
    names = [node for node in ast.walk(value) if isinstance(node, ast.Name)]
    return isinstance(value.op, ast.BitOr) and all(name.id[:1].isupper() for name in names)


class _Mutated(MetaPathFinder, Loader):
    """An import hook that loads one module from a changed syntax tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        return spec_from_loader(name, self, origin=str(self._path)) if name == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._path)
        exec(compile(self._tree, str(self._path), "exec"), module.__dict__)


class _Chosen:
    """A pytest plugin that runs only the chosen tests, in the order in which they were chosen."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._places = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        places = self._places
        items[:] = sorted((i for i in items if i.nodeid in places), key=lambda i: places[i.nodeid])


def _pytest(arguments: Sequence[str], plugin: object, quiet: bool) -> int:
    import pytest

    if quiet:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
    ours = (
        "-q",
        "-x",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--hypothesis-profile=first",
    )
    return int(pytest.main([*ours, *arguments], plugins=[plugin]))


def _forked(work: Callable[[], int]) -> int:
    """Run ``work`` in a child process with its own process group; returns the process id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        code = work()
    except BaseException:  # noqa: BLE001  # a child must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)


class _Covered(NamedTuple):
    """The tests that execute each line, and the duration of each test."""

    tests: dict[int, set[str]]
    seconds: dict[str, float]

    def place(self, test: str) -> tuple[float, str]:
        """Return a sort key that puts the quickest test first."""
        return self.seconds.get(test, 0), test


def _covered(path: Path, arguments: Sequence[str], folder: Path) -> _Covered:
    """Run the tests once on the unchanged module and record their coverage. Exits if a test fails."""
    data, times = folder / "coverage", folder / "times"
    took: dict[str, float] = {}

    class Times:
        def pytest_runtest_logreport(self, report: Any) -> None:
            took[report.nodeid] = took.get(report.nodeid, 0) + report.duration

        def pytest_sessionfinish(self) -> None:
            times.write_text(json.dumps(took))

    os.environ["COVERAGE_FILE"] = str(data)
    cover = ("-p", "pytest_cov.plugin", f"--cov={path.parent}", "--cov-context=test", "--cov-report=")
    _, status = os.waitpid(_forked(lambda: _pytest((*cover, *arguments), Times(), False)), 0)
    if status:
        sys.exit("The tests fail before anything is changed.")
    from coverage import CoverageData

    durations: dict[str, float] = json.loads(times.read_text())
    read = CoverageData(str(data))
    read.read()
    lines = read.contexts_by_lineno(str(path))
    return _Covered(
        {
            line: {context.partition("|")[0] for context in contexts if context}
            for line, contexts in lines.items()
        },
        durations,
    )


def _lines_of(tree: ast.Module) -> dict[int, set[int]]:
    """Return all lines of each line's statement, because coverage may count only one line of a statement."""
    lines: dict[int, set[int]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if isinstance(body, list) and body else node.end_lineno or node.lineno
            for line in range(node.lineno, end + 1):
                lines[line] = set(range(node.lineno, end + 1))
    return lines


def mutate(module: str, *, jobs: int, every: int, only: Sequence[int]) -> int:
    """Run the tests on the mutants of a module; returns the number of mutants that survive.

    ``every`` = N takes only each N-th mutant; ``only`` takes only the mutants of these lines.
    """
    for heavy in (
        "hypothesis",
        "pydantic",
        "yaml",
        "jinja2",
        "click",
        "phonenumbers",
        "email_validator",
        "idna",
        "sqlite3",
    ):
        __import__(heavy)  # once, instead of once a mutant
    path = ROOT / "provisioner" / f"{module.replace('.', '/')}.py"
    source = path.read_text(encoding="utf-8")
    own_lines = _lines_of(ast.parse(source))
    arguments = [f"tests/{name}.py" for name in MODULES[module]]
    with TemporaryDirectory(prefix="mutants-") as folder:
        covered = _covered(path, arguments, Path(folder))
        waiting = list(enumerate(sorted(mutants_of(source), key=lambda mutant: mutant.line)))[::every]
        if only:
            waiting = [(number, mutant) for number, mutant in waiting if mutant.line in only]
        everything = sorted(covered.seconds, key=covered.place)
        running: dict[int, tuple[int, Mutant, bool, float]] = {}
        survivors: list[Mutant] = []
        late = 0
        began = time.monotonic()
        tried = len(waiting)
        queue = [(number, mutant, False) for number, mutant in reversed(waiting)]
        while queue or running:
            while queue and len(running) < jobs:
                number, mutant, is_last = queue.pop()
                tests = everything if is_last else _past(mutant.line, covered, own_lines) or everything
                run = _changed(module, path, mutant, tests, f"{folder}/{number}")
                running[_forked(run)] = (
                    number,
                    mutant,
                    is_last or len(tests) == len(everything),
                    time.monotonic(),
                )
            time.sleep(0.01)
            for child, (number, mutant, is_last, since) in list(running.items()):
                ended, status = os.waitpid(child, os.WNOHANG)
                if not ended and time.monotonic() - since > LONGEST:
                    os.killpg(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    late += 1
                elif not ended:
                    continue
                elif status == 0 and not is_last:
                    queue.append((number, mutant, True))
                elif status == 0:
                    survivors.append(mutant)
                    changed = mutant.is_ or "(nothing)"
                    print(f"  {path.name}:{mutant.line}: {mutant.was}  →  {changed}", flush=True)
                del running[child]
    print(
        f"{module}: {tried} mutants, {tried - len(survivors)} seen ({late} by running on), "
        f"{len(survivors)} survive; {time.monotonic() - began:.0f} s"
    )
    return len(survivors)


def _changed(module: str, path: Path, mutant: Mutant, tests: Sequence[str], folder: str) -> Callable[[], int]:
    """Return a function that runs these tests while the mutant replaces the module."""

    def run() -> int:
        sys.meta_path.insert(0, _Mutated(f"provisioner.{module}", path, mutant.tree))
        files = sorted({test.partition("::")[0] for test in tests})
        return _pytest(["--basetemp", folder, *files], _Chosen(tests), True)

    return run


def _past(line: int, covered: _Covered, own_lines: dict[int, set[int]]) -> list[str]:
    """Return the tests that execute a line, the quickest first.

    The list is empty if the line is executed only during the import of the module.
    """
    near = own_lines.get(line, {line})
    return sorted({test for some in near for test in covered.tests.get(some, ())}, key=covered.place)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__.partition("\n\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"{', '.join(MODULES)}; all by default")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--every", type=int, default=1, help="try each N-th mutant only")
    parser.add_argument("--line", type=int, action="append", default=[], help="this line's mutants alone")
    options = parser.parse_args()
    modules = options.modules or list(MODULES)
    if len(modules) > 1:
        # what one module's tests import must not be there already for the next
        common = ["--jobs", str(options.jobs), "--every", str(options.every)]
        commands = [[sys.executable, "-m", "tests.mutate", module, *common] for module in modules]
        sys.exit(max(subprocess.run(command, cwd=ROOT).returncode for command in commands))
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.exit(min(mutate(modules[0], jobs=options.jobs, every=options.every, only=options.line), 1))


if __name__ == "__main__":
    main()
