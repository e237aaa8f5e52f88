"""The calendar: how long ago events were published, though the system's clock may have been set meanwhile.

In the store stands what the clock said. In memory it is known when the clock was set, and after which event; what
an event's time would have been by the clock as it goes now follows from that. Of what happened before the daemon
was started nothing is known, only that no event is younger than the start.
"""

from __future__ import annotations

from collections.abc import Callable

from pushd.bus import Event

__all__ = ["ClockJumps"]

_TOLERANCE_S = 1.0
"""By how much the clock may be corrected little by little; more at once is a jump."""

_MAX_JUMPS = 100
"""How many jumps are known, the latest ones."""


class ClockJumps:
    """Knows the jumps of the system's clock."""

    def __init__(self, now: Callable[[], float], seconds: Callable[[], float]) -> None:
        """`now` is the system's clock, in seconds since 1970; `seconds` is one that never jumps."""
        self._now = now
        self._seconds = seconds
        self._zero: float | None = None  # what the system's clock says when the other one is at 0
        self._jumps: list[tuple[int, float, float]] = []  # latest event before, time before, by how much

    def look(self, sequence: int) -> None:
        """Find out whether the clock was set since the last time; `sequence` is that of the latest event.

        It must be called at the start, and before events are published.
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
        """Return when an event was published, by the clock as it goes now, in seconds since 1970."""
        time, sequence = event.time, event.sequence
        for latest, before, by in self._jumps:
            if sequence <= latest:
                time = min(time, before) + by
        return time
