"""NDJSON streams: ``GET /stream?channel=...``, one event per line until the client disconnects."""

from __future__ import annotations

from typing import ClassVar

from twisted.web.server import NOT_DONE_YET

from pushd.server import Request, RequestGuard
from pushd.sessions import Admission, Session
from pushd.transports.endpoint import SubscribeEndpoint
from pushd.transports.http_stream import ResponseStream, StreamFormat
from pushd.wire import stream_end, stream_line, stream_start

__all__ = ["JsonStream"]

_FORMAT = StreamFormat(b"application/x-ndjson", b"\n", stream_end)


class JsonStream(SubscribeEndpoint):
    """Lines of JSON: ``{"type":"open","position":..,"recovered":..}`` first, and then ``{"type":"event",...}``.

    Before the first event, ``{"type":"gap","since":..}`` reports a position that was lost.

    An empty line is a heartbeat.
    """

    transport = "stream"
    parameters: ClassVar = {"GET": frozenset({"channel", "since"})}

    def __init__(self, gate: RequestGuard, door: Admission, *, heartbeat_s: float) -> None:
        """Send an idle client an empty line every `heartbeat_s` seconds."""
        super().__init__(gate, door)
        self._sessions = door.sessions
        self._heartbeat_s = heartbeat_s

    def render_GET(self, request: Request) -> bytes | int:
        """Subscribe."""
        patterns, since = request.wanted
        if request.method == b"HEAD":
            request.setHeader(b"content-type", _FORMAT.content_type)
            return b""

        def make(body: ResponseStream) -> Session:
            return Session(self._sessions, body, body.encoder(stream_line), request.caller)

        stream = ResponseStream(request, self._sessions.wheel, _FORMAT, self._heartbeat_s, make)
        start = stream.subscribe(patterns, since)
        request.setHeader(b"event-position", start.position.encode())
        stream.begin(stream_start(start, since))
        return NOT_DONE_YET
