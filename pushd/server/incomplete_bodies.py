"""The memory limit of incomplete request bodies and WebSocket messages."""

from __future__ import annotations

from pushd.bus import Shares
from pushd.errors import Refused

__all__ = ["IncompleteBodies", "IncompleteBody"]

_SHORT_BYTES = 64 * 1024
"""How many bytes of one body may be in the reserve."""

_RESERVE_PART = 8
"""The reserve is one part in so many of the total limit."""


class IncompleteBodies:
    """Counts the bytes of incomplete bodies, in total and per owner, for all versions of HTTP.

    Once the limit is reached, the start of a body is counted in a reserve, so that short requests still succeed.
    """

    __slots__ = ("_main", "_reserve")

    def __init__(self, most_bytes: int, share_percent: int) -> None:
        """Allow `most_bytes` in total, and `share_percent` of them per owner; the reserve is additional."""
        what, option = "bytes of incomplete bodies", "[limits] bodies"
        self._main = Shares(what, option, most_bytes, share_percent)
        self._reserve = Shares(what, option, most_bytes // _RESERVE_PART, share_percent)

    def limit(self, most_bytes: int, share_percent: int) -> None:
        """Set new limits."""
        self._main.limit(most_bytes, share_percent)
        self._reserve.limit(most_bytes // _RESERVE_PART, share_percent)

    @property
    def used(self) -> int:
        """How many bytes are counted now."""
        return self._main.used + self._reserve.used

    def new(self, owner: str | None) -> IncompleteBody:
        """Return the counter of one body of `owner`."""
        return IncompleteBody(self._main, self._reserve, owner)


class IncompleteBody:
    """The counted bytes of one body."""

    __slots__ = ("_main", "_owner", "_reserve", "_reserved", "_size")

    def __init__(self, main: Shares, reserve: Shares, owner: str | None) -> None:
        self._main, self._reserve, self._owner = main, reserve, owner
        self._size = self._reserved = 0

    def add(self, size: int) -> None:
        """Count `size` more bytes; raise `TooMany` or `Unavailable`, and count none of them, above the limit."""
        try:
            self._main.take(self._owner, size)
        except Refused:
            if self._size + self._reserved + size > _SHORT_BYTES:
                raise
            self._reserve.take(self._owner, size)
            self._reserved += size
        else:
            self._size += size

    def resize(self, size: int) -> None:
        """Set the count to `size` bytes; raises as `add` does."""
        more = size - self._size - self._reserved
        if more > 0:
            self.add(more)
        elif more < 0:
            self.release()
            self.add(size)

    def release(self) -> None:
        """Set the count to 0. Idempotent."""
        if self._size:
            self._main.give_back(self._owner, self._size)
        if self._reserved:
            self._reserve.give_back(self._owner, self._reserved)
        self._size = self._reserved = 0
