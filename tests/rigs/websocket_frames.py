"""WebSocket frames and the handshake (RFC 6455), byte by byte."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["ACCEPT", "HANDSHAKE", "KEY", "frame", "frames"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of the example in RFC 6455, section 1.3."""


HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def frame(payload: bytes, opcode: int = 1, *, fin: bool = True, mask: bytes = b"\0\0\0\0", first: int = 0) -> bytes:
    """Write a masked frame (RFC 6455, section 5.2); `first` are further bits of its first byte."""
    head = bytes([(0x80 if fin else 0) | first | opcode])
    size = len(payload)
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 2**16:
        head += bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Read the unmasked frames, behind the head of a handshake if there is one: opcode and payload of each."""
    place = data.index(b"\r\n\r\n") + 4 if data.startswith(b"HTTP/1.1 ") else 0
    while place < len(data):
        opcode, size = data[place] & 15, data[place + 1]
        assert data[place] & 0xF0 == 0x80, "final, without reserved bits"
        place += 2
        if size > 125:
            width = 2 if size == 126 else 8
            size = int.from_bytes(data[place : place + width], "big")
            place += width
        assert place + size <= len(data), "whole frames"
        yield opcode, data[place : place + size]
        place += size


ACCEPT = "sec-websocket-accept"
