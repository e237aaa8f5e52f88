"""The figures: what has happened since the start, counted in plain numbers.

Whoever does something adds to them, and whoever wants to know reads them. What is done for every event adds to
them once for each event, or once for each flush, whatever the number of subscribers.
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
    """How often a quantity was how large."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Begin with nothing, to sort by `bounds`, which ascend."""
        self.bounds = tuple(bounds)
        """The upper bounds of the classes, each of which is in its class; the last class has none."""
        self.counts = [0] * (len(self.bounds) + 1)
        """How often it was in each class."""
        self.sum = 0.0
        """The sum of all that was counted."""

    def add(self, value: float, times: int = 1) -> None:
        """Count that it was `value`, so many `times`."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


@dataclass(slots=True)
class Counters:
    """What has happened since the start."""

    published: int = 0
    """How many events were published."""

    delivered: int = 0
    """To how many subscribers events were handed as they were published: all events together."""

    replayed: int = 0
    """To how many they were handed later, because they came back or began in the past."""

    too_slow: int = 0
    """About how many events waited for subscribers that were closed as too slow, and were not sent to them."""

    written_bytes: int = 0
    """How many bytes were written for subscribers, before TLS."""

    connected: Counter[str] = field(default_factory=Counter)
    """How many subscribers were let in, by transport."""

    ended: Counter[tuple[str, CloseCause | None]] = field(default_factory=Counter)
    """How many have gone, by transport and why they were ended; None: they were not."""

    accepted: int = 0
    """How many connections were let in, of any kind."""

    turned_away: Counter[str] = field(default_factory=Counter)
    """How many were not, by the option in ``[limits]`` that has it so."""

    handshakes: Counter[str] = field(default_factory=Counter)
    """How many TLS handshakes there were, by what came of them: ``completed``, ``failed`` or ``timed_out``."""

    answered: Counter[int] = field(default_factory=Counter)
    """How many HTTP requests were answered, by status."""

    refused: Counter[type[Refused]] = field(default_factory=Counter)
    """How many requests, lines of batches and messages were refused."""

    hooks: Counter[tuple[str, str]] = field(default_factory=Counter)
    """What came of hooks, by the option in ``[hooks]``.

    Of questions ``allowed``, ``denied``, ``failed`` or ``unasked``, of what is told ``told``, ``dropped`` or
    ``cancelled``.
    """

    latency: Histogram = field(default_factory=lambda: Histogram(_LATENCY_S))
    """How long events took from when they came until they were written for the last subscriber, in seconds.

    All events of one turn count as long as the first of them.
    """

    commits: Histogram = field(default_factory=lambda: Histogram(_LATENCY_S))
    """How long transactions of the store took, in seconds."""

    failed_commits: int = 0
    """How many the store could not make."""

    lag: Histogram = field(default_factory=lambda: Histogram(_LAG_S))
    """How late the reactor did what was to be done each second, in seconds."""

    unwritten: int = 0
    """How many events were handed out and are to be written at the end of this turn."""

    came_s: float | None = None
    """When the first of those came that are handed out now, by a clock that never jumps; None: now."""

    began_s: float = 0.0
    """When the first of those came that are not written."""

    def written(self, now_s: float) -> None:
        """Learn that everything that was handed out is written for those who take it, at `now_s`."""
        self.latency.add(now_s - self.began_s, self.unwritten)
        self.unwritten = 0

    def refuse(self, refused: Refused) -> None:
        """Count a request, a line or a message that is refused."""
        self.refused[type(refused)] += 1
