"""The timeout of an incomplete WebSocket message."""

from __future__ import annotations

from collections.abc import Callable

from pushd.config import Timeouts
from pushd.server import Timer, TimerWheel

__all__ = ["MessageTimeout"]


class MessageTimeout:
    """Tracks the start time and size of an incomplete message; messages received in one piece bypass it."""

    __slots__ = ("_alarm", "_began_at", "_size", "_timeouts", "_too_late", "_wheel")

    def __init__(self, timeouts: Timeouts, wheel: TimerWheel, too_late: Callable[[str], None]) -> None:
        """Call `too_late` with the reason when a message takes longer than `timeouts` allows a body."""
        self._timeouts = timeouts
        self._wheel = wheel
        self._too_late: Callable[[str], None] | None = too_late
        self._alarm: Timer | None = None
        self._began_at: float | None = None
        self._size = 0

    def came(self, size: int) -> None:
        """Called when `size` bytes were received and the message is still incomplete."""
        if self._began_at is None:
            self._began_at = self._wheel.seconds()
            self._size = 0
            if self._alarm is None:
                self._alarm = self._wheel.call_in(self._timeouts.request_timeout_s, self._look)
        self._size += size

    def completed(self) -> None:
        """Called when the message is complete."""
        self._began_at = None

    def end(self) -> None:
        """Stop the timeout."""
        self._too_late = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look(self) -> None:
        self._alarm = None
        if self._began_at is None or self._too_late is None:
            return
        most_s = self._timeouts.body_s(self._size)
        left_s = self._began_at + most_s - self._wheel.seconds()
        if left_s > 0:
            self._alarm = self._wheel.call_in(left_s, self._look)
        else:
            self._too_late(f"only {self._size} bytes of a message arrived within {most_s:.0f} s, see [limits]")
