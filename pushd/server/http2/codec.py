"""The codec: stream states, flow-control windows and outgoing frames of one connection, built on `h2`.

The only module that uses `h2`. It uses private names, because the public calls include the parts listed as not
used; `tests/unit/server/test_http2_codec.py` pins each. Used: stream states (RFC 9113, section 5.1), settings,
windows and the HPACK decoder. Not used: reading and writing frames, validating fields and choosing error codes,
where h2 is slow or deviates from the RFC. A replacement must provide the interface of `Codec`.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection
from h2.exceptions import FlowControlError, ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import StreamClosedBy, StreamInputs, StreamState

from pushd.server.http2 import frames as framing
from pushd.server.http2.errors import Code, ConnectionFault, StreamFault
from pushd.server.http2.frames import END_STREAM, pack_head
from pushd.server.http2.hpack_decoder import BlockDecoder, Memory
from pushd.server.http2.hpack_encoder import NO_TABLE
from pushd.server.http2.limits import Limits

__all__ = ["STREAM_WINDOW", "ClosedStream", "Codec"]

STREAM_WINDOW = 64 * 1024 - 1
"""The initial flow-control window of a stream for the request body, in bytes."""

_CONNECTION_WINDOW = 1024 * 1024
_MAX_WINDOW = _MAX_STREAM_ID = 2**31 - 1
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


class ClosedStream(Enum):
    """Why a stream is not open."""

    IDLE = auto()
    """The stream was never opened."""

    SKIPPED = auto()
    """A later stream was opened instead, or the record of the stream was evicted."""

    ENDED = auto()
    """Both sides ended the stream."""

    RESET_HERE = auto()
    """The server reset the stream."""

    RESET_THERE = auto()
    """The client reset the stream."""


_PASTS = {
    None: ClosedStream.SKIPPED,
    StreamClosedBy.SEND_END_STREAM: ClosedStream.ENDED,
    StreamClosedBy.RECV_END_STREAM: ClosedStream.ENDED,
    StreamClosedBy.SEND_RST_STREAM: ClosedStream.RESET_HERE,
    StreamClosedBy.RECV_RST_STREAM: ClosedStream.RESET_THERE,
}


class _State(H2Connection):
    MAX_CLOSED_STREAMS = 1000  # closed streams remembered; h2's default is 65,536


class Codec:
    """The server side of one HTTP/2 connection."""

    def __init__(self, limits: Limits, memory: Memory | None = None) -> None:
        """Create a connection; `start` sends its first bytes. Cached header blocks count in `memory`."""
        self._limits = limits
        self._state = _State(H2Configuration(client_side=False, header_encoding=None))
        self._streams = self._state.streams
        self._out: list[bytes | memoryview] = []
        self._table_update = NO_TABLE
        self.decoder = BlockDecoder(
            self._state.decoder,
            limits.max_section_bytes * 4,
            takes_protocols=limits.takes_websockets,
            memory=memory,
        )
        """The decoder of header blocks."""
        self.is_begun = False
        """True once the client's SETTINGS have arrived."""
        self.control_bytes = 0
        """Pending bytes of replies to control frames."""
        self.max_pushed = 0
        """The most concurrent pushed streams that the client accepts."""
        self._takes_pushes = False
        self._pushed: set[int] = set()
        self.data_bytes = 0
        """Bytes of DATA sent since the connection began."""
        self.window_updates = 0
        """How many WINDOW_UPDATE frames a client may reasonably send for the DATA sent since this count was 0."""

    def end(self) -> None:
        """Release the state that only a live connection needs, and break h2's reference cycles."""
        self.decoder.forget()
        self._state._frame_dispatch_table.clear()

    def start(self) -> None:
        """Send the server's SETTINGS and open the connection window (RFC 9113, section 3.4)."""
        mine = {
            SettingCodes.MAX_CONCURRENT_STREAMS: self._limits.max_streams,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: self._limits.max_section_bytes,
        }
        if self._limits.takes_websockets:
            mine[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1  # RFC 8441, section 3
        state = self._state
        state.local_settings = Settings(client=False, initial_values=mine)
        values = state.local_settings._settings
        values[_NO_RFC7540_PRIORITIES] = deque([1])
        for setting in SettingCodes.ENABLE_PUSH, SettingCodes.ENABLE_CONNECT_PROTOCOL:
            if setting not in mine:
                values.pop(setting, None)  # the first is not for servers; the second may not be offered
        state.initiate_connection()
        state.increment_flow_control_window(_CONNECTION_WINDOW - state.inbound_flow_control_window)
        self._out.append(state.data_to_send())

    # Stream states

    def is_open(self, stream_id: int) -> bool:
        """Return whether a stream is open: at most one side has ended it, and neither has reset it."""
        return stream_id in self._streams

    @property
    def open_requests(self) -> int:
        """The number of open streams that the client began."""
        return len(self._streams) - len(self._pushed)

    def past(self, stream_id: int) -> ClosedStream:
        """Return why a stream is not open."""
        state = self._state
        highest = state.highest_inbound_stream_id if stream_id % 2 else state.highest_outbound_stream_id
        return ClosedStream.IDLE if stream_id > highest else _PASTS[state._closed_streams.get(stream_id)]

    def open(self, stream_id: int, *, is_ended: bool) -> None:
        """Open the stream of a new request; its number is odd and higher than any before."""
        state = self._state
        state.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        machine = state._begin_new_stream(stream_id, AllowedStreamIDs.ODD).state_machine
        machine.process_input(StreamInputs.RECV_HEADERS)
        if is_ended:
            machine.process_input(StreamInputs.RECV_END_STREAM)

    def received(self, stream_id: int, *, is_trailers: bool, is_ended: bool) -> None:
        """Record DATA or trailers on an open stream; raise `StreamFault` if its state does not allow them."""
        machine = self._streams[stream_id].state_machine
        try:
            machine.process_input(StreamInputs.RECV_HEADERS if is_trailers else StreamInputs.RECV_DATA)
            if is_ended:
                machine.process_input(StreamInputs.RECV_END_STREAM)
        except ProtocolError:
            raise StreamFault(stream_id, Code.STREAM_CLOSED, "more after the end of the request") from None

    def received_reset(self, stream_id: int) -> None:
        """Record that the client reset an open stream."""
        self._streams[stream_id].state_machine.process_input(StreamInputs.RECV_RST_STREAM)
        self.retire(stream_id)

    def retire(self, stream_id: int) -> None:
        """Remove a stream if it is closed. h2 does so only when it counts all streams, at every request."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.closed:
            del self._streams[stream_id]
            self._pushed.discard(stream_id)
            self._state._closed_streams[stream_id] = stream.closed_by

    # Promises

    @property
    def promises_made(self) -> int:
        """The number of promises made since the connection began."""
        return self._state.highest_outbound_stream_id // 2

    def takes_promises(self, parent_id: int) -> bool:
        """Return whether a stream can carry a promise (RFC 9113, section 8.4.1): it is open and was not pushed."""
        state, parent = self._state, self._streams.get(parent_id)
        return (
            parent is not None
            and parent_id % 2 == 1
            and parent.state_machine.state in (StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE)
            and self._takes_pushes
            and state.highest_outbound_stream_id + 2 <= _MAX_STREAM_ID
        )

    def promise(self, parent_id: int, block: bytes) -> int:
        """Promise the response to the request in `block`; return its stream. Requires `takes_promises`."""
        state = self._state
        stream_id = state.highest_outbound_stream_id // 2 * 2 + 2
        self._streams[parent_id].state_machine.process_input(StreamInputs.SEND_PUSH_PROMISE)
        stream = state._begin_new_stream(stream_id, AllowedStreamIDs.EVEN)
        stream.state_machine.process_input(StreamInputs.SEND_PUSH_PROMISE)
        self._pushed.add(stream_id)
        payload = stream_id.to_bytes(4, "big") + self._with_table_update(block)
        size = state.max_outbound_frame_size
        self._out.append(framing.header_bytes(framing.PUSH_PROMISE, 0, parent_id, payload, size))
        return stream_id

    # Settings and windows

    def receive_settings(self, flags: int, payload: bytes) -> None:
        """Apply the client's settings and acknowledge them (RFC 9113, section 6.5)."""
        state = self._state
        if payload:
            # h2 would keep every setting that it receives, known or not
            pairs = [payload[at : at + 6] for at in range(0, len(payload), 6)]
            payload = b"".join(pair for pair in pairs if int.from_bytes(pair[:2], "big") in _KNOWN_SETTINGS)
        if not self.is_begun:
            self.is_begun = True
            state.receive_data(framing.PREFACE)
        settings = state.remote_settings
        table_bytes = settings.header_table_size
        try:
            state.receive_data(framing.frame_bytes(framing.SETTINGS, flags, 0, payload))
        except ProtocolError as error:
            raise ConnectionFault(Code(error.error_code), f"SETTINGS: {error}") from None
        state.encoder.table_size_changes.clear()  # only `encode`, which is not used, would empty this list
        if settings.header_table_size != table_bytes:
            self._table_update = NO_TABLE
        self._takes_pushes = bool(settings.enable_push)
        self.max_pushed = settings.max_concurrent_streams if self._takes_pushes else 0
        self.answer(state.data_to_send())

    def consume_connection(self, size: int) -> None:
        """Consume `size` bytes of the connection window; reopen it once the increment is worth a frame."""
        manager = self._state._inbound_flow_control_window_manager
        try:
            manager.window_consumed(size)
        except FlowControlError:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more DATA than the connection's window") from None
        increment = manager.process_bytes(size)
        if increment:
            self.answer(framing.window_bytes(0, increment))

    def consume_stream(self, stream_id: int, size: int) -> None:
        """Consume `size` bytes of the window of an open stream."""
        try:
            self._streams[stream_id]._inbound_window_manager.window_consumed(size)
        except FlowControlError:
            raise StreamFault(stream_id, Code.FLOW_CONTROL_ERROR, "more DATA than the stream's window") from None

    def grant(self, stream_id: int, window: int) -> None:
        """Raise the receive window of a stream to `window` bytes, if the increment is worth a frame."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        manager = stream._inbound_window_manager
        increment = window - manager.current_window_size
        if increment >= window // 2:
            manager.window_opened(increment)
            self.answer(framing.window_bytes(stream_id, increment))

    def open_window(self, stream_id: int, increment: int) -> None:
        """Add `increment` to the send window of an open stream, or of the connection if `stream_id` is 0."""
        owner = self._streams[stream_id] if stream_id else self._state
        window = owner.outbound_flow_control_window + increment
        if window > _MAX_WINDOW:
            text = "a window over 2^31-1 (section 6.9.1)"
            if stream_id:
                raise StreamFault(stream_id, Code.FLOW_CONTROL_ERROR, text)
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, text)
        owner.outbound_flow_control_window = window

    def room(self, stream_id: int) -> int:
        """Return how many bytes of DATA the windows allow on an open stream; negative after some SETTINGS."""
        return min(self._streams[stream_id].outbound_flow_control_window, self._state.outbound_flow_control_window)

    def has_own_room(self, stream_id: int) -> bool:
        """Return whether the stream's own window allows more, regardless of the connection window."""
        return self._streams[stream_id].outbound_flow_control_window > 0

    def fits(self, stream_id: int, size: int) -> bool:
        """Return whether `size` bytes can be sent on an open stream in one frame."""
        state = self._state
        return (
            size <= state.max_outbound_frame_size
            and size <= state.outbound_flow_control_window
            and size <= self._streams[stream_id].outbound_flow_control_window
        )

    @property
    def max_data_bytes(self) -> int:
        """The largest DATA frame that the client accepts, in bytes."""
        return self._state.max_outbound_frame_size

    # Sending

    def take(self) -> bytes:
        """Return all pending bytes, joined, and clear them."""
        out = self._out
        if not out:
            return b""
        self._out = []
        self.control_bytes = 0
        return b"".join(out)

    def answer(self, data: bytes) -> None:
        """Send a reply to a frame of the client; it counts in `control_bytes`."""
        self._out.append(data)
        self.control_bytes += len(data)

    def send_headers(self, stream_id: int, block: bytes, *, is_ended: bool, is_final: bool = True) -> None:
        """Send a header section, informational unless it `is_final` (RFC 9113, section 8.1)."""
        machine = self._streams[stream_id].state_machine
        if is_final:
            machine.process_input(StreamInputs.SEND_HEADERS)
        else:
            machine.process_input(StreamInputs.SEND_INFORMATIONAL_HEADERS)
        block = self._with_table_update(block)
        flags = 0
        if is_ended:
            machine.process_input(StreamInputs.SEND_END_STREAM)
            flags = END_STREAM
        size = self._state.max_outbound_frame_size
        self._out.append(framing.header_bytes(framing.HEADERS, flags, stream_id, block, size))
        if is_ended:
            self.retire(stream_id)

    def _with_table_update(self, block: bytes) -> bytes:
        update, self._table_update = self._table_update, b""
        return update + block if update else block

    def send_data(self, stream_id: int, chunk: bytes | memoryview, *, is_ended: bool) -> None:
        """Send one DATA frame, within `room` and `max_data_bytes`.

        Fast path of h2's `send_data` for a stream without padding; it saves the checks and the frame object.
        """
        size, stream, out = len(chunk), self._streams[stream_id], self._out
        out.append(pack_head(size >> 8, size & 255, framing.DATA, END_STREAM if is_ended else 0, stream_id))
        out.append(chunk)
        stream.outbound_flow_control_window -= size
        self._state.outbound_flow_control_window -= size
        self.data_bytes += size
        self.window_updates += 2 + (size >> 9)
        if is_ended:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
            self.retire(stream_id)

    def reset(self, stream_id: int, code: Code) -> None:
        """Send RST_STREAM, also for a stream that has ended already."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            if not stream.closed:  # h2 closes it on input that its state does not allow
                stream.state_machine.process_input(StreamInputs.SEND_RST_STREAM)
            stream.state_machine.stream_closed_by = StreamClosedBy.SEND_RST_STREAM
            self.retire(stream_id)
        self.answer(framing.reset_bytes(stream_id, code))

    def ping(self, payload: bytes) -> None:
        """Send a PING with a `payload` of eight bytes."""
        self._out.append(framing.frame_bytes(framing.PING, 0, 0, payload))

    def goaway(self, code: Code, text: str = "", *, is_last: bool = True) -> None:
        """Send GOAWAY; unless it `is_last`, streams in flight are still accepted (RFC 9113, section 6.8)."""
        last = self._state.highest_inbound_stream_id if is_last else _MAX_WINDOW
        self._out.append(framing.goaway_bytes(last, code, text))
