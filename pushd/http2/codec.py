"""The codec: one connection's frames, events and windows, on the state that `h2` keeps.

The only module that knows `h2`, some of whose private names it uses: `tests/unit/test_http2_codec.py` pins
each. What h2 is used for: the states of streams (RFC 9113, section 5.1), settings, windows, the HPACK
decoder. What not: reading and writing frames, validating fields, and choosing error codes, where it is slow
or at odds with the RFC.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection
from h2.exceptions import FlowControlError, ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamClosedBy, StreamInputs

from pushd.http2 import framing
from pushd.http2.decoding import BlockDecoder
from pushd.http2.encoding import NO_TABLE
from pushd.http2.faults import Code, ConnectionFault, Malformed, StreamFault
from pushd.http2.framing import ACK, END_STREAM, Frame, Reader, pack_head
from pushd.http2.head import Head, check_trailers, field_section_size
from pushd.http2.limits import Budgets, Kind, Limits

__all__ = ["STREAM_WINDOW", "Codec", "Listener"]

STREAM_WINDOW = 64 * 1024 - 1
"""How much of a request's body may be on its way before the server has seen it, in bytes."""

_CONNECTION_WINDOW = 1024 * 1024
_MAX_WINDOW = 2**31 - 1
_NO_RFC7540_PRIORITIES = 0x9  # RFC 9218, section 2.1
_KNOWN_SETTINGS = frozenset(
    {
        SettingCodes.HEADER_TABLE_SIZE,
        SettingCodes.ENABLE_PUSH,
        SettingCodes.MAX_CONCURRENT_STREAMS,
        SettingCodes.INITIAL_WINDOW_SIZE,
        SettingCodes.MAX_FRAME_SIZE,
        SettingCodes.MAX_HEADER_LIST_SIZE,
    }
)
_ENDED = frozenset({StreamClosedBy.SEND_END_STREAM, StreamClosedBy.RECV_END_STREAM})


class Listener(Protocol):
    """What is told of what the client sent. A method may raise `ConnectionFault` or `StreamFault`."""

    def request_received(self, stream_id: int, head: Head, is_ended: bool) -> None:
        """Take the head of a request; `is_ended`: it has no body."""

    def too_large_received(self, stream_id: int, is_ended: bool) -> None:
        """Take a request whose header section is larger than allowed, and thrown away."""

    def data_received(self, stream_id: int, data: bytes, is_ended: bool) -> None:
        """Take a part of a body; trailers, which are thrown away, come as an empty last part."""

    def stream_failed(self, stream_id: int, code: int, why: str | None) -> None:
        """Learn that a stream was reset: by the client, or with `why` because of what it did."""

    def window_opened(self, stream_id: int) -> None:
        """Learn that more can be sent on a stream; 0: on any."""

    def priority_received(self, stream_id: int, field: bytes) -> None:
        """Take a new priority of a response (RFC 9218)."""

    def goaway_received(self, code: int) -> None:
        """Learn that the client opens no more streams."""

    def pong_received(self, payload: bytes) -> None:
        """Take the answer to a PING."""


class _State(H2Connection):
    MAX_CLOSED_STREAMS = 1000  # what is remembered of streams that are over; h2 would remember 65,536


