"""Manifest-like texts by the thousand: read as a composer reads them, or refused with our own problems."""

from __future__ import annotations

import os
from typing import Any

import yaml
from hypothesis import given, settings
from yaml_texts import everything_said, manifest_texts, many_texts, paths_of, shortest

from provisioner.diagnostics import SUMMARIES
from provisioner.yaml_source.document import Document, read_document
from provisioner.yaml_source.source_text import HIDDEN, decode

COUNT = 20_000 if os.environ.get("CI") else 4_000
"""Texts of each run."""

_MEANINGS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class _Surprise(Exception):
    """What we refuse by name although it is YAML."""


def _composed(text: str) -> tuple[str, list[Any]]:
    """Data and places as libyaml's composer has them. Raises ``yaml.YAMLError`` or :class:`_Surprise`."""
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if (
            isinstance(event, yaml.AliasEvent)
            or getattr(event, "anchor", None)
            or getattr(event, "tag", None)
        ):
            raise _Surprise(event)
    node = yaml.compose(text, Loader=yaml.CSafeLoader)
    told: list[Any] = []
    data = None if node is None else _collect(node, node, (), told)
    # libyaml begins a line of its own at an end without a line feed
    end = (text.count("\n") + 1, len(text) - text.rfind("\n"))
    beyond = (end[0] + 1, 1)
    told = [(path, *(end if place == beyond else place for place in places)) for path, *places in told]
    return repr(data), told or [((), (1, 1), (1, 1))]


def _collect(node: yaml.Node, key: yaml.Node, path: tuple[str | int, ...], told: list[Any]) -> Any:
    told.append((path, _place(node), _place(key)))
    if isinstance(node, yaml.SequenceNode):
        return [_collect(child, child, (*path, at), told) for at, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        data: dict[str, Any] = {}
        for name, child in node.value:
            if not isinstance(name, yaml.ScalarNode) or name.value in data:
                raise _Surprise(name)
            if name.value == "<<" and not name.style:
                raise _Surprise(name)
            data[name.value] = _collect(child, name, (*path, name.value), told)
        return data
    assert isinstance(node, yaml.ScalarNode)
    value: str = node.value
    return _MEANINGS[value] if value in _MEANINGS and not node.style else value


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _said(document: Document) -> tuple[str, list[Any]]:
    places = [
        (path, document.source(*path)[1:], document.key_source(*path)[1:]) for path in paths_of(document.data)
    ]
    return repr(document.data), places


def _is_wrong(text: str) -> bool:
    """Whether a text is neither read as the composer reads it nor refused with our own problems."""
    try:
        document, problems = read_document("f.yaml", text)
    except Exception:  # noqa: BLE001
        return True
    if any(problem.code not in SUMMARIES or not problem.detail for problem in problems):
        return True
    if problems or document is None:
        return document is None and not problems
    plain = decode("f.yaml", text)
    assert isinstance(plain, str)
    try:
        return HIDDEN.search(plain) is not None or _composed(plain) != _said(document)
    except (yaml.YAMLError, _Surprise):
        return True


def test_a_text_is_read_as_a_composer_reads_it_or_refused_in_our_own_words() -> None:
    """Row 19, for texts such as people write, and for what may happen to them."""
    for text in many_texts(COUNT):
        assert not _is_wrong(text), shortest(text, _is_wrong)


@settings(max_examples=200)
@given(manifest_texts)
def test_so_are_the_texts_that_hypothesis_finds(text: str) -> None:
    """Row 19."""
    assert not _is_wrong(text)


def test_bytes_and_text_and_every_line_ending_are_read_alike() -> None:
    """Row 19."""
    for text in many_texts(COUNT // 10, seed=1):
        plain = text.replace("\r", "\n")
        expected = everything_said(*read_document("f.yaml", plain))
        for ending in ("\n", "\r", "\r\n"):
            ended = plain.replace("\n", ending)
            assert everything_said(*read_document("f.yaml", ended)) == expected
            assert everything_said(*read_document("f.yaml", ended.encode())) == expected


def test_enough_of_the_texts_are_such_as_people_write() -> None:
    """Or else the tests above would compare refusals alone."""
    read = [read_document("f.yaml", text) for text in many_texts(500)]
    assert 200 < sum(document is not None and not problems for document, problems in read) < 450
    assert len({problem.code for _, problems in read for problem in problems}) >= 4
