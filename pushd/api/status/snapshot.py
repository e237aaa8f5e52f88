"""The snapshot of the daemon's figures for the status stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pushd import __version__
from pushd.api.metrics.gauges import Gauges
from pushd.api.status.activity import ChannelActivity
from pushd.bus import Bus, ClientInfo, Histogram

__all__ = ["MAX_CHANNELS", "StatusSnapshot"]

MAX_CHANNELS = 50
"""Maximum number of channels shown."""


class StatusSnapshot:
    """Samples the daemon once a second, while the status stream has clients."""

    def __init__(self, bus: Bus, gauges: Gauges, now: Callable[[], float]) -> None:
        """Sample `bus` and the gauges of `gauges`; `now` returns the time in seconds since 1970."""
        self._bus = bus
        self._gauges = gauges
        self._now = now
        self._began = now()
        self._activity = ChannelActivity(bus)

    def about(self, caller: ClientInfo) -> Mapping[str, object]:
        """Return the figures that are constant for `caller`, a new client."""
        return {
            "version": __version__,
            "began": self._began,
            "connection": caller.id,
            "user": caller.user,
            "expires": caller.identity.expires_at,
        }

    def forget(self) -> None:
        """Called when the last client has disconnected."""
        self._activity.forget()

    def look(self) -> None:
        """Take a sample of the activity."""
        self._activity.look()

    def counters(self) -> Mapping[str, object]:
        """Return the current figures. Counters run since the start; the client computes the differences."""
        bus, counters, present = self._bus, self._bus.counters, self._gauges.take()
        return {
            "time": self._now(),
            "seconds": bus.log.seconds(),
            "connections": present.connections,
            "subscribers": present.subscribers.total(),
            "transports": present.subscribers,
            "channels": present.channels,
            "published": counters.published,
            "delivered": counters.delivered,
            "written_bytes": counters.written_bytes,
            "missed": counters.missed + counters.too_slow,
            "lag": _mean_of(counters.lag),
            "latency": _mean_of(counters.latency),
            "outbox_bytes": present.outbox_bytes,
            "history_bytes": present.events_bytes,
            "store_bytes": present.database_bytes + present.journal_bytes,
            "busiest": [
                {
                    "channel": one.channel,
                    "rate": round(one.rate, 3),
                    "subscribers": one.subscribers,
                    "retained": one.retained,
                    "bytes": one.size_bytes,
                }
                for one in self._activity.busiest(MAX_CHANNELS)
            ],
        }


def _mean_of(histogram: Histogram) -> Mapping[str, float]:
    """Return the sum and the count, of which the client computes the mean."""
    return {"sum": histogram.sum, "count": sum(histogram.counts)}
