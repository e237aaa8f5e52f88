"""The write path: bytes to the socket at once, unless some wait before them.

A transport's ``write`` puts the bytes aside, has the reactor watch the socket, and sends them when told that it
can be written to: four times what the sending costs. Here the bytes are sent at once. What the kernel does not
take is left to the transport, and so is everything that comes after it until it is gone.

What holds, whatever else is written to the same transport:

- The peer gets the same bytes in the same order as from ``transport.write``.
- The transport pauses and resumes its producer as ever: it knows of everything that waits.
- A fault of the socket is left for the transport to find, which ends the connection in a turn of its own. Nothing
  is called back from within a write.

This is the only module that relies on private names of Twisted's transports and of pyOpenSSL.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Protocol

from OpenSSL import SSL
from OpenSSL.SSL import Error, WantReadError
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, ITransport
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy
from zope.interface.declarations import Provides

__all__ = ["ProxiedTransport", "Send", "TLSFactory", "Writer", "end_now", "waiting_bytes", "writer"]

Send = Callable[[bytes], int]
"""Takes bytes for a peer, and answers how many of them it took."""

_RECORD_BYTES = 16 * 1024
_RECORD_OVERHEAD_BYTES = 256
"""How much longer a TLS record is than what is in it, at most (RFC 8446, section 5.2)."""


_openssl: Any = SSL
_lib, _ffi = _openssl._lib, _openssl._ffi
_RECORDS_BYTES = 32 * 1024
_records = _ffi.new("char[]", _RECORDS_BYTES)
"""Where OpenSSL puts what it has encrypted, on its way to a socket."""


class Writer(Protocol):
    """The way to one peer."""

    @property
    def is_idle(self) -> bool:
        """True if nothing waits before what comes next, or `send` sees to it."""

    def write(self, data: bytes) -> None:
        """Send the next bytes, as soon as they can be."""

    @property
    def send(self) -> Send:
        """The shortest way, for who knows that nothing waits."""

    def write_later(self, data: bytes, sent: int) -> None:
        """Send what `send` did not take of `data`, all but the first `sent` bytes, when the peer takes more."""


def writer(transport: Any) -> Writer:
    """Return what writes to `transport` in the cheapest way that there is."""
    if isinstance(transport, Connection):
        return _SocketWriter(transport)
    if isinstance(transport, _TLSTransport):
        return _TransportWriter(transport.write_through, transport.send)
    if isinstance(transport, ProxiedTransport):
        return writer(transport.transport)
    return _TransportWriter(transport.write, partial(_whole, transport.write))


def waiting_bytes(transport: Any) -> int:
    """Return how many bytes wait in `transport`, as far as it is one that is known here."""
    if isinstance(transport, Connection):
        return len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    if isinstance(transport, _TLSTransport):
        return sum(map(len, transport._appSendBuffer)) + waiting_bytes(transport.transport)
    return waiting_bytes(transport.transport) if isinstance(transport, ProxiedTransport) else 0


def end_now(transport: Any) -> None:
    """End a connection whose client has closed it: what the kernel has taken is sent, what waits here is not."""
    transport.connectionLost(Failure(ConnectionDone()))


class ProxiedTransport:
    """A transport that is between other addresses than its own: those of who speaks through a proxy."""

    def __init__(self, transport: Any, peer: IAddress, host: IAddress) -> None:
        """Be `transport`, from `peer` to `host`."""
        self.transport = transport
        """What everything else is left to."""
        self._peer, self._host = peer, host
        declared = providedBy(transport)
        _declarations(ProxiedTransport, declared)
        directlyProvides(self, declared)

    def getPeer(self) -> IAddress:
        """Return who speaks. See `ITransport`."""
        return self._peer

    def getHost(self) -> IAddress:
        """Return to whom. See `ITransport`."""
        return self._host

    def __getattr__(self, name: str) -> Any:
        """Leave everything else to the transport."""
        return getattr(self.transport, name)


@cache
def _declarations(kind: Any, declared: Any) -> list[Any]:
    """Keep, and return, the declarations of what `kind` provides on a transport that provides `declared`.

    Zope keeps them as long as somebody refers to them. Each is in a cycle, so that a connection by itself would
    leave nine as garbage. There are as many as kinds of transports.
    """
    return [Provides(kind, declared), *(Provides(kind, interface) for interface in declared)]


class _SocketWriter:
    """Writes to a socket that is not encrypted."""

    __slots__ = ("_transport", "send")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.send: Send = transport.socket.send

    @property
    def is_idle(self) -> bool:
        transport = self._transport
        return not (
            transport.dataBuffer
            or transport._tempDataLen
            or not transport.connected
            or transport.disconnecting
            or transport._aborting
        )

    def write(self, data: bytes) -> None:
        if not self.is_idle:
            self._transport.write(data)
            return
        try:
            sent = self.send(data)
        except OSError:
            sent = 0  # it takes nothing now, or never again: the transport finds out
        if sent < len(data):
            self.write_later(data, sent)

    def write_later(self, data: bytes, sent: int) -> None:
        transport = self._transport
        if len(data) - sent < transport.SEND_LIMIT or transport._writeDisconnected or not self.is_idle:
            transport.write(data[sent:])
            return
        # what `transport.write` does, without a copy of a large event for each of hundreds of slow clients
        transport.dataBuffer, transport.offset = data, sent
        transport._maybePauseProducer()
        transport.startWriting()


class _TransportWriter:
    """Leaves it to `write` what goes first; it takes everything."""

    __slots__ = ("send", "write")

    is_idle = True

    def __init__(self, write: Callable[[bytes], None], send: Send) -> None:
        self.write = write
        self.send = send

    def write_later(self, data: bytes, sent: int) -> None:
        self.write(data[sent:])


def _whole(write: Callable[[bytes], None], data: bytes) -> int:
    write(data)
    return len(data)


class _InputEnded(Exception):
    """The client has ended its half of TLS, and the connection goes on."""


@implementer(IHalfCloseableProtocol)
class _TLSTransport(BufferingTLSTransport):
    """TLS whose records go to the socket at once.

    What `write` takes is still joined until the next turn of the reactor, for it comes in small pieces.
    """

    _aggregator: Any
    _writer: Writer
    _has_input_ended = False

    def makeConnection(self, transport: ITransport) -> None:
        """Override: the connection begins."""
        self._writer = writer(transport)
        _declarations(_TLSTransport, providedBy(transport))
        super().makeConnection(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: the connection has ended. Break the cycle with the producer, which knows its transport."""
        try:
            super().connectionLost(reason)
        finally:
            self._producer = None

    def _flushReceiveBIO(self) -> None:
        """Override: hand on what has come, and stop where the client has ended its half."""
        try:
            super()._flushReceiveBIO()
        except _InputEnded:
            self._flushSendBIO()

    def _shutdownTLS(self) -> None:
        """Override: end TLS, or only one half of it, if the client did and an answer is due.

        That is so since TLS 1.3 (RFC 8446, section 6.1); before, the other half must be closed at once.
        """
        if not self.disconnecting and self._tlsConnection.get_protocol_version() >= SSL.TLS1_3_VERSION:
            input_ended: Callable[[], bool] | None = getattr(self.wrappedProtocol, "input_ended", None)
            if input_ended is not None and input_ended():
                self._has_input_ended = True
                raise _InputEnded
        super()._shutdownTLS()

    def readConnectionLost(self) -> None:
        """Override: the client sends nothing more; it has gone, unless it has said so within TLS."""
        if not self._has_input_ended:
            end_now(self.transport)

    def writeConnectionLost(self) -> None:
        """Override: nothing more can be written; never called, as both ways are closed at once."""

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """Override: TLS has ended. Drop the traceback of `reason`: a frame in it refers to `reason`, a cycle."""
        if reason is not None:
            reason.tb = None
            if isinstance(reason.value, BaseException):
                reason.value.__traceback__ = None
        super()._tlsShutdownFinished(reason)

    def write_through(self, data: bytes) -> None:
        """Encrypt `data` and send it, after what `write` has taken."""
        self._aggregator.flush()
        TLSMemoryBIOProtocol.write(self, data)

    def send(self, data: bytes) -> int:
        """Encrypt `data` as one record and send it. It takes everything."""
        size = len(data)
        if (
            size > _RECORD_BYTES
            or self._lostTLSConnection
            or self.disconnecting
            or self._appSendBuffer
            or self._aggregator._buffer
        ):
            self.write_through(data)
            return size
        connection = self._tlsConnection
        # pyOpenSSL's own send and bio_read do the same, and take three times as long
        if _lib.SSL_write(connection._ssl, data, size) != size:
            self.write_through(data)  # OpenSSL wants the same again, and Twisted knows what to do if it will not
            return size
        length = _lib.BIO_read(connection._from_ssl, _records, _RECORDS_BYTES)
        self._writer.write(_ffi.buffer(_records, length)[:])
        if length == _RECORDS_BYTES:
            self._flushSendBIO()
        return size

    def _write(self, bytes: bytes) -> None:
        """Override: encrypt in as many records as it takes, and send them as one piece."""
        if self._lostTLSConnection:
            return
        size, sent, view = len(bytes), 0, memoryview(bytes)
        try:
            while sent < size:
                sent += self._tlsConnection.send(view[sent : sent + _RECORD_BYTES])
        except WantReadError:
            self._bufferedWrite(bytes[sent:])
        except Error:
            self._tlsShutdownFinished(Failure())
        self._flushSendBIO(size + (size // _RECORD_BYTES + 1) * _RECORD_OVERHEAD_BYTES)

    def _flushSendBIO(self, most: int = 32 * 1024) -> None:
        """Override: send the records that are ready, of which there should be less than `most` bytes."""
        size = most
        while size == most:
            try:
                records = self._tlsConnection.bio_read(most)
            except WantReadError:
                return
            self._writer.write(records)
            size = len(records)


class TLSFactory(TLSMemoryBIOFactory):
    """Adds TLS to the connections of a server."""

    noisy = False
    protocol = _TLSTransport
