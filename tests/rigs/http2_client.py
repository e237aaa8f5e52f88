"""A client that speaks HTTP/2 and takes pushes, made of h2, for the daemon in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    InformationalResponseReceived,
    PushedStreamReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes

from tests.rigs.connection import Connection
from tests.rigs.daemon import DaemonRig
from tests.rigs.http_client import Response

__all__ = ["Http2Client", "Push"]

_WINDOW = 2**30


@dataclass
class Push:
    """A pushed response, or as much of it as there is."""

    request: dict[str, str]
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_complete: bool = False

    @property
    def channel(self) -> str:
        """Which channel its path names."""
        _, channels, channel, events, _ = self.request[":path"].split("/")
        assert (channels, events) == ("channels", "events")
        return unquote(channel)


def _text(fields: Iterable[tuple[Any, Any]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


class _H2(H2Connection):
    def _receive_goaway_frame(self, frame: Any) -> Any:
        """Override: h2 would take nothing more of the connection, which is only about to end."""
        return [], []


class Http2Client:
    """One connection. It can be used as an `HttpClient`."""

    alarms = 1
    close_timeout_s = 32

    def __init__(self, rig: DaemonRig, settings: dict[Any, int] | None = None, window: int = _WINDOW) -> None:
        """Connect; `settings` are the client's own, and `window` is what it takes beyond 65,535 bytes."""
        self.connection = Connection(rig, is_http2=True)
        self.connection.on_data = self._receive
        self.h2 = _H2(H2Configuration(header_encoding=None))
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW, **(settings or {})})
        if window:
            self.h2.increment_flow_control_window(window)
        self.pushes: list[Push] = []
        """In the order of their promises; those that the client refused stay."""
        self.refuses: dict[int, int] = {}
        """With which codes to reset pushes, by their place in the order of promises."""
        self.hints: list[list[tuple[str, str]]] = []
        """The fields of each informational response."""
        self._responses: dict[int, Response] = {}
        self._interim: dict[int, list[int]] = {}
        self._pushed: dict[int, Push] = {}
        self._unsent: dict[int, bytes] = {}
        self._seen = 0
        self.flush()

    # Requests

    def send(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes = b"",
        host: str = "localhost",
    ) -> None:
        """Send a request; a ``content-length`` is added if there is a body and no header about its length."""
        fields = list(headers.items() if isinstance(headers, Mapping) else headers)
        if body and "content-length" not in {name.lower() for name, _ in fields}:
            fields.append(("content-length", str(len(body))))
        pseudo = [(":method", method), (":scheme", "https"), (":authority", host), (":path", target)]
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, [*pseudo, *fields], end_stream=not body)
        if body:
            self._unsent[stream_id] = body
        self.flush()
        while self._unsent and self.connection.is_reading and self._read_written():
            pass  # the daemon opens the windows

    def reset(self, place: int, code: int) -> None:
        """Want no more of the response to a request, by the place of the request."""
        self.h2.reset_stream(2 * place + 1, code)
        self.flush()

    def open_window(self, size: int) -> None:
        """Take `size` bytes more, on all streams together."""
        self.h2.increment_flow_control_window(size)
        self.flush()

    def flush(self) -> None:
        """Send what there is to send, as far as the windows go."""
        for stream_id, body in list(self._unsent.items()):
            while body and (room := self.h2.local_flow_control_window(stream_id)) > 0:
                size = min(room, self.h2.max_outbound_frame_size)
                chunk, body = body[:size], body[size:]
                self.h2.send_data(stream_id, chunk, end_stream=not body)
            self._unsent[stream_id] = body
            if not body:
                del self._unsent[stream_id]
        self.connection.send(self.h2.data_to_send())

    # Responses

    @property
    def responses(self) -> list[Response]:
        """What has come, in the order of the requests."""
        return [self._responses[stream_id] for stream_id in sorted(self._responses)]

    @property
    def response(self) -> Response:
        """The only response."""
        (response,) = self.responses
        return response

    @property
    def written(self) -> list[Response]:
        """What the daemon has written, whether it has come or not. It counts as having come."""
        while self._read_written():
            pass  # the client may have to answer before the daemon goes on
        return self.responses

    def _read_written(self) -> bool:
        """Take what the daemon has written, without letting time pass; False if there is nothing."""
        before = self._seen
        self._read(b"".join(self.connection.writes))
        return self._seen > before

    def _receive(self) -> None:
        self._read(self.connection.received)

    def _read(self, data: bytes) -> None:
        """Take what is new of all `data` that the daemon has sent so far."""
        new, self._seen = data[self._seen :], max(self._seen, len(data))
        for event in self.h2.receive_data(new) if new else ():
            self._take(event)
        if self.connection.is_open:
            self.flush()

    def _take(self, event: Any) -> None:
        if isinstance(event, PushedStreamReceived):
            assert event.pushed_stream_id is not None and event.headers is not None
            push = self._pushed[event.pushed_stream_id] = Push(dict(_text(event.headers)))
            code = self.refuses.get(len(self.pushes))
            self.pushes.append(push)
            if code is not None:
                reset = b"\0\0\4\3\0" + event.pushed_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big")
                self.connection.send(reset)  # also of a stream that has ended, which h2 would not send
        elif isinstance(event, InformationalResponseReceived):
            fields = _text(event.headers)
            self.hints.append(fields)
            self._interim.setdefault(event.stream_id, []).append(int(fields[0][1]))
        elif isinstance(event, ResponseReceived):
            (_, status), *fields = _text(event.headers)
            if event.stream_id in self._pushed:
                self._pushed[event.stream_id].fields = {":status": status, **dict(fields)}
            else:
                interim = self._interim.pop(event.stream_id, [])
                self._responses[event.stream_id] = Response(int(status), "", fields, interim=interim)
        elif isinstance(event, DataReceived):
            self._target(event.stream_id).body += event.data
        elif isinstance(event, StreamEnded):
            self._target(event.stream_id).is_complete = True
        elif isinstance(event, StreamReset):
            self._unsent.pop(event.stream_id, None)

    def _target(self, stream_id: int) -> Push | Response:
        return self._pushed.get(stream_id) or self._responses[stream_id]
