"""Who watches long work: a function that is told how far it is, whether or not anybody looks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Tell = Callable[[int, int], object]
"""Is told how many of how many are done."""

Watch = Callable[[str], AbstractContextManager[Tell]]
"""Of what is being done, makes who is told of it."""


def untold(done: int, total: int) -> None:
    """Nobody is told."""


def unwatched(label: str) -> AbstractContextManager[Tell]:
    """Nobody watches."""
    return nullcontext(untold)
