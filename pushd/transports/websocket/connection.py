"""The adapter to Autobahn.

Autobahn parses and validates frames, and does fragmentation, pongs and the closing handshake (RFC 6455). The
opening handshake is pushd's own: a connection starts in the state that Autobahn's handshake would leave. Sent
events bypass Autobahn: each is framed once for all clients, and the session writes whole frames to the transport.
Timers are those of the wheel.

Autobahn has no public names for this: `tests/unit/transports/test_websocket_connection.py` pins each private one.
"""

from __future__ import annotations

from functools import cached_property
from io import BytesIO
from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.utf8validator import Utf8Validator
from twisted.internet.defer import Deferred
from twisted.internet.protocol import FileWrapper, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.bus import ClientAddress, CloseCause, CloseReason, memory
from pushd.config import Timeouts
from pushd.errors import NO_MEMORY
from pushd.server import IncompleteBodies, Timer, TimerWheel, Turns, TwoWay, Writer, writer
from pushd.transports.websocket.fault_log import FaultLog
from pushd.transports.websocket.reading import Reading

__all__ = ["WebSocketConnection", "WebSocketListener", "new_connection", "new_factory"]

_CLOSE_CODES = {
    CloseCause.STOPPING: 1001,
    CloseCause.DELETED: 1000,
    CloseCause.REFUSED: 1008,
    CloseCause.TOO_SLOW: 1013,
    CloseCause.TOO_MANY: 1013,
    CloseCause.FAILED: 1011,
}
"""RFC 6455, section 7.4.1, and the registry of close codes."""

_ANSWERS_S = 5.0
"""How long the reply to a close frame waits for the replies to earlier messages. Clients wait about 10 s for it."""

_MAX_FRAMES = 4096
"""Maximum number of frames in a message."""

_MAX_REASON_BYTES = 123
"""A control frame has at most 125 bytes, and the code takes two (RFC 6455, section 5.5)."""

_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_UNCHANGING = (bool, int, str, bytes, type(None))
_SHARED = frozenset({"factory", "trafficStats"})
"""Mutable attributes that all connections share; pushd does not use the second."""


class WebSocketListener(Protocol):
    """The receiver of the events of one WebSocket."""

    @property
    def owner(self) -> str | None:
        """Return the owner charged for incomplete messages: see `pushd.bus.clientinfo.owner_of`."""

    def opened(self) -> None:
        """Called when the handshake is done; frames can be sent."""

    def received(self, payload: bytes, is_binary: bool) -> None:
        """Called with a complete message; text is valid UTF-8."""

    @property
    def takes_more(self) -> bool:
        """Return whether the client reads (no back-pressure)."""

    @property
    def is_answering(self) -> bool:
        """Return whether replies to received messages are outstanding; `answer_close` is called after the last."""

    def send(self, frame: bytes) -> None:
        """Send a frame after all earlier ones."""

    def wrote(self, size: int) -> None:
        """Called when `size` bytes were sent without `send`."""

    def closing(self, reason: CloseReason | None) -> None:
        """Called when a close frame was sent: send no more. `reason` is None if the client closed first."""

    def lost(self) -> None:
        """Called when the connection has ended."""


class _Gone:
    """The listener of a connection that has ended: it ignores everything."""

    owner = None
    takes_more = is_answering = False

    def opened(self) -> None:
        """Do nothing."""

    def received(self, payload: bytes, is_binary: bool) -> None:
        """Ignore the message."""

    def send(self, frame: bytes) -> None:
        """Send nothing."""

    def wrote(self, size: int) -> None:
        """Count nothing."""

    def closing(self, reason: CloseReason | None) -> None:
        """Do nothing."""

    def lost(self) -> None:
        """Do nothing."""


_GONE = _Gone()


