"""The warning for texts of a client manifest that lack quotes.

provisioner keeps ``004217`` as text. Other YAML tools read a number, and may drop its zeros on rewriting.
"""

from __future__ import annotations

from collections.abc import Iterator

from provisioner.diagnostics import Diagnostic, warning
from provisioner.yaml_source.document import Document

_TEXT_FIELDS: frozenset[tuple[str, ...]] = frozenset({
    ("company", "number"), ("company", "name"), ("company", "siren"), ("billing", "offer"),
    ("users", "[]", "phone"), ("users", "[]", "last_name"), ("users", "[]", "first_name"),
    ("users", "[]", "profile"), ("users", "[]", "companies", "[]"), ("users", "[]", "apps", "[]"),
})  # fmt: skip
"""Paths of the fields that hold text; ``[]`` is any position of a list."""


def missing_quotes(document: Document) -> Iterator[Diagnostic]:
    """A ``quote-it`` warning for each plain scalar of a text field that YAML types as something else."""
    for path, text, offset in document.unquoted:
        if tuple("[]" if isinstance(part, int) else part for part in path) in _TEXT_FIELDS:
            key = next(part for part in reversed(path) if isinstance(part, str))
            yield warning(
                "quote-it",
                f"{key}: {text} lacks its quotes. It is read as this very text here, but an editor sees "
                "a number, a date or a yes there.",
                f'Write "{text}", within quotes.',
                document.positions.at(offset),
            )
