"""The counters since the start, in plain numbers.

Each part of pushd adds to the counters, and the metrics read them. The hot path adds once per event or once per
flush, independent of the number of subscribers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pushd.bus.closing import CloseCause
from pushd.errors import Refused

__all__ = ["Counters", "Histogram"]

_LATENCY_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_LAG_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Histogram:
    """A histogram: the number of values in each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Start empty, with the ascending upper `bounds` of the buckets."""
        self.bounds = tuple(bounds)
        """The inclusive upper bounds of the buckets; the last bucket has none."""
        self.counts = [0] * (len(self.bounds) + 1)
        """The number of values in each bucket."""
        self.sum = 0.0
        """The sum of all values."""

    def add(self, value: float, times: int = 1) -> None:
        """Count `value`, `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


@dataclass(slots=True)
class Counters:
    """The counters since the start."""

    published: int = 0
    """The number of events published."""

    delivered: int = 0
    """The number of live deliveries: each event counts once per subscriber."""

    replayed: int = 0
    """The number of deliveries by replay: to subscribers that resume or start in the past."""

    missed: int = 0
    """The number of deliveries that slow subscribers missed on channels with ``on_overflow = latest``."""

    too_slow: int = 0
    """The approximate number of events never sent because the subscriber was closed as too slow."""

    written_bytes: int = 0
    """The number of bytes written for subscribers, before TLS."""

    connected: Counter[str] = field(default_factory=Counter)
    """The number of subscribers admitted, by transport."""

    ended: Counter[tuple[str, CloseCause | None]] = field(default_factory=Counter)
    """The number of subscribers gone, by transport and cause; the cause is None if pushd did not end them."""

    accepted: int = 0
    """The number of connections accepted, of any kind."""

    turned_away: Counter[str] = field(default_factory=Counter)
    """The number of connections rejected, by the option in ``[limits]`` that applies."""

    handshakes: Counter[str] = field(default_factory=Counter)
    """The number of TLS handshakes, by outcome: ``completed``, ``failed`` or ``timed_out``."""

    answered: Counter[int] = field(default_factory=Counter)
    """The number of HTTP responses, by status."""

    refused: Counter[type[Refused]] = field(default_factory=Counter)
    """The number of rejected requests, batch lines and messages, by error class."""

    hooks: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The number of webhook calls, by the option in ``[hooks]`` and the outcome.

    Authorization webhooks: ``allowed``, ``denied``, ``failed`` or ``unasked``. Notifications: ``told``,
    ``dropped`` or ``cancelled``.
    """

    latency: Histogram = field(default_factory=lambda: Histogram(_LATENCY_S))
    """The time from the arrival of an event until it is written for the last subscriber, in seconds.

    All events of one turn of the reactor count with the time of the first.
    """

    commits: Histogram = field(default_factory=lambda: Histogram(_LATENCY_S))
    """The duration of store transactions, in seconds."""

    failed_commits: int = 0
    """The number of failed store transactions."""

    lag: Histogram = field(default_factory=lambda: Histogram(_LAG_S))
    """The event-loop lag, measured once per second, in seconds."""

    def refuse(self, refused: Refused) -> None:
        """Count a rejected request, batch line or message."""
        self.refused[type(refused)] += 1
