"""Retention: find the channels whose oldest events have expired or exceed the total size limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from pushd.bus.channel import Channel
from pushd.bus.lazy_heap import LazyHeap

__all__ = ["RetentionQueue"]

S = TypeVar("S")

_CHANNELS_PER_CALL = 500
"""How many channels one call of `RetentionQueue.expire` checks."""

_STEPS_PER_CALL = 1000
"""How many steps one call of `RetentionQueue.make_room` takes; dropping one event takes at most two."""


class RetentionQueue(Generic[S]):
    """Queue channels by the time and the place of their oldest events, so that no call checks all channels.

    Each call checks a limited number of channels and events and leaves the rest to later calls. Readers trim a
    channel before they read it.
    """

    def __init__(
        self,
        max_bytes: int,
        trim: Callable[[Channel[S]], object],
        drop: Callable[[Channel[S]], None],
        is_here: Callable[[Channel[S]], bool],
        channels: Callable[[], int],
    ) -> None:
        """Start without channels.

        `trim` drops the events that exceed a channel's limits, `drop` drops its oldest event. `is_here` returns
        whether a channel exists, `channels` the number of channels. `max_bytes` limits the size of all events.
        """
        self.max_bytes = max_bytes
        """The size limit of all events, in bytes; it may be exceeded for a short time."""
        self._trim = trim
        self._drop = drop
        self._is_here = is_here
        self.size_bytes = 0
        """The approximate size of all events, in bytes."""
        self._expiries: LazyHeap[float, Channel[S]] = LazyHeap(is_here, channels)  # each channel at most once
        # by a lower bound of the sequence of the channel's oldest event
        self._oldest: LazyHeap[int, Channel[S]] = LazyHeap(is_here, channels)

    def count(self, channel: Channel[S]) -> None:
        """Record the current size of a channel: its events, plus its own overhead while it has events."""
        history = channel.history
        size = history.size_bytes
        if size:
            size += history.base_bytes
        self.size_bytes += size - channel.size_bytes
        channel.size_bytes = size

    def watch(self, channel: Channel[S]) -> None:
        """Queue a channel with events, to be checked when its oldest event expires or is the oldest of all."""
        if not channel.awaits_expiry:
            channel.awaits_expiry = True
            self._expiries.push(channel.history.expires_s, channel)
        if not channel.awaits_room:
            channel.awaits_room = True
            self._oldest.push(channel.history.bound(-1), channel)

    def watch_later(self, channel: Channel[S]) -> None:
        """Queue a channel to be checked soon, without reading its oldest event now."""
        channel.awaits_expiry = channel.awaits_room = True
        self._expiries.push(0.0, channel)
        self._oldest.push(channel.history.bound(-1), channel)

    def oldest_first(self) -> list[list[tuple[int, int, Channel[S]]]]:
        """Return heaps of all channels with events, by a lower bound of the sequence of their oldest event."""
        return self._oldest.heaps()

    def expire(self, seconds: float, is_over: Callable[[], bool]) -> bool:
        """Trim some channels whose oldest events have expired by `seconds`, then make room, until `is_over`.

        Return whether `is_over` ended the call. Takes at least one step.
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
            if is_over():  # a channel takes 20 microseconds, or much more if many events have expired
                return True
        return self.make_room(is_over=is_over)

    def make_room(self, added: int = 0, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Drop some of the oldest events of all channels while the size exceeds `max_bytes`.

        The number of steps grows with the events `added` just now, so dropping keeps up with publishing. Return
        whether the time `is_over` ended the call.
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
