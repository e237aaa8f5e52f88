"""The publish rate limit of each user or address, as token buckets.

An event counts once for each of its channels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from pushd.bus import ClientInfo, Deleted, Draft, Outcome, Publisher, owner_of
from pushd.errors import TooMany

__all__ = ["RateLimitedPublisher", "TokenBuckets", "take"]

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


class Rates(Protocol):
    """Rate limits by key: `pushd.auth.rate_limits.TokenBuckets`."""

    def take(self, key: str, count: int = 1) -> float:
        """Take `count` tokens and return 0; or take none and return the wait in seconds."""


def take(rates: Rates, caller: ClientInfo, count: int = 1, *, is_join: bool = False) -> TooMany | None:
    """Count an event of `caller` to `count` channels or, counted separately, a join.

    Return None, or the error if that exceeds the rate limit. Operators are exempt.
    """
    key = owner_of(caller)
    if key is None or caller.grants.is_operator:
        return None
    wait_s = rates.take(f"joins of {key}" if is_join else key, count)
    what = "subscribes" if is_join else "publishes"
    return TooMany(f"{key} {what} too often: see [limits] publish_rate", retry_s=wait_s) if wait_s else None


class RateLimitedPublisher:
    """A `pushd.bus.publisher.Publisher` that rejects events over the rate limit. Operators are exempt."""

    def __init__(self, publisher: Publisher, rates: Rates) -> None:
        self._publisher = publisher
        self._rates = rates

    def publish(self, draft: Draft, caller: ClientInfo, done: Callable[[Outcome], None]) -> None:
        """Publish an event unless it exceeds the rate limit; call `done` with the outcome."""
        too_many = take(self._rates, caller, len(draft.channels))
        if too_many is None:
            self._publisher.publish(draft, caller, done)
        else:
            done(too_many)

    def publish_all(
        self, drafts: Sequence[Draft], caller: ClientInfo, done: Callable[[list[Outcome]], None]
    ) -> None:
        """Publish events up to the first one over the rate limit; call `done` with all outcomes, in order."""
        refused: list[Outcome] = []
        count = 0
        for draft in drafts:
            too_many = take(self._rates, caller, len(draft.channels))
            if too_many is None:
                count += 1
            else:
                refused = [too_many] * (len(drafts) - count)
                break
        self._publisher.publish_all(drafts[:count], caller, lambda outcomes: done(outcomes + refused))

    def delete(self, name: str, caller: ClientInfo, done: Callable[[Deleted], None]) -> None:
        """Delete a channel; call `done` with the outcome."""
        self._publisher.delete(name, caller, done)
