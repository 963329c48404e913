"""Docstrings and comments are plain technical English, and each test name fits on a line."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "provisioner").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])
MAX_TEST_NAME = 80

RIDDLES = ("whoever", "whomever", "nobody", "shall", "anew", "of ours", "by now", "told")
PERSONS = ("he", "him", "his", "himself", "she", "her", "herself")
ODD = re.compile(rf"\b({'|'.join((*RIDDLES, *PERSONS))})\b", re.IGNORECASE)


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring of a module, including the docstrings of attributes.

    The docstrings of click commands are left out, because they are the help that users read.
    """
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        if isinstance(node, ast.FunctionDef) and is_command(node):
            body = body[1:]
        for statement in body:
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text


def is_command(function: ast.FunctionDef) -> bool:
    decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any(re.search(r"\.(command|group)\b", decorator) for decorator in decorators)


def comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def odd_words(source: str) -> Iterator[str]:
    for line, text in [*docstrings(ast.parse(source)), *comments(source)]:
        for found in ODD.finditer(text):
            yield f"{line + text[: found.start()].count(chr(10))}: {found.group()}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_and_comments_are_plain_english(path: Path) -> None:
    assert list(odd_words(path.read_text(encoding="utf-8"))) == []


def test_odd_words_are_found_where_they_are() -> None:
    source = (
        '"""Nobody."""\n\n\ndef f():\n    """One.\n\n    What she says.\n    """\n    return "his"  # told\n'
    )
    assert list(odd_words(source)) == ["1: Nobody", "7: she", "9: told"]
    command = '@cli.command()\ndef f():\n    """Nobody."""\n'
    assert list(odd_words(command)) == []


def test_test_names_fit_on_a_line() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and len(node.name) > MAX_TEST_NAME
    ]
    assert long == []
