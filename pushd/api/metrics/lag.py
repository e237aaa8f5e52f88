"""The lag: how late the reactor does what is due, which is how long everybody waits for it."""

from __future__ import annotations

from collections.abc import Callable
from math import floor

from pushd.bus import Histogram

__all__ = ["ReactorLag"]


class ReactorLag:
    """Measures it by a call that is to come each second, as `twisted.internet.task.LoopingCall` makes it.

    That keeps to the seconds since its start, and leaves out those that it misses.
    """

    def __init__(self, histogram: Histogram, seconds: Callable[[], float]) -> None:
        """Note in `histogram` how late each call is; `seconds` is the clock of the reactor."""
        self._histogram = histogram
        self._seconds = seconds
        self._due_s: float | None = None

    def tick(self) -> None:
        """Be called."""
        now_s = self._seconds()
        if self._due_s is None or now_s < self._due_s:  # what it was counted from was late itself
            self._due_s = now_s
        late_s = now_s - self._due_s
        self._histogram.add(late_s)
        self._due_s += floor(late_s) + 1
