"""Frames: parsing and serialization (RFC 9113, sections 4 and 6).

Reports the errors that a frame has by itself, regardless of the frames before it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pushd.server.http2.errors import Code, ConnectionFault

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "GOAWAY",
    "HEADERS",
    "MAX_FRAME_BYTES",
    "PING",
    "PREFACE",
    "PRIORITY",
    "PRIORITY_UPDATE",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "WINDOW_UPDATE",
    "Frame",
    "Reader",
    "frame_bytes",
    "goaway_bytes",
    "header_bytes",
    "pack_head",
    "reset_bytes",
    "settings_bytes",
    "window_bytes",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The connection preface of the client (RFC 9113, section 3.4)."""

MAX_FRAME_BYTES = 16384
"""The largest frame accepted: the default of SETTINGS_MAX_FRAME_SIZE, which pushd does not change."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 0x10
"""The frame type of RFC 9218, section 7.1."""

ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

_ON_STREAMS = frozenset({DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION})
_ON_CONNECTION = frozenset({SETTINGS, PING, GOAWAY, PRIORITY_UPDATE})
_HEADERS_KIND = bytes([HEADERS])
_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_LEAST_SIZES = {GOAWAY: 8, PRIORITY_UPDATE: 4}
_HEAD = struct.Struct(">HBBBI")

pack_head = _HEAD.pack
"""Return a frame header (RFC 9113, section 4.1): length >> 8, length & 255, type, flags, stream."""


class Frame(NamedTuple):
    """One frame; a header section split over several frames counts as one."""

    type: int
    flags: int
    stream_id: int
    payload: bytes
    """Without padding, and without the priority of a HEADERS frame."""

    size: int
    """The length of the frame as sent, which flow control counts (RFC 9113, section 6.9.1)."""


class Reader:
    """Reads the frames of a connection."""

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_frames",
        "_block_stream",
        "_blocks",
        "_max_block",
        "_pending",
        "_preface",
        "_seen",
    )

    def __init__(self, max_block_bytes: int, max_block_frames: int, seen: Callable[[int, int, int], None]) -> None:
        """Accept header blocks of up to `max_block_bytes`, in up to `max_block_frames` frames.

        `seen` is called first for every frame, with its type, flags and length; it may raise `ConnectionFault`.
        """
        self._pending = b""
        self._preface = PREFACE
        self._max_block = max_block_bytes, max_block_frames
        self._block: list[bytes] = []
        self._block_stream = 0
        self._block_flags = 0
        self._block_frames = 0
        self._blocks = 0
        self._seen = seen

    def end(self) -> None:
        """Stop calling `seen`, whose owner may refer to this reader: break the reference cycle."""
        self._seen = _nothing

    @property
    def block_at_hand(self) -> int | None:
        """The number of the partly received header block; None if there is none."""
        is_begun = self._block_stream or self._pending[3:4] == _HEADERS_KIND
        return self._blocks if is_begun else None

    def read(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes; raise `ConnectionFault` on an invalid frame."""
        if self._preface:
            data = self._skip_preface(data)
        if self._pending:
            data = self._pending + data
        start, end = 0, len(data)
        while end - start >= 9:
            head = int.from_bytes(data[start : start + 9], "big")
            size, kind, flags, stream_id = head >> 48, head >> 40 & 255, head >> 32 & 255, head & 0x7FFFFFFF
            self._check(size, kind, flags, stream_id)
            stop = start + 9 + size
            if stop > end:
                break
            payload = data[start + 9 : stop]
            start = stop
            self._seen(kind, flags, size)
            if flags & PADDED and kind in (DATA, HEADERS):
                payload = _without_padding(payload)
            if kind in (HEADERS, CONTINUATION):
                whole = self._header_block(kind, flags, stream_id, payload)
                if whole is not None:
                    yield whole
            else:
                yield Frame(kind, flags, stream_id, payload, size)
        self._pending = data[start:]

    def _skip_preface(self, data: bytes) -> bytes:
        expected = self._preface[: len(data)]
        if not data.startswith(expected):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the connection preface is not that of HTTP/2")
        self._preface = self._preface[len(expected) :]
        return data[len(expected) :]

    def _check(self, size: int, kind: int, flags: int, stream_id: int) -> None:
        """Check a frame header, before the payload has arrived."""
        if size > MAX_FRAME_BYTES:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes; at most {MAX_FRAME_BYTES}")
        if self._block_stream:
            if kind != CONTINUATION or stream_id != self._block_stream:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "another frame within a header block (section 6.10)")
        elif kind == CONTINUATION:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without a header block (section 6.10)")
        if stream_id == 0:
            if kind in _ON_STREAMS:
                raise ConnectionFault(Code.PROTOCOL_ERROR, f"a frame of type {kind} without a stream")
        elif kind in _ON_CONNECTION:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"a frame of type {kind} on a stream")
        wanted = _SIZES.get(kind)
        if wanted is not None:
            is_wrong = size != wanted
        elif kind == SETTINGS:
            is_wrong = size % 6 != 0 or bool(flags & ACK and size)
        else:
            is_wrong = size < _LEAST_SIZES.get(kind, 0)
        if is_wrong:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of type {kind} with {size} bytes")

    def _header_block(self, kind: int, flags: int, stream_id: int, payload: bytes) -> Frame | None:
        """Return the header block once it is complete, else None (RFC 9113, section 4.3)."""
        if kind == HEADERS:
            if flags & PRIORITY_FLAG:
                if len(payload) < 5:
                    raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
                payload = payload[5:]  # deprecated (RFC 9113, section 5.3.2)
            self._blocks += 1
            if flags & END_HEADERS:
                return Frame(HEADERS, flags, stream_id, payload, len(payload))
            self._block, self._block_stream, self._block_flags, self._block_frames = [], stream_id, flags, 0
        self._block.append(payload)
        self._block_frames += 1
        max_bytes, max_frames = self._max_block
        size = sum(map(len, self._block))
        if size > max_bytes or self._block_frames > max_frames:
            text = f"a header block of {size} bytes in {self._block_frames} frames is too much"
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, text)
        if not flags & END_HEADERS:
            return None
        block, self._block, self._block_stream = b"".join(self._block), [], 0
        return Frame(HEADERS, self._block_flags | END_HEADERS, stream_id, block, len(block))


