"""The outbox: the bounded send buffer of one connection."""

from __future__ import annotations

__all__ = ["Outbox"]


class Outbox:
    """Frames in sending order, bounded in bytes."""

    __slots__ = ("_frames", "_may_be_missed", "max_bytes", "size")

    def __init__(self, max_bytes: int) -> None:
        self._frames: list[bytes] = []
        self._may_be_missed: list[int] | None = None  # indexes in _frames
        self.max_bytes = max_bytes
        """Maximum size, in bytes."""
        self.size = 0
        """Current size, in bytes."""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._frames)

    def has_room(self, size: int) -> bool:
        """Return whether a frame of `size` bytes fits. An empty outbox accepts a frame of any size."""
        return self.size + size <= self.max_bytes or not self._frames

    def put(self, frame: bytes) -> bool:
        """Add `frame`; return False if it does not fit."""
        size = self.size + len(frame)
        if size > self.max_bytes and self._frames:
            return False
        self._frames.append(frame)
        self.size = size
        return True

    def mark(self) -> None:
        """Mark the latest frame as one that `make_room` may drop."""
        if self._may_be_missed is None:
            self._may_be_missed = []
        self._may_be_missed.append(len(self._frames) - 1)

    def make_room(self, size: int) -> int:
        """Drop the older half of the marked frames, repeatedly, until `size` more bytes fit.

        Return the number of dropped frames. If `size` bytes never fit, all marked frames are dropped.
        """
        dropped = 0
        while self._may_be_missed and self.size + size > self.max_bytes:
            places = self._may_be_missed
            older = set(places[: (len(places) + 1) // 2])
            kept = [place for place in range(len(self._frames)) if place not in older]
            still = set(places) - older
            self._may_be_missed = [new for new, place in enumerate(kept) if place in still]
            self._frames = [self._frames[place] for place in kept]
            self.size = sum(map(len, self._frames))
            dropped += len(older)
        return dropped

    def put_anyway(self, frame: bytes) -> None:
        """Add `frame` past the limit; the caller takes the outbox soon."""
        self._frames.append(frame)
        self.size += len(frame)

    def take(self) -> bytes:
        """Remove all frames and return them joined."""
        frames = self._frames
        joined = frames[0] if len(frames) == 1 else b"".join(frames)
        self.clear()
        return joined

    def clear(self) -> None:
        """Drop all frames."""
        self._frames = []
        self._may_be_missed = None
        self.size = 0
