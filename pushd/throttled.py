"""The publisher that is asked too often: it lets each user or address publish so many events in a second.

An event counts once for each of its channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pushd.bus.clientinfo import Caller, owner_of
from pushd.bus.event import Draft
from pushd.bus.publisher import Deleted, Outcome, Publisher
from pushd.errors import TooMany

__all__ = ["Throttled", "take"]


class Rates(Protocol):
    """What knows how often something was done by whom: `pushd.bucket.Buckets`."""

    def take(self, key: str, count: int = 1) -> float:
        """Take note that it is done, and answer 0; or answer after how many seconds it could be."""


def take(rates: Rates, caller: Caller, count: int = 1, *, is_join: bool = False) -> TooMany | None:
    """Take note that `caller` publishes an event to `count` channels or, counted by itself, has a join published.

    Or return why it may not now. Operators are not limited.
    """
    key = owner_of(caller)
    if key is None or caller.grants.is_operator:
        return None
    wait_s = rates.take(f"joins of {key}" if is_join else key, count)
    what = "subscribes" if is_join else "publishes"
    return TooMany(f"{key} {what} too often: see [limits] publish_rate", retry_s=wait_s) if wait_s else None


class Throttled:
    """A `pushd.bus.publisher.Publisher` that passes on what is not too much. Operators are not limited."""

    def __init__(self, publisher: Publisher, rates: Rates) -> None:
        self._publisher = publisher
        self._rates = rates

    def publish(self, draft: Draft, caller: Caller, done: Callable[[Outcome], None]) -> None:
        """Publish an event and tell `done`, unless it is one too many."""
        too_many = take(self._rates, caller, len(draft.channels))
        if too_many is None:
            self._publisher.publish(draft, caller, done)
        else:
            done(too_many)

    def publish_all(self, drafts: Sequence[Draft], caller: Caller, done: Callable[[list[Outcome]], None]) -> None:
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

    def delete(self, name: str, caller: Caller, done: Callable[[Deleted], None]) -> None:
        """Delete a channel and tell `done`."""
        self._publisher.delete(name, caller, done)
