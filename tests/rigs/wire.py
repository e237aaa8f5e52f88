"""The other end of a connection that pushd makes, without a network."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure


class Wire(StringTransport):
    """One connection to the application, seen from there."""

    def __init__(self, reactor: MemoryReactorClock, factory: Any) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "192.0.2.1", 9000))
        self.protocol = factory.buildProtocol(self.peerAddr)
        self._reactor = reactor
        self.was_aborted = self.is_gone = False
        self.protocol.makeConnection(self)

    def answer(self, data: bytes) -> None:
        """Send something back."""
        self.clear()
        self.protocol.dataReceived(data)

    def end(self, why: Exception | None = None) -> None:
        """End the connection, as the network does."""
        if not self.is_gone:
            self.is_gone = True
            self.protocol.connectionLost(Failure(why or ConnectionDone()))

    def loseConnection(self) -> None:
        """Override: this takes as long as the other one likes."""
        self.disconnecting = True

    def abortConnection(self) -> None:
        """Override: it is lost in the next turn."""
        self.was_aborted = True
        self._reactor.callLater(0, self.end, ConnectionLost())

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Override: there are no segments here, which could wait for one another."""
