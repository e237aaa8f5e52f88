"""The interfaces between sessions, their registry and its observers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pushd.bus import ClientInfo, CloseReason, Subscription
from pushd.server import Writer

__all__ = ["ConnectedSubscriber", "Connection", "Flushed", "Leaving", "SessionLimits"]


class ConnectedSubscriber(Protocol):
    """A connected subscriber: a session, or a long-poll request."""

    caller: ClientInfo
    """The client and its grants."""

    end_reason: CloseReason | None
    """Why pushd ended the subscriber; None if the client did."""

    @property
    def subscription(self) -> Subscription:
        """Return the subscription."""

    @property
    def outbox_bytes(self) -> int:
        """Return the size of the outbox, in bytes."""

    @property
    def sent_bytes(self) -> int:
        """Return the number of bytes sent to the client."""

    def close(self, reason: CloseReason) -> None:
        """Send `reason` to the client and end."""


class Connection(Protocol):
    """The connection of one session, as its transport provides it."""

    @property
    def client_name(self) -> str:
        """Return the client's name in the log."""

    @property
    def writer(self) -> Writer:
        """Return the writer that sends to the client."""

    def close(self, reason: CloseReason) -> None:
        """Send `reason` after the bytes already written, and close the connection."""

    def abort(self) -> None:
        """Close the connection now; discard unsent bytes."""


class Leaving(ConnectedSubscriber, Protocol):
    """A session that accepts no more frames."""

    def farewell(self, reason: CloseReason) -> None:
        """Send `reason` to the client, and close the connection."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Connection limits; 0 means unlimited."""

    per_address: int = 0
    """Maximum per IPv4 address or IPv6 /64; loopback and Unix sockets do not count."""

    per_user: int = 0
    """Maximum per user."""


class Flushed(Protocol):
    """An object with bytes to send at the end of the reactor's turn."""

    def flush(self) -> int:
        """Send the bytes; return the cost, in sends."""
