"""Received bytes that wait for a later turn of the reactor."""

from __future__ import annotations

from typing import Any

__all__ = ["Backlog"]

_UNREAD_BYTES = 64 * 1024
"""Maximum size of the backlog before reading is paused (back-pressure to the client)."""


class Backlog:
    """The waiting bytes, in order."""

    __slots__ = ("_data", "_transport", "size")

    def __init__(self, data: bytes, transport: Any) -> None:
        """Create a backlog of `data`, received from `transport`."""
        self._data = [data]
        self._transport = transport
        self.size = len(data)
        """Number of waiting bytes."""

    def received(self, data: bytes) -> None:
        """Add `data`; pause the transport above the limit."""
        self._data.append(data)
        self.size += len(data)
        if self.size > _UNREAD_BYTES and hasattr(self._transport, "pauseProducing"):
            self._transport.pauseProducing()

    def end(self) -> bytes:
        """Return all bytes; the caller processes them now."""
        return b"".join(self._data)
