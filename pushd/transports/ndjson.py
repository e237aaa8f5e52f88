"""NDJSON streams: ``GET /stream?channel=...``, one event per line until the client disconnects."""

from __future__ import annotations

from typing import ClassVar

from pushd.bus import StartPosition, Transport
from pushd.server import Request
from pushd.sessions import Session, SubscriberSession
from pushd.transports.http_stream import ResponseStream, StreamFormat
from pushd.transports.stream_endpoint import StreamEndpoint
from pushd.wire import stream_end, stream_line, stream_start

__all__ = ["JsonStream", "NdjsonEndpoint"]


class NdjsonEndpoint(StreamEndpoint):
    """A stream of JSON lines: ``{"type":"open","position":..,"recovered":..}`` first.

    Then ``{"type":"gap","since":..}`` reports a position that was lost, and ``{"type":"closed","detail":..}`` is
    last. An empty line is a heartbeat.
    """

    format = StreamFormat(b"application/x-ndjson", b"\n", stream_end)
    parameters: ClassVar = {"GET": frozenset({"channel", "since"})}

    def first(self, request: Request, stream: ResponseStream, start: StartPosition, since: str) -> bytes:
        """Override: return the first lines, and set the position as a header, too."""
        request.setHeader(b"event-position", start.position.encode())
        return stream_start(start, since)


class JsonStream(NdjsonEndpoint):
    """A stream in which each event is a line, ``{"type":"event",...}``."""

    transport = Transport("stream")

    def make_session(self, request: Request, body: ResponseStream) -> SubscriberSession:
        """Override: create a session that writes events to the body."""
        return Session(self._sessions, body, body.encoder(stream_line), request.caller)
