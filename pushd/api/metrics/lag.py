"""Event-loop lag: how late the reactor runs a call that is due."""

from __future__ import annotations

from collections.abc import Callable
from math import floor

from pushd.bus import Histogram

__all__ = ["ReactorLag"]


class ReactorLag:
    """Measures the event-loop lag by a call due every second, made by `twisted.internet.task.LoopingCall`.

    `LoopingCall` keeps to whole seconds since its start, and skips missed ones.
    """

    def __init__(self, histogram: Histogram, seconds: Callable[[], float]) -> None:
        """Record in `histogram` how late each call is, in seconds; `seconds` is the clock of the reactor."""
        self._histogram = histogram
        self._seconds = seconds
        self._due_s: float | None = None

    def tick(self) -> None:
        """Called every second: record the lag."""
        now_s = self._seconds()
        if self._due_s is None or now_s < self._due_s:  # the first call was itself late
            self._due_s = now_s
        late_s = now_s - self._due_s
        self._histogram.add(late_s)
        self._due_s += floor(late_s) + 1
