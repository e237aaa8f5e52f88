"""The open connections, of any version of HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITransport
from twisted.python.failure import Failure

__all__ = ["LAST_WORD_S", "Closable", "Connections", "TwoWay", "UpgradedProtocol", "WireProtocol"]

LAST_WORD_S = 1.0
"""How long a drained connection without a request waits for one that may be in flight, in seconds."""


class Closable(Protocol):
    """One connection."""

    def finish(self) -> None:
        """Close once the current requests have their responses."""

    def abort(self) -> None:
        """Abort the connection; unsent output is lost."""


class WireProtocol(Closable, Protocol):
    """The protocol of a connection: a `twisted.internet.interfaces.IProtocol`."""

    def makeConnection(self, transport: ITransport) -> None:
        """Called when the connection is established."""

    def dataReceived(self, data: bytes) -> None:
        """Called when bytes are received."""

    def input_ended(self) -> bool:
        """Called when the client closes its half; return whether to keep the connection: see `AlpnSwitch`."""

    def connectionLost(self, reason: Failure) -> None:
        """Called when the connection is lost."""


class TwoWay:
    """A protocol that ends with the client's half, because it needs the client's pings, windows or commands.

    An HTTP/2 client closes its half of a stream, not of the connection (RFC 9113, section 5.1).
    """

    def input_ended(self) -> bool:
        """Called when the client closes its half; return False, because the client has disconnected."""
        return False


class UpgradedProtocol(WireProtocol, Protocol):
    """The protocol of a connection after its upgrade from HTTP."""

    @property
    def held_bytes(self) -> int:
        """How many bytes of an incomplete message are buffered."""


class Connections:
    """The set of open connections, which can be drained."""

    def __init__(self) -> None:
        self.is_finishing = False
        """Whether connections are drained; new ones are finished at once."""
        self._open: set[Closable] = set()
        self._waiting: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Closable]:
        return iter(list(self._open))

    def add(self, connection: Closable) -> None:
        """Add a new connection."""
        self._open.add(connection)

    def discard(self, connection: Closable) -> None:
        """Remove a connection that has ended."""
        self._open.discard(connection)
        if not self._open:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)

    def finish(self) -> None:
        """Start the graceful shutdown: finish all connections, and new ones as soon as they are established."""
        self.is_finishing = True
        for connection in self:
            connection.finish()

    def ended(self) -> Deferred[None]:
        """Return a Deferred that fires when no connection is open."""
        deferred: Deferred[None] = Deferred(self._waiting.remove)
        if self._open:
            self._waiting.append(deferred)
        else:
            deferred.callback(None)
        return deferred
