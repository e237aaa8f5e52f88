"""The pings of one WebSocket: the connection is never silent for long, and a client that is gone is found."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from pushd.server import Timer, TimerWheel

__all__ = ["Pinging", "Timing"]


class Timing(Protocol):
    """When clients are pinged."""

    @property
    def heartbeat_s(self) -> float:
        """How far apart pings are."""

    @property
    def ping_timeout_s(self) -> float:
        """How long a client may send nothing after one."""

    @property
    def wheel(self) -> TimerWheel:
        """The clock."""


class _Pinged(Protocol):
    """A connection whose client answers pings: `pushd.transports.websocket.connection.WebSocketConnection`."""

    has_heard: bool
    """True if anything came from the client since somebody set it to false."""

    def ping(self) -> None:
        """Send a ping."""


T = TypeVar("T", bound=Timing)
W = TypeVar("W", bound=_Pinged)


class Pinging(Generic[T, W]):
    """Pings a client at each heartbeat, whatever else is sent: it may be gone while events are sent to it."""

    __slots__ = ("_alarm", "_common", "_ping_by_s", "_unanswered_s", "websocket")

    def __init__(self, websocket: W, common: T) -> None:
        """Ping over `websocket` at the times of `common`, from `ping_later` on."""
        self.websocket = websocket
        self._common = common
        self._alarm: Timer | None = None
        self._ping_by_s = 0.0
        self._unanswered_s: float | None = None
        """When the first ping was sent since which nothing has come; None if something has."""

    def silent(self) -> None:
        """Called when nothing has come within the time-out of a ping."""
        raise NotImplementedError

    def ping_later(self) -> None:
        """Begin: the first ping comes at the first heartbeat."""
        self._ping_by_s = self._common.wheel.seconds() + self._common.heartbeat_s
        self._look_later()

    def stop_pinging(self) -> None:
        """End."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None  # it refers to what it would call, which refers to it

    def _look_later(self) -> None:
        next_s = self._ping_by_s
        if self._unanswered_s is not None:
            next_s = min(next_s, self._unanswered_s + self._common.ping_timeout_s)
        wheel = self._common.wheel
        self._alarm = wheel.call_within(next_s - wheel.seconds(), self._look)

    def _look(self) -> None:
        """Ping, or find that the client is gone, if it is time."""
        common, wheel = self._common, self._common.wheel
        if self.websocket.has_heard:
            self._unanswered_s = None
        elif self._unanswered_s is not None and wheel.has_reached(self._unanswered_s + common.ping_timeout_s):
            self.silent()
            return
        if not wheel.turns_again_by(self._ping_by_s):
            if self._unanswered_s is None:
                self._unanswered_s, self.websocket.has_heard = wheel.turned_s, False
            self.websocket.ping()
            self._ping_by_s = wheel.turned_s + common.heartbeat_s
        self._look_later()
