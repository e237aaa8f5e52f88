"""The channels without events: which of them are given up first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import chain, islice, repeat
from typing import Generic, TypeVar

from pushd.bus.channel import Channel, Idle
from pushd.bus.linked_list import LinkedList

__all__ = ["IdleChannels"]

S = TypeVar("S")

_MOST_STEPS = 100
"""How many channels that have expired in part, or other steps, there may be at most: they take up to 2 ms."""


class IdleChannels(Generic[S]):
    """Channels without events, those idle for longest first, and behind them those with subscribers by name."""

    __slots__ = ("_heard", "_unheard")

    def __init__(self) -> None:
        self._unheard: LinkedList[Idle[S]] = LinkedList()
        self._heard: LinkedList[Idle[S]] = LinkedList()  # those with subscribers by name

    def __len__(self) -> int:
        """Count them."""
        return len(self._unheard) + len(self._heard)

    def __iter__(self) -> Iterator[Channel[S]]:
        """Return them in the order in which they are given up."""
        return (idle.channel for idle in chain(self._unheard, self._heard))

    def add(self, channel: Channel[S]) -> None:
        """Put in a channel; one that is in already keeps its place, unless `is_heard` has changed."""
        idle = channel.idle
        if idle is not None:
            if idle.is_heard == channel.is_heard:
                return
            self.remove(channel)
        idle = channel.idle = Idle(channel)
        self._order(idle).put_last(idle)

    def remove(self, channel: Channel[S]) -> None:
        """Take out a channel, if it is in."""
        idle, channel.idle = channel.idle, None
        if idle is not None:
            self._order(idle).remove(idle)

    def _order(self, idle: Idle[S]) -> LinkedList[Idle[S]]:
        return self._heard if idle.is_heard else self._unheard

    def enough(self, count: int) -> Callable[[], bool]:
        """Return what tells, asked after each step, whether there are `count`, or it takes too many steps."""
        steps = islice(repeat(False), count + _MOST_STEPS)
        return lambda: len(self) >= count or next(steps, True)

    def first(self, count: int, names: Collection[str]) -> list[Channel[S]]:
        """Return the first `count`, or fewer if there are not so many, but none of `names`."""
        return list(islice((channel for channel in self if channel.name not in names), count))
