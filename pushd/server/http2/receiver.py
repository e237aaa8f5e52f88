"""Received frames: convert them to requests, and check each against the state of its stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar, Protocol

from pushd.server.http2 import frames as framing
from pushd.server.http2.codec import ClosedStream, Codec
from pushd.server.http2.errors import Code, ConnectionFault, Malformed, StreamFault
from pushd.server.http2.frames import ACK, END_STREAM, Frame, Reader
from pushd.server.http2.head import Field, Head, check_trailers, field_section_size
from pushd.server.http2.limits import Budgets, Kind, Limits

__all__ = ["Incoming", "Listener"]

_BUDGET_OF = {
    framing.SETTINGS: Kind.SETTINGS,
    framing.PING: Kind.PING,
    framing.WINDOW_UPDATE: Kind.WINDOW_UPDATE,
}
_FREE = frozenset({framing.HEADERS, framing.GOAWAY, framing.RST_STREAM})  # or charged later
_REFUSALS = frozenset({Code.CANCEL, Code.REFUSED_STREAM, Code.ENHANCE_YOUR_CALM})
_FREE_UNLESS_EMPTY = frozenset({framing.DATA, framing.CONTINUATION})


class Listener(Protocol):
    """Interface called with received frames. Each method may raise `ConnectionFault` or `StreamFault`."""

    def request_received(self, stream_id: int, head: Head, is_ended: bool) -> None:
        """Called when a request head arrives; `is_ended` means that the request has no body."""

    def too_large_received(self, stream_id: int, is_head: bool) -> None:
        """Called when an oversized header section was discarded; `is_head` means that the method is HEAD."""

    def data_received(self, stream_id: int, data: bytes, size: int, is_ended: bool) -> None:
        """Called when part of a body arrives: `size` bytes with padding. Trailers are an empty last part."""

    def stream_failed(self, stream_id: int, code: int, why: str | None) -> None:
        """Called when a stream is reset: by the client, or by the server for the client's fault `why`.

        A pushed stream may have ended before.
        """

    def window_opened(self, stream_id: int) -> None:
        """Called when more can be sent on a stream; stream 0 stands for all."""

    def priority_received(self, stream_id: int, value: bytes) -> None:
        """Called when the client sets the priority of a response (RFC 9218)."""

    def goaway_received(self, code: int) -> None:
        """Called when the client sends GOAWAY: it opens no more streams."""

    def pong_received(self, payload: bytes) -> None:
        """Called when the client acknowledges a PING."""


class Incoming:
    """Processes the frames of one client."""

    def __init__(self, codec: Codec, listener: Listener, limits: Limits, budgets: Budgets) -> None:
        """Call `listener` for received frames and update the state of `codec`."""
        self._codec = codec
        self._listener = listener
        self._limits = limits
        self._budgets = budgets
        self._reader = Reader(limits.max_section_bytes * 4, limits.max_block_frames, self._charge)
        self._free_resets = 0
        self._unread: deque[bytes] = deque()
        self._frames: Iterator[Frame] | None = None

    def end(self) -> None:
        """Stop processing: the connection has ended. Break the reference cycle with the frame reader."""
        self._unread.clear()
        self._frames = None
        self._reader.end()

    @property
    def head_at_hand(self) -> int | None:
        """The number of the partly received header block; None if there is none."""
        return self._reader.block_at_hand

    def receive(self, data: bytes) -> None:
        """Queue received bytes for `take`."""
        self._unread.append(data)

    @property
    def unread_bytes(self) -> int:
        """Queued bytes, except the chunk whose frames are being read."""
        return sum(map(len, self._unread))

    def take(self, may_go_on: Callable[[], bool]) -> bool:
        """Process the queued bytes; raise `ConnectionFault` if the connection must close.

        After each request, stop unless `may_go_on` returns True. Return whether all bytes were processed.
        """
        while self._frames is not None or self._unread:
            frames = self._frames = self._frames or self._reader.read(self._unread.popleft())
            for frame in frames:
                self._take(frame)
                if frame.type == framing.HEADERS and not may_go_on():
                    return False
            self._frames = None
        return True

    def _take(self, frame: Frame) -> None:
        codec = self._codec
        if not codec.is_begun and (frame.type != framing.SETTINGS or frame.flags & ACK):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame is not SETTINGS (section 3.4)")
        take = self._TAKERS.get(frame.type)
        if take is None:
            return  # ignored: unknown types (RFC 9113, section 5.5) and PRIORITY, which is deprecated
        try:
            take(self, frame)
        except StreamFault as fault:
            self._fail(fault)

    def _charge(self, kind: int, flags: int, size: int) -> None:
        """Charge a frame to the budget of its type, if it could be part of a flood."""
        if kind in _FREE:
            return
        if kind in _FREE_UNLESS_EMPTY:
            if not size and (kind == framing.CONTINUATION or not flags & END_STREAM):
                self._budgets.spend(Kind.EMPTY_DATA)
            return
        if kind == framing.WINDOW_UPDATE and self._codec.window_updates:
            self._budgets.earn(Kind.WINDOW_UPDATE, self._codec.window_updates)
            self._codec.window_updates = 0
        self._budgets.spend(_BUDGET_OF.get(kind, Kind.PRIORITY))

    def _fail(self, fault: StreamFault) -> None:
        """Reset a stream for a fault of the client."""
        self._codec.reset(fault.stream_id, fault.code)
        self._listener.stream_failed(fault.stream_id, fault.code, str(fault))
        self._budgets.spend(Kind.RESET)

    def _on_closed(self, stream_id: int, what: str) -> None:
        """Reject or ignore a frame on a stream that is not open (RFC 9113, section 5.1)."""
        past = self._codec.past(stream_id)
        if past is ClosedStream.RESET_HERE:
            return  # the frame was in flight
        if past is ClosedStream.RESET_THERE:
            raise StreamFault(stream_id, Code.STREAM_CLOSED, f"{what} on a stream that the client reset")
        if past is ClosedStream.ENDED:
            raise ConnectionFault(Code.STREAM_CLOSED, f"{what} on a stream that has ended")
        raise ConnectionFault(Code.PROTOCOL_ERROR, f"{what} on a stream that was not opened (section 5.1)")

    def _headers(self, frame: Frame) -> None:
        """Handle HEADERS (RFC 9113, section 6.2)."""
        codec, stream_id, is_ended = self._codec, frame.stream_id, bool(frame.flags & END_STREAM)
        fields = codec.decoder.fields(frame.payload)
        if not stream_id % 2:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a client's stream has an even number (section 5.1.1)")
        if codec.is_open(stream_id):
            self._trailers(stream_id, fields, is_ended)
        elif codec.past(stream_id) is not ClosedStream.IDLE:
            self._on_closed(stream_id, "HEADERS")
        else:
            self._request(frame, fields, is_ended)

    def _request(self, frame: Frame, fields: tuple[Field, ...], is_ended: bool) -> None:
        """Start a request (RFC 9113, section 8.1)."""
        codec, limits, stream_id = self._codec, self._limits, frame.stream_id
        codec.open(stream_id, is_ended=is_ended)
        if codec.open_requests > limits.max_streams:
            text = f"more than {limits.max_streams} requests at once"
            raise StreamFault(stream_id, Code.REFUSED_STREAM, text)
        if field_section_size(fields) > limits.max_section_bytes:
            self._listener.too_large_received(stream_id, (b":method", b"HEAD") in fields)
            return
        try:
            head = codec.decoder.head(frame.payload, fields)
        except Malformed as error:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, f"malformed request: {error}") from None
        if is_ended and head.content_length:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, "content-length without a body (section 8.1.1)")
        self._listener.request_received(stream_id, head, is_ended)

    def _trailers(self, stream_id: int, fields: tuple[Field, ...], is_ended: bool) -> None:
        """Handle trailers (RFC 9113, section 8.1)."""
        self._codec.received(stream_id, is_trailers=True, is_ended=is_ended)
        if not is_ended:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, "trailers that do not end the stream (section 8.1)")
        try:
            check_trailers(fields)
        except Malformed as error:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, f"malformed trailers: {error}") from None
        self._listener.data_received(stream_id, b"", 0, True)
        self._codec.retire(stream_id)

    def _data(self, frame: Frame) -> None:
        """Handle DATA (RFC 9113, section 6.1)."""
        codec, stream_id, size = self._codec, frame.stream_id, frame.size
        if not stream_id % 2:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "DATA on a stream that the server began (section 5.1)")
        codec.consume_connection(size)
        if not codec.is_open(stream_id):
            self._on_closed(stream_id, "DATA")
            return
        is_ended = bool(frame.flags & END_STREAM)
        codec.consume_stream(stream_id, size)
        codec.received(stream_id, is_trailers=False, is_ended=is_ended)
        self._listener.data_received(stream_id, frame.payload, size, is_ended)
        codec.retire(stream_id)

    def _rst_stream(self, frame: Frame) -> None:
        """Handle RST_STREAM (RFC 9113, section 6.4)."""
        stream_id, code = frame.stream_id, int.from_bytes(frame.payload, "big")
        if not self._is_free_reset(stream_id, code):
            self._budgets.spend(Kind.RESET)
        if self._codec.is_open(stream_id):
            self._codec.received_reset(stream_id)
        elif self._codec.past(stream_id) is ClosedStream.IDLE:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
        elif stream_id % 2:
            return
        self._listener.stream_failed(stream_id, code, None)

    def _is_free_reset(self, stream_id: int, code: int) -> bool:
        """Return whether a reset refuses a push: a client may refuse each once, for example if it is cached."""
        if stream_id % 2 or code not in _REFUSALS or self._free_resets >= self._codec.promises_made:
            return False
        self._free_resets += 1
        return True

    def _settings(self, frame: Frame) -> None:
        """Handle SETTINGS (RFC 9113, section 6.5)."""
        self._codec.receive_settings(frame.flags, frame.payload)
        if not frame.flags & ACK:
            self._listener.window_opened(0)

    def _push_promise(self, frame: Frame) -> None:
        """Reject PUSH_PROMISE (RFC 9113, section 8.4)."""
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a client cannot push")

    def _ping(self, frame: Frame) -> None:
        """Handle PING (RFC 9113, section 6.7)."""
        if frame.flags & ACK:
            self._listener.pong_received(frame.payload)
        else:
            self._codec.answer(framing.frame_bytes(framing.PING, ACK, 0, frame.payload))

    def _goaway(self, frame: Frame) -> None:
        """Handle GOAWAY (RFC 9113, section 6.8). h2 would close the connection, but open streams may finish."""
        self._listener.goaway_received(int.from_bytes(frame.payload[4:8], "big"))

    def _window_update(self, frame: Frame) -> None:
        """Handle WINDOW_UPDATE (RFC 9113, section 6.9)."""
        stream_id = frame.stream_id
        increment = int.from_bytes(frame.payload, "big") & 0x7FFFFFFF
        if stream_id and not self._codec.is_open(stream_id):
            if self._codec.past(stream_id) is ClosedStream.IDLE:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
            return
        if not increment:
            if stream_id:
                raise StreamFault(stream_id, Code.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
        self._codec.open_window(stream_id, increment)
        self._listener.window_opened(stream_id)

    def _priority_update(self, frame: Frame) -> None:
        """Handle PRIORITY_UPDATE (RFC 9218, section 7.1)."""
        stream_id = int.from_bytes(frame.payload[:4], "big") & 0x7FFFFFFF
        if self._codec.is_open(stream_id):
            self._listener.priority_received(stream_id, frame.payload[4:])

    _TAKERS: ClassVar[dict[int, Callable[[Incoming, Frame], None]]] = {
        framing.DATA: _data,
        framing.HEADERS: _headers,
        framing.RST_STREAM: _rst_stream,
        framing.SETTINGS: _settings,
        framing.PUSH_PROMISE: _push_promise,
        framing.PING: _ping,
        framing.GOAWAY: _goaway,
        framing.WINDOW_UPDATE: _window_update,
        framing.PRIORITY_UPDATE: _priority_update,
    }
    """The handler of each frame type. Bound methods in each connection would be reference cycles."""
