"""The outbox: what waits to be written to one client."""

from __future__ import annotations

__all__ = ["Outbox"]


class Outbox:
    """Frames in the order in which they are to be written, bounded in bytes."""

    __slots__ = ("_frames", "max_bytes", "size")

    def __init__(self, max_bytes: int) -> None:
        self._frames: list[bytes] = []
        self.max_bytes = max_bytes
        """How much may wait."""
        self.size = 0
        """How much waits, in bytes."""

    def put(self, frame: bytes) -> bool:
        """Add `frame`; False if it does not fit. An empty outbox takes a frame of any size."""
        size = self.size + len(frame)
        if size > self.max_bytes and self._frames:
            return False
        self._frames.append(frame)
        self.size = size
        return True

    def put_anyway(self, frame: bytes) -> None:
        """Add `frame`, which is going to be taken at once."""
        self._frames.append(frame)
        self.size += len(frame)

    def take(self) -> bytes:
        """Answer everything as one piece, and be empty."""
        frames = self._frames
        joined = frames[0] if len(frames) == 1 else b"".join(frames)
        self.clear()
        return joined

    def clear(self) -> None:
        """Throw everything away."""
        self._frames = []
        self.size = 0
