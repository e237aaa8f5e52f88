"""A client of HTTP/2 that takes pushes, made of h2, for the daemon in memory."""

from __future__ import annotations

from collections.abc import Iterable
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
)
from h2.settings import SettingCodes

from tests.rigs import Connection, Response, Rig

__all__ = ["Push", "PushClient"]

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
    return [(name.decode(), value.decode()) for name, value in fields]


class _H2(H2Connection):
    def _receive_goaway_frame(self, frame: Any) -> Any:
        """Override: h2 would take nothing more of the connection, which is only about to end."""
        return [], []


class PushClient:
    """One connection."""

    def __init__(self, rig: Rig, settings: dict[Any, int] | None = None) -> None:
        """Connect; `settings` are the client's own."""
        self.connection = Connection(rig, is_http2=True)
        self.connection.on_data = self._read
        self.h2 = _H2(H2Configuration(header_encoding=None))
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW, **(settings or {})})
        self.h2.increment_flow_control_window(_WINDOW)
        self.pushes: list[Push] = []
        """In the order of their promises; those that the client refused stay."""
        self.refuses: dict[int, int] = {}
        """With which codes to reset pushes, by their place in the order of promises."""
        self.responses: dict[int, Response] = {}
        """What came on the streams that the client began."""
        self.hints: list[list[tuple[str, str]]] = []
        """The fields of each informational response."""
        self._pushed: dict[int, Push] = {}
        self._seen = 0
        self.flush()

    def flush(self) -> None:
        """Send what there is to send."""
        self.connection.send(self.h2.data_to_send())

    def get(self, path: str, stream_id: int = 1, *fields: tuple[str, str]) -> None:
        """Make a request."""
        pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        self.h2.send_headers(stream_id, [*pseudo, *fields], end_stream=True)
        self.flush()

    def _read(self) -> None:
        data = self.connection.received[self._seen :]
        self._seen += len(data)
        for event in self.h2.receive_data(data) if data else ():
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
            self.hints.append(_text(event.headers))
        elif isinstance(event, ResponseReceived):
            text = _text(event.headers)
            if event.stream_id in self._pushed:
                self._pushed[event.stream_id].fields = dict(text)
            else:
                self.responses[event.stream_id] = Response(int(text[0][1]), "", text[1:])
        elif isinstance(event, DataReceived):
            self._target(event.stream_id).body += event.data
        elif isinstance(event, StreamEnded):
            self._target(event.stream_id).is_complete = True

    def _target(self, stream_id: int) -> Push | Response:
        return self._pushed.get(stream_id) or self.responses[stream_id]
