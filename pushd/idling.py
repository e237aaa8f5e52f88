"""The channels without events: which of them are given up first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from itertools import chain, islice
from typing import Generic, TypeVar

from pushd.channel import Channel

__all__ = ["Idling"]

S = TypeVar("S")


class Idling(Generic[S]):
    """Channels without events, those idle for longest first, and behind them those with subscribers by name.

    They are in an `OrderedDict`, because finding the first item of a plain dict costs as much as was taken from
    its front before.
    """

    __slots__ = ("heard", "unheard")

    def __init__(self) -> None:
        self.unheard: OrderedDict[Channel[S], None] = OrderedDict()
        """Those without subscribers by name."""
        self.heard: OrderedDict[Channel[S], None] = OrderedDict()
        """The others."""

    def __len__(self) -> int:
        """Count them."""
        return len(self.unheard) + len(self.heard)

    def __iter__(self) -> Iterator[Channel[S]]:
        """Return them in the order in which they are given up."""
        return chain(self.unheard, self.heard)

    def add(self, channel: Channel[S]) -> None:
        """Put in a channel; one that is in already keeps its place, unless `is_heard` has changed."""
        idle, other = self.unheard, self.heard
        if channel.is_heard:
            idle, other = other, idle
        other.pop(channel, None)
        idle[channel] = None

    def remove(self, channel: Channel[S]) -> None:
        """Take out a channel, if it is in."""
        self.unheard.pop(channel, None)
        self.heard.pop(channel, None)

    def first(self, count: int, names: Collection[str]) -> list[Channel[S]]:
        """Return the first `count`, or fewer if there are not so many, but none of `names`."""
        return list(islice((channel for channel in self if channel.name not in names), count))
