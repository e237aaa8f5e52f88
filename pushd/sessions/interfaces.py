"""What sessions have in common, and whom the registry of sessions notifies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pushd.bus import ClientInfo, CloseReason, Subscription

__all__ = ["Attendance", "ConnectedSubscriber", "Flushed", "Leaving", "SessionLimits"]


class ConnectedSubscriber(Protocol):
    """A subscriber that is connected: a session, or a request that waits for an event."""

    caller: ClientInfo
    """Who it is."""

    end_reason: CloseReason | None
    """Why it was ended by the daemon, if it was."""

    @property
    def subscription(self) -> Subscription:
        """What it is subscribed to."""

    @property
    def outbox_bytes(self) -> int:
        """How much waits to be sent to it."""

    @property
    def sent_bytes(self) -> int:
        """How much was sent to it."""

    def close(self, reason: CloseReason) -> None:
        """Tell the client why and end."""


class Leaving(ConnectedSubscriber, Protocol):
    """A session that takes nothing more."""

    def farewell(self, reason: CloseReason) -> None:
        """Tell its client why, and end."""


class Attendance(Protocol):
    """What is told who comes and who goes."""

    def connected(self, caller: ClientInfo) -> None:
        """Learn that a subscriber was let in."""

    def disconnected(self, caller: ClientInfo, reason: str) -> None:
        """Learn that it has gone, and why."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How many sessions there may be; 0 stands for any number."""

    per_address: int = 0
    """Of one address of IPv4 or /64 of IPv6; loopback and Unix sockets do not count."""

    per_user: int = 0
    """Of one user."""


class Flushed(Protocol):
    """What has something to send at the end of the reactor's turn."""

    def flush(self) -> int:
        """Send it. Return as how many sends that counts."""
