"""The adapter to Autobahn, and the only module that knows it.

Autobahn does the handshake, the parsing and validation of frames, fragmentation, pongs and the closing
handshake (RFC 6455). What is sent does not pass through it: events are framed once for everybody, and the
session writes them to the transport, whole frames at a time. Nor does it set timers: the wheel does.
"""

from __future__ import annotations

from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.peer import peer_name
from pushd.reasons import Cause, Reason
from pushd.writethrough import Writer, writer

__all__ = ["WebSocketConnection", "WebSocketListener", "new_connection", "new_factory"]

_CLOSE_CODES = {
    Cause.STOPPING: 1001,
    Cause.DELETED: 1000,
    Cause.REFUSED: 1008,
    Cause.TOO_SLOW: 1013,
    Cause.FAILED: 1011,
}
"""RFC 6455, section 7.4.1, and the registry of close codes."""

_MAX_FRAMES = 4096
"""How many frames a message may come in."""

_MAX_REASON_BYTES = 123
"""A control frame has at most 125 bytes, and the code takes two (RFC 6455, section 5.5)."""


class WebSocketListener(Protocol):
    """What a WebSocket tells of what happens to it."""

    def opened(self) -> None:
        """The handshake is done; frames can be sent."""

    def received(self, payload: bytes, is_binary: bool) -> None:
        """A message has come; text is valid UTF-8."""

    @property
    def takes_more(self) -> bool:
        """Whether the client takes what is sent."""

    def send(self, frame: bytes) -> None:
        """Send a frame, after what is being sent."""

    def closing(self) -> None:
        """No frame may be sent any more: a close frame was."""

    def lost(self) -> None:
        """The connection has ended."""


class WebSocketConnection(WebSocketServerProtocol):
    """One WebSocket: a `pushd.session.Connection`."""

    pushd_log = Logger()  # .log is Autobahn's

    listener: WebSocketListener

    transport: Any
    maxFramePayloadSize: int
    maxMessagePayloadSize: int

    client_name: str
    """What the client is called in the log."""

    _frames = 0
    _is_closing = False

    has_heard = False
    """True if anything came from the client since somebody set it to false."""

    # pushd.session.Connection

    writer: Writer
    """Sends whole frames."""

    def close(self, reason: Reason) -> None:
        """Begin the closing handshake."""
        text = reason.text.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        self.sendCloseFrame(_CLOSE_CODES[reason.cause], text.encode())

    def abort(self) -> None:
        """End the connection now."""
        self.transport.abortConnection()

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.sendPing()

    # Called by Autobahn, which swallows what is raised here

    def onOpen(self) -> None:
        """Override: the handshake is done."""
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
        self.pushd_log.failure("a fault in pushd while it served a WebSocket of {peer}", peer=self.client_name)
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

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        """Override: either side closes, or Autobahn does because the client broke the protocol."""
        if self.state == self.STATE_OPEN:
            self._is_closing = True
            self.listener.closing()
            if not isReply and code != _CLOSE_CODES[Cause.STOPPING]:
                self.pushd_log.info(
                    "closing WebSocket of {peer}: {code} {reason}",
                    peer=self.client_name,
                    code=code,
                    reason=(reasonUtf8 or b"").decode(errors="replace"),
                )
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Override: pings and pongs take the way of all frames; what belongs to a handshake goes at once."""
        if self.state == self.STATE_OPEN and not self._is_closing:
            self.listener.send(data)
        else:
            super().sendData(data, sync, chopsize)

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Override: the handshake was wrong."""
        self.listener.closing()
        self.pushd_log.info("refused WebSocket handshake of {peer}: {reason}", peer=self.client_name, reason=reason)
        super().failHandshake(reason, code, responseHeaders)

    def _closeConnection(self, abort: bool = False) -> None:
        """Override: after a complete closing handshake the connection ends properly too."""
        super()._closeConnection(abort and not self.wasClean)

    # Called by the transport

    def dataReceived(self, data: bytes) -> None:
        """Override: bytes have come."""
        self.has_heard = True
        super().dataReceived(data)

    def connectionMade(self) -> None:
        """Override: the connection begins."""
        self.writer = writer(self.transport)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: the connection has ended."""
        super().connectionLost(reason)
        self.listener.lost()


def new_factory() -> WebSocketServerFactory:
    """Make the factory of all WebSockets."""
    factory = WebSocketServerFactory(server="pushd", reactor=object())
    factory.protocol = WebSocketConnection
    factory.setProtocolOptions(
        versions=[13],
        webStatus=False,
        failByDrop=False,
        openHandshakeTimeout=0,
        closeHandshakeTimeout=0,
        autoPingInterval=0,
    )
    return factory


def new_connection(
    factory: WebSocketServerFactory, address: IAddress, max_message_bytes: int
) -> WebSocketConnection:
    """Make a WebSocket that takes messages of up to `max_message_bytes`."""
    connection = factory.buildProtocol(address)
    assert isinstance(connection, WebSocketConnection)
    connection.client_name = peer_name(address)
    connection.maxMessagePayloadSize = connection.maxFramePayloadSize = max_message_bytes
    return connection
