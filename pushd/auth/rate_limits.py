"""The publish rate limit of each user or address.

An event counts once for each of its channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pushd.bus import ClientInfo, Deleted, Draft, Outcome, Publisher, TokenBuckets, owner_of
from pushd.errors import TooMany

__all__ = ["RateLimitedPublisher", "take"]


def take(rates: TokenBuckets, caller: ClientInfo, count: int = 1, *, is_join: bool = False) -> TooMany | None:
    """Count an event of `caller` to `count` channels or, counted separately, a join.

    Return None, or the error if that exceeds the rate limit. Operators are exempt.
    """
    key = owner_of(caller)
    if key is None or caller.grants.is_operator:
        return None
    wait_s = rates.take(f"joins of {key}" if is_join else key, count)
    what = "subscribes" if is_join else "publishes"
    return (
        TooMany(f"{key} {what} too often: see [limits] publish_rate", retry_s=wait_s, code="rate_limited")
        if wait_s
        else None
    )


class RateLimitedPublisher:
    """A `pushd.bus.publisher.Publisher` that rejects events over the rate limit. Operators are exempt."""

    def __init__(self, publisher: Publisher, rates: TokenBuckets) -> None:
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
