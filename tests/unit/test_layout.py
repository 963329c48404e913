"""The layout of the program: import cycles, long modules, duplicate class names, undeclared libraries."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "provisioner"
MAX_LINES = 500


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, ast.Module]:
    return {
        module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that are executed at run time, including imports inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif is_type_checking(child):
            assert isinstance(child, ast.If)
            for alternative in child.orelse:
                yield from imports(alternative)
        else:
            yield from imports(child)


def imported_modules(name: str, tree: ast.Module) -> Iterator[str]:
    for node in imports(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            assert node.level == 0, f"{name} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules() else str(node.module)


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other in a cycle (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_no_import_cycle_between_modules() -> None:
    graph = {
        name: {other for other in imported_modules(name, tree) if other in modules() and other != name}
        for name, tree in modules().items()
    }
    # a package's own docstring module imports nothing, so it cannot close a cycle
    assert cycles(graph) == []


def test_cycles_are_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_no_module_is_longer_than_500_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_no_two_public_classes_have_one_name() -> None:
    places = defaultdict(list)
    for name, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


HOW_TO_ADD = re.compile(r"\bTo (add|map|refuse|store)\b")


def test_every_package_says_what_it_does_and_how_to_add_to_it() -> None:
    silent = []
    for init in sorted(PACKAGE.rglob("__init__.py")):
        if init.parent == PACKAGE:
            continue
        docstring = ast.get_docstring(modules()[module_name(init)]) or ""
        readme = init.with_name("README.md")
        text = readme.read_text(encoding="utf-8") if readme.exists() else docstring
        if len(text.splitlines()) < 3 or not HOW_TO_ADD.search(text):
            silent.append(str(init.parent.relative_to(ROOT)))
    assert silent == []


def normalized(name: str) -> str:
    return name.lower().replace("_", "-")


def distribution_names(requirements: list[str]) -> set[str]:
    return {normalized(re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]) for requirement in requirements}


def test_every_imported_library_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = distribution_names(
        [
            *project["dependencies"],
            *(name for extra in ("http", "postgres", "serve", "testing") for name in extras[extra]),
        ]
    )
    providers = packages_distributions()
    undeclared = {}
    for name, tree in modules().items():
        for imported in imported_modules(name, tree):
            top = imported.partition(".")[0]
            if top in sys.stdlib_module_names or top == "provisioner":
                continue
            if declared.isdisjoint(normalized(distribution) for distribution in providers.get(top, [top])):
                undeclared[name] = imported
    assert undeclared == {}


def test_no_function_assigns_a_variable_of_its_module() -> None:
    """Options travel in click's context object, so that two runs in one process share no state."""
    assigning = {
        name for name, tree in modules().items() for node in ast.walk(tree) if isinstance(node, ast.Global)
    }
    assert assigning == set()


PRIVATE = re.compile(r"(^|\.)_[a-z]")


def test_no_private_part_of_a_library_is_imported() -> None:
    private = {}
    for name, tree in modules().items():
        for node in imports(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for imported in names:
                ours = imported.startswith("provisioner.")
                if not ours and (PRIVATE.search(imported) or imported.startswith("pydantic_core")):
                    private[name] = imported
    assert private == {}
