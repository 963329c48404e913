"""Suggestions for misspelt words and dossier numbers."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator

_LONGEST_GUESS = 60
_DIGITS_AND_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def did_you_mean(word: str, candidates: Collection[str]) -> str:
    """The sentence `` Did you mean "Scan"?`` with its leading space, or "". Slow with many candidates."""
    from difflib import get_close_matches

    if len(word) > _LONGEST_GUESS:
        return ""
    plain: dict[str, str] = {}
    for candidate in sorted(candidates):
        plain.setdefault(unaccented(candidate), candidate)
    close = get_close_matches(unaccented(word), plain, n=1, cutoff=0.6)
    return f' Did you mean "{plain[close[0]]}"?' if close else ""


def unaccented(text: str) -> str:
    """A word without case and accents, its dashes and underscores as spaces."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c)).replace("_", " ").replace("-", " ")


def near_dossier(number: str, numbers: Collection[str]) -> str:
    """The same sentence for a dossier number, if exactly one known number differs by one typing mistake.

    The function looks up the few hundred possible mistakes, because there may be a hundred thousand numbers.
    Several matches give no suggestion: numbers of a series differ in one digit.
    """
    if len(number) > 20:
        return ""
    for mistakes in (_padded, _swapped, _mistyped, _lost_or_doubled):
        found = {other for other in mistakes(number) if other in numbers and other != number}
        if len(found) == 1:
            return f' Did you mean "{found.pop()}"?'
    return ""


def _padded(number: str) -> Iterator[str]:
    bare = number.lstrip("0")
    yield from (bare.zfill(width) for width in range(len(bare), 13))
    yield from (number.upper(), number.lower())


def _swapped(number: str) -> Iterator[str]:
    for place in range(len(number) - 1):
        yield number[:place] + number[place + 1] + number[place] + number[place + 2 :]


def _mistyped(number: str) -> Iterator[str]:
    for place in range(len(number)):
        for other in _DIGITS_AND_LETTERS:
            yield number[:place] + other + number[place + 1 :]


def _lost_or_doubled(number: str) -> Iterator[str]:
    for place in range(len(number) + 1):
        yield number[:place] + number[place + 1 :]
        for other in _DIGITS_AND_LETTERS:
            yield number[:place] + other + number[place:]
