"""Flow control of request bodies: the receive window of each stream (RFC 9113, section 5.2)."""

from __future__ import annotations

from collections.abc import Callable

from pushd.server.http2.codec import STREAM_WINDOW

__all__ = ["BodyWindows"]

_FAST_WINDOW = 512 * 1024
"""The window of the stream with the oldest unfinished body, in bytes."""


class BodyWindows:
    """The unfinished request bodies and WebSocket messages of one connection.

    They are held until complete. When their total exceeds the limit, only the oldest may continue, which has
    a limit of its own; so one can always be completed.
    """

    __slots__ = ("_grant", "_held", "_is_tight", "_max_bytes", "_total")

    def __init__(self, max_bytes: int, grant: Callable[[int, int], None]) -> None:
        """Hold about `max_bytes`; `grant` opens the window of a stream to a number of bytes, if needed."""
        self._max_bytes = max_bytes
        self._grant = grant
        self._held: dict[int, int] = {}
        self._total = 0
        self._is_tight = False

    def begun(self, stream_id: int) -> None:
        """Called when a request has a body."""
        self._held[stream_id] = 0

    def received(self, stream_id: int, size: int) -> None:
        """Called when `size` bytes of a body arrive."""
        if stream_id not in self._held:
            return
        self._held[stream_id] += size
        self._total += size
        self._let_go_on(stream_id)

    def _let_go_on(self, stream_id: int) -> None:
        if stream_id == next(iter(self._held)):
            self._grant(stream_id, _FAST_WINDOW)
        elif self._total <= self._max_bytes:
            self._grant(stream_id, STREAM_WINDOW)
        else:
            self._is_tight = True

    def is_held_up(self, stream_id: int) -> bool:
        """Return whether a body may only continue once others are complete."""
        return self._is_tight and stream_id != next(iter(self._held), stream_id)

    def holds(self, stream_id: int, size: int) -> None:
        """Called when the unfinished messages of a WebSocket stream hold `size` bytes."""
        if not size:
            self.ended(stream_id)
            self._grant(stream_id, STREAM_WINDOW)
            return
        self._total += size - self._held.get(stream_id, 0)
        self._held[stream_id] = size
        self._let_go_on(stream_id)
        if self._is_tight and size <= STREAM_WINDOW // 2:  # short messages continue, whatever other streams hold
            self._grant(stream_id, STREAM_WINDOW - size)

    def ended(self, stream_id: int) -> None:
        """Called when a body is complete, or will never be."""
        held = self._held.pop(stream_id, None)
        if held is None:
            return
        self._total -= held
        if self._is_tight:
            self._is_tight = False
            for other in list(self._held):
                self._let_go_on(other)
