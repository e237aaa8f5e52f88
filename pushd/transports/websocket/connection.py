"""The adapter to Autobahn, and the only module that knows it.

Autobahn does the parsing and validation of frames, fragmentation, pongs and the closing handshake (RFC 6455).
The opening handshake is pushd's own: a connection is made in the state that Autobahn's would leave it in. What is
sent does not pass through it: events are framed once for everybody, and the session writes them to the
transport, whole frames at a time. Nor does it set timers: the wheel does.

It uses some of Autobahn's private names: `tests/unit/transports/test_websocket_connection.py` pins each.
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
"""How long a close frame waits for the answers to what came before it. Clients wait for about 10 s for its own."""

_MAX_FRAMES = 4096
"""How many frames a message may come in."""

_MAX_REASON_BYTES = 123
"""A control frame has at most 125 bytes, and the code takes two (RFC 6455, section 5.5)."""

_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_UNCHANGING = (bool, int, str, bytes, type(None))
_SHARED = frozenset({"factory", "trafficStats"})
"""What all connections have in common, though it changes; pushd does not look at the second."""


class WebSocketListener(Protocol):
    """What a WebSocket tells of what happens to it."""

    @property
    def owner(self) -> str | None:
        """Who is charged for messages that are not complete: see `pushd.bus.clientinfo.owner_of`."""

    def opened(self) -> None:
        """The handshake is done; frames can be sent."""

    def received(self, payload: bytes, is_binary: bool) -> None:
        """A message has come; text is valid UTF-8."""

    @property
    def takes_more(self) -> bool:
        """Whether the client takes what is sent."""

    @property
    def is_answering(self) -> bool:
        """Whether something is still to be sent in answer to what was received; `answer_close` is called then."""

    def send(self, frame: bytes) -> None:
        """Send a frame, after what is being sent."""

    def wrote(self, size: int) -> None:
        """`size` bytes were sent past `send`."""

    def closing(self, reason: CloseReason | None) -> None:
        """No frame may be sent any more: a close frame was, for a `reason` unless the client began with that."""

    def lost(self) -> None:
        """The connection has ended."""


class _Gone:
    """What listens to a connection that has ended: nobody."""

    owner = None
    takes_more = is_answering = False

    def opened(self) -> None:
        """Do nothing, as everything else here."""

    def received(self, payload: bytes, is_binary: bool) -> None:
        """Take no message."""

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
    """One WebSocket, from the end of the opening handshake on: a `pushd.sessions.session.Connection`.

    The attributes that Autobahn would give to each are attributes of its class; see `new_factory`.
    """

    pushd_log = Logger()
    log = FaultLog("pushd.transports.websocket.connection")  # Autobahn's

    listener: WebSocketListener

    maxFramePayloadSize: int

    _frames = 0
    _is_closing = False
    _held_alarm: Timer

    def __init__(self) -> None:
        """Override: there is nothing to do for each."""

    place: ClientAddress
    """Where the client is."""

    @property
    def client_name(self) -> str:
        """What the client is called in the log."""
        return self.place.name

    @property
    def peer(self) -> str:  # type: ignore[override]
        """Override: what Autobahn calls it in its log."""
        return self.client_name

    @property
    def is_closed(self) -> Deferred[object]:
        """What Autobahn tells of the end; nobody waits for it."""
        return Deferred()

    @cached_property
    def utf8validator(self) -> Utf8Validator:  # type: ignore[override]
        """What Autobahn checks text with: not there before some has come."""
        return Utf8Validator()

    # pushd.session.Connection

    writer: Writer
    """Sends whole frames."""

    def close(self, reason: CloseReason) -> None:
        """Begin the closing handshake."""
        text = reason.text.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        self.sendCloseFrame(_CLOSE_CODES[reason.cause], text.encode())
        self.answer_close()

    def abort(self) -> None:
        """End the connection now."""
        self.transport.abortConnection()

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.sendPing()

    def finish(self) -> None:
        """Close once the session does."""

    # The client closes

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        """Override: return it once everything that came before it is answered, or when that takes too long."""
        if self.state != self.STATE_OPEN or not self.listener.is_answering:
            return super().onCloseFrame(code, reasonRaw)
        self.held_close = (code, reasonRaw)
        self.data = b""  # nothing follows a close frame (RFC 6455, section 5.5.1)
        self._held_alarm = self._wheel.call_in(_ANSWERS_S, self.answer_close)
        return True

    def answer_close(self) -> None:
        """Return the close frame that is held, if there is one."""
        held, self.held_close = self.held_close, None
        if held is not None:
            self._held_alarm.cancel()
            super().onCloseFrame(*held)

    # What is raised here would go to Autobahn, or to a request that has been answered

    def connectionMade(self) -> None:
        """Override: the handshake is done, and the connection is here."""
        self.writer = writer(self.transport)
        try:
            self.listener.opened()
        except Exception:  # noqa: BLE001
            self._failed()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Override: a message has come; after a close frame it is too late for one."""
        if self.state != self.STATE_OPEN:
            return
        try:
            self.listener.received(payload, isBinary)
        except Exception:  # noqa: BLE001
            self._failed()

    def _failed(self) -> None:
        if memory.was_missed():
            self.listener.closing(CloseReason(CloseCause.FAILED, NO_MEMORY))
        else:
            self.pushd_log.failure("a fault in pushd while it served a WebSocket of {peer}", peer=self.client_name)
            self.listener.closing(CloseReason(CloseCause.FAILED, "a fault in pushd; see its log"))
        self.abort()

    def onPing(self, payload: bytes) -> None:
        """Override: answer, unless the client does not take what it gets (RFC 6455, section 5.5.3)."""
        if self.listener.takes_more:
            super().onPing(payload)

    def onMessageBegin(self, isBinary: bool) -> None:
        """Override: a message begins."""
        self._frames = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        """Override: a frame of it begins. Its limit in bytes does not count frames that are empty."""
        self._frames += 1
        if self._frames == _MAX_FRAMES:
            self.sendCloseFrame(1009, b"a message in too many frames")
            self.transport.loseConnection()
        super().onMessageFrameBegin(length)

    def onMessageEnd(self) -> None:
        """Override: a message is whole, but for those that `_take_messages` takes."""
        if self._watch is not None:
            self._watch.completed()
        super().onMessageEnd()

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        """Override: either side closes, or Autobahn does because the client broke the protocol."""
        if self.state == self.STATE_OPEN:
            self._is_closing = True
            text = f"{code} {(reasonUtf8 or b'').decode(errors='replace')}"
            self.listener.closing(None if isReply else CloseReason(CloseCause.REFUSED, text))
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Override: pings and pongs take the way of all frames; a close frame goes at once."""
        if self.state == self.STATE_OPEN and not self._is_closing:
            self.listener.send(data)
        else:
            self.writer.write(data)
            self.listener.wrote(len(data))

    def _closeConnection(self, abort: bool = False) -> None:
        """Override: after a complete closing handshake the connection ends properly too."""
        super()._closeConnection(abort and not self.wasClean)

    # Called by the transport

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: the connection has ended."""
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
    patience: Timeouts, wheel: TimerWheel, bodies: IncompleteBodies, turns: Turns
) -> WebSocketServerFactory:
    """Make the factory of all WebSockets, whose messages come in time, as `patience` has it, or end them.

    What is held of messages that are not complete is counted in `bodies`; `turns` shares the time among those with
    many messages.
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
    kind._patience, kind._wheel, kind._bodies, kind._turns = patience, wheel, bodies, turns
    factory.protocol = kind
    return factory


def _state_after_handshake(factory: WebSocketServerFactory) -> dict[str, object]:
    """Return what Autobahn has set in a connection once its own opening handshake is done.

    To have it done for each connection takes longer than everything else, and 3 KB. What would change in one
    connection and so in all is left out: Autobahn needs it for the handshake only, or the class has its own.
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
    """Make a WebSocket that takes messages of up to `max_message_bytes`; it begins with `makeConnection`."""
    connection = factory.protocol()
    assert isinstance(connection, WebSocketConnection)
    connection.place = place
    connection.maxMessagePayloadSize = connection.maxFramePayloadSize = max_message_bytes
    return connection
