"""The protocol of a connection, chosen when its TLS handshake says which (RFC 7301)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IHandshakeListener, INegotiated, IProtocol, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from pushd.connections import Connections
from pushd.wheel import Alarm, Wheel

__all__ = ["Switch"]


@implementer(IHandshakeListener)
class Switch(Protocol):
    """Hands the connection to HTTP/2 if that was agreed on, and else, or without TLS, to HTTP/1.1."""

    def __init__(
        self,
        http1: IProtocol,
        make_http2: Callable[[], IProtocol],
        connections: Connections,
        wheel: Wheel,
        timeout_s: float,
    ) -> None:
        """Wait up to `timeout_s` for the handshake, as one of `connections`."""
        self._protocol: IProtocol | None = None
        self._http1 = http1
        self._make_http2 = make_http2
        self._connections = connections
        self._wheel = wheel
        self._timeout_s = timeout_s
        self._alarm: Alarm | None = None

    def connectionMade(self) -> None:
        """Override: the connection begins."""
        if ISSLTransport(self.transport, None) is None:
            self._hand_to(self._http1)
        else:
            self._connections.add(self)
            self._alarm = self._wheel.call_in(self._timeout_s, self.abort)

    def handshakeCompleted(self) -> None:
        """Override: TLS is agreed on."""
        negotiated = INegotiated(self.transport, None)
        is_http2 = negotiated is not None and negotiated.negotiatedProtocol == b"h2"
        self._stop_waiting()
        self._hand_to(self._make_http2() if is_http2 else self._http1)

    def _hand_to(self, protocol: IProtocol) -> None:
        assert self.transport is not None
        self._protocol = protocol
        self.dataReceived = protocol.dataReceived  # type: ignore[method-assign]
        protocol.makeConnection(self.transport)

    def _stop_waiting(self) -> None:
        self._connections.discard(self)
        if self._alarm is not None:
            self._alarm.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: the connection has ended."""
        if self._protocol is not None:
            self._protocol.connectionLost(reason)
        else:
            self._stop_waiting()

    def finish(self) -> None:
        """Close: there is no request."""
        self.abort()

    def abort(self) -> None:
        """Close now."""
        transport = ITCPTransport(self.transport, None)
        if transport is not None:
            transport.abortConnection()
