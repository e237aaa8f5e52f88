"""A TCP connection to a daemon in memory, which behaves as one of Twisted does, to the byte.

What is written is sent in the next turn of the reactor, a producer is paused once 64 KiB wait, and what waits when
a connection is aborted is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress, IConsumer, IProducer, IPushProducer, ITCPTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from pushd.server.http2.connection import HTTP2

if TYPE_CHECKING:
    from tests.rigs.daemon import DaemonRig

__all__ = ["HIGH_WATER_BYTES", "LOCALHOST", "Connection"]

HIGH_WATER_BYTES = 2**16
"""How much waits in a connection before it pauses its producer: `twisted.internet.abstract.FileDescriptor`."""


LOCALHOST = IPv4Address("TCP", "127.0.0.1", 8080)
"""What clients connect to, unless they say something else."""


@implementer(ITCPTransport, IConsumer, IPushProducer)
class _Socket:
    """The daemon's end of a connection: a transport that behaves as `twisted.internet.tcp.Connection`."""

    def __init__(self, connection: Connection, host: IAddress, peer: IAddress) -> None:
        self._connection = connection
        self._host, self._peer = host, peer
        self._reactor = connection.rig.reactor
        self._unsent = bytearray()
        self._unread: list[bytes] = []
        self._is_scheduled = False
        self._producer: IProducer | None = None
        self._is_streaming = False
        self._is_producer_paused = False
        self.is_reading = True
        self.disconnecting = False
        self.is_lost = False
        self.was_aborted = False
        self.is_at_end = False

    # ITCPTransport

    def write(self, data: bytes) -> None:
        """See `ITransport`."""
        assert isinstance(data, bytes), data
        if self.is_lost or not data:
            return
        self._connection.writes.append(data)
        self._unsent += data
        if len(self._unsent) > HIGH_WATER_BYTES:
            self.pause_producer()
        self._schedule()

    def writeSequence(self, data: Any) -> None:
        """See `ITransport`."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """See `ITransport`."""
        if not self.is_lost and not self.disconnecting:
            self.disconnecting = True
            self._schedule()

    def abortConnection(self) -> None:
        """See `ITCPTransport`."""
        if not self.is_lost and not self.was_aborted:
            self.was_aborted = True
            self.disconnecting = True
            self._reactor.callLater(0, self.lose, ConnectionAborted())

    def loseWriteConnection(self) -> None:
        """See `ITCPTransport`."""
        raise NotImplementedError

    def getHost(self) -> Any:
        """See `ITransport`."""
        return self._host

    def getPeer(self) -> Any:
        """See `ITransport`."""
        return self._peer

    def getTcpNoDelay(self) -> bool:
        """See `ITCPTransport`."""
        return True

    def setTcpNoDelay(self, enabled: object) -> None:
        """See `ITCPTransport`."""

    def getTcpKeepAlive(self) -> bool:
        """See `ITCPTransport`."""
        return False

    def setTcpKeepAlive(self, enabled: object) -> None:
        """See `ITCPTransport`."""

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See `IConsumer`."""
        if self._producer is not None:
            raise RuntimeError(f"cannot register {producer!r}: {self._producer!r} is registered")
        if self.is_lost:
            producer.stopProducing()
            return
        self._producer, self._is_streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()  # type: ignore[attr-defined]

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""
        self._producer = None
        if self.disconnecting:
            self._schedule()

    # IPushProducer: what the protocol uses to read more slowly

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self.is_reading = False

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        if not self.is_lost and not self.disconnecting:
            self.is_reading = True
            self._reactor.callLater(0, self._deliver)

    def stopProducing(self) -> None:
        """See `IPushProducer`."""
        self.loseConnection()

    # The network

    def pause_producer(self) -> None:
        """Tell the producer that the client takes no more."""
        if self._producer is not None and self._is_streaming and not self._is_producer_paused:
            self._is_producer_paused = True
            self._producer.pauseProducing()  # type: ignore[attr-defined]

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._reactor.callLater(0, self.drain)

    def drain(self) -> None:
        """Send what waits, if the client takes it."""
        self._is_scheduled = False
        if self.is_lost or self.was_aborted or not self._connection.is_reading:
            return
        data, self._unsent = bytes(self._unsent), bytearray()
        if data:
            self._connection.take(data)
        if self._unsent or self.is_lost:
            return
        if self._producer is not None and (not self._is_streaming or self._is_producer_paused):
            self._is_producer_paused = False
            self._producer.resumeProducing()  # type: ignore[attr-defined]
        elif self.disconnecting and not self.was_aborted:
            self.lose(ConnectionDone())

    def receive(self, data: bytes) -> None:
        """Take what the client sends."""
        self._unread.append(data)
        self._deliver()

    def _deliver(self) -> None:
        while self._unread and self.is_reading and not self.disconnecting and not self.is_lost:
            self._connection.protocol.dataReceived(self._unread.pop(0))
        if self.is_at_end and self.is_reading and not self.disconnecting and not self.is_lost:
            self.is_reading = False
            self._connection.protocol.readConnectionLost()

    def connectionLost(self, reason: Failure) -> None:
        """See `twisted.internet.tcp.Connection`."""
        assert isinstance(reason.value, Exception)
        self.lose(reason.value)

    def lose(self, error: Exception) -> None:
        """End the connection."""
        if self.is_lost:
            return
        self.is_lost = True
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self._connection.protocol.connectionLost(Failure(error))
        self._connection.ended()


