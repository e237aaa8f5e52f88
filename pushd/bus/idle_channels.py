"""The channels without events, in the order in which they are given up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import chain, islice, repeat
from typing import Generic, TypeVar

from pushd.bus.channel import Channel, Idle
from pushd.bus.linked_list import LinkedList

__all__ = ["IdleChannels"]

S = TypeVar("S")

_MOST_STEPS = 100
"""The maximum number of extra steps, such as partly expired channels; these take up to 2 ms."""


class IdleChannels(Generic[S]):
    """Channels without events, longest idle first; channels with subscribers by name come last."""

    __slots__ = ("_heard", "_unheard")

    def __init__(self) -> None:
        self._unheard: LinkedList[Idle[S]] = LinkedList()
        self._heard: LinkedList[Idle[S]] = LinkedList()  # channels with subscribers by name

    def __len__(self) -> int:
        """Return the number of idle channels."""
        return len(self._unheard) + len(self._heard)

    def __iter__(self) -> Iterator[Channel[S]]:
        """Return the idle channels in the order in which they are given up."""
        return (idle.channel for idle in chain(self._unheard, self._heard))

    def add(self, channel: Channel[S]) -> None:
        """Add a channel; an idle channel keeps its place unless `is_heard` has changed."""
        idle = channel.idle
        if idle is not None:
            if idle.is_heard == channel.is_heard:
                return
            self.remove(channel)
        idle = channel.idle = Idle(channel)
        self._order(idle).put_last(idle)

    def remove(self, channel: Channel[S]) -> None:
        """Remove a channel; no effect if the channel is not in the list."""
        idle, channel.idle = channel.idle, None
        if idle is not None:
            self._order(idle).remove(idle)

    def _order(self, idle: Idle[S]) -> LinkedList[Idle[S]]:
        return self._heard if idle.is_heard else self._unheard

    def enough(self, count: int) -> Callable[[], bool]:
        """Return a check to call after each step: True once `count` are idle, or after too many steps."""
        steps = islice(repeat(False), count + _MOST_STEPS)
        return lambda: len(self) >= count or next(steps, True)

    def first(self, count: int, names: Collection[str]) -> list[Channel[S]]:
        """Return up to `count` idle channels from the start, except the channels `names`."""
        return list(islice((channel for channel in self if channel.name not in names), count))
