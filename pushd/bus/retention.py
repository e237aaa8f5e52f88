"""Trimming: finding the channels whose oldest events have expired, or have to go because all are too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from pushd.bus.channel import Channel
from pushd.bus.lazy_heap import LazyHeap

__all__ = ["RetentionQueue"]

S = TypeVar("S")

_CHANNELS_PER_CALL = 500
"""How many channels are looked at each time for what has expired."""

_STEPS_PER_CALL = 1000
"""How many steps are taken each time because all events together are too much; to drop one takes two at most."""


class RetentionQueue(Generic[S]):
    """Knows of each channel when to look at it, so that nobody has to look at all of them.

    It looks at a limited number of channels and events each time. What is left is dropped later, and who reads a
    channel has it trimmed before.
    """

    def __init__(
        self,
        max_bytes: int,
        trim: Callable[[Channel[S]], object],
        drop: Callable[[Channel[S]], None],
        is_here: Callable[[Channel[S]], bool],
        channels: Callable[[], int],
    ) -> None:
        """Begin without channels.

        `trim` drops what is over a channel's limits, `drop` its oldest event; `is_here` tells whether a channel
        was not given up, and `channels` how many there are. All events are to take about `max_bytes`.
        """
        self.max_bytes = max_bytes
        """How much they may take."""
        self._trim = trim
        self._drop = drop
        self._is_here = is_here
        self.size_bytes = 0
        """About how much all events take."""
        self._expiries: LazyHeap[float, Channel[S]] = LazyHeap(is_here, channels)  # each channel once at most
        # by a sequence that the channel's oldest is not before
        self._oldest: LazyHeap[int, Channel[S]] = LazyHeap(is_here, channels)

    def count(self, channel: Channel[S]) -> None:
        """Record how much a channel takes now: its events, and itself while it has any."""
        history = channel.history
        size = history.size_bytes
        if size:
            size += history.base_bytes
        self.size_bytes += size - channel.size_bytes
        channel.size_bytes = size

    def watch(self, channel: Channel[S]) -> None:
        """Look at a channel, which has events, when the time comes."""
        if not channel.awaits_expiry:
            channel.awaits_expiry = True
            self._expiries.push(channel.history.expires_s, channel)
        if not channel.awaits_room:
            channel.awaits_room = True
            self._oldest.push(channel.history.bound(-1), channel)

    def watch_later(self, channel: Channel[S]) -> None:
        """Look at a channel some time soon, without finding out now what its oldest event is."""
        channel.awaits_expiry = channel.awaits_room = True
        self._expiries.push(0.0, channel)
        self._oldest.push(channel.history.bound(-1), channel)

    def oldest_first(self) -> list[list[tuple[int, int, Channel[S]]]]:
        """Return heaps that have all channels with events, by a sequence that their oldest is not before."""
        return self._oldest.heaps()

    def expire(self, seconds: float, is_over: Callable[[], bool]) -> bool:
        """Trim some of the channels whose oldest events have expired, and make some room, until the time `is_over`.

        Return whether that ended it. At least one step is taken.
        """
        expiries = self._expiries
        for _ in range(_CHANNELS_PER_CALL):
            first = expiries.first
            if first is None or first[0] > seconds:
                break
            channel = expiries.pop()
            channel.awaits_expiry = False
            if self._is_here(channel):
                self._trim(channel)
                if channel.history:
                    self.watch(channel)
            if is_over():  # a channel takes 20 microseconds, much more if many of its events have expired
                return True
        return self.make_room(is_over=is_over)

    def make_room(self, added: int = 0, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Drop some of the oldest events of all, if there are too many bytes; more than were `added` just now.

        Return whether it ended because the time `is_over`.
        """
        oldest = self._oldest
        for _ in range(_STEPS_PER_CALL + 2 * added):
            first = oldest.first if self.size_bytes > self.max_bytes else None
            if first is None:
                return False
            sequence, channel = first
            if not channel.history or not self._is_here(channel):
                oldest.pop()
                channel.awaits_room = False
            elif (actual := channel.history.oldest_sequence) > sequence:
                oldest.put_off(actual)
            else:
                self._drop(channel)
            if is_over():
                return True
        return False