def _address(host: str | None, port: int) -> IAddress:
    if host is None:
        return UNIXAddress(None)
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


class Connection:
    """A client's end of a connection to the daemon."""

    _ports = count(50_000)

    def __init__(
        self, rig: DaemonRig, host: IAddress = LOCALHOST, *, is_http2: bool = False, peer: IAddress | None = None
    ) -> None:
        self.rig = rig
        self.received = b""
        """Everything that has come."""
        self.writes: list[bytes] = []
        """Everything that the daemon has written, by its writes."""
        self.is_reading = True
        self.cut_after: int | None = None
        """After how many bytes it breaks; None if it does not."""
        self.on_data: Callable[[], None] = lambda: None
        """Called when something has come, and at the end."""
        peer = peer or _address(rig.comes_from, next(self._ports))
        self._socket = _Socket(self, host, peer)
        site = rig.parts.site
        self.protocol: Any = HTTP2(site._http2) if is_http2 else site.buildProtocol(peer)
        self.protocol.makeConnection(self._socket)

    @property
    def is_open(self) -> bool:
        """False once the connection has ended."""
        return not self._socket.is_lost

    @property
    def was_aborted(self) -> bool:
        """True if the daemon threw away what waited to be sent."""
        return self._socket.was_aborted

    @property
    def is_read(self) -> bool:
        """Whether the daemon takes what is sent."""
        return self._socket.is_reading and not self._socket.disconnecting and self.is_open

    def send(self, data: bytes) -> None:
        """Send `data` as one segment."""
        self._socket.receive(data)

    def end_input(self) -> None:
        """Send nothing more, but go on reading."""
        self._socket.is_at_end = True
        self._socket._deliver()

    def disconnect(self) -> None:
        """Close the connection from this side."""
        self._socket.lose(ConnectionDone())

    def stop_reading(self) -> None:
        """Take nothing more, so that everything between here and the daemon is full."""
        self.is_reading = False
        self._socket.pause_producer()

    def start_reading(self) -> None:
        """Take everything again."""
        self.is_reading = True
        self.rig.reactor.callLater(0, self._socket.drain)
        self.rig.turn()

    def take(self, data: bytes) -> None:
        """Receive `data` from the daemon."""
        if self.cut_after is None:
            self.received += data
            self.on_data()
            return
        self.received = (self.received + data)[: self.cut_after]
        if len(self.received) == self.cut_after:
            self.disconnect()
        else:
            self.on_data()

    def ended(self) -> None:
        """Learn that the connection has ended."""
        self.on_data()
