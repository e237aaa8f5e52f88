"""Pings of one WebSocket: they keep the connection from idle timeouts and detect dead clients."""

from __future__ import annotations

from pushd.server import Timer
from pushd.transports.websocket.connection import WebSocketConnection
from pushd.transports.websocket.settings import WebSocketSettings

__all__ = ["Pinging"]


class Pinging:
    """Pings a client at each heartbeat, even while events are sent, as the client may be dead meanwhile."""

    __slots__ = ("_alarm", "_ping_by_s", "_settings", "_unanswered_s", "websocket")

    def __init__(self, websocket: WebSocketConnection, settings: WebSocketSettings) -> None:
        """Ping over `websocket` at the times of `settings`, from `ping_later` on."""
        self.websocket = websocket
        self._settings = settings
        self._alarm: Timer | None = None
        self._ping_by_s = 0.0
        self._unanswered_s: float | None = None
        """Time of the first ping without an answer; None if bytes were received since."""

    def silent(self) -> None:
        """Called when the client sent nothing within the ping timeout."""
        raise NotImplementedError

    def ping_later(self) -> None:
        """Start pinging: the first ping is sent after one heartbeat interval."""
        self._ping_by_s = self._settings.wheel.seconds() + self._settings.heartbeat_s
        self._look_later()

    def stop_pinging(self) -> None:
        """Stop pinging."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None  # the timer and this object refer to each other: a cycle

    def ping(self) -> None:
        """Send a ping."""
        self.websocket.ping()

    def _look_later(self) -> None:
        next_s = self._ping_by_s
        if self._unanswered_s is not None:
            next_s = min(next_s, self._unanswered_s + self._settings.ping_timeout_s)
        wheel = self._settings.wheel
        self._alarm = wheel.call_within(next_s - wheel.seconds(), self._look)

    def _look(self) -> None:
        """Send a ping, or call `silent`, when due."""
        settings, wheel = self._settings, self._settings.wheel
        if self.websocket.has_heard:
            self._unanswered_s = None
        elif self._unanswered_s is not None and wheel.has_reached(self._unanswered_s + settings.ping_timeout_s):
            self.silent()
            return
        if not wheel.turns_again_by(self._ping_by_s):
            if self._unanswered_s is None:
                self._unanswered_s, self.websocket.has_heard = wheel.turned_s, False
            self.ping()
            self._ping_by_s = wheel.turned_s + settings.heartbeat_s
        self._look_later()
