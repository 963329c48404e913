"""Words laid out in lines of a given width, in columns of a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from provisioner.render.sanitize import columns


def wrap(text: str, width: int, first: str, rest: str) -> Iterator[str]:
    """The lines of a text, broken between words: ``first`` begins the first one, ``rest`` the others.

    Only a single word that is longer goes beyond the width.
    """
    lead, used = first, len(first)
    words: list[str] = []
    for word in text.split(" "):
        wide = columns(word)
        if words and used + 1 + wide > width:
            yield f"{lead}{' '.join(words)}".rstrip(" ")
            lead, used, words = rest, len(rest), []
        used += wide + bool(words)
        words.append(word)
    yield f"{lead}{' '.join(words)}".rstrip(" ")
