"""Timeouts of webhooks: expired requests are cancelled in small steps, a few in each turn of the reactor.

When an application stops responding, a thousand requests expire at the same moment. Cancelling one takes a tenth of
a millisecond or more, because its client gets a response.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from pushd.bus import END_COST, Slice, Turn

__all__ = ["Deadlines"]


class Deadlines:
    """Cancels Deferreds after a common timeout, in the order in which they were added."""

    def __init__(self, reactor: Any, after_s: float) -> None:
        """Set the timeout to `after_s` seconds on the clock of `reactor`."""
        self._call_later: Callable[..., Any] = reactor.callLater
        self._seconds: Callable[[], float] = reactor.seconds
        self._turn = Turn(self._seconds)
        self._after_s = after_s
        self._waiting: OrderedDict[Deferred[Any], float] = OrderedDict()  # deadlines, the earliest first
        self._alarm: Any = None

    def add(self, waiting: Deferred[Any]) -> None:
        """Cancel `waiting` after the timeout, unless `done` is called before."""
        self._waiting[waiting] = self._seconds() + self._after_s
        if self._alarm is None:
            self._alarm = self._call_later(self._after_s, self._look)

    def done(self, waiting: Deferred[Any]) -> bool:
        """Called when `waiting` has ended. Return whether it ended in time."""
        is_in_time = self._waiting.pop(waiting, None) is not None
        if not self._waiting and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        return is_in_time

    def _look(self) -> None:
        self._alarm = None
        part = Slice(self._turn)
        delay_s = 0.0
        while self._waiting:
            waiting, until_s = next(iter(self._waiting.items()))
            delay_s = max(0.0, until_s - self._seconds())
            if delay_s:
                break
            del self._waiting[waiting]
            waiting.cancel()
            if not part.spend(END_COST):
                break
        if self._waiting and self._alarm is None:
            self._alarm = self._call_later(delay_s, self._look)
