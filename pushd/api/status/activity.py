"""Activity: which channels have had the most events lately."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from heapq import nsmallest
from itertools import chain, islice
from typing import Protocol

from pushd.bus import EventLog, Subscription, record

__all__ = ["WINDOW", "BusyChannel", "ChannelActivity"]

WINDOW = 10
"""Over how many looks, which are a second apart, the rate of a channel is taken."""


class _Bus(Protocol):
    """What is known of the `pushd.bus.bus.Bus`."""

    log: EventLog[Subscription]

    def names(self) -> Iterator[str]:
        """Return the names of all channels, and then those that are only subscribed to."""

    def audience_size(self, name: str) -> int:
        """Count who would get an event of the channel `name`."""


@record()
class BusyChannel:
    """One channel, and how much goes on there."""

    channel: str
    """Its name."""

    rate: float
    """How many events were published to it per second."""

    subscribers: int
    """How many subscribers get its events."""

    retained: int
    """How many events it keeps."""

    size_bytes: int
    """About how much they take."""


class ChannelActivity:
    """Looks at the channels of a bus again and again.

    A look costs as much as there are channels that had events since the one before, and the first as much as there
    are channels. In between nothing is done, nor when an event is published.
    """

    def __init__(self, bus: _Bus) -> None:
        """Begin without having looked."""
        self._bus = bus
        self.forget()

    def forget(self) -> None:
        """Begin anew: there is going to be no look for a while."""
        self._offsets: dict[str, int] = {}
        self._sequence = 0
        self._looks: deque[tuple[float, dict[str, int]]] = deque()
        self._counts: Counter[str] = Counter()

    def look(self) -> None:
        """Take note of what was published since the last look."""
        log = self._bus.log
        if not self._looks:
            self._offsets = {channel.name: channel.offset for channel in log.recent()}
        counts = self._count() if self._looks else {}
        self._sequence = log.sequence
        self._looks.append((log.seconds(), counts))
        self._counts.update(counts)
        if len(self._looks) > WINDOW + 1:
            self._looks.popleft()
            self._leave_out(self._looks[0][1])
        if len(self._offsets) > 2 * len(log) + 100:  # most are of channels that were given up
            self._offsets = {name: offset for name, offset in self._offsets.items() if log.get(name) is not None}

    def _count(self) -> dict[str, int]:
        """Return how many events each channel got that got any.

        A channel that is new began at the offset of those that were given up. That has grown if there were more of
        them since, so it is only known that the number is from 1 to that of all events.
        """
        log, counts = self._bus.log, {}
        first, most = log.state.given_up_offset, log.sequence - self._sequence
        for channel in log.recent(self._sequence):
            count = channel.offset - self._offsets.get(channel.name, first)
            counts[channel.name] = max(1, min(count, most))
            self._offsets[channel.name] = channel.offset
        return counts

    def _leave_out(self, counts: dict[str, int]) -> None:
        for name, count in counts.items():
            self._counts[name] -= count
            if not self._counts[name]:
                del self._counts[name]

    def busiest(self, limit: int) -> list[BusyChannel]:
        """Describe `limit` channels: the busiest, then those that had an event last, then any."""
        lasted_s = self._looks[-1][0] - self._looks[0][0] if self._looks else 0.0
        return [self._describe(name, lasted_s) for name in islice(self._in_order(limit), limit)]

    def _in_order(self, limit: int) -> Iterator[str]:
        log, seen = self._bus.log, set()
        busy = nsmallest(limit, self._counts.items(), key=lambda item: (-item[1], item[0]))
        recent = (channel.name for channel in log.recent())
        busy_names = (name for name, _ in busy if log.get(name) is not None)
        for name in chain(busy_names, recent, self._bus.names()):
            if name not in seen:
                seen.add(name)
                yield name

    def _describe(self, name: str, lasted_s: float) -> BusyChannel:
        channel = self._bus.log.get(name)
        rate, subscribers = self._counts[name] / lasted_s if lasted_s else 0.0, self._bus.audience_size(name)
        if channel is None:  # it is only subscribed to
            return BusyChannel(name, rate, subscribers, 0, 0)
        return BusyChannel(name, rate, subscribers, len(channel.history), channel.size_bytes)
