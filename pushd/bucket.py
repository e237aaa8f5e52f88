"""Token buckets: how often somebody may do something."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Buckets"]

_SLACK_S = 1e-6
"""By how much somebody may come too early: numbers are rounded. It is owed, and so never adds up."""


class Buckets:
    """A bucket for each key: as many tokens as may be taken at once, and then as many as come in by the second.

    Of each bucket there is only the time at which it is full again. One that is full is like one that was never
    used, and is forgotten.
    """

    __slots__ = ("_burst_s", "_full_at", "_max_keys", "_rate", "_seconds")

    def __init__(self, rate: float, burst: int, seconds: Callable[[], float], max_keys: int = 100_000) -> None:
        """Let `rate` tokens come in each second, of which up to `burst` stay.

        `rate` is more than 0. Of more than `max_keys` that are not full, those used longest ago count as full.
        """
        assert rate > 0 and burst > 0
        self._rate = rate
        self._burst_s = burst / rate
        self._seconds = seconds
        self._max_keys = max_keys
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """By when it was used, the longest ago first."""

    def __len__(self) -> int:
        """Count the buckets that are remembered."""
        return len(self._full_at)

    def take(self, key: str, count: int = 1) -> float:
        """Take `count` tokens: answer 0.0, or in how many seconds they will be there, and take none.

        More than a full bucket has can be taken from one that is full; the rest is owed.
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
        """Take `count` tokens whether they are there or not; what is missing is owed."""
        now, full_at = self._seconds(), self._full_at
        if key in full_at:
            full_at.move_to_end(key)
        else:
            self._make_room(now)
        full_at[key] = max(now, full_at.get(key, now)) + count / self._rate

    def _make_room(self, now: float) -> None:
        """Forget what is full, two for each that is new, and more than that if there are too many."""
        full_at = self._full_at
        for _ in range(2):
            if full_at and next(iter(full_at.values())) <= now:
                full_at.popitem(last=False)
        if len(full_at) >= self._max_keys:
            full_at.popitem(last=False)
