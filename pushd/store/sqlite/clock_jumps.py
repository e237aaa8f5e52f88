"""Clock jumps: the time of events, corrected for changes of the system clock.

The store records the time by the system clock. Memory records each jump of the clock and the latest event before
it, from which the time of an event by the current clock follows. Jumps before the daemon started are unknown, but
no stored event is younger than the start.
"""

from __future__ import annotations

from collections.abc import Callable

from pushd.bus import Event

__all__ = ["ClockJumps"]

_TOLERANCE_S = 1.0
"""A larger change between two checks is a jump; smaller ones are gradual corrections."""

_MAX_JUMPS = 100
"""How many of the latest jumps are kept."""


class ClockJumps:
    """Records the jumps of the system clock."""

    def __init__(self, now: Callable[[], float], seconds: Callable[[], float]) -> None:
        """Compare `now`, the system clock in seconds since 1970, with `seconds`, a clock that never jumps."""
        self._now = now
        self._seconds = seconds
        self._zero: float | None = None  # the system clock's time at 0 of the other clock
        self._jumps: list[tuple[int, float, float]] = []  # latest event before the jump, time before it, difference

    def look(self, sequence: int) -> None:
        """Check whether the clock was set since the last call; `sequence` is that of the latest event.

        Call it at the start, and before events are published.
        """
        seconds = self._seconds()
        now = self._now()
        zero = now - seconds
        if self._zero is None:
            self._jumps.append((sequence, now, 0.0))
        elif abs(zero - self._zero) > _TOLERANCE_S:
            self._jumps.append((sequence, self._zero + seconds, zero - self._zero))
            del self._jumps[:-_MAX_JUMPS]
        self._zero = zero

    def time_of(self, event: Event) -> float:
        """Return when an event was published, by the current clock, in seconds since 1970."""
        time, sequence = event.time, event.sequence
        for latest, before, by in self._jumps:
            if sequence <= latest:
                time = min(time, before) + by
        return time
