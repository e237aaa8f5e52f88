"""The time-outs of one HTTP/1.1 connection, on one alarm."""

from __future__ import annotations

from typing import Protocol

from pushd.config import Timeouts
from pushd.errors import TimedOut
from pushd.server.net.timers import Timer, TimerWheel

__all__ = ["HEAD", "NOTHING", "ConnectionTimeouts", "Watched"]

NOTHING = object()
"""No request is on its way."""

HEAD = object()
"""Some of the head of a request has come."""


class Watched(Protocol):
    """What a watch knows of its connection."""

    @property
    def body_bytes(self) -> int:
        """How much has come of the body that is waited for."""

    def idle(self) -> None:
        """Learn that no request came for too long."""

    def too_slow(self, refused: TimedOut) -> None:
        """Learn that a request was not completed in time."""


class ConnectionTimeouts:
    """Knows what the connection waits for, and since when.

    The alarm is not touched when a request is done: when it rings, it finds out how long there is still to wait.
    """

    __slots__ = ("_alarm", "_connection", "_patience", "_since", "_wheel", "what")

    def __init__(self, connection: Watched, patience: Timeouts, wheel: TimerWheel) -> None:
        """Watch `connection` from the first `sees` on."""
        self._connection: Watched | None = connection
        self._patience = patience
        self._wheel = wheel
        self._since = 0.0
        self._alarm: Timer | None = None
        self.what: object = None
        """What is waited for: `NOTHING`, `HEAD`, or anything else, which stands for a body; None: no matter."""

    def sees(self, what: object) -> None:
        """Learn what the connection waits for now that everything was read."""
        if what is self.what and what is not NOTHING:
            return
        self.what = what
        self._since = self._wheel.seconds()
        if what is HEAD:
            self._set_alarm(self._patience.head_timeout_s)
        elif self._alarm is None:
            self._set_alarm(self._patience.request_timeout_s)

    def pause(self) -> None:
        """Watch nothing, until the next `sees`."""
        self.what = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def end(self) -> None:
        """Watch nothing any more, and know nothing of the connection."""
        self.pause()
        self._connection = None

    def _set_alarm(self, delay_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._wheel.call_in(delay_s, self._look)

    def _look(self) -> None:
        self._alarm = None
        what, connection, patience = self.what, self._connection, self._patience
        if what is None or connection is None:
            return
        if what is HEAD:
            most_s = patience.head_timeout_s
        elif what is NOTHING:
            most_s = patience.request_timeout_s
        else:
            most_s = patience.body_s(connection.body_bytes)
        left_s = self._since + most_s - self._wheel.seconds()
        if left_s > 0:
            self._set_alarm(left_s)
        elif what is NOTHING:
            connection.idle()
        elif what is HEAD:
            connection.too_slow(TimedOut(f"the head was not complete within {most_s:g} s, see [limits]"))
        else:
            size = connection.body_bytes
            connection.too_slow(TimedOut(f"of the body {size} bytes came within {most_s:.0f} s, see [limits]"))