def _without_padding(payload: bytes) -> bytes:
    if not payload:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a padded frame without its length of padding")
    length = payload[0]
    if length >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "padding longer than its frame (section 6.1)")
    return payload[1 : len(payload) - length]


def frame_bytes(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    size = len(payload)
    return pack_head(size >> 8, size & 255, kind, flags, stream_id) + payload


def header_bytes(kind: int, flags: int, stream_id: int, block: bytes, max_frame_bytes: int) -> bytes:
    """Return the frames of a header block, with CONTINUATION if it exceeds one (RFC 9113, section 6.10)."""
    if len(block) <= max_frame_bytes:
        return frame_bytes(kind, flags | END_HEADERS, stream_id, block)
    out = [frame_bytes(kind, flags, stream_id, block[:max_frame_bytes])]
    for start in range(max_frame_bytes, len(block), max_frame_bytes):
        piece = block[start : start + max_frame_bytes]
        last = END_HEADERS if start + max_frame_bytes >= len(block) else 0
        out.append(frame_bytes(CONTINUATION, last, stream_id, piece))
    return b"".join(out)


def reset_bytes(stream_id: int, code: int) -> bytes:
    """Return RST_STREAM (RFC 9113, section 6.4)."""
    return frame_bytes(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def window_bytes(stream_id: int, increment: int) -> bytes:
    """Return WINDOW_UPDATE (RFC 9113, section 6.9)."""
    return frame_bytes(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def settings_bytes(settings: dict[int, int]) -> bytes:
    """Return SETTINGS (RFC 9113, section 6.5)."""
    return frame_bytes(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in settings.items()))


def goaway_bytes(last_stream_id: int, code: int, text: str = "") -> bytes:
    """Return GOAWAY with `text` as its debug data (RFC 9113, section 6.8)."""
    payload = struct.pack(">II", last_stream_id, code) + text.encode()[:256]
    return frame_bytes(GOAWAY, 0, 0, payload)


def _nothing(kind: int, flags: int, size: int) -> None:
    """Ignore a frame of a connection that has ended."""
