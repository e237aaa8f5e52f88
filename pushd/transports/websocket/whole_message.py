"""The fast path for complete WebSocket messages in one frame: almost all messages of clients."""

from __future__ import annotations

from pushd.wire import BINARY, TEXT

__all__ = ["plain_message"]


def plain_message(data: bytes, start: int, max_bytes: int) -> tuple[int, bytes, int] | None:
    """Parse a complete, valid message in one masked frame at `start` (RFC 6455, section 5.2).

    Return its opcode, its payload and its end; None for everything else, which takes the slow path through
    Autobahn. That takes ten times as long.
    """
    size = len(data) - start
    if size < 6 or (opcode := data[start] - 0x80) not in (TEXT, BINARY):
        return None
    head, length = start + 2, data[start + 1] - 0x80
    if length == 126 and size >= 8:
        head, length = start + 4, data[start + 2] << 8 | data[start + 3]
        if length < 126:
            return None
    elif not 0 <= length < 126:
        return None
    body = head + 4
    stop = body + length
    if stop > len(data) or length > max_bytes:
        return None
    mask = (data[head:body] * (length // 4 + 1))[:length]
    payload = (int.from_bytes(data[body:stop]) ^ int.from_bytes(mask)).to_bytes(length)
    if opcode == TEXT:
        try:
            payload.decode()
        except UnicodeDecodeError:
            return None
    return opcode, payload, stop
