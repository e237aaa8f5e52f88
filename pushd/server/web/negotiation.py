"""Who speaks on a connection: chosen when its TLS handshake says which protocol (RFC 7301)."""

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

from pushd.errors import Refused
from pushd.server.net.addresses import peer_name
from pushd.server.net.client_certificates import certificate_of, has_no_certificate
from pushd.server.net.connection_limits import ConnectionLimiter, ConnectionSlot
from pushd.server.net.connections import LAST_WORD_S, Connections, WireProtocol
from pushd.server.net.timers import Timer, TimerWheel
from pushd.server.net.writer import end_now

__all__ = ["AlpnChoice", "AlpnSwitch"]


@dataclass(frozen=True, slots=True)
class AlpnChoice:
    """What all connections of a site have in common before one of these speaks."""

    http1: Callable[[Callable[[WireProtocol, bytes], None], Refused | None], WireProtocol]
    """Makes what speaks HTTP/1.1, and can hand the connection over to something else."""

    http2: Callable[[Refused | None], WireProtocol]
    """Makes what speaks HTTP/2; it is given, as the other, what it answers if nothing is to be served."""

    turnstile: ConnectionLimiter
    """Counts the connections."""

    connections: Connections
    """Where those who speak are entered."""

    wheel: TimerWheel
    """For time-outs."""

    now: Callable[[], float]
    """Returns the time in seconds since 1970."""

    timeout_s: float
    """How long a TLS handshake may take, and everything of a connection that is turned away."""


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class AlpnSwitch(Protocol):
    """Hands the connection to HTTP/2 if that was agreed on, and else, or without TLS, to HTTP/1.1."""

    log = Logger()

    def __init__(self, choice: AlpnChoice) -> None:
        """Wait for the TLS handshake, if there is one."""
        self._choice = choice
        self._speaker: WireProtocol | None = None
        self._alarm: Timer | None = None
        self._ticket: ConnectionSlot | None = None
        self._is_shaking_hands = False

    def connectionMade(self) -> None:
        """Override: the connection begins."""
        assert self.transport is not None
        choice = self._choice
        ticket = self._ticket = choice.turnstile.enter(self.transport.getPeer())
        if ticket is None:
            self.abort()
            return
        if ticket.refused is not None:
            self._alarm = choice.wheel.call_in(choice.timeout_s, self.abort)
        if ISSLTransport(self.transport, None) is None:
            self._begin(choice.http1(self.hand_to, ticket.refused))
            return
        self._is_shaking_hands = True
        choice.connections.add(self)
        if self._alarm is None:
            self._alarm = choice.wheel.call_in(choice.timeout_s, self._handshake_failed)
        if choice.connections.is_finishing:
            self.finish()

    def _begin(self, speaker: WireProtocol) -> None:
        self.hand_to(speaker)
        if self._choice.connections.is_finishing:
            speaker.finish()

    def _handshake_failed(self) -> None:
        assert self.transport is not None
        self._is_shaking_hands = False
        self._choice.turnstile.handshake_failed(self.transport.getPeer(), self._choice.timeout_s)
        self.abort()

    def handshakeCompleted(self) -> None:
        """Override: TLS is agreed on."""
        choice, ticket = self._choice, self._ticket
        if ticket is None:
            return
        self._is_shaking_hands = False
        choice.turnstile.figures.handshakes["completed"] += 1
        negotiated = INegotiated(self.transport, None)
        is_http2 = negotiated is not None and negotiated.negotiatedProtocol == b"h2"
        if ticket.refused is None:
            self._stop_waiting()
        if ticket.refused is None and (certificate := certificate_of(self.transport)) is not None:
            self._alarm = choice.wheel.call_in(max(0.0, certificate.expires_at - choice.now()), self._expired)
        self._begin(choice.http2(ticket.refused) if is_http2 else choice.http1(self.hand_to, ticket.refused))

    def _expired(self) -> None:
        """Called when the client's certificate expires: the client has to show another in a new handshake.

        Requests are refused from then on, and streams and WebSockets end by themselves (`Identity.expires_at`).
        """
        if self._speaker is not None:
            self._speaker.finish()

    def hand_to(self, speaker: WireProtocol, unread: bytes = b"") -> None:
        """Have `speaker` speak from now on, instead of who did until now, and take what that has not read."""
        assert self.transport is not None
        before = self._speaker or self
        self._speaker = speaker
        self.dataReceived = speaker.dataReceived  # type: ignore[method-assign]
        self._choice.connections.add(speaker)
        self._choice.connections.discard(before)
        speaker.makeConnection(self.transport)
        if not unread:
            return
        try:
            speaker.dataReceived(unread)
        except Exception:  # noqa: BLE001  whoever had it before has nothing to do with it
            self.log.failure(
                "a fault in pushd, in a connection with {peer}", peer=peer_name(self.transport.getPeer())
            )
            self.abort()

    def _stop_waiting(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def input_ended(self) -> bool:
        """Learn that the client sends nothing more; return whether the connection goes on, until it is closed here.

        It goes on for as long as an answer is due. Without one it is over, as if the client had closed both ways.
        """
        return self._speaker is not None and self._speaker.input_ended()

    def readConnectionLost(self) -> None:
        """Override: the client sends nothing more (without TLS, which calls `input_ended` itself)."""
        if not self.input_ended():
            end_now(self.transport)

    def writeConnectionLost(self) -> None:
        """Override: nothing more can be written; never called, as both ways are closed at once."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: the connection has ended."""
        self._stop_waiting()
        if self._is_shaking_hands:
            self._choice.turnstile.figures.handshakes["failed"] += 1
        if self._ticket is not None:
            self._ticket.give_back()
        speaker, self._speaker = self._speaker, None
        self._choice.connections.discard(speaker or self)
        if speaker is not None:
            del self.dataReceived
            speaker.connectionLost(reason)
        elif has_no_certificate(reason) and self.transport is not None:
            self.log.info(
                "refused a TLS handshake with {peer}: it has no certificate, and client_ca wants one",
                peer=peer_name(self.transport.getPeer()),
            )

    def finish(self) -> None:
        """Close, unless the handshake ends soon: the client could not tell this from a daemon that is not there."""
        self._stop_waiting()
        self._alarm = self._choice.wheel.call_in(LAST_WORD_S, self.abort)

    def abort(self) -> None:
        """Close now."""
        transport = ITCPTransport(self.transport, None)
        if transport is not None:
            transport.abortConnection()
