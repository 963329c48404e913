"""Who watches long work: a function that is told how far it is, whether or not anybody looks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

ProgressCallback = Callable[[int, int], object]
"""Is told how many of how many are done."""

ProgressFactory = Callable[[str], AbstractContextManager[ProgressCallback]]
"""Of what is being done, makes who is told of it."""


def ignore_progress(done: int, total: int) -> None:
    """Nobody is told."""


def no_progress(label: str) -> AbstractContextManager[ProgressCallback]:
    """Nobody watches."""
    return nullcontext(ignore_progress)
