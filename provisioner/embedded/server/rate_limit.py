"""The limits of the service, and token buckets that enforce its rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

MAX_BUCKETS = 10_000
"""How many buckets are kept; the fullest are dropped first, because a full bucket limits nothing."""


@dataclass(frozen=True)
class ServerLimits:
    """The limits of one client or address."""

    rate: float = 2_000
    """Requests a second of one client; twice as many in a burst."""
    failed_logins: float = 30
    """Failed log-ins a minute from one address; as many in a burst."""
    logins: float = 300
    """Log-ins a minute of one client; as many in a burst. Each stores a token in the database."""
    token_seconds: int = 900
    """How long a token is valid."""
    body_seconds: float = 30
    """The time in which a body must arrive."""
    behind_proxy: bool = False
    """The client's address is the last entry of X-Forwarded-For, or the proxy's own if that is no address."""


class TokenBuckets:
    """One token bucket for each name. Not thread-safe: used from one event loop."""

    def __init__(self, rate: float, burst: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._now = now
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> int:
        """Take one token and return 0; without a token left, return the seconds to wait."""
        wait = self.wait(name)
        if not wait:
            level, now = self._level(name)
            self._levels[name] = level - 1, now
            if len(self._levels) > MAX_BUCKETS:
                self._drop_fullest()
        return wait

    def wait(self, name: str) -> int:
        """0 if a token is available, else the seconds to wait."""
        level, _ = self._level(name)
        return 0 if level >= 1 else max(1, math.ceil((1 - level) / self._rate))

    def _level(self, name: str) -> tuple[float, float]:
        now = self._now()
        level, then = self._levels.get(name, (self._burst, now))
        return min(self._burst, level + (now - then) * self._rate), now

    def _drop_fullest(self) -> None:
        fullest = sorted(self._levels, key=lambda name: -self._level(name)[0])
        for name in fullest[: MAX_BUCKETS // 2]:
            del self._levels[name]
