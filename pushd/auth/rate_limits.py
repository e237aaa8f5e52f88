"""The publisher that is asked too often: it lets each user or address publish so many events in a second.

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
"""By how much somebody may come too early: numbers are rounded. It is owed, and so never adds up."""


class TokenBuckets:
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


class Rates(Protocol):
    """What knows how often something was done by whom: `pushd.auth.rate_limits.TokenBuckets`."""

    def take(self, key: str, count: int = 1) -> float:
        """Take note that it is done, and answer 0; or answer after how many seconds it could be."""


def take(rates: Rates, caller: ClientInfo, count: int = 1, *, is_join: bool = False) -> TooMany | None:
    """Take note that `caller` publishes an event to `count` channels or, counted by itself, has a join published.

    Or return why it may not now. Operators are not limited.
    """
    key = owner_of(caller)
    if key is None or caller.grants.is_operator:
        return None
    wait_s = rates.take(f"joins of {key}" if is_join else key, count)
    what = "subscribes" if is_join else "publishes"
    return TooMany(f"{key} {what} too often: see [limits] publish_rate", retry_s=wait_s) if wait_s else None


class RateLimitedPublisher:
    """A `pushd.bus.publisher.Publisher` that passes on what is not too much. Operators are not limited."""

    def __init__(self, publisher: Publisher, rates: Rates) -> None:
        self._publisher = publisher
        self._rates = rates

    def publish(self, draft: Draft, caller: ClientInfo, done: Callable[[Outcome], None]) -> None:
        """Publish an event and tell `done`, unless it is one too many."""
        too_many = take(self._rates, caller, len(draft.channels))
        if too_many is None:
            self._publisher.publish(draft, caller, done)
        else:
            done(too_many)

    def publish_all(
        self, drafts: Sequence[Draft], caller: ClientInfo, done: Callable[[list[Outcome]], None]
    ) -> None:
        """Publish events until there is one too many, and tell `done` of all."""
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
        """Delete a channel and tell `done`."""
        self._publisher.delete(name, caller, done)
