"""Protocol selection by ALPN, after the TLS handshake (RFC 7301)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pushd.bus import memory
from pushd.errors import Refused
from pushd.server.http1.responses import HTTP1Answers
from pushd.server.http2.connection import HTTP2
from pushd.server.net.addresses import peer_name
from pushd.server.net.client_certificates import has_no_certificate
from pushd.server.net.connection_limits import ConnectionLimiter, ConnectionSlot
from pushd.server.net.connections import LAST_WORD_S, Connections, WireProtocol
from pushd.server.net.timers import Timer, TimerWheel
from pushd.server.net.writer import end_now

__all__ = ["AlpnChoice", "AlpnSwitch"]


@dataclass(frozen=True, slots=True)
class AlpnChoice:
    """The settings shared by all connections of a site before their protocol is selected."""

    http1: Callable[[Callable[[WireProtocol, bytes], None], Refused | None], HTTP1Answers]
    """Builds the HTTP/1.1 protocol, from a function that hands the connection over and a refusal, if rejected."""

    http2: Callable[[Refused | None], HTTP2]
    """Builds the HTTP/2 protocol, from the refusal to send if the connection is rejected."""

    limiter: ConnectionLimiter
    """Applies the connection limits."""

    connections: Connections
    """The set of open connections."""

    wheel: TimerWheel
    """The timer wheel for timeouts."""

    now: Callable[[], float]
    """Returns the time in seconds since 1970."""

    timeout_s: float
    """The time limit for a TLS handshake, and for a whole rejected connection, in seconds."""


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class AlpnSwitch(Protocol):
    """Hands the connection to HTTP/2 if ALPN selected it, otherwise to HTTP/1.1."""

    log = Logger()

    def __init__(self, choice: AlpnChoice) -> None:
        """Use the settings of `choice`."""
        self._choice = choice
        self._protocol: WireProtocol | None = None
        self._alarm: Timer | None = None
        self._slot: ConnectionSlot | None = None
        self._is_shaking_hands = False

    def connectionMade(self) -> None:
        """Override: called when the connection is established. Apply the limits; wait for TLS, if any."""
        assert self.transport is not None
        choice = self._choice
        slot = self._slot = choice.limiter.enter(self.transport.getPeer())
        if slot is None:
            self.abort()
            return
        if slot.refused is not None:
            self._alarm = choice.wheel.call_in(choice.timeout_s, self.abort)
        if ISSLTransport(self.transport, None) is None:
            self._begin(choice.http1(self.hand_to, slot.refused))
            return
        self._is_shaking_hands = True
        choice.connections.add(self)
        if self._alarm is None:
            self._alarm = choice.wheel.call_in(choice.timeout_s, self._handshake_failed)
        if choice.connections.is_finishing:
            self.finish()

    def _begin(self, protocol: WireProtocol) -> None:
        self.hand_to(protocol)
        if self._choice.connections.is_finishing:
            protocol.finish()

    def _handshake_failed(self) -> None:
        assert self.transport is not None
        self._is_shaking_hands = False
        self._choice.limiter.handshake_failed(self.transport.getPeer(), self._choice.timeout_s)
        self.abort()

    def handshakeCompleted(self) -> None:
        """Override: called when the TLS handshake is complete. Start the selected protocol."""
        choice, slot = self._choice, self._slot
        if slot is None:
            return
        self._is_shaking_hands = False
        choice.limiter.counters.handshakes["completed"] += 1
        negotiated = INegotiated(self.transport, None)
        is_http2 = negotiated is not None and negotiated.negotiatedProtocol == b"h2"
        if slot.refused is None:
            self._stop_waiting()
        protocol = choice.http2(slot.refused) if is_http2 else choice.http1(self.hand_to, slot.refused)
        self._begin(protocol)
        certificate = protocol.info.certificate
        if slot.refused is None and certificate is not None and self._protocol is not None:
            self._alarm = choice.wheel.call_in(max(0.0, certificate.expires_at - choice.now()), self._expired)

    def _expired(self) -> None:
        """Called when the client certificate expires: drain the connection, so that the client reconnects.

        New requests are refused; streams and WebSockets close on their own (`Identity.expires_at`).
        """
        if self._protocol is not None:
            self._protocol.finish()

    def hand_to(self, protocol: WireProtocol, unread: bytes = b"") -> None:
        """Replace the protocol of the connection by `protocol`, and pass it the `unread` bytes."""
        assert self.transport is not None
        before = self._protocol or self
        self._protocol = protocol
        self.dataReceived = protocol.dataReceived  # type: ignore[method-assign]
        self._choice.connections.add(protocol)
        self._choice.connections.discard(before)
        protocol.makeConnection(self.transport)
        if not unread:
            return
        try:
            protocol.dataReceived(unread)
        except Exception:  # noqa: BLE001  not a fault of the previous protocol, which is on the call stack
            if not memory.was_missed():
                self.log.failure(
                    "a fault in pushd, in a connection with {peer}", peer=peer_name(self.transport.getPeer())
                )
            self.abort()

    def _stop_waiting(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def input_ended(self) -> bool:
        """Called when the client closes its half; return whether to keep the connection until it is closed here.

        It is kept while a response is pending; otherwise it ends, as if the client had closed both halves.
        """
        return self._protocol is not None and self._protocol.input_ended()

    def readConnectionLost(self) -> None:
        """Override: called when the client closes its half without TLS; with TLS, `input_ended` is called."""
        if not self.input_ended():
            end_now(self.transport)

    def writeConnectionLost(self) -> None:
        """Override: required by the interface; never called, as both directions are closed at once."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: called when the connection is lost."""
        self._stop_waiting()
        if self._is_shaking_hands:
            self._choice.limiter.counters.handshakes["failed"] += 1
        if self._slot is not None:
            self._slot.give_back()
        protocol, self._protocol = self._protocol, None
        self._choice.connections.discard(protocol or self)
        if protocol is not None:
            del self.dataReceived
            protocol.connectionLost(reason)
        elif has_no_certificate(reason) and self.transport is not None:
            self.log.info(
                "refused a TLS handshake with {peer}: it has no certificate, which client_ca requires",
                peer=peer_name(self.transport.getPeer()),
            )

    def finish(self) -> None:
        """Close unless the handshake completes within `LAST_WORD_S`; an abort now would look like a dead server."""
        self._stop_waiting()
        self._alarm = self._choice.wheel.call_in(LAST_WORD_S, self.abort)

    def abort(self) -> None:
        """Abort the connection; unsent output is lost."""
        transport = ITCPTransport(self.transport, None)
        if transport is not None:
            transport.abortConnection()
