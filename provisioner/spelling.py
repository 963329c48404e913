"""Suggestions for misspelt words and dossier numbers."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator

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
    """The sentence of :func:`did_you_mean` if exactly one known number differs by one typing mistake.

    The function looks up the few hundred possible mistakes, because there may be a hundred thousand numbers.
    Several matches give no suggestion: numbers of a series differ in one digit.
    """
    if len(number) > 20:
        return ""
    for mistakes in _mistakes(number):
        found = {other for other in mistakes if other in numbers and other != number}
        if len(found) == 1:
            return f' Did you mean "{found.pop()}"?'
    return ""


def _mistakes(number: str) -> Iterator[Iterable[str]]:
    """Groups of similar numbers: other zeros or case, characters swapped, replaced, lost or added."""
    bare = number.lstrip("0")
    splits = [(number[:at], number[at:]) for at in range(len(number) + 1)]
    yield *(bare.zfill(width) for width in range(len(bare), 13)), number.upper(), number.lower()
    yield (left + right[1] + right[0] + right[2:] for left, right in splits if len(right) > 1)
    yield (left + other + right[1:] for left, right in splits if right for other in _DIGITS_AND_LETTERS)
    yield (
        left + other + rest
        for left, right in splits
        for other, rest in [("", right[1:]), *((other, right) for other in _DIGITS_AND_LETTERS)]
    )
