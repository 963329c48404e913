"""Progress of long work: callbacks that operations call, whether or not it is shown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

ProgressCallback = Callable[[int, int], object]
"""Takes how many parts are done, and of how many."""

ProgressFactory = Callable[[str], AbstractContextManager[ProgressCallback]]
"""Takes a label for the work; entered for as long as it takes."""


def ignore_progress(done: int, total: int) -> None:
    """Do nothing."""


def no_progress(label: str) -> AbstractContextManager[ProgressCallback]:
    """A factory of callbacks that do nothing."""
    return nullcontext(ignore_progress)
