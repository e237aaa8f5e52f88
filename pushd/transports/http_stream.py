"""The endless HTTP response: a session whose connection is the body of an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.python.failure import Failure

from pushd.bus import CloseReason, Encoder, Pattern, StartPosition
from pushd.errors import Refused
from pushd.server import Request, Timer, TimerWheel, Writer
from pushd.wire import chunk, chunked

__all__ = ["ResponseStream", "StreamFormat"]

_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """How one kind of stream says what it has to say."""

    content_type: bytes
    """Its media type."""

    heartbeat: bytes
    """What shows an idle client that the connection lives."""

    closing: Callable[[CloseReason], bytes]
    """Makes what is said before the end of the stream."""


class StreamSession(Protocol):
    """What is known of a session: it is also the producer of the body."""

    @property
    def wrote_s(self) -> float:
        """When something was last written to the body, by the wheel; now, while the client has enough to take."""

    def enter(self, patterns: Sequence[Pattern], since: str) -> None:
        """Come in, to begin with `patterns` from `since`; raise `Refused` if that cannot be."""

    def subscribe(self, patterns: Sequence[Pattern], since: str) -> StartPosition:
        """Subscribe to `patterns` from the position `since`."""

    def send(self, frame: bytes) -> None:
        """Write `frame` to the body."""

    @property
    def sent_bytes(self) -> int:
        """How much was sent of the body, with the frames of its chunks."""

    def wrote(self, size: int) -> None:
        """Count `size` bytes of the body that the request wrote."""

    def ended(self) -> None:
        """Learn that the response has ended."""


class ResponseStream:
    """The body of one answer, to which events are written: a `pushd.sessions.session.Connection`.

    `twisted.web` writes the head and the first of the body; what follows goes past it, in the frames that are the
    same for everybody.
    """

    __slots__ = ("_format", "_heartbeat", "_heartbeat_s", "_is_chunked", "_request", "_wheel", "session", "writer")

    writer: Writer
    """Sends what is encoded for this body, once `begin` was called."""

    def __init__(
        self,
        request: Request,
        wheel: TimerWheel,
        stream_format: StreamFormat,
        heartbeat_s: float,
        make_session: Callable[[ResponseStream], StreamSession],
    ) -> None:
        """Begin a session for `request`, which hears something every `heartbeat_s` seconds."""
        self._request = request
        self._wheel = wheel
        self._format = stream_format
        self._heartbeat_s = heartbeat_s
        self._heartbeat: Timer | None = None
        self._is_chunked = request.clientproto == b"HTTP/1.1"  # neither 1.0 nor 2 has chunks
        self.session = make_session(self)

    def encoder(self, encode: Encoder) -> Encoder:
        """Return what makes of an entry what goes into this body, if `encode` makes its content."""
        return chunked(encode) if self._is_chunked else encode

    def subscribe(self, patterns: Sequence[Pattern], since: str) -> StartPosition:
        """Subscribe the session; end it and raise `Refused` if it may not."""
        try:
            self.session.enter(patterns, since)
            return self.session.subscribe(patterns, since)
        except Refused:
            self.session.ended()
            raise

    def begin(self, first: bytes) -> None:
        """Return the head of the response and `first`; from here on events follow."""
        request = self._request
        request.setHeader(b"content-type", self._format.content_type)
        request.setHeader(b"cache-control", b"no-store, no-transform")  # a proxy that compresses keeps events back
        request.setHeader(b"x-accel-buffering", b"no")
        if self._is_chunked:  # who does not know that `close` ends the connection sends its next request into it
            request.setHeader(b"connection", b"close")
        request.notifyFinish().addBoth(self._finished)
        request.registerProducer(self.session, True)
        request.write(first)
        self.session.wrote(len(self._framed(first)))
        self.writer = request.connection.body_writer()
        if request.visit is not None:
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
        """Write something to the body that is no event."""
        self.session.send(self._framed(content))

    def _framed(self, content: bytes) -> bytes:
        return chunk(content) if self._is_chunked else content

    def _finished(self, result: Failure | None) -> None:
        """Learn that the response has ended, by `close` or because the client went away."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None  # it refers to what it would call, which refers to it
        self.session.ended()

    # Connection

    @property
    def client_name(self) -> str:
        """What the client is called in the log."""
        return self._request.caller.name

    def close(self, reason: CloseReason) -> None:
        """Say why, end the response, and with it the connection."""
        request, connection = self._request, self._request.connection
        last = self._format.closing(reason)
        request.write(last)
        self.session.wrote(len(self._framed(last)) + (len(_LAST_CHUNK) if self._is_chunked else 0))
        request.unregisterProducer()
        connection.finish()  # before the request is done: what was pipelined behind it is not begun any more
        request.finish()
        connection.end()

    def abort(self) -> None:
        """End the connection now."""
        self._request.connection.abort()
