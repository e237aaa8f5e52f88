"""Activity: the busiest channels of the last seconds."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from heapq import nsmallest
from itertools import chain, islice

from pushd.bus import Bus, record

__all__ = ["WINDOW", "BusyChannel", "ChannelActivity"]

WINDOW = 10
"""Number of samples, one per second, over which the rate of a channel is computed."""


@record()
class BusyChannel:
    """The activity of one channel."""

    channel: str
    """Name of the channel."""

    rate: float
    """Events published per second."""

    subscribers: int
    """Number of subscribers."""

    retained: int
    """Number of retained events."""

    size_bytes: int
    """Approximate size of the retained events, in bytes."""


class ChannelActivity:
    """Samples the channels of a bus.

    A sample takes time proportional to the channels with new events; the first one, to all channels. Between
    samples, and when an event is published, it costs nothing.
    """

    def __init__(self, bus: Bus) -> None:
        """Start without samples."""
        self._bus = bus
        self.forget()

    def forget(self) -> None:
        """Discard all samples, when sampling stops for a while."""
        self._offsets: dict[str, int] = {}
        self._sequence = 0
        self._looks: deque[tuple[float, dict[str, int]]] = deque()
        self._counts: Counter[str] = Counter()

    def look(self) -> None:
        """Take a sample: record the events published since the last one."""
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
        if len(self._offsets) > 2 * len(log) + 100:  # most channels in it are discarded
            self._offsets = {name: offset for name, offset in self._offsets.items() if log.get(name) is not None}

    def _count(self) -> dict[str, int]:
        """Return the number of new events, for each channel with any.

        A new channel starts at the offset of the discarded channels. That offset may have grown since, so the
        number is only known to be between 1 and that of all new events.
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
        """Return up to `limit` channels: the busiest, then those with the latest events, then any."""
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
        if channel is None:  # a channel with subscribers only
            return BusyChannel(name, rate, subscribers, 0, 0)
        return BusyChannel(name, rate, subscribers, len(channel.history), channel.size_bytes)
