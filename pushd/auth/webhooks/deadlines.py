"""Deadlines: what has not come in time is given up, a little in each turn of the reactor.

An application that stops answering leaves a thousand questions whose time ends in the same moment. Giving up one of
them takes a tenth of a millisecond and more, and has a client answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from pushd.bus import END_COST, Slice, Turn

__all__ = ["Deadlines"]


class Deadlines:
    """Cancels what takes longer than a time that is the same for all, in the order in which it began."""

    def __init__(self, reactor: Any, after_s: float) -> None:
        """Cancel after `after_s` seconds of `reactor`."""
        self._call_later: Callable[..., Any] = reactor.callLater
        self._seconds: Callable[[], float] = reactor.seconds
        self._turn = Turn(self._seconds)
        self._after_s = after_s
        self._waiting: dict[Deferred[Any], float] = {}  # until when, the first of them first
        self._alarm: Any = None

    def add(self, waiting: Deferred[Any]) -> None:
        """Give `waiting` its time, unless it is `done` before."""
        self._waiting[waiting] = self._seconds() + self._after_s
        if self._alarm is None:
            self._alarm = self._call_later(self._after_s, self._look)

    def done(self, waiting: Deferred[Any]) -> bool:
        """Learn that `waiting` has come to an end. Return whether it was in time."""
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