class Codec:
    """One connection."""

    def __init__(self, listener: Listener, limits: Limits, budgets: Budgets) -> None:
        """Begin a connection; `start` makes its first bytes."""
        self._listener = listener
        self._limits = limits
        self._budgets = budgets
        self._state = _State(H2Configuration(client_side=False, header_encoding=None))
        self._streams = self._state.streams
        self._decoder = BlockDecoder(self._state.decoder, limits.max_section_bytes * 4)
        self._reader = Reader(limits.max_section_bytes * 4, limits.max_block_frames, self._frame_seen)
        self._out: list[bytes | memoryview] = []
        self._table_update = NO_TABLE
        self._data_frames = 0
        self.is_begun = False
        """True once the client's settings have come."""
        self.control_bytes = 0
        """How much of what waits are answers to frames rather than responses."""
        self._handlers: dict[int, Callable[[Frame], None]] = {
            framing.DATA: self._data,
            framing.HEADERS: self._headers,
            framing.RST_STREAM: self._rst_stream,
            framing.SETTINGS: self._settings,
            framing.PUSH_PROMISE: self._push_promise,
            framing.PING: self._ping,
            framing.GOAWAY: self._goaway,
            framing.WINDOW_UPDATE: self._window_update,
            framing.PRIORITY_UPDATE: self._priority_update,
        }

    # What comes

    def start(self) -> None:
        """Write the settings of the server, and open the window of the connection (section 3.4)."""
        mine = {
            SettingCodes.MAX_CONCURRENT_STREAMS: self._limits.max_streams,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: self._limits.max_section_bytes,
        }
        state = self._state
        state.local_settings = Settings(client=False, initial_values=mine)
        state.local_settings._settings[_NO_RFC7540_PRIORITIES] = deque([1])
        state.local_settings._settings.pop(SettingCodes.ENABLE_PUSH, None)  # not for servers (section 6.5.2)
        state.initiate_connection()
        state.increment_flow_control_window(_CONNECTION_WINDOW - 65535)
        self._out.append(state.data_to_send())

    def receive(self, data: bytes) -> None:
        """Take bytes of the client, and tell the listener; raise `ConnectionFault` if it is over."""
        for frame in self._reader.read(data):
            if not self.is_begun and (frame.type != framing.SETTINGS or frame.flags & ACK):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame is not SETTINGS (section 3.4)")
            handler = self._handlers.get(frame.type)
            if handler is None:
                continue  # section 5.5; PRIORITY is deprecated
            try:
                handler(frame)
            except StreamFault as fault:
                self._fail(fault)
            except ProtocolError as error:
                raise ConnectionFault(Code(error.error_code), str(error)) from None

    def _frame_seen(self, kind: int, flags: int, size: int) -> None:
        """Charge a frame, if its kind is one of those that floods are made of."""
        if kind == framing.HEADERS or kind == framing.GOAWAY:
            return
        if kind == framing.DATA or kind == framing.CONTINUATION:
            if not size and not flags & END_STREAM:
                self._budgets.spend(Kind.EMPTY_DATA)
        elif kind == framing.WINDOW_UPDATE:
            if self._data_frames:
                self._budgets.earn(Kind.WINDOW_UPDATE, 2 * self._data_frames)
                self._data_frames = 0
            self._budgets.spend(Kind.WINDOW_UPDATE)
        elif kind == framing.RST_STREAM:
            self._budgets.spend(Kind.RESET)
        elif kind == framing.SETTINGS:
            self._budgets.spend(Kind.SETTINGS)
        elif kind == framing.PING:
            self._budgets.spend(Kind.PING)
        else:
            self._budgets.spend(Kind.PRIORITY)

    def _fail(self, fault: StreamFault) -> None:
        """Reset a stream because of what the client did."""
        known = fault.stream_id in self._streams
        self.reset(fault.stream_id, fault.code)
        if known:
            self._listener.stream_failed(fault.stream_id, fault.code, str(fault))
        self._budgets.spend(Kind.RESET)

    def _is_idle(self, stream_id: int) -> bool:
        """Tell whether a stream has never been (section 5.1)."""
        state = self._state
        highest = state.highest_inbound_stream_id if stream_id % 2 else state.highest_outbound_stream_id
        return stream_id > highest

    def _headers(self, frame: Frame) -> None:
        """Section 6.2."""
        stream_id, is_ended = frame.stream_id, bool(frame.flags & END_STREAM)
        fields = self._decoder.fields(frame.payload)
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._trailers(stream_id, stream, fields, is_ended)
            return
        if not stream_id % 2:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a client's stream has an even number (section 5.1.1)")
        if not self._is_idle(stream_id):
            self._on_closed(stream_id, "HEADERS")
            return
        state = self._state
        state.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        stream = state._begin_new_stream(stream_id, AllowedStreamIDs.ODD)
        stream.state_machine.process_input(StreamInputs.RECV_HEADERS)
        if is_ended:
            stream.state_machine.process_input(StreamInputs.RECV_END_STREAM)
        if len(self._streams) > self._limits.max_streams:
            raise StreamFault(
                stream_id, Code.REFUSED_STREAM, f"more than {self._limits.max_streams} requests at once"
            )
        if field_section_size(fields) > self._limits.max_section_bytes:
            self._listener.too_large_received(stream_id, is_ended)
            return
        try:
            head = self._decoder.head(frame.payload, fields)
        except Malformed as error:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, f"malformed request: {error}") from None
        if is_ended and head.content_length:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, "content-length without a body (section 8.1.1)")
        self._listener.request_received(stream_id, head, is_ended)

    def _trailers(
        self, stream_id: int, stream: H2Stream, fields: tuple[tuple[bytes, bytes], ...], is_ended: bool
    ) -> None:
        """Section 8.1."""
        machine = stream.state_machine
        try:
            machine.process_input(StreamInputs.RECV_HEADERS)
            if is_ended:
                machine.process_input(StreamInputs.RECV_END_STREAM)
        except ProtocolError:
            raise StreamFault(stream_id, Code.STREAM_CLOSED, "HEADERS after the end of the stream") from None
        if not is_ended:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, "trailers that do not end the stream (section 8.1)")
        try:
            check_trailers(fields)
        except Malformed as error:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, f"malformed trailers: {error}") from None
        self._listener.data_received(stream_id, b"", True)
        self._retire(stream_id)

    def _on_closed(self, stream_id: int, what: str) -> None:
        """Judge a frame on a stream that is over (section 5.1)."""
        closed_by = self._state._closed_streams.get(stream_id)
        if closed_by is StreamClosedBy.SEND_RST_STREAM:
            return  # it was on its way
        if closed_by is StreamClosedBy.RECV_RST_STREAM:
            raise StreamFault(stream_id, Code.STREAM_CLOSED, f"{what} on a stream that the client reset")
        if closed_by in _ENDED:
            raise ConnectionFault(Code.STREAM_CLOSED, f"{what} on a stream that has ended")
        raise ConnectionFault(Code.PROTOCOL_ERROR, f"{what} on a stream that was passed over (section 5.1.1)")

    def _data(self, frame: Frame) -> None:
        """Section 6.1."""
        stream_id, size = frame.stream_id, frame.size
        if self._is_idle(stream_id):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "DATA on an idle stream (section 5.1)")
        try:
            self._state._inbound_flow_control_window_manager.window_consumed(size)
        except FlowControlError:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more DATA than the connection's window") from None
        increment = self._state._inbound_flow_control_window_manager.process_bytes(size)
        if increment:
            self._control(framing.window_bytes(0, increment))
        stream = self._streams.get(stream_id)
        if stream is None:
            self._on_closed(stream_id, "DATA")
            return
        is_ended = bool(frame.flags & END_STREAM)
        try:
            stream.state_machine.process_input(StreamInputs.RECV_DATA)
            if is_ended:
                stream.state_machine.process_input(StreamInputs.RECV_END_STREAM)
        except ProtocolError:
            raise StreamFault(stream_id, Code.STREAM_CLOSED, "DATA after the end of the stream") from None
        try:
            stream._inbound_window_manager.window_consumed(size)
        except FlowControlError:
            raise StreamFault(stream_id, Code.FLOW_CONTROL_ERROR, "more DATA than the stream's window") from None
        self._listener.data_received(stream_id, frame.payload, is_ended)
        self._retire(stream_id)

    def _rst_stream(self, frame: Frame) -> None:
        """Section 6.4."""
        stream_id = frame.stream_id
        if self._is_idle(stream_id):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.state_machine.process_input(StreamInputs.RECV_RST_STREAM)
            self._retire(stream_id)
            self._listener.stream_failed(stream_id, int.from_bytes(frame.payload, "big"), None)

    def _settings(self, frame: Frame) -> None:
        """Section 6.5."""
        payload, state = frame.payload, self._state
        if not frame.flags & ACK:
            # h2 would keep every setting that it is told of, known or not
            pairs = [payload[at : at + 6] for at in range(0, len(payload), 6)]
            payload = b"".join(pair for pair in pairs if int.from_bytes(pair[:2], "big") in _KNOWN_SETTINGS)
        if not self.is_begun:
            self.is_begun = True
            state.receive_data(framing.PREFACE)
        table_bytes = state.remote_settings.header_table_size
        try:
            state.receive_data(framing.frame_bytes(framing.SETTINGS, frame.flags, 0, payload))
        except ProtocolError as error:
            raise ConnectionFault(Code(error.error_code), f"SETTINGS: {error}") from None
        if state.remote_settings.header_table_size != table_bytes:
            self._table_update = NO_TABLE
        self._control(state.data_to_send())
        if not frame.flags & ACK:
            self._listener.window_opened(0)

    def _push_promise(self, frame: Frame) -> None:
        """Section 8.4."""
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a client cannot push")

    def _ping(self, frame: Frame) -> None:
        """Section 6.7."""
        if frame.flags & ACK:
            self._listener.pong_received(frame.payload)
        else:
            self._control(framing.frame_bytes(framing.PING, ACK, 0, frame.payload))

    def _goaway(self, frame: Frame) -> None:
        """Section 6.8. h2 would close the connection, whose streams have a right to end."""
        self._listener.goaway_received(int.from_bytes(frame.payload[4:8], "big"))

    def _window_update(self, frame: Frame) -> None:
        """Section 6.9."""
        stream_id, state = frame.stream_id, self._state
        increment = int.from_bytes(frame.payload, "big") & 0x7FFFFFFF
        if not stream_id:
            if not increment:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            state.outbound_flow_control_window += increment
            if state.outbound_flow_control_window > _MAX_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window over 2^31-1 (section 6.9.1)")
        else:
            if self._is_idle(stream_id):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
            stream = self._streams.get(stream_id)
            if stream is None:
                return
            if not increment:
                raise StreamFault(stream_id, Code.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            stream.outbound_flow_control_window += increment
            if stream.outbound_flow_control_window > _MAX_WINDOW:
                raise StreamFault(stream_id, Code.FLOW_CONTROL_ERROR, "a window over 2^31-1 (section 6.9.1)")
        self._listener.window_opened(stream_id)

    def _priority_update(self, frame: Frame) -> None:
        """RFC 9218, section 7.1."""
        stream_id = int.from_bytes(frame.payload[:4], "big") & 0x7FFFFFFF
        if stream_id in self._streams:
            self._listener.priority_received(stream_id, frame.payload[4:])

    # What goes out

    def _control(self, data: bytes) -> None:
        self._out.append(data)
        self.control_bytes += len(data)

    def take(self) -> bytes:
        """Answer all that is to be sent, as one piece."""
        out = self._out
        if not out:
            return b""
        self._out = []
        self.control_bytes = 0
        return b"".join(out)

    def send_headers(self, stream_id: int, block: bytes, *, is_ended: bool, is_final: bool = True) -> None:
        """Send a header section; one that is not final is informational (section 8.1)."""
        machine = self._streams[stream_id].state_machine
        if is_final:
            machine.process_input(StreamInputs.SEND_HEADERS)
        else:
            machine.process_input(StreamInputs.SEND_INFORMATIONAL_HEADERS)
        if self._table_update:
            block, self._table_update = self._table_update + block, b""
        flags = 0
        if is_ended:
            machine.process_input(StreamInputs.SEND_END_STREAM)
            flags = END_STREAM
        size = self._state.max_outbound_frame_size
        self._out.append(framing.header_bytes(framing.HEADERS, flags, stream_id, block, size))
        if is_ended:
            self._retire(stream_id)

    def room(self, stream_id: int) -> int:
        """Answer how many bytes of DATA the windows allow on a stream; below 0 after some changes of settings."""
        return min(self._streams[stream_id].outbound_flow_control_window, self._state.outbound_flow_control_window)

    @property
    def max_data_bytes(self) -> int:
        """How long a DATA frame may be."""
        return self._state.max_outbound_frame_size

    def send_data(self, stream_id: int, chunk: bytes | memoryview, *, is_ended: bool) -> None:
        """Send one DATA frame, of no more bytes than `room` and `max_data_bytes` allow.

        This is what h2 does for a stream without padding, less its checks and its frame object.
        """
        size, stream, out = len(chunk), self._streams[stream_id], self._out
        out.append(pack_head(size >> 8, size & 255, framing.DATA, END_STREAM if is_ended else 0, stream_id))
        out.append(chunk)
        stream.outbound_flow_control_window -= size
        self._state.outbound_flow_control_window -= size
        self._data_frames += 1
        if is_ended:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
            self._retire(stream_id)

    def is_open(self, stream_id: int) -> bool:
        """Tell whether a stream still exists: not both sides have ended it, and none has reset it."""
        return stream_id in self._streams

    def reset(self, stream_id: int, code: Code) -> None:
        """End a stream at once."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            if not stream.closed:
                stream.state_machine.process_input(StreamInputs.SEND_RST_STREAM)
            stream.state_machine.stream_closed_by = StreamClosedBy.SEND_RST_STREAM
            self._retire(stream_id)
        self._control(framing.reset_bytes(stream_id, code))

    def _retire(self, stream_id: int) -> None:
        """Forget a stream if it is over. h2 does so when it counts all, at every request."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.closed:
            del self._streams[stream_id]
            self._state._closed_streams[stream_id] = stream.closed_by

    def grant(self, stream_id: int, window: int) -> None:
        """Let the client send until `window` bytes are on their way on a stream, if it is worth a frame."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        manager = stream._inbound_window_manager
        increment = window - manager.current_window_size
        if increment >= window // 2:
            manager.window_opened(increment)
            self._control(framing.window_bytes(stream_id, increment))

    def ping(self, payload: bytes) -> None:
        """Ask the client for an answer; eight bytes."""
        self._out.append(framing.frame_bytes(framing.PING, 0, 0, payload))

    def goaway(self, code: Code, text: str = "", *, is_last: bool = True) -> None:
        """Take no more streams; if it is not the last word, those that are on their way yet (section 6.8)."""
        last = self._state.highest_inbound_stream_id if is_last else 2**31 - 1
        self._out.append(framing.goaway_bytes(last, code, text))
