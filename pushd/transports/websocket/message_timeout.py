"""The time-out of the message that is coming over a WebSocket."""

from __future__ import annotations

from collections.abc import Callable

from pushd.config import Timeouts
from pushd.server import Timer, TimerWheel

__all__ = ["MessageTimeout"]


class MessageTimeout:
    """Knows since when a message is coming, and how much has come. What comes whole does not concern it."""

    __slots__ = ("_alarm", "_began_at", "_patience", "_size", "_too_late", "_wheel")

    def __init__(self, patience: Timeouts, wheel: TimerWheel, too_late: Callable[[str], None]) -> None:
        """Have `too_late` told, with the reason, of a message that takes longer than a body may."""
        self._patience = patience
        self._wheel = wheel
        self._too_late: Callable[[str], None] | None = too_late
        self._alarm: Timer | None = None
        self._began_at: float | None = None
        self._size = 0

    def came(self, size: int) -> None:
        """Learn that `size` bytes have come, and something is still missing."""
        if self._began_at is None:
            self._began_at = self._wheel.seconds()
            self._size = 0
            if self._alarm is None:
                self._alarm = self._wheel.call_in(self._patience.request_timeout_s, self._look)
        self._size += size

    def completed(self) -> None:
        """Learn that nothing is missing any more."""
        self._began_at = None

    def end(self) -> None:
        """Watch no longer."""
        self._too_late = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look(self) -> None:
        self._alarm = None
        if self._began_at is None or self._too_late is None:
            return
        most_s = self._patience.body_s(self._size)
        left_s = self._began_at + most_s - self._wheel.seconds()
        if left_s > 0:
            self._alarm = self._wheel.call_in(left_s, self._look)
        else:
            self._too_late(f"of a message {self._size} bytes came within {most_s:.0f} s, see [limits]")
