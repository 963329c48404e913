"""Suggestions ("Did you mean …?") for misspelt words and dossier numbers."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator

_LONGEST_GUESS = 60
_DIGITS_AND_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def did_you_mean(word: str, candidates: Collection[str]) -> str:
    """Return `` Did you mean "Scan"?`` if a candidate resembles ``word``, else "". Slow for long lists."""
    from difflib import get_close_matches

    if len(word) > _LONGEST_GUESS:
        return ""
    plain: dict[str, str] = {}
    for candidate in sorted(candidates):
        plain.setdefault(unaccented(candidate), candidate)
    close = get_close_matches(unaccented(word), plain, n=1, cutoff=0.6)
    return f' Did you mean "{plain[close[0]]}"?' if close else ""


def unaccented(text: str) -> str:
    """Return the text in lower case and without accents; dashes and underscores become spaces."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c)).replace("_", " ").replace("-", " ")


def near_dossier(number: str, numbers: Collection[str]) -> str:
    """Return `` Did you mean "004217"?`` if the known ``numbers`` contain a similar number, otherwise "".

    There may be 100,000 known numbers, so the function generates the few hundred possible typing mistakes and
    looks up each of them. If several known numbers match the same kind of mistake, none of these numbers is
    suggested, because consecutive numbers differ in only one digit.
    """
    if len(number) > 20:
        return ""
    for mistakes in _mistakes(number):
        found = {other for other in mistakes if other in numbers and other != number}
        if len(found) == 1:
            return f' Did you mean "{found.pop()}"?'
    return ""


def _mistakes(number: str) -> Iterator[Iterable[str]]:
    """Yield groups of similar numbers, one group for each kind of mistake, such as wrong leading zeros."""
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
