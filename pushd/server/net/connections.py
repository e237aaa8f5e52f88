"""The connections that are open, of any version of HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITransport
from twisted.python.failure import Failure

__all__ = ["LAST_WORD_S", "Closable", "Connections", "TwoWay", "UpgradedProtocol", "WireProtocol"]

LAST_WORD_S = 1.0
"""How long a client that knows nothing of the end gets to say what it wants, in seconds."""


class Closable(Protocol):
    """One connection."""

    def finish(self) -> None:
        """Close, once the requests at hand have been answered."""

    def abort(self) -> None:
        """Close now."""


class WireProtocol(Closable, Protocol):
    """What speaks on a connection: a `twisted.internet.interfaces.IProtocol`."""

    def makeConnection(self, transport: ITransport) -> None:
        """Begin."""

    def dataReceived(self, data: bytes) -> None:
        """Take what has come."""

    def input_ended(self) -> bool:
        """Learn that the client sends nothing more; return whether the connection goes on: see `AlpnSwitch`."""

    def connectionLost(self, reason: Failure) -> None:
        """Learn that the connection has ended."""


class TwoWay:
    """A speaker that needs both ways of its connection: without the client's pings, windows or commands it is over.

    An HTTP/2 client ends its half of a stream, and not that of the connection (RFC 9113, section 5.1).
    """

    def input_ended(self) -> bool:
        """Learn that the client sends nothing more, and so has gone."""
        return False


class UpgradedProtocol(WireProtocol, Protocol):
    """What speaks after HTTP has."""

    @property
    def held_bytes(self) -> int:
        """How much it keeps of what has come, because the rest is missing."""


class Connections:
    """The connections that are open, and whether they all have ended."""

    def __init__(self) -> None:
        self.is_finishing = False
        """Whether those that begin to speak are to finish, too."""
        self._open: set[Closable] = set()
        self._waiting: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Closable]:
        return iter(list(self._open))

    def add(self, connection: Closable) -> None:
        """Enter a connection that begins."""
        self._open.add(connection)

    def discard(self, connection: Closable) -> None:
        """Take out a connection that has ended."""
        self._open.discard(connection)
        if not self._open:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)

    def finish(self) -> None:
        """Have all of them finish, and who has not begun to speak yet as soon as it does."""
        self.is_finishing = True
        for connection in self:
            connection.finish()

    def ended(self) -> Deferred[None]:
        """Return when none is open."""
        deferred: Deferred[None] = Deferred(self._waiting.remove)
        if self._open:
            self._waiting.append(deferred)
        else:
            deferred.callback(None)
        return deferred
