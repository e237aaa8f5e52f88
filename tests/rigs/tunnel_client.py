"""WebSocket over HTTP/2 (RFC 8441), made of h2 and websockets, for the daemon in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from h2.errors import ErrorCodes
from h2.events import DataReceived, ResponseReceived, SettingsAcknowledged, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes
from websockets.protocol import Protocol, Side

from tests.rigs.daemon import DaemonRig
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import Response
from tests.rigs.websocket_client import WebSocketTalk

__all__ = ["StreamConnection", "TunnelClient", "WebSocketOverHttp2"]

_WINDOW = 65_535


class TunnelClient(Http2Client):
    """One connection, some of whose streams are connections themselves."""

    def __init__(self, rig: DaemonRig) -> None:
        self.streams: dict[int, StreamConnection] = {}
        super().__init__(rig, {SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        rig.turn()

    @property
    def offers_websocket(self) -> bool:
        """Whether the daemon does (RFC 8441, section 3)."""
        return self.h2.remote_settings.enable_connect_protocol == 1

    def _receive(self) -> None:
        super()._receive()
        if not self.connection.is_open:
            for stream in list(self.streams.values()):
                stream.end()

    def _take(self, event: Any) -> None:
        stream = self.streams.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, WindowUpdated | SettingsAcknowledged):
            for each in list(self.streams.values()):
                each.pump()
        elif stream is not None:
            stream.take(event)
        else:
            super()._take(event)


class StreamConnection:
    """A stream that behaves as a `tests.rigs.Connection` does."""

    def __init__(self, client: TunnelClient, target: str, fields: Iterable[tuple[str, str]]) -> None:
        """Ask for a WebSocket at `target`."""
        self.client = client
        self.response: Response | None = None
        """What it was answered."""
        self.received = b""
        """Everything that has come since then."""
        self._is_over = False
        self.was_aborted = False
        """True if the daemon reset the stream."""
        self.on_data: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None
        self._is_reading = True
        self._unread: list[DataReceived] = []
        self._unsent = b""
        self._has_sent_end = False
        self.stream_id = client.h2.get_next_available_stream_id()
        client.streams[self.stream_id] = self
        pseudo = [
            *((":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https")),
            *((":authority", "localhost"), (":path", target)),
        ]
        client.h2.send_headers(self.stream_id, [*pseudo, *fields])
        client.flush()

    @property
    def is_open(self) -> bool:
        """False once the stream is over, or the whole connection if there was no WebSocket on the stream."""
        if self.response is not None and self.response.status != 200:
            return self.client.connection.is_open
        return not self._is_over

    @property
    def writes(self) -> list[bytes]:
        """Everything that the daemon has written, by its writes."""
        return self.client.connection.writes

    # From the daemon

    def take(self, event: Any) -> None:
        """Take what h2 says of this stream."""
        if isinstance(event, ResponseReceived):
            fields = [(name.decode(), value.decode()) for name, value in event.headers or ()]
            self.response = Response(int(fields[0][1]), "", fields[1:])
        elif isinstance(event, DataReceived):
            self._unread.append(event)
            self._deliver()
        elif isinstance(event, StreamEnded):
            assert self.response is not None
            self.response.is_complete = True
            self._end_if_read()
        elif isinstance(event, StreamReset):
            self.was_aborted = event.error_code != ErrorCodes.NO_ERROR
            self.end()

    def _deliver(self) -> None:
        while self._unread and self._is_reading:
            event = self._unread.pop(0)
            if not self._is_over:
                self.client.h2.acknowledge_received_data(event.flow_controlled_length, self.stream_id)
            assert self.response is not None
            if self.response.status == 200:
                self.received += event.data
            else:
                self.response.body += event.data
        self.on_data()
        self._end_if_read()

    def _end_if_read(self) -> None:
        if self.response is not None and self.response.is_complete and not self._unread:
            self.end()

    def end(self) -> None:
        """Learn that the stream is over."""
        if not self._is_over:
            self._is_over = True
            self.on_data()
            self.on_end()

    # To the daemon

    def send(self, data: bytes) -> None:
        """Send `data`, as far as the daemon has a window for it, and the rest when it has."""
        self._unsent += data
        self.pump()
        self.client.flush()

    def send_end(self) -> None:
        """Send no more."""
        self._has_sent_end = True
        self.client.h2.end_stream(self.stream_id)
        self.client.flush()

    @property
    def unsent(self) -> int:
        """How much waits for the daemon's window."""
        return len(self._unsent)

    def pump(self) -> None:
        """Send what the window allows."""
        h2 = self.client.h2
        while self._unsent and not self._has_sent_end and not self._is_over and self.client.connection.is_open:
            try:
                room = h2.local_flow_control_window(self.stream_id)
            except StreamClosedError:
                break  # its end is among the events that are still to be taken
            size = min(len(self._unsent), room, h2.max_outbound_frame_size)
            if size <= 0:
                break
            h2.send_data(self.stream_id, self._unsent[:size])
            self._unsent = self._unsent[size:]

    def reset(self, code: int = ErrorCodes.CANCEL) -> None:
        """End the stream at once."""
        self.client.h2.reset_stream(self.stream_id, code)
        self.client.flush()
        self.end()

    def disconnect(self) -> None:
        """Close the stream from this side, and with it the connection."""
        if not self._is_over:
            self.reset()
        self.client.connection.disconnect()

    def stop_reading(self) -> None:
        """Take nothing more, so that everything between here and the daemon is full."""
        self._is_reading = False
        self._set_window(0)
        stream = self._stream
        if stream is not None and stream._producer is not None:
            stream._is_paused = True
            stream._producer.pauseProducing()

    def start_reading(self) -> None:
        """Take everything again."""
        self._is_reading = True
        self._set_window(_WINDOW)
        stream = self._stream
        if stream is not None:
            self.client.connection.protocol.wake(stream)
        self._deliver()
        self.client.flush()
        self.client.connection.rig.turn()

    def _set_window(self, size: int) -> None:
        self.client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
        self.client.flush()

    @property
    def _stream(self) -> Any:
        """The daemon's end."""
        return self.client.connection.protocol.streams.get(self.stream_id)


class WebSocketOverHttp2(WebSocketTalk):
    """A WebSocket on a stream."""

    connection: StreamConnection

    def __init__(
        self,
        rig: DaemonRig,
        target: str,
        *,
        then: bytes = b"",
        origin: str | None = None,
        client: TunnelClient | None = None,
        fields: Iterable[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
    ) -> None:
        """Connect to `target` over `client`, or over a connection of its own, which it closes in the end.

        With more header `fields`, if there are any.
        """
        super().__init__(Protocol(Side.CLIENT, max_size=None))
        own = client or TunnelClient(rig)
        origins = [] if origin is None else [("origin", origin)]
        version = ("sec-websocket-version", "13")
        offers = [("sec-websocket-protocol", ", ".join(subprotocols))] if subprotocols else []
        self.connection = StreamConnection(own, target, [version, *offers, *fields, *origins])
        self.connection.on_data = self._process
        if client is None:
            self.connection.on_end = self._close_own
        if then:
            self.connection.send(then)

    def _close_own(self) -> None:
        if self.connection.response is not None and self.connection.response.status == 200:
            self.connection.client.connection.disconnect()

    @property
    def is_open(self) -> bool:
        """Override: only a 200 opens it."""
        response = self.connection.response
        return response is not None and response.status == 200 and super().is_open
