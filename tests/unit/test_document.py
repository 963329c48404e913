"""The strict YAML reader: data, positions and problems."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from provisioner.diagnostics import Diagnostic
from provisioner.limits import MAX_DEPTH, MAX_FILE_BYTES, MAX_NODES, MAX_PROBLEMS, MAX_SCALAR
from provisioner.yaml_source.document import Document, read_document
from provisioner.yaml_source.source_text import HIDDEN, SourceText, is_visible

CLIENT = """\
# clients/boulangerie-martin.yaml
company:
  number: "004217"                 # numéro de dossier; always quoted
  name: Boulangerie Martin SARL
billing: {mode: client, offer: Essentiel}
users:
  - email: claire.martin@boulangerie-martin.fr
    first_name: Claire
    phone: "+33 6 12 34 56 78"
    apps: [Documents, Scan]
    welcome_email: true
  - email: hugo@boulangerie-martin.fr
    phone:
"""


def read(content: str | bytes) -> Document:
    document, problems = read_document("clients/x.yaml", content)
    assert not problems
    assert document is not None
    return document


def value(content: str) -> Any:
    return read(content).data


def problems_of(content: str | bytes) -> list[Diagnostic]:
    return read_document("clients/x.yaml", content)[1]


def only_problem(content: str | bytes) -> Diagnostic:
    (problem,) = problems_of(content)
    return problem


def positions_of(content: str | bytes) -> list[str]:
    return [
        f"{problem.code} {problem.source}".replace("clients/x.yaml:", "") for problem in problems_of(content)
    ]


# --- values ---


def test_manifest_values_are_read_as_written() -> None:
    assert value(CLIENT) == {
        "company": {"number": "004217", "name": "Boulangerie Martin SARL"},
        "billing": {"mode": "client", "offer": "Essentiel"},
        "users": [
            {
                "email": "claire.martin@boulangerie-martin.fr",
                "first_name": "Claire",
                "phone": "+33 6 12 34 56 78",
                "apps": ["Documents", "Scan"],
                "welcome_email": True,
            },
            {"email": "hugo@boulangerie-martin.fr", "phone": None},
        ],
    }


@pytest.mark.parametrize(
    "text",
    [
        "0612345670", "+33612345670", "01000", "1000", "004217", "732829320", "75008", "0x1F", "0o17", "0b11",
        "12:30", "190:20:30", "2024-11-30", "2024-11-30 10:00:00", "1_000", "1e3",
        "1.0", "-1", ".inf", ".nan",
        "yes", "no", "Yes", "NO", "on", "off", "Off", "y", "n", "Y", "N",
        "none", "None", "nil", "NUL", "tRUE", "truE", "nULL", "~~", "-", "=",
        "Durand & Associés", "L'Atelier", "A*", "C++", "a:b", "a#b", "100 %", "Oui !", "C:\\Clients",
    ],
)  # fmt: skip
def test_plain_scalar_stays_text(text: str) -> None:
    assert value(f"a: {text if text != '-' else repr(text)}") == {"a": text}
    assert value(f"- {text if text != '-' else repr(text)}") == [text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [(text, None) for text in ("", "~", "null", "Null", "NULL")]
    + [(text, True) for text in ("true", "True", "TRUE")]
    + [(text, False) for text in ("false", "False", "FALSE")],
)
def test_only_null_true_and_false_are_not_text(text: str, expected: bool | None) -> None:
    assert value(f"a: {text}")["a"] is expected
    assert value(f"- {text}")[0] is expected
    assert value(f'a: "{text}"') == {"a": text}
    assert value(f"a: '{text}'") == {"a": text}


def test_keys_are_always_text() -> None:
    assert value("true: a\nnull: b\n12: c\n~: d\n") == {"true": "a", "null": "b", "12": "c", "~": "d"}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "\ufeff", "---\n", "   "])
def test_empty_file_has_no_data_and_no_problem(text: str) -> None:
    document = read(text)
    assert document.data is None
    assert str(document.positions.source("users", 3)) == "clients/x.yaml:1:1" or text == "---\n"


def test_folded_and_literal_blocks_are_read_as_yaml_defines() -> None:
    assert value("a: one\n  two\n") == {"a": "one two"}
    assert value("a: |\n  one\n  two\nb: >-\n  three\n  four\n") == {"a": "one\ntwo\n", "b": "three four"}


def test_bytes_text_and_all_line_endings_give_the_same_data() -> None:
    expected = value(CLIENT)
    for ending in ("\n", "\r\n", "\r"):
        text = CLIENT.replace("\n", ending)
        for content in (text, text.encode(), "\ufeff" + text, b"\xef\xbb\xbf" + text.encode()):
            document = read(content)
            assert document.data == expected
            assert document.positions.source("users", 1, "email")[1:] == (12, 12)


# --- positions ---


def test_every_value_and_key_has_a_position() -> None:
    document = read(CLIENT)
    assert document.positions.file == "clients/x.yaml"
    assert str(document.positions.source("company", "number")) == "clients/x.yaml:3:11"
    assert str(document.positions.key_source("company", "number")) == "clients/x.yaml:3:3"
    assert str(document.positions.source("company")) == "clients/x.yaml:3:3"
    assert str(document.positions.key_source("company")) == "clients/x.yaml:2:1"
    assert str(document.positions.source("billing")) == "clients/x.yaml:5:10"
    assert str(document.positions.source("billing", "offer")) == "clients/x.yaml:5:32"
    assert str(document.positions.key_source("billing", "offer")) == "clients/x.yaml:5:25"
    assert str(document.positions.source("users")) == "clients/x.yaml:7:3"
    assert str(document.positions.source("users", 0)) == "clients/x.yaml:7:5"
    assert str(document.positions.key_source("users", 0)) == "clients/x.yaml:7:5"
    assert str(document.positions.source("users", 0, "apps", 1)) == "clients/x.yaml:10:23"
    assert str(document.positions.source("users", 1, "email")) == "clients/x.yaml:12:12"
    assert str(document.positions.source("users", 1, "phone")) == "clients/x.yaml:13:11"  # empty
    assert str(document.positions.source()) == "clients/x.yaml:2:1"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("users", 0, "emial"), "7:5"),
        (("users", 0, "email", "x", 3), "7:12"),
        (("users", 9, "email"), "7:3"),
        (("users", -1), "7:3"),
        (("users", "0"), "7:3"),
        (("company", 0), "3:3"),
        (("nothing", "at", "all"), "2:1"),
    ],
)
def test_position_of_a_missing_value_is_that_of_its_nearest_ancestor(
    path: tuple[str | int, ...], place: str
) -> None:
    assert str(read(CLIENT).positions.source(*path)) == f"clients/x.yaml:{place}"


def test_key_position_of_a_missing_value_is_that_of_its_ancestor() -> None:
    document = read(CLIENT)
    assert document.positions.key_source("company", "sirne") == document.positions.key_source("company")
    assert document.positions.key_source("users", 1, "x") == document.positions.source("users", 1)


@pytest.mark.parametrize("before", ["é", "e\u0301", "😀", "👩🏽‍🚀", "日本", "𝔘"])
def test_columns_count_code_points(before: str) -> None:
    for line in (f"{{{before}: v, k: ici}}", f'{{"{before}": v, k: ici}}', f"{{'{before}': v, \"k\": ici}}"):
        document = read(f"# {before}\n{line}\n")
        assert document.positions.source("k") == ("clients/x.yaml", 2, line.index("ici") + 1)
        assert document.positions.key_source("k").column == line.rindex("k") + 1 - ('"k"' in line)


def test_positions_in_flow_style_block_style_and_quotes() -> None:
    document = read('"a b": [x, {y: "é z", w: [ ]}]\n\'c\':\n    |\n    text\nd:   >\n  folded\n? e\n: - f\n')
    places = {
        ("a b",): (1, 8), ("a b", 1, "y"): (1, 16), ("a b", 1, "w"): (1, 26), ("a b", 1): (1, 12),
        ("c",): (3, 5), ("d",): (5, 6), ("e",): (8, 3), ("e", 0): (8, 5),
    }  # fmt: skip
    assert {path: document.positions.source(*path)[1:] for path in places} == places
    assert document.positions.key_source("a b")[1:] == (1, 1)
    assert document.positions.key_source("c")[1:] == (2, 1)


def test_short_and_long_texts_give_the_same_lines() -> None:
    short = "é: 1\n\n  b\n"
    pages = [SourceText("x", short), SourceText("x", short + "c" * 10_000)]
    for index in range(len(short) + 1):
        assert pages[0].at(index) == pages[1].at(index)
    assert pages[0].at(len(short))[1:] == (4, 1)
    assert SourceText("x", "abc").at(3)[1:] == (1, 4)
    assert SourceText("x", "").at(0)[1:] == (1, 1)


# --- what is refused ---


def test_duplicate_key_names_both_positions_and_reading_continues() -> None:
    text = "company:\n  name: A\n  name: B\nusers: [1]\nusers:\n  - a: 1\n    a: {b: 1, b: 2}\nlast: z\n"
    document, problems = read_document("f.yaml", text)
    assert [str(problem.source) for problem in problems] == [
        "f.yaml:3:3",
        "f.yaml:5:1",
        "f.yaml:7:5",
        "f.yaml:7:15",
    ]
    assert {problem.code for problem in problems} == {"yaml-duplicate-key"}
    assert problems[0].detail == '"name" stands in line 2, column 3 and again in line 3, column 3.'
    assert document is not None
    assert document.data == {"company": {"name": "A"}, "users": ["1"], "last": "z"}
    assert str(document.positions.source("last")) == "f.yaml:8:7"  # not shifted


@pytest.mark.parametrize(
    ("text", "what", "place"),
    [
        ("a: &x 1\n", "An anchor (&x)", "1:4"),
        ("a: *x\n", "An alias (*x)", "1:4"),
        ("a: !!str 1\n", "A tag (!!str)", "1:4"),
        ("a: !mine {b: c}\n", "A tag (!mine)", "1:4"),
        ("a: ! 1\n", "A tag (!)", "1:4"),
        ("a: ! '1'\n", "A tag (!)", "1:4"),
        ("[!!set [], 1]\n", "A tag (!!set)", "1:2"),
        ("- a\n- <<: {b: c}\n", "A merge key (<<)", "2:3"),
        ("? [a]\n: b\n", "A key that is a list or a mapping", "1:3"),
        ("{{ a: b }: c}\n", "A key that is a list or a mapping", "1:2"),
        ("*x : b\n", "An alias (*x)", "1:1"),
        ("a: 1\n---\nb: 2\n", "A second document in one file (---)", "2:1"),
        ("%YAML 1.2\n---\na: 1\n", "A directive (a line that begins with %)", "1:1"),
        ("# é\n%TAG ! x\n---\na: 1\n", "A directive (a line that begins with %)", "2:1"),
        ("%WHAT is this\n---\na: 1\n", "A directive (a line that begins with %)", "1:1"),
        ("a: 1\n...\n%YAML 1.1\n", "A directive (a line that begins with %)", "3:1"),
    ],
)
def test_anchors_tags_merge_keys_and_directives_are_refused_by_name(text: str, what: str, place: str) -> None:
    document, (problem,) = read_document("f.yaml", text)
    assert (problem.code, problem.detail) == ("yaml-unsafe", f"{what} is not accepted here.")
    assert str(problem.source) == f"f.yaml:{place}"
    assert problem.remedy
    assert document is not None


def test_document_markers_and_a_quoted_merge_key_are_accepted() -> None:
    assert value("--- # the one document\na: 1\n...\n") == {"a": "1"}
    assert value('"<<": a\nb: "<<"\n') == {"<<": "a", "b": "<<"}


def test_reading_continues_after_a_refusal_and_reports_in_order() -> None:
    text = "a: &x 1\nb: *x\n<<: {c: 1}\n? [k]\n: !t v\nb: 2\ne: \u202e\nf: [\n"
    assert positions_of(text) == [
        "yaml-unsafe 1:4", "yaml-unsafe 2:4", "yaml-unsafe 3:1", "yaml-unsafe 4:3", "yaml-unsafe 5:3",
        "yaml-duplicate-key 6:1", "yaml-unsafe 7:4", "yaml-syntax 8:4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("\x00", "U+0000 (a control character)"),
        ("\x07", "U+0007 (a control character)"),
        ("\x1b", "U+001B (a control character)"),
        ("\x7f", "U+007F (a control character)"),
        ("\x85", "U+0085 (a control character)"),
        ("\u200f", "U+200F (RIGHT-TO-LEFT MARK)"),
        ("\u2028", "U+2028 (LINE SEPARATOR)"),
        ("\u202e", "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
        ("\u2067", "U+2067 (RIGHT-TO-LEFT ISOLATE)"),
        ("\ufeff", "U+FEFF (ZERO WIDTH NO-BREAK SPACE)"),
        ("\ufffe", "U+FFFE (a control character)"),
        ("\ud800", "U+D800 (a control character)"),
    ],
)
def test_hidden_characters_are_named_with_their_position(character: str, name: str) -> None:
    problem = only_problem(f"# é\nname: Dupont {character}x  # and so on\n")
    assert problem.detail == f"{name} does not show, or rearranges what shows."
    assert (problem.code, str(problem.source)) == ("yaml-unsafe", "clients/x.yaml:2:14")
    if not "\ud800" <= character <= "\udfff":
        escaped = only_problem(f'# é\nname: "Dupont \\U{ord(character):08x}"\n')
        assert escaped.detail == problem.detail
        assert str(escaped.source) == "clients/x.yaml:2:7"


def test_escaped_carriage_return_is_refused_but_not_tab_or_line_feed() -> None:
    assert only_problem('a: "x\\ry"').code == "yaml-unsafe"
    assert value('a: "x\\ty\\nz\\u00e9"') == {"a": "x\ty\nzé"}


def test_fast_check_finds_every_hidden_character() -> None:
    hidden = [chr(point) for point in range(0x110000) if HIDDEN.match(chr(point))]
    assert len(hidden) > 2_000
    assert not any(is_visible(character) for character in hidden)


def test_ordinary_characters_of_all_languages_are_accepted() -> None:
    assert is_visible("Æ œ ç « » ’ – … € \u00a0 \u202f 日本語 עברית العربية 👩🏽‍🚀\t\n")


@pytest.mark.parametrize(
    ("content", "place", "detail"),
    [
        ("a: é\n".encode("utf-16"), "1:1", "UTF-16"),
        ("a: é\n".encode("utf-16-le"), "1:1", "UTF-16"),
        ("a: é\n".encode("utf-16-be"), "1:1", "UTF-16"),
        ("a: é\n".encode("utf-32"), "1:1", "UTF-32"),
        ("é: ok\r\nname: Hélène\r\n".encode() + b"n: \xe9\n", "3:4", "0xE9"),
        (b"\xef\xbb\xbfa: \xff", "1:4", "0xFF"),
        (b"a: \xed\xa0\x80", "1:4", "0xED"),
        (b"a: \xc3", "1:4", "0xC3"),
    ],
)
def test_file_that_is_not_utf8_is_reported_at_the_first_wrong_byte(
    content: bytes, place: str, detail: str
) -> None:
    document, (problem,) = read_document("f.yaml", content)
    assert document is None
    assert (problem.code, str(problem.source)) == ("file-encoding", f"f.yaml:{place}")
    assert detail in problem.detail


# --- syntax ---


@pytest.mark.parametrize(
    ("text", "place", "sentence"),
    [
        ("company:\n\tnumber: 1\n", "2:1", "A tab stands where only spaces may indent."),
        ("a:\n  b: c\n \td: e\n", "3:2", "A tab stands where only spaces may indent."),
        ("a: |\n\tb\n", "2:1", "A tab stands where only spaces may indent."),
        ("a: 1\nb\n", "2:1", "This line should be a key and a value, and has no colon followed by a space."),
        ("company:\n  name: x\n  number:1\n", "3:3", "has no colon followed by a space."),
        ("a:\n  number 1\n  name: x\n", "3:7", "yet has a colon of its own."),
        ("a:\n  b: 1\n   c: x\n", "3:5", "yet has a colon of its own."),
        ("name: SCI: Martin\n", "1:10", "A second colon in one line."),
        ('a:\n  name: "Martin\n  x: y\n', "2:9", "The quote opened here is never closed."),
        ("a: 'x\n---\n", "1:4", "The quote opened here is never closed."),
        ("name: 'L'Atelier'\n", "1:10", "More text follows where a value has already ended."),
        ('name: "L" Atelier\n', "1:11", "More text follows where a value has already ended."),
        ("a: [b, c\nd: e\n", "1:4", "opened here with [ is not closed, or lacks a comma: line 2, column 2."),
        ('a: ["b" "c"]\n', "1:4", "lacks a comma: line 1, column 9."),
        ("a: [", "1:4", "The list opened here with [ is not closed."),
        ("a: [\n\n", "1:4", "The list opened here with [ is not closed."),
        ("a: 1\nb: {\n", "2:4", "The mapping opened here with { is not closed."),
        ("a: {b: c\nd: e\n", "1:4", "The mapping opened here with { is not closed, or lacks a comma"),
        ("a:\n    b: 1\n  c: 2\n", "3:3", "This line is aligned with nothing above it."),
        ("u:\n  - a: 1\n - b: 2\n", "3:2", "This line is aligned with nothing above it."),
        ("u:\n  - a: 1\n  b: 2\n", "3:3", "This line does not go on with the list above it."),
        ("a: @home\n", "1:4", "A value cannot begin with @."),
        ("a: `home`\n", "1:4", "A value cannot begin with `."),
        ("a: *.fr\n", "1:4", "is taken for an anchor or an alias."),
        ("a: & b\n", "1:4", "is taken for an anchor or an alias."),
        ("a: !x!y z\n", "1:4", "A value that begins with ! is taken for a tag."),
        ("a: ]\n", "1:4", "A value is missing here."),
        ('a: "C:\\Clients"\n', "1:7", "a backslash begins an escape, and this is none."),
        ('a: "\\uD800"\n', "1:7", "Between double quotes a backslash begins an escape, and this is none."),
        ("a: |x\n  b\n", "1:5", "After | or > the text begins on the next line."),
        ("a: !<%ED%A0%80> b\n", "1:1", "An escape sequence here, or soon after, stands for no character."),
        ("a: !%FF b\n", "1:5", "This cannot be read as YAML: found an incorrect leading UTF-8 octet."),
    ],
)  # fmt: skip
def test_syntax_error_is_explained_at_its_position(text: str, place: str, sentence: str) -> None:
    document, problems = read_document("f.yaml", text)
    assert document is None
    assert [problem.code for problem in problems] == ["yaml-syntax"]
    assert sentence in problems[0].detail
    assert problems[0].remedy.endswith(".")
    assert str(problems[0].source) == f"f.yaml:{place}"


# --- limits ---


def test_file_size_is_limited() -> None:
    room = b"a: b #" + b"\xc3\xa9" * ((MAX_FILE_BYTES - 6) // 2)
    for content in (room, room.decode()):
        assert read(content).data == {"a": "b"}
    for content in (room + b"x", room.decode() + "x"):
        assert positions_of(content) == ["yaml-limit 1:1"]


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}"), ("- ", "")])
def test_nesting_depth_is_limited(opening: str, closing: str) -> None:
    read(opening * MAX_DEPTH + "x" + closing * MAX_DEPTH)
    deeper = opening * (MAX_DEPTH + 1) + "x" + closing * (MAX_DEPTH + 1)
    assert positions_of(deeper) == [f"yaml-limit 1:{MAX_DEPTH * len(opening) + 1}"]


def test_number_of_values_is_limited() -> None:
    assert len(value("[" + "a," * (MAX_NODES - 1) + "]")) == MAX_NODES - 1
    assert positions_of("[" + "a," * MAX_NODES + "]") == [f"yaml-limit 1:{2 * MAX_NODES}"]


def test_length_of_a_value_is_limited() -> None:
    for quote in ("", '"'):
        read(f"a: {quote}{'x' * MAX_SCALAR}{quote}")
        assert positions_of(f"a: {quote}{'x' * (MAX_SCALAR + 1)}{quote}") == ["yaml-limit 1:4"]


def test_number_of_reported_problems_is_limited() -> None:
    document, problems = read_document("f.yaml", "a: b\n" * (MAX_PROBLEMS + 1))
    assert document is not None
    assert [problem.code for problem in problems] == ["yaml-duplicate-key"] * MAX_PROBLEMS
    document, problems = read_document("f.yaml", "a: b\n" * (MAX_PROBLEMS + 2))
    assert document is None
    assert [problem.code for problem in problems[MAX_PROBLEMS - 1 :]] == ["yaml-duplicate-key", "yaml-limit"]


def test_names_in_sentences_are_shortened() -> None:
    for text in (
        f"a: &{'x' * 5_000} 1",
        f"a: *{'x' * 5_000}",
        f"a: !{'x' * 5_000} 1",
        f"? {'x' * 5_000}\n: 1\n" * 2,
    ):
        assert 20 < len(only_problem(text).detail) < 200


# --- comparison with PyYAML ---

# data of the accepted subset: visible texts, true, false, null, and lists and mappings of them
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(is_visible)
_data = st.recursive(
    st.none() | st.booleans() | _texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(_texts, children, max_size=4),
    max_leaves=20,
)
_layouts = st.fixed_dictionaries(
    {
        "default_flow_style": st.sampled_from([True, False, None]),
        "default_style": st.sampled_from([None, '"', "'", "|", ">"]),
        "allow_unicode": st.booleans(),
        "indent": st.sampled_from([2, 4]),
        "width": st.sampled_from([20, 80]),
        "explicit_start": st.booleans(),
    }
)


class _TextDumper(yaml.SafeDumper):
    """A YAML writer for the accepted subset of YAML. All its scalars except null, true and false are texts.

    The subset has no aliases.
    """

    def ignore_aliases(self, data: Any) -> bool:
        return True


_TextDumper.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":bool", ":null", ":merge"))]
    for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
}


def _has_tag(text: str) -> bool:
    return any(getattr(event, "tag", None) for event in yaml.parse(text, Loader=yaml.SafeLoader))


@given(_data, _layouts)
def test_yaml_written_by_pyyaml_is_read_back_equal(data: Any, layout: dict[str, Any]) -> None:
    text = yaml.dump(data, Dumper=_TextDumper, sort_keys=False, **layout)
    assume(not _has_tag(text))  # "!!bool 'true'", where a style is forced upon a boolean
    document, problems = read_document("f.yaml", text)
    assert problems == []
    assert document is not None
    assert document.data == data


def _paths(data: Any, *above: str | int) -> list[tuple[str | int, ...]]:
    parts = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [above, *(path for part, child in parts for path in _paths(child, *above, part))]


def _nodes(node: yaml.Node, *above: str | int) -> dict[tuple[str | int, ...], yaml.Node]:
    found: dict[tuple[str | int, ...], yaml.Node] = {above: node}
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            found |= _nodes(child, *above, key.value)
    elif isinstance(node, yaml.SequenceNode):
        for at, child in enumerate(node.value):
            found |= _nodes(child, *above, at)
    return found


@given(_data, _layouts)
def test_positions_equal_those_of_the_pyyaml_composer(data: Any, layout: dict[str, Any]) -> None:
    text = "# é😀\n" + yaml.dump(data, Dumper=_TextDumper, sort_keys=False, **layout)
    assume(not _has_tag(text))
    document = read(text)
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert node is not None
    nodes = _nodes(node)
    assert set(nodes) == set(_paths(document.data))
    for path, found in nodes.items():
        mark = found.start_mark
        assert document.positions.source(*path) == ("clients/x.yaml", mark.line + 1, mark.column + 1)


_SCRAPS = (
    "a", "é", "😀", "true", "~", "01", "'", '"', "\\", ":", ": ", "- ", "-", "? ", ", ", "[", "]", "{", "}",
    "#", " #", "&a", "*a",
    "!", "!!str ", "<<", "|", ">", "%", "@", "\n", "\n  ", "\n- ", "\n---\n", "...", "\t",
    " ",
    "\r\n", "\u202e", "\x85", "\\x41", "\\u202e",
)  # fmt: skip
_scraps = st.lists(st.sampled_from(_SCRAPS), max_size=24).map("".join)


def _agree(ours: Any, base: Any) -> bool:
    if isinstance(ours, dict) and isinstance(base, dict):
        return list(ours) == list(base) and all(_agree(ours[key], base[key]) for key in ours)
    if isinstance(ours, list) and isinstance(base, list):
        return len(ours) == len(base) and all(map(_agree, ours, base))
    if ours is None:
        return base in ("", "~", "null", "Null", "NULL")
    return (
        base in ("true", "True", "TRUE", "false", "False", "FALSE")
        if isinstance(ours, bool)
        else ours == base
    )


@given(_scraps)
def test_accepted_texts_have_the_data_of_pyyamls_base_loader(text: str) -> None:
    document, problems = read_document("f.yaml", text)
    if not problems and document is not None and document.data is not None:
        try:
            loaded = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: TID251
        except yaml.YAMLError:
            return  # libyaml accepts a trailing tab, the pure loader does not
        assert _agree(document.data, loaded)


@given(_scraps)
def test_fast_path_accepts_no_alias_anchor_or_tag(text: str) -> None:
    document, problems = read_document("f.yaml", text)
    if problems:
        return
    assert document is not None
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        assert not isinstance(event, yaml.AliasEvent)
        assert getattr(event, "anchor", None) is None
        assert getattr(event, "tag", None) is None


# --- texts without quotes ---


def test_plain_scalars_that_look_typed_are_listed_with_path_and_offset() -> None:
    text = (
        'a: 004217\nb: {c: yes, d: "no", "1": x}\ne:\n  - 2024-11-30\n  - [off, on it, ~, true]\n  - Océane\n'
    )
    document = read(text)
    assert [(unquoted.path, unquoted.text) for unquoted in document.unquoted] == [
        (("a",), "004217"),
        (("b", "c"), "yes"),
        (("e", 0), "2024-11-30"),
        (("e", 1, 0), "off"),
    ]
    assert all(text[offset:].startswith(found) for _, found, offset in document.unquoted)


def test_plain_scalars_under_a_refused_key_are_not_listed() -> None:
    document, problems = read_document("f.yaml", "a: 1\na: [2, {b: 3}]\nc: 4\n")
    assert [problem.code for problem in problems] == ["yaml-duplicate-key"]
    assert document is not None
    assert [unquoted.path for unquoted in document.unquoted] == [("a",), ("c",)]


# --- without libyaml ---

_WITHOUT_LIBYAML = """
import sys
sys.modules["yaml._yaml"] = None
from provisioner.yaml_source.document import read_document
import yaml
assert not yaml.__with_libyaml__
for text in sys.stdin.read().split("\\0"):
    document, problems = read_document("f.yaml", text)
    print(ascii(document and document.data), *sorted({problem.code for problem in problems}))
"""


def test_results_are_the_same_without_libyaml() -> None:
    assert yaml.__with_libyaml__
    texts = [
        CLIENT, "", "a: 0612345670\nb: no\nc: true\n", "a: 1\na: 2\n", "a: &x 1\nb: *x\n", "a: ! 1\n",
        "? [a]\n: b\n", "a:\n\tb: 1\n", 'a: "b\n', "a: [b\nc: d\n", "a: b: c\n", "a:\n  b: 1\n   c: 2\n",
        "a: 1\nb\n", "a: @x\n", "a: *.fr\n", 'a: "\\U7fffffff"\n', "a: !<%ED%A0%80> b\n", "a: \u202e\n",
        "%YAML 1.1\n---\na\n", "a\n---\nb\n", "[" * 40, "a: ]\n",
    ]  # fmt: skip
    child = subprocess.run(
        [sys.executable, "-c", _WITHOUT_LIBYAML],
        input="\0".join(texts), capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    expected = []
    for text in texts:
        document, problems = read_document("f.yaml", text)
        codes = sorted({problem.code for problem in problems})
        expected.append(" ".join([ascii(document and document.data), *codes]))
    assert child.stdout.splitlines() == expected
