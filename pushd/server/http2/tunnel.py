"""The tunnel: a stream that carries WebSocket over HTTP/2 (RFC 8441)."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IConsumer, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pushd.bus import memory
from pushd.errors import Unknown
from pushd.server.http2.head import Head
from pushd.server.http2.interfaces import StreamOwner
from pushd.server.http2.stream import Stream
from pushd.server.net.connections import UpgradedProtocol

__all__ = ["Tunnel"]


@implementer(ITransport, IConsumer)
class Tunnel(Stream):
    """A stream that begins with CONNECT and ``:protocol``: first the HTTP channel of the request, then a transport.

    It closes like a TCP connection (RFC 8441, section 5): with END_STREAM, or RST_STREAM with CANCEL for a reset.
    The HTTP/2 connection and its other streams continue.
    """

    __slots__ = ("_early", "_is_client_done", "_protocol", "disconnecting")

    _log = Logger()

    is_tunnel = True

    def __init__(self, carrier: StreamOwner[Stream], stream_id: int, urgency: int) -> None:
        """Override: create the stream, without an upgraded protocol yet."""
        super().__init__(carrier, stream_id, urgency)
        self._protocol: UpgradedProtocol | None = None
        self._early = b""
        self._is_client_done = False
        self.disconnecting = False
        """True once nothing more is read or written; pending bytes are still sent."""

    def begin(self, head: Head, is_ended: bool) -> None:
        """Override: start the request, which has no body."""
        if head.protocol != b"websocket":
            protocol = (head.protocol or b"").decode("ascii", "backslashreplace")
            self.refuse(
                Unknown(f":protocol is {protocol!r}; expected websocket (RFC 8441, section 4)", ":protocol")
            )
            return
        super().begin(head, True)
        if is_ended:
            self.receive(b"", True)

    def upgrade(self, protocol: UpgradedProtocol, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Send ``200`` with `fields`, then connect `protocol` to the client."""
        self._request = self._head = None
        self._begin_answer(b"200", fields)
        self._carrier.wake(self)
        self._protocol = protocol
        protocol.makeConnection(self)
        early, self._early = self._early, b""
        if early or self._is_client_done:
            self.receive(early, self._is_client_done)

    def receive(self, data: bytes, is_ended: bool) -> None:
        """Override: pass received data to the protocol, unless refused; `is_ended` means that no more follows."""
        protocol = self._protocol
        if protocol is None and self._request is not None:  # buffered until the response; the window stays closed
            self._early += data
            self._is_client_done |= is_ended
        if protocol is None or self.disconnecting:
            return
        try:
            protocol.dataReceived(data)
        except Exception:  # noqa: BLE001  the other streams have nothing to do with it
            if not memory.was_missed():
                self._log.failure("a fault in pushd, in a stream of {peer}", peer=self.info.place.name)
            self.abort()
        if self._protocol is None:
            return  # the protocol has ended the stream
        if is_ended:
            self._lose(Failure(ConnectionDone()))
            self.complete()
        elif not self.disconnecting:
            self._carrier.holds(self, protocol.held_bytes)

    def lost(self, reason: Failure) -> None:
        """Override: called when the stream ends early."""
        super().lost(reason)
        self._lose(reason)

    def done(self) -> None:
        """Override: called when the end of the stream is sent."""
        super().done()
        self._lose(Failure(ConnectionDone()))

    def _lose(self, reason: Failure) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            self.disconnecting = True
            self.unregisterProducer()
            protocol.connectionLost(reason)

    # ITransport, besides the methods of every stream

    def loseConnection(self) -> None:
        """Override: end the stream once everything is sent."""
        if self._protocol is None:
            super().loseConnection()
        elif not self.disconnecting:
            self.disconnecting = True
            self.complete()

    def pauseProducing(self) -> None:
        """Do nothing: held messages keep the flow-control window closed."""

    def resumeProducing(self) -> None:
        """Open the flow-control window, as far as held messages allow."""
        if self._protocol is not None and not self.disconnecting:
            self._carrier.holds(self, self._protocol.held_bytes)

    def abortConnection(self) -> None:
        """Reset the stream."""
        self.abort()
