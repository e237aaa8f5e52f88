"""Trimming: finding the channels whose oldest events have expired, or have to go because all are too much."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Generic, TypeVar

from pushd.channel import Channel

__all__ = ["Trimming"]

S = TypeVar("S")
K = TypeVar("K", int, float)

_CHANNELS_PER_CALL = 500
"""How many channels are looked at each time for what has expired."""

_STEPS_PER_CALL = 1000
"""How many steps are taken each time because all events together are too much; to drop one takes two at most."""


class Trimming(Generic[S]):
    """Knows of each channel when to look at it, so that nobody has to look at all of them.

    It looks at a limited number of channels and events each time. What is left is dropped later, and who reads a
    channel has it trimmed before.
    """

    def __init__(
        self,
        max_bytes: int,
        trim: Callable[[Channel[S]], None],
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
        self._channels = channels
        self.size_bytes = 0
        """About how much all events take."""
        self._expiries: list[tuple[float, int, Channel[S]]] = []  # each channel once at most
        # by a sequence that the channel's oldest is not before
        self._oldest: list[tuple[int, int, Channel[S]]] = []
        self._count = count()

    def count(self, channel: Channel[S]) -> None:
        """Take note of how much the events of a channel take now."""
        size = channel.history.size_bytes
        self.size_bytes += size - channel.size_bytes
        channel.size_bytes = size

    def watch(self, channel: Channel[S]) -> None:
        """Look at a channel, which has events, when the time comes."""
        if not channel.awaits_expiry:
            channel.awaits_expiry = True
            self._push(self._expiries, channel.history.expires_s, channel)
        if not channel.awaits_room:
            channel.awaits_room = True
            self._push(self._oldest, channel.history.bound(-1), channel)

    def watch_later(self, channel: Channel[S]) -> None:
        """Look at a channel some time soon, without finding out now what its oldest event is."""
        channel.awaits_expiry = channel.awaits_room = True
        self._push(self._expiries, 0.0, channel)
        self._push(self._oldest, channel.history.bound(-1), channel)

    def _push(self, heap: list[tuple[K, int, Channel[S]]], key: K, channel: Channel[S]) -> None:
        if len(heap) > 2 * self._channels():  # most are of channels that were given up
            heap[:] = [one for one in heap if self._is_here(one[2])]
            heapify(heap)
        heappush(heap, (key, next(self._count), channel))

    def oldest_first(self) -> list[tuple[int, int, Channel[S]]]:
        """Return a heap of all channels with events, by a sequence that their oldest is not before."""
        return self._oldest.copy()

    def expire(self, seconds: float) -> None:
        """Trim some of the channels whose oldest events have expired, and make some room."""
        expiries = self._expiries
        for _ in range(_CHANNELS_PER_CALL):
            if not expiries or expiries[0][0] > seconds:
                break
            channel = heappop(expiries)[2]
            channel.awaits_expiry = False
            if self._is_here(channel):
                self._trim(channel)
                if channel.history:
                    self.watch(channel)
        self.make_room()

    def make_room(self, added: int = 0) -> None:
        """Drop some of the oldest events of all, if there are too many bytes; more than were `added` just now."""
        oldest = self._oldest
        for _ in range(_STEPS_PER_CALL + 2 * added):
            if self.size_bytes <= self.max_bytes or not oldest:
                return
            sequence, number, channel = oldest[0]
            if not channel.history or not self._is_here(channel):
                heappop(oldest)
                channel.awaits_room = False
            elif (first := channel.history.oldest_sequence) > sequence:
                heapreplace(oldest, (first, number, channel))
            else:
                self._drop(channel)
