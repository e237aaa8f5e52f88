"""What has come on a connection and has to wait for a later turn of the reactor."""

from __future__ import annotations

from typing import Any

__all__ = ["Backlog"]

_UNREAD_BYTES = 64 * 1024
"""How much of it is read before the client has to wait, too."""


class Backlog:
    """The bytes that wait, in their order."""

    __slots__ = ("_data", "_transport", "size")

    def __init__(self, data: bytes, transport: Any) -> None:
        """Have `data` wait, which came by `transport`."""
        self._data = [data]
        self._transport = transport
        self.size = len(data)
        """How many they are."""

    def received(self, data: bytes) -> None:
        """Have `data` wait, too."""
        self._data.append(data)
        self.size += len(data)
        if self.size > _UNREAD_BYTES and hasattr(self._transport, "pauseProducing"):
            self._transport.pauseProducing()

    def end(self) -> bytes:
        """Return everything; it is taken now."""
        return b"".join(self._data)
