"""WebSocket clients for a daemon in memory, made of the websockets library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response as HandshakeResponse
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.protocol import State
from websockets.uri import parse_uri

from tests.rigs.connection import Connection

if TYPE_CHECKING:
    from tests.rigs.daemon import DaemonRig

__all__ = ["WebSocketClient", "WebSocketTalk"]


class WebSocketTalk:
    """The client's end of a WebSocket: the sans-I/O protocol of the websockets library, on some connection."""

    connection: Any
    """What it is on: a `Connection`, or what behaves as one."""

    def __init__(self, protocol: WebSocketProtocol) -> None:
        self.protocol = protocol
        self.messages: list[str | bytes] = []
        """What has come."""
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.answers_pings = True
        self._consumed = 0
        self._is_ended = False

    def _process(self) -> None:
        data = self.connection.received[self._consumed :]
        self._consumed += len(data)
        if data:
            self.protocol.receive_data(data)
        if not self.connection.is_open and not self._is_ended:
            self._is_ended = True
            self.protocol.receive_eof()
        for event in self.protocol.events_received():
            if isinstance(event, HandshakeResponse):
                self.shook_hands(event)
            elif isinstance(event, Frame):
                self._take(event)
        out = b"".join(self.protocol.data_to_send())
        if out and self.answers_pings and self.connection.is_open:
            self.connection.send(out)

    def _take(self, frame: Frame) -> None:
        data = bytes(frame.data)
        if frame.opcode is Opcode.TEXT:
            assert frame.fin
            self.messages.append(data.decode())
        elif frame.opcode is Opcode.BINARY:
            assert frame.fin
            self.messages.append(data)
        elif frame.opcode is Opcode.PING:
            self.pings.append(data)
        elif frame.opcode is Opcode.PONG:
            self.pongs.append(data)

    @property
    def is_open(self) -> bool:
        """True after the handshake and before a close frame."""
        return self.protocol.state is State.OPEN and self.connection.is_open

    @property
    def close(self) -> tuple[int, str] | None:
        """The code and the reason in the daemon's close frame, if one has come."""
        received = self.protocol.close_rcvd
        return None if received is None else (int(received.code), received.reason)

    @property
    def json(self) -> list[dict[str, Any]]:
        """The messages, which must be JSON objects in text."""
        found = []
        for message in self.messages:
            assert isinstance(message, str), message
            found.append(json.loads(message))
        return found

    def say(self, **message: object) -> None:
        """Send a JSON message."""
        self.send(json.dumps(message))

    def send(self, message: str | bytes) -> None:
        """Send a message, as text or as bytes."""
        if isinstance(message, str):
            self.protocol.send_text(message.encode("utf-8", "surrogatepass"))
        else:
            self.protocol.send_binary(message)
        self.flush()

    def flush(self) -> None:
        """Send what the protocol has to send."""
        self.connection.send(b"".join(self.protocol.data_to_send()))

    def shook_hands(self, response: HandshakeResponse) -> None:
        """Learn what the daemon has answered to a handshake over HTTP/1.1."""
        raise NotImplementedError


class WebSocketClient(WebSocketTalk):
    """A WebSocket over HTTP/1.1."""

    connection: Connection
    protocol: ClientProtocol

    def __init__(
        self,
        rig: DaemonRig,
        target: str,
        *,
        then: bytes = b"",
        origin: str | None = None,
        fields: Iterable[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
    ) -> None:
        """Connect to `target`, with more header `fields`; `then` is sent in the same segment as the handshake."""
        uri = parse_uri(f"ws://localhost{target}")
        super().__init__(
            ClientProtocol(uri, max_size=None, origin=origin, subprotocols=subprotocols or None)  # type: ignore[arg-type]
        )
        self.handshake: HandshakeResponse | None = None
        self.connection = rig.connect()
        self.connection.on_data = self._process
        request = self.protocol.connect()
        for name, value in fields:
            request.headers[name] = value
        self.protocol.send_request(request)
        self.connection.send(b"".join(self.protocol.data_to_send()) + then)

    def shook_hands(self, response: HandshakeResponse) -> None:
        """Override: keep it."""
        self.handshake = response
