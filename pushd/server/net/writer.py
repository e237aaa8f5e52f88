"""The write path: send bytes to the socket at once, unless earlier bytes are still buffered.

The slow path is a transport's ``write``: it buffers the bytes, registers the socket with the reactor, and sends
them on the next writable event, at four times the cost of the send. The fast path here sends at once. Bytes that
the kernel does not accept go to the transport's buffer, and so do all later bytes until that buffer is empty.

Guarantees, regardless of other writes to the same transport:

- The client receives the same bytes in the same order as with ``transport.write``.
- The transport pauses and resumes its producer as usual, because all buffered bytes are in its buffer.
- Socket errors are left to the transport, which closes the connection in a later turn of the reactor. No callback
  runs within a write.

This is the only module that uses private names of Twisted's transports and of pyOpenSSL; the public API has no
way past the buffer.
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
"""Sends bytes to a client; returns how many were accepted."""

_RECORD_BYTES = 16 * 1024
_RECORD_OVERHEAD_BYTES = 256
"""The maximum overhead of a TLS record (RFC 8446, section 5.2)."""


_openssl: Any = SSL
_lib, _ffi = _openssl._lib, _openssl._ffi
_RECORDS_BYTES = 32 * 1024
_records = _ffi.new("char[]", _RECORDS_BYTES)
"""The buffer for encrypted records between OpenSSL and the socket."""


class Writer(Protocol):
    """Writes to one client."""

    @property
    def is_idle(self) -> bool:
        """True if no earlier bytes are buffered, or if `send` keeps the order itself."""

    def write(self, data: bytes) -> None:
        """Send `data` after all earlier bytes, at once if possible."""

    @property
    def send(self) -> Send:
        """The fast path of `write`, allowed only while `is_idle`: it skips that check."""

    def write_later(self, data: bytes, sent: int) -> None:
        """Buffer the rest of `data`, after the first `sent` bytes, which `send` accepted."""


def writer(transport: Any) -> Writer:
    """Return the fastest writer for `transport`."""
    if isinstance(transport, Connection):
        return _SocketWriter(transport)
    if isinstance(transport, _TLSTransport):
        return _TransportWriter(transport.write_through, transport.send)
    if isinstance(transport, ProxiedTransport):
        return writer(transport.transport)
    return _TransportWriter(transport.write, partial(_whole, transport.write))


def waiting_bytes(transport: Any) -> int:
    """Return how many bytes are buffered in `transport`; 0 for unknown types of transport."""
    if isinstance(transport, Connection):
        return len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    if isinstance(transport, _TLSTransport):
        return sum(map(len, transport._appSendBuffer)) + waiting_bytes(transport.transport)
    return waiting_bytes(transport.transport) if isinstance(transport, ProxiedTransport) else 0


def end_now(transport: Any) -> None:
    """End a connection that the client has closed. Bytes in the kernel are still sent, buffered bytes are lost."""
    transport.connectionLost(Failure(ConnectionDone()))


class ProxiedTransport:
    """A transport that reports the addresses of a proxied connection instead of its own."""

    def __init__(self, transport: Any, peer: IAddress, host: IAddress) -> None:
        """Wrap `transport`; report `peer` and `host` as its addresses."""
        self.transport = transport
        """The wrapped transport."""
        self._peer, self._host = peer, host
        declared = providedBy(transport)
        _declarations(ProxiedTransport, declared)
        directlyProvides(self, declared)

    def getPeer(self) -> IAddress:
        """Return the client's address. See `ITransport`."""
        return self._peer

    def getHost(self) -> IAddress:
        """Return the address that the client connected to. See `ITransport`."""
        return self._host

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute from the wrapped transport."""
        return getattr(self.transport, name)


@cache
def _declarations(kind: Any, declared: Any) -> list[Any]:
    """Return the interface declarations of `kind` on a transport that provides `declared`, and cache them.

    Zope keeps declarations only while they are referenced, and each is in a reference cycle: without the cache,
    every connection would leave nine as garbage. The cache has one entry per type of transport.
    """
    return [Provides(kind, declared), *(Provides(kind, interface) for interface in declared)]


class _SocketWriter:
    """Writes to a socket without TLS."""

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
            sent = 0  # not writable now, or broken: the transport finds out
        if sent < len(data):
            self.write_later(data, sent)

    def write_later(self, data: bytes, sent: int) -> None:
        transport = self._transport
        if len(data) - sent < transport.SEND_LIMIT or transport._writeDisconnected or not self.is_idle:
            transport.write(data[sent:])
            return
        # the slow path, `transport.write`, would copy a large event for each of hundreds of slow clients
        transport.dataBuffer, transport.offset = data, sent
        transport._maybePauseProducer()
        transport.startWriting()


class _TransportWriter:
    """Writes through a transport whose `write` keeps the order and accepts all bytes."""

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
    """The client closed its half of TLS; the connection stays open for the response."""


@implementer(IHalfCloseableProtocol)
class _TLSTransport(BufferingTLSTransport):
    """TLS that sends its records to the socket at once.

    Data passed to `write` comes in small pieces and is still joined until the next turn of the reactor.
    """

    _aggregator: Any
    _writer: Writer
    _has_input_ended = False

    def makeConnection(self, transport: ITransport) -> None:
        """Override: called when the connection is established."""
        self._writer = writer(transport)
        _declarations(_TLSTransport, providedBy(transport))
        super().makeConnection(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: called when the connection is lost. Break the reference cycle of producer and transport."""
        try:
            super().connectionLost(reason)
        finally:
            self._producer = None

    def _flushReceiveBIO(self) -> None:
        """Override: deliver received data, and stop where the client closed its half."""
        try:
            super()._flushReceiveBIO()
        except _InputEnded:
            self._flushSendBIO()

    def _shutdownTLS(self) -> None:
        """Override: close TLS, or only the receiving half if the client closed it and a response is pending.

        Half-close requires TLS 1.3 (RFC 8446, section 6.1); earlier versions close both halves at once.
        """
        if not self.disconnecting and self._tlsConnection.get_protocol_version() >= SSL.TLS1_3_VERSION:
            input_ended: Callable[[], bool] | None = getattr(self.wrappedProtocol, "input_ended", None)
            if input_ended is not None and input_ended():
                self._has_input_ended = True
                raise _InputEnded
        super()._shutdownTLS()

    def readConnectionLost(self) -> None:
        """Override: called when the client closes its half of TCP. End the connection unless TLS is half-closed."""
        if not self._has_input_ended:
            end_now(self.transport)

    def writeConnectionLost(self) -> None:
        """Override: required by the interface; never called, as both directions are closed at once."""

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """Override: called when TLS is closed. Drop the traceback of `reason`, whose frames refer to `reason`."""
        if reason is not None:
            reason.tb = None
            if isinstance(reason.value, BaseException):
                reason.value.__traceback__ = None
        super()._tlsShutdownFinished(reason)

    def write_through(self, data: bytes) -> None:
        """Encrypt `data` and send it, after the data passed to `write`."""
        self._aggregator.flush()
        TLSMemoryBIOProtocol.write(self, data)

    def send(self, data: bytes) -> int:
        """Encrypt `data` as one record and send it; all bytes are accepted. The slow path is `write_through`."""
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
        # private names: pyOpenSSL's own send and bio_read do the same and take three times as long
        if _lib.SSL_write(connection._ssl, data, size) != size:
            self.write_through(data)  # OpenSSL requires a retry with the same data, and Twisted handles errors
            return size
        length = _lib.BIO_read(connection._from_ssl, _records, _RECORDS_BYTES)
        self._writer.write(_ffi.buffer(_records, length)[:])
        if length == _RECORDS_BYTES:
            self._flushSendBIO()
        return size

    def _write(self, bytes: bytes) -> None:
        """Override: encrypt into as many records as needed, and send them with one write."""
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
        """Override: send the encrypted records, with one write if they have less than `most` bytes."""
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
