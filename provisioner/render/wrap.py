"""The wrapping of text to lines of a given width, measured in terminal columns."""

from __future__ import annotations

from collections.abc import Iterator

from provisioner.render.sanitize import columns


def wrap(text: str, width: int, first: str, rest: str) -> Iterator[str]:
    """Yield the lines of a text that is wrapped between words.

    ``first`` is the prefix of the first line, and ``rest`` is the prefix of each other line. A line is wider
    than ``width`` columns only if a single word does not fit.
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
