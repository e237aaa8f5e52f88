"""The timeouts of one HTTP/1.1 connection, on one timer."""

from __future__ import annotations

from typing import Protocol

from pushd.config import Timeouts
from pushd.errors import TimedOut
from pushd.server.net.timers import Timer, TimerWheel

__all__ = ["HEAD", "NOTHING", "ConnectionTimeouts", "Watched"]

NOTHING = object()
"""No request has started: the idle timeout applies."""

HEAD = object()
"""Part of the head of a request has been received."""


class Watched(Protocol):
    """The connection whose timeouts are watched."""

    @property
    def body_bytes(self) -> int:
        """How many bytes of the current body have been received."""

    def idle(self) -> None:
        """Called when the idle timeout expires."""

    def too_slow(self, refused: TimedOut) -> None:
        """Called when a request was not completed in time."""


class ConnectionTimeouts:
    """Watches the awaited input of a connection: idle, head or body.

    A completed request does not reset the timer, which would cost a cancel and a new timer per request: when the
    timer fires, `_look` computes the remaining time and sets it again.
    """

    __slots__ = ("_alarm", "_connection", "_since", "_timeouts", "_wheel", "what")

    def __init__(self, connection: Watched, timeouts: Timeouts, wheel: TimerWheel) -> None:
        """Watch `connection`, starting with the first `sees`."""
        self._connection: Watched | None = connection
        self._timeouts = timeouts
        self._wheel = wheel
        self._since = 0.0
        self._alarm: Timer | None = None
        self.what: object = None
        """The awaited input: `NOTHING`, `HEAD`, or any other object for a body; None: no timeout."""

    def sees(self, what: object) -> None:
        """Called when all input is parsed; `what` is the input that the connection waits for."""
        if what is self.what and what is not NOTHING:
            return
        self.what = what
        self._since = self._wheel.seconds()
        if what is HEAD:
            self._set_alarm(self._timeouts.head_timeout_s)
        elif self._alarm is None:
            self._set_alarm(self._timeouts.request_timeout_s)

    def pause(self) -> None:
        """Stop watching until the next `sees`."""
        self.what = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def end(self) -> None:
        """Stop watching for good, and drop the reference to the connection."""
        self.pause()
        self._connection = None

    def _set_alarm(self, delay_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._wheel.call_in(delay_s, self._look)

    def _look(self) -> None:
        self._alarm = None
        what, connection, timeouts = self.what, self._connection, self._timeouts
        if what is None or connection is None:
            return
        if what is HEAD:
            most_s = timeouts.head_timeout_s
        elif what is NOTHING:
            most_s = timeouts.request_timeout_s
        else:
            most_s = timeouts.body_s(connection.body_bytes)
        left_s = self._since + most_s - self._wheel.seconds()
        if left_s > 0:
            self._set_alarm(left_s)
        elif what is NOTHING:
            connection.idle()
        elif what is HEAD:
            connection.too_slow(TimedOut(f"the head was not complete within {most_s:g} s, see [limits]"))
        else:
            size = connection.body_bytes
            connection.too_slow(
                TimedOut(f"only {size} bytes of the body arrived within {most_s:.0f} s, see [limits]")
            )
