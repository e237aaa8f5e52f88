"""Settings of all WebSockets."""

from __future__ import annotations

from dataclasses import dataclass

from pushd.bus import Publisher
from pushd.server import RequestGuard, TimerWheel
from pushd.sessions import Admission

__all__ = ["WebSocketSettings"]


@dataclass(frozen=True, slots=True)
class WebSocketSettings:
    """Settings of all WebSockets."""

    guard: RequestGuard
    admission: Admission
    publisher: Publisher
    max_event_bytes: int
    max_channels: int
    """Maximum number of channels of one event."""
    heartbeat_s: float
    ping_timeout_s: float

    @property
    def wheel(self) -> TimerWheel:
        """Return the timer wheel."""
        return self.admission.sessions.wheel
