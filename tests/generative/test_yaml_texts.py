"""Thousands of manifest-like texts are read as PyYAML composes them, or refused with diagnostics."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from yaml_texts import comparable, manifest_texts, many_texts, paths_of, shortest

from provisioner.codes import CODES
from provisioner.yaml_source.document import Document, read_document
from provisioner.yaml_source.source_text import HIDDEN, decode

_MEANINGS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class _Unsupported(Exception):
    """The text has a valid YAML construct that the program refuses."""


def _composed(text: str) -> tuple[str, list[Any]]:
    """Data and positions from libyaml's composer. Raises ``yaml.YAMLError`` or :class:`_Unsupported`."""
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if (
            isinstance(event, yaml.AliasEvent)
            or getattr(event, "anchor", None)
            or getattr(event, "tag", None)
        ):
            raise _Unsupported(event)
    node = yaml.compose(text, Loader=yaml.CSafeLoader)
    found: list[Any] = []
    data = None if node is None else _collect(node, node, (), found)
    # libyaml puts the end of a text without a last line feed on the next line
    end = (text.count("\n") + 1, len(text) - text.rfind("\n"))
    beyond = (end[0] + 1, 1)
    found = [(path, *(end if place == beyond else place for place in places)) for path, *places in found]
    return repr(data), found or [((), (1, 1), (1, 1))]


def _collect(node: yaml.Node, key: yaml.Node, path: tuple[str | int, ...], found: list[Any]) -> Any:
    found.append((path, _place(node), _place(key)))
    if isinstance(node, yaml.SequenceNode):
        return [_collect(child, child, (*path, at), found) for at, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        data: dict[str, Any] = {}
        for name, child in node.value:
            if not isinstance(name, yaml.ScalarNode) or name.value in data:
                raise _Unsupported(name)
            if name.value == "<<" and not name.style:
                raise _Unsupported(name)
            data[name.value] = _collect(child, name, (*path, name.value), found)
        return data
    assert isinstance(node, yaml.ScalarNode)
    value: str = node.value
    return _MEANINGS[value] if value in _MEANINGS and not node.style else value


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _said(document: Document) -> tuple[str, list[Any]]:
    positions = document.positions
    places = [
        (path, positions.source(*path)[1:], positions.key_source(*path)[1:])
        for path in paths_of(document.data)
    ]
    return repr(document.data), places


def _is_wrong(text: str) -> bool:
    """True if a text is neither refused with diagnostics nor read as the composer reads it."""
    try:
        document, problems = read_document("f.yaml", text)
    except Exception:  # noqa: BLE001
        return True
    if any(problem.code not in CODES or not problem.detail for problem in problems):
        return True
    if problems or document is None:
        return document is None and not problems
    plain = decode("f.yaml", text)
    assert isinstance(plain, str)
    try:
        return HIDDEN.search(plain) is not None or _composed(plain) != _said(document)
    except (yaml.YAMLError, _Unsupported):
        return True


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.generative)])
def test_texts_are_read_as_pyyaml_composes_them_or_refused(count: int) -> None:
    """Each text is read as PyYAML composes it or is refused. The texts are ordinary or damaged manifests."""
    for text in many_texts(count):
        assert not _is_wrong(text), shortest(text, _is_wrong)


@given(manifest_texts)
def test_texts_of_hypothesis_are_read_as_pyyaml_composes_them(text: str) -> None:
    assert not _is_wrong(text)


def test_line_endings_and_encoding_do_not_change_the_result() -> None:
    for text in many_texts(400, seed=1):
        plain = text.replace("\r", "\n")
        expected = comparable(*read_document("f.yaml", plain))
        for ending in ("\n", "\r", "\r\n"):
            ended = plain.replace("\n", ending)
            assert comparable(*read_document("f.yaml", ended)) == expected
            assert comparable(*read_document("f.yaml", ended.encode())) == expected


def test_many_generated_texts_are_valid() -> None:
    """Many of the generated texts are valid, and many are refused.

    Without valid texts, the tests above would only compare refusals.
    """
    read = [read_document("f.yaml", text) for text in many_texts(500)]
    assert 200 < sum(document is not None and not problems for document, problems in read) < 450
    assert len({problem.code for _, problems in read for problem in problems}) >= 4
