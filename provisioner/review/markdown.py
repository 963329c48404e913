"""A plan as Markdown for the comment of a merge request: within the platform's limit, whatever its size.

Values are shown as plain words where they are nothing but words, and as code otherwise: a platform
finds no mention, no reference, no link and no markup in code. The counts never give way to the limit.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from provisioner.diagnostics import Diagnostic
from provisioner.model import Address
from provisioner.planning.plan import Change, Plan, PlannedLetter
from provisioner.review.describe import Names, company_said, counted, facts_of, origin_said, title_of
from provisioner.review.overview import (
    LISTED,
    LISTS_ALL,
    NO_CHANGES,
    NOBODY_SEES_MORE,
    Group,
    Risk,
    Section,
    counts,
    groups,
    in_short,
    names_of,
    risks,
    sections,
)
from provisioner.review.visible import visible

LIMIT = 65_536
"""GitHub's, in characters; kept here in bytes, which are never fewer."""

SKELETON = 8_192
"""More bytes than the words that never give way take: headings, counts, tags and the notes about cuts."""

LONGEST = 400
"""Characters of one value that are shown."""

_WORD = r"[^\W\d_]+(?:[-'’][^\W\d_]+)*"
_PLAIN = re.compile(rf"\(?(?:{_WORD}|[0-9]{{1,6}}|[0-9]{{1,3}}(?:,[0-9]{{3}})+)\)?[.,;:]?|[&→…]|–")
_COMMIT = re.compile(r"\(?[0-9a-f]{7,}", re.IGNORECASE)
_BACKTICKS = re.compile("`+")


class _Room:
    """Bytes left to write in."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, text: str) -> bool:
        """Whether the text still fits; if so its place is taken."""
        size = len(text.encode())
        if size > self._left:
            return False
        self._left -= size
        return True

    def share(self, part: int) -> _Room:
        """A room of its own, of one ``part``-th of what is left; what it does not use is lost to nobody."""
        return _Room(self._left // part)


def render_markdown(plan: Plan, *, limit: int = LIMIT) -> str:
    """The plan in at most ``limit`` bytes. Raises :class:`ValueError` for a limit under 16,384."""
    if limit < 2 * SKELETON:
        raise ValueError(f"a comment needs {2 * SKELETON:,} bytes at least, not {limit:,}")
    names = names_of(plan)
    room = _Room(limit - SKELETON)
    opening = "".join(_opening(plan, names, room))
    beside = "".join(_sections(plan, room))
    changes = "".join(_changes(plan, names, room)) if plan.changes else ""
    return opening + changes + beside
