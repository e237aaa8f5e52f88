"""The connections that are open, of any version of HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITransport
from twisted.python.failure import Failure

__all__ = ["Closable", "Connections", "Speaker", "Upgraded"]


class Closable(Protocol):
    """One connection."""

    def finish(self) -> None:
        """Close, once the requests at hand have been answered."""

    def abort(self) -> None:
        """Close now."""


class Speaker(Closable, Protocol):
    """What speaks on a connection: a `twisted.internet.interfaces.IProtocol`."""

    def makeConnection(self, transport: ITransport) -> None:
        """Begin."""

    def dataReceived(self, data: bytes) -> None:
        """Take what has come."""

    def connectionLost(self, reason: Failure) -> None:
        """Learn that the connection has ended."""


class Upgraded(Speaker, Protocol):
    """What speaks after HTTP has."""

    @property
    def held_bytes(self) -> int:
        """How much it keeps of what has come, because the rest is missing."""


class Connections:
    """The connections that are open, and whether they all have ended."""

    def __init__(self) -> None:
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

    def ended(self) -> Deferred[None]:
        """Answer when none is open."""
        deferred: Deferred[None] = Deferred(self._waiting.remove)
        if self._open:
            self._waiting.append(deferred)
        else:
            deferred.callback(None)
        return deferred
