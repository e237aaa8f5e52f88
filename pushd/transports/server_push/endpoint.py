"""Server push: ``GET /push?channel=...``, each event a pushed response (RFC 9113, section 8.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from twisted.internet.interfaces import IDelayedCall
from twisted.web.server import NOT_DONE_YET

from pushd.bus import Pattern
from pushd.errors import Conflict, VersionNeeded
from pushd.server import Request, RequestGuard, Stream
from pushd.sessions import Admission
from pushd.transports.endpoint import SubscribeEndpoint
from pushd.transports.http_stream import ResponseStream, StreamFormat
from pushd.transports.server_push.session import PushSession
from pushd.wire import stream_end, stream_start

__all__ = ["EventPush"]

_FORMAT = StreamFormat(b"application/x-ndjson", b"\n", stream_end)


class EventPush(SubscribeEndpoint):
    """A stream that stays open, on which each event is promised as ``/channels/{channel}/events/{id}``.

    The NDJSON body holds all other messages: ``{"type":"open","position":..,"recovered":..}`` first, then
    ``{"type":"gap","since":..}`` if the position was lost, and ``{"type":"closed","detail":..}`` last. An empty
    line is a heartbeat.
    """

    transport = "push"
    parameters: ClassVar = {"GET": frozenset({"channel", "since"})}

    def __init__(
        self,
        gate: RequestGuard,
        door: Admission,
        *,
        heartbeat_s: float,
        call_later: Callable[[float, Callable[[], None]], IDelayedCall],
    ) -> None:
        """Send an idle client an empty line every `heartbeat_s` seconds. `call_later` is the reactor's."""
        super().__init__(gate, door)
        self._sessions = door.sessions
        self._heartbeat_s = heartbeat_s
        self._call_later = call_later

    def wanted(self, request: Request) -> tuple[list[Pattern], str]:
        """Override: check that the client accepts server push, too."""
        _promising(request)
        return super().wanted(request)

    def render_GET(self, request: Request) -> bytes | int:
        """Subscribe."""
        patterns, since = request.wanted
        stream = _promising(request)
        if request.method == b"HEAD":
            request.setHeader(b"content-type", _FORMAT.content_type)
            return b""

        def make(body: ResponseStream) -> PushSession:
            return PushSession(self._sessions, stream, body, request.caller, self._call_later)

        response = ResponseStream(request, self._sessions.wheel, _FORMAT, self._heartbeat_s, make)
        start = response.subscribe(patterns, since)
        request.setHeader(b"event-position", start.position.encode())
        response.begin(stream_start(start, since))
        return NOT_DONE_YET


def _promising(request: Request) -> Stream:
    """Return the stream of a request; raise `Refused` if it does not allow promises."""
    stream: object = request.channel
    if not isinstance(stream, Stream):
        raise VersionNeeded(
            "server push requires HTTP/2, negotiated by ALPN over TLS; /stream and /sse work over any version"
        )
    if not stream.takes_promises:
        raise Conflict(
            "the client has disabled server push (SETTINGS_ENABLE_PUSH is 0); /stream and /sse work without it"
        )
    return stream
