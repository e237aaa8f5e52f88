"""Streaming HTTP responses: a session whose connection is the body of a response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.python.failure import Failure

from pushd.bus import CloseReason, Encoder, Pattern, StartPosition
from pushd.errors import Refused
from pushd.server import Request, Timer, TimerWheel, Writer
from pushd.sessions import SubscriberSession
from pushd.wire import chunk, chunked

__all__ = ["ResponseStream", "StreamFormat"]

_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """The format of one kind of stream."""

    content_type: bytes
    """Media type of the body."""

    heartbeat: bytes
    """Bytes of a heartbeat."""

    closing: Callable[[CloseReason], bytes]
    """Formats the reason sent at the end of the stream."""


class ResponseStream:
    """The body of one response, to which events are written: a `pushd.sessions.interfaces.Connection`.

    `twisted.web` writes the head and the first bytes of the body. Events bypass it, in frames that are identical
    for all clients.
    """

    __slots__ = ("_format", "_heartbeat", "_heartbeat_s", "_is_chunked", "_request", "_wheel", "session", "writer")

    writer: Writer
    """Sends frames encoded for this body, once `begin` was called."""

    def __init__(
        self,
        request: Request,
        wheel: TimerWheel,
        stream_format: StreamFormat,
        heartbeat_s: float,
        make_session: Callable[[ResponseStream], SubscriberSession],
    ) -> None:
        """Create a session for `request`, with a heartbeat after `heartbeat_s` idle seconds."""
        self._request = request
        self._wheel = wheel
        self._format = stream_format
        self._heartbeat_s = heartbeat_s
        self._heartbeat: Timer | None = None
        self._is_chunked = request.clientproto == b"HTTP/1.1"  # HTTP/1.0 and HTTP/2 have no chunks
        self.session = make_session(self)

    def encoder(self, encode: Encoder) -> Encoder:
        """Return `encode`, with chunk framing if this body needs it."""
        return chunked(encode) if self._is_chunked else encode

    def subscribe(self, patterns: Sequence[Pattern], since: str) -> StartPosition:
        """Subscribe the session; end it and raise `Refused` if it may not."""
        try:
            return self.session.enter([patterns], since)[0]
        except Refused:
            self.session.ended()
            raise

    def begin(self, first: bytes) -> None:
        """Send the head of the response and `first`; events follow."""
        request = self._request
        request.setHeader(b"content-type", self._format.content_type)
        request.setHeader(b"cache-control", b"no-store, no-transform")  # a compressing proxy would delay events
        request.setHeader(b"x-accel-buffering", b"no")
        if self._is_chunked:  # or else the client may send its next request on this connection
            request.setHeader(b"connection", b"close")
        request.notifyFinish().addBoth(self._finished)
        request.registerProducer(self.session, True)
        request.write(first)
        self.session.wrote(len(self._framed(first)))
        self.writer = request.connection.body_writer()
        if request.access_record is not None:
            request.streamed = self.session
        request.forget_head()
        self._set_heartbeat(self._heartbeat_s)

    def _set_heartbeat(self, within_s: float) -> None:
        self._heartbeat = self._wheel.call_within(within_s, self._beat)

    def _beat(self) -> None:
        """Send a heartbeat, if at the next turn of the wheel the body would have been silent for too long."""
        silent_by = self.session.wrote_s + self._heartbeat_s
        if self._wheel.turns_again_by(silent_by):
            self._set_heartbeat(silent_by - self._wheel.turned_s)
        else:
            self.send(self._format.heartbeat)
            self._set_heartbeat(self._heartbeat_s)

    def send(self, content: bytes) -> None:
        """Write `content`, which is not an event, to the body."""
        self.session.send(self._framed(content))

    def _framed(self, content: bytes) -> bytes:
        return chunk(content) if self._is_chunked else content

    def _finished(self, result: Failure | None) -> None:
        """Called when the response has ended, by `close` or because the client disconnected."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None  # the timer and this object refer to each other: a cycle
        self.session.ended()

    # Connection

    @property
    def client_name(self) -> str:
        """Return the client's name in the log."""
        return self._request.caller.name

    def close(self, reason: CloseReason) -> None:
        """Send `reason`, then end the response and the connection."""
        request, connection = self._request, self._request.connection
        last = self._format.closing(reason)
        request.write(last)
        self.session.wrote(len(self._framed(last)) + (len(_LAST_CHUNK) if self._is_chunked else 0))
        request.unregisterProducer()
        connection.finish()  # before the request is done, so that no pipelined request starts
        request.finish()
        connection.end()

    def abort(self) -> None:
        """End the connection now."""
        self._request.connection.abort()
