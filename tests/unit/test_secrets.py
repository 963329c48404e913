"""Secrets from variables and files: with byte order marks, blanks and line ends, empty or missing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from provisioner.errors import PortalError
from provisioner.workspace.secrets import secret_of

read = partial(secret_of, what="the portal's secret", error=PortalError, usual="USUAL_SECRET")


@pytest.mark.parametrize("content", [b"word", b"word\n", b"word\r\n", b"\xef\xbb\xbfword\n", b" word "])
def test_a_secret_file_is_read_without_byte_order_mark_and_newline(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    assert read(tmp_path, "", "secret") == "word"


@pytest.mark.parametrize("named", ["", "NAMED_SECRET"])
def test_a_secret_is_read_from_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv(named or "USUAL_SECRET", "word\r\n")
    assert read(tmp_path, named, "") == "word"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "secret is empty"),
        (b"\n", "secret is empty"),
        ("word".encode("utf-16"), "secret is not UTF-8 text"),
    ],
)
def test_a_file_without_a_secret_is_an_error_sentence(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(PortalError, match=reason) as refusal:
        read(tmp_path, "", "secret")
    assert refusal.value.remedy
    assert "codec" not in refusal.value.sentence


def test_an_empty_variable_and_an_unset_one_have_different_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PortalError, match=r"NAMED_SECRET.* is not set"):
        read(tmp_path, "NAMED_SECRET", "")
    monkeypatch.setenv("NAMED_SECRET", " ")
    with pytest.raises(PortalError, match=r"NAMED_SECRET.* is empty"):
        read(tmp_path, "NAMED_SECRET", "")
    assert read(tmp_path, "", "") == ""