class WebSocketConnection(Reading, TwoWay, WebSocketServerProtocol):  # type: ignore[misc]
    """One WebSocket after its opening handshake: a `pushd.sessions.interfaces.Connection`.

    Autobahn's attributes per connection are attributes of the class here, which saves time; see `new_factory`.
    """

    pushd_log = Logger()
    log = FaultLog("pushd.transports.websocket.connection")  # Autobahn's

    listener: WebSocketListener

    maxFramePayloadSize: int

    _frames = 0
    _is_closing = False
    _held_alarm: Timer

    def __init__(self) -> None:
        """Override: do nothing, as the class has the attributes."""

    place: ClientAddress
    """Address of the client."""

    @property
    def client_name(self) -> str:
        """Return the client's name in the log."""
        return self.place.name

    @property
    def peer(self) -> str:  # type: ignore[override]
        """Override: return the client's name in Autobahn's log."""
        return self.client_name

    @property
    def is_closed(self) -> Deferred[object]:
        """Return the Deferred that Autobahn fires at the end; unused."""
        return Deferred()

    @cached_property
    def utf8validator(self) -> Utf8Validator:  # type: ignore[override]
        """Return Autobahn's validator of text; created with the first text message."""
        return Utf8Validator()

    # pushd.session.Connection

    writer: Writer
    """Sends whole frames."""

    def close(self, reason: CloseReason) -> None:
        """Start the closing handshake."""
        text = reason.text.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        self.sendCloseFrame(_CLOSE_CODES[reason.cause], text.encode())
        self.answer_close()

    def abort(self) -> None:
        """End the connection now."""
        self.transport.abortConnection()

    def ping(self) -> None:
        """Send a ping."""
        self.sendPing()

    def finish(self) -> None:
        """Do nothing: the session closes the connection."""

    # The client closes

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        """Override: reply once all earlier messages have their replies, or after `_ANSWERS_S`."""
        if self.state != self.STATE_OPEN or not self.listener.is_answering:
            return super().onCloseFrame(code, reasonRaw)
        self.held_close = (code, reasonRaw)
        self.data = b""  # nothing follows a close frame (RFC 6455, section 5.5.1)
        self._held_alarm = self._wheel.call_in(_ANSWERS_S, self.answer_close)
        return True

    def answer_close(self) -> None:
        """Reply to the close frame that is held, if any."""
        held, self.held_close = self.held_close, None
        if held is not None:
            self._held_alarm.cancel()
            super().onCloseFrame(*held)

    # An exception in these would reach Autobahn, which swallows it, or a request that already has its response

    def connectionMade(self) -> None:
        """Override: called when the handshake is done."""
        self.writer = writer(self.transport)
        try:
            self.listener.opened()
        except Exception:  # noqa: BLE001
            self.failed(Failure())

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Override: called with a complete message; ignore it after a close frame."""
        if self.state != self.STATE_OPEN:
            return
        try:
            self.listener.received(payload, isBinary)
        except Exception:  # noqa: BLE001
            self.failed(Failure())

    def failed(self, failure: Failure) -> None:
        """Abort the connection after a fault in pushd, which is logged, or for lack of memory."""
        text = "a fault in pushd; see its log"
        if failure.check(MemoryError):
            memory.missed()
            text = NO_MEMORY
        else:
            self.pushd_log.failure(
                "a fault in pushd while it served a WebSocket of {peer}", failure, peer=self.client_name
            )
        self.listener.closing(CloseReason(CloseCause.FAILED, text))
        self.abort()

    def onPing(self, payload: bytes) -> None:
        """Override: send a pong, unless the client does not read (RFC 6455, section 5.5.3)."""
        if self.listener.takes_more:
            super().onPing(payload)

    def onMessageBegin(self, isBinary: bool) -> None:
        """Override: called when a message starts."""
        self._frames = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        """Override: called when a frame of a message starts. Count it: the limit in bytes ignores empty frames."""
        self._frames += 1
        if self._frames == _MAX_FRAMES:
            self.sendCloseFrame(1009, b"a message in too many frames")
            self.transport.loseConnection()
        super().onMessageFrameBegin(length)

    def onMessageEnd(self) -> None:
        """Override: called when a message is complete, except those that the fast path `_take_messages` reads."""
        if self._watch is not None:
            self._watch.completed()
        super().onMessageEnd()

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        """Override: called when either side closes, or when Autobahn does after a protocol error."""
        if self.state == self.STATE_OPEN:
            self._is_closing = True
            text = f"{code} {(reasonUtf8 or b'').decode(errors='replace')}"
            self.listener.closing(None if isReply else CloseReason(CloseCause.REFUSED, text))
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Override: send pings and pongs through the session as all frames; write a close frame at once."""
        if self.state == self.STATE_OPEN and not self._is_closing:
            self.listener.send(data)
        else:
            self.writer.write(data)
            self.listener.wrote(len(data))

    def _closeConnection(self, abort: bool = False) -> None:
        """Override: do not abort after a complete closing handshake."""
        super()._closeConnection(abort and not self.wasClean)

    # Called by the transport

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: called when the connection has ended."""
        self.state = self.STATE_CLOSED
        self._late = None
        if self._held is not None:
            self._held.release()
        if self._watch is not None:
            self._watch.end()
        if self.held_close is not None:
            self._held_alarm.cancel()
            self.held_close = None
        self.listener.lost()
        self.listener = _GONE


def new_factory(
    timeouts: Timeouts, wheel: TimerWheel, bodies: IncompleteBodies, turns: Turns
) -> WebSocketServerFactory:
    """Make the factory of all WebSockets; `timeouts` limits the time of a message, or the connection ends.

    `bodies` counts the bytes of incomplete messages; `turns` shares the time among clients with many messages.
    """
    factory = WebSocketServerFactory(server="pushd", reactor=object())
    factory.setProtocolOptions(
        versions=[13],
        webStatus=False,
        failByDrop=False,
        openHandshakeTimeout=0,
        closeHandshakeTimeout=0,
        autoPingInterval=0,
    )
    kind: Any = type("WebSocketConnection", (WebSocketConnection,), _state_after_handshake(factory))
    kind._timeouts, kind._wheel, kind._bodies, kind._turns = timeouts, wheel, bodies, turns
    factory.protocol = kind
    return factory


def _state_after_handshake(factory: WebSocketServerFactory) -> dict[str, object]:
    """Return the attributes that Autobahn's own opening handshake would set in a connection.

    Doing that handshake for each connection would take longer than all other work, and 3 KB. Mutable attributes,
    which connections would share, are left out: Autobahn needs them for the handshake only, or the class has its
    own.
    """
    model = WebSocketServerProtocol()
    model.factory = factory
    model.transport = FileWrapper(BytesIO())
    model._connectionMade()
    model._dataReceived(_HANDSHAKE)
    assert model.state == model.STATE_OPEN, model.wasNotCleanReason
    state = vars(model).items()
    return {name: value for name, value in state if name in _SHARED or isinstance(value, _UNCHANGING)}


def new_connection(
    factory: WebSocketServerFactory, max_message_bytes: int, place: ClientAddress
) -> WebSocketConnection:
    """Make a WebSocket that accepts messages of up to `max_message_bytes`; `makeConnection` starts it."""
    connection = factory.protocol()
    assert isinstance(connection, WebSocketConnection)
    connection.place = place
    connection.maxMessagePayloadSize = connection.maxFramePayloadSize = max_message_bytes
    return connection
