"""The base of the endpoints whose response is a stream of events."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from twisted.web.server import NOT_DONE_YET

from pushd.bus import StartPosition
from pushd.server import Request, RequestGuard
from pushd.sessions import Admission, SubscriberSession
from pushd.transports.endpoint import SubscribeEndpoint
from pushd.transports.http_stream import ResponseStream, StreamFormat

__all__ = ["StreamEndpoint"]


class StreamEndpoint(SubscribeEndpoint):
    """An endpoint that responds with a stream; subclasses define its format, its session and its first bytes."""

    format: ClassVar[StreamFormat]
    """The format of the stream."""

    def __init__(self, guard: RequestGuard, admission: Admission, *, heartbeat_s: float) -> None:
        """Send an idle client a heartbeat every `heartbeat_s` seconds."""
        super().__init__(guard, admission)
        self._sessions = admission.sessions
        self._heartbeat_s = heartbeat_s

    def make_session(self, request: Request, body: ResponseStream) -> SubscriberSession:
        """Create the session of `request`, whose connection is `body`."""
        raise NotImplementedError

    def first(self, request: Request, stream: ResponseStream, start: StartPosition, since: str) -> bytes:
        """Return the first bytes of `stream`, which begins at `start` for the requested position `since`."""
        raise NotImplementedError

    def render_GET(self, request: Request) -> bytes | int:
        """Subscribe, and start the stream; for HEAD, return its headers only."""
        patterns, since = request.wanted
        if request.method == b"HEAD":
            request.setHeader(b"content-type", self.format.content_type)
            return b""
        make = partial(self.make_session, request)
        stream = ResponseStream(request, self._sessions.wheel, self.format, self._heartbeat_s, make)
        start = stream.subscribe(patterns, since)
        stream.begin(self.first(request, stream, start, since))
        return NOT_DONE_YET
