"""Rate limits: a bucket of tokens each, filled steadily, emptied by use."""

from __future__ import annotations

import math
from collections.abc import Callable

MOST_KNOWN = 10_000
"""Buckets that are kept; full ones are forgotten first, which changes nothing."""


class TokenBuckets:
    """A bucket for each name; not safe for threads, and need not be: one event loop asks."""

    def __init__(self, rate: float, burst: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._now = now
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> int:
        """0, or the seconds after which to come again."""
        wait = self.wait(name)
        if not wait:
            level, now = self._level(name)
            self._levels[name] = level - 1, now
            if len(self._levels) > MOST_KNOWN:
                self._forget()
        return wait

    def wait(self, name: str) -> int:
        """Likewise, without taking anything."""
        level, _ = self._level(name)
        return 0 if level >= 1 else max(1, math.ceil((1 - level) / self._rate))

    def _level(self, name: str) -> tuple[float, float]:
        now = self._now()
        level, then = self._levels.get(name, (self._burst, now))
        return min(self._burst, level + (now - then) * self._rate), now

    def _forget(self) -> None:
        fullest = sorted(self._levels, key=lambda name: -self._level(name)[0])
        for name in fullest[: MOST_KNOWN // 2]:
            del self._levels[name]
