"""Token buckets: rate limits by key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

__all__ = ["TokenBuckets"]

_SLACK_S = 1e-6
"""Tolerance for rounding, in seconds. The difference is owed, so it never adds up."""


class TokenBuckets:
    """A token bucket for each key, with a burst size and a refill rate per second.

    For each bucket, only the time when it is full again is stored. A full bucket equals an unused one, and is
    removed.
    """

    __slots__ = ("_burst_s", "_full_at", "_max_keys", "_rate", "_seconds")

    def __init__(self, rate: float, burst: int, seconds: Callable[[], float], max_keys: int = 100_000) -> None:
        """Refill each bucket by `rate` tokens per second, up to `burst`. Both are positive.

        Beyond `max_keys` buckets, the least recently used is removed, and so counts as full.
        """
        assert rate > 0 and burst > 0
        self._rate = rate
        self._burst_s = burst / rate
        self._seconds = seconds
        self._max_keys = max_keys
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """When each bucket is full again; the least recently used bucket is first."""

    def __len__(self) -> int:
        """Return the number of stored buckets."""
        return len(self._full_at)

    def take(self, key: str, count: int = 1) -> float:
        """Take `count` tokens and return 0.0; if there are too few, take none and return the wait in seconds.

        A full bucket allows more tokens than it holds; the rest is owed.
        """
        now, full_at = self._seconds(), self._full_at
        before = full_at.get(key, now)
        if before < now:
            before = now
        wait_s = before - now + min(count / self._rate, self._burst_s) - self._burst_s
        if wait_s > _SLACK_S:
            full_at.move_to_end(key)
            return wait_s
        if key in full_at:
            full_at.move_to_end(key)
        else:
            self._make_room(now)
        full_at[key] = before + count / self._rate
        return 0.0

    def owe(self, key: str, count: int) -> None:
        """Take `count` tokens unconditionally; missing tokens are owed."""
        now, full_at = self._seconds(), self._full_at
        if key in full_at:
            full_at.move_to_end(key)
        else:
            self._make_room(now)
        full_at[key] = max(now, full_at.get(key, now)) + count / self._rate

    def _make_room(self, now: float) -> None:
        """Remove up to two full buckets for each new one, and the least recently used one at `max_keys`."""
        full_at = self._full_at
        for _ in range(2):
            if full_at and next(iter(full_at.values())) <= now:
                full_at.popitem(last=False)
        if len(full_at) >= self._max_keys:
            full_at.popitem(last=False)
