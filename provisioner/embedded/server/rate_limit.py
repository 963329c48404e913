"""The settings for the limits of the service, and the token buckets that enforce its rate limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

MAX_BUCKETS = 10_000
"""The maximum number of buckets. The fullest are removed first, because a full bucket limits nothing."""


@dataclass(frozen=True)
class ServerLimits:
    """The settings of the service's limits. Most of them limit each API client or each IP address."""

    rate: float = 2_000
    """The maximum number of requests per second of one API client. A burst may have twice this number."""
    failed_logins: float = 30
    """The maximum number of failed log-ins per minute from one IP address. One burst may have this number."""
    logins: float = 300
    """The maximum number of log-ins per minute of one client. Each log-in stores a token in the database."""
    token_seconds: int = 900
    """The time in seconds for which an access token is valid."""
    body_seconds: float = 30
    """The maximum time in seconds for a request body to arrive."""
    behind_proxy: bool = False
    """True if a proxy forwards the requests and appends the client's IP address to X-Forwarded-For."""


class TokenBuckets:
    """One token bucket (rate limit) for each name. A bucket holds up to ``burst`` tokens and gains ``rate``
    tokens per second. Not thread-safe: use the buckets in one event loop.
    """

    def __init__(self, rate: float, burst: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._now = now
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> int:
        """Take a token from the bucket ``name`` and return 0. If it is empty, return the seconds to wait."""
        wait = self.wait(name)
        if not wait:
            level, now = self._level(name)
            self._levels[name] = level - 1, now
            if len(self._levels) > MAX_BUCKETS:
                self._drop_fullest()
        return wait

    def wait(self, name: str) -> int:
        """Return 0 if the bucket ``name`` has a token, otherwise the seconds to wait. No token is taken."""
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
