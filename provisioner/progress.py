"""The callbacks with which long operations report their progress, whether or not the progress is shown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

ProgressCallback = Callable[[int, int], object]
"""A function that reports progress. Its arguments are the number of finished items and the total number."""

ProgressFactory = Callable[[str], AbstractContextManager[ProgressCallback]]
"""A function that takes the label to show and returns a context manager, which yields the callback."""


def ignore_progress(done: int, total: int) -> None:
    """Ignore a progress report."""


def no_progress(label: str) -> AbstractContextManager[ProgressCallback]:
    """Return a context manager that yields :func:`ignore_progress`. The ``label`` is not shown."""
    return nullcontext(ignore_progress)
