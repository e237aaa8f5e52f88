"""The bodies of requests, and the messages of WebSockets, of which a part has come: how much of them is held."""

from __future__ import annotations

from pushd.bus import Shares
from pushd.errors import Refused

__all__ = ["IncompleteBodies", "IncompleteBody"]

_SHORT_BYTES = 64 * 1024
"""How much of one body may be in the reserve."""

_RESERVE_PART = 8
"""The reserve is a part of all: one of so many."""


class IncompleteBodies:
    """Counts the bytes of bodies that are held, in total and per owner, over every version of HTTP.

    When others hold as much as there may be, the beginning of a body is held in a reserve, so that short requests
    still pass.
    """

    __slots__ = ("_main", "_reserve")

    def __init__(self, most_bytes: int, share_percent: int) -> None:
        """Hold up to `most_bytes`, and `share_percent` of them for each owner; the reserve is beside that."""
        what, option = "bytes of unfinished bodies", "[limits] bodies"
        self._main = Shares(what, option, most_bytes, share_percent)
        self._reserve = Shares(what, option, most_bytes // _RESERVE_PART, share_percent)

    def limit(self, most_bytes: int, share_percent: int) -> None:
        """Set other bounds."""
        self._main.limit(most_bytes, share_percent)
        self._reserve.limit(most_bytes // _RESERVE_PART, share_percent)

    @property
    def used(self) -> int:
        """How many bytes are held."""
        return self._main.used + self._reserve.used

    def new(self, owner: str | None) -> IncompleteBody:
        """Return what counts one body of `owner`."""
        return IncompleteBody(self._main, self._reserve, owner)


class IncompleteBody:
    """What is held of one body."""

    __slots__ = ("_main", "_owner", "_reserve", "_reserved", "_size")

    def __init__(self, main: Shares, reserve: Shares, owner: str | None) -> None:
        self._main, self._reserve, self._owner = main, reserve, owner
        self._size = self._reserved = 0

    def add(self, size: int) -> None:
        """Hold `size` bytes more; raise `TooMany` or `Unavailable` if they are too many, and hold none of them."""
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
        """Hold `size` bytes in all; raises as `add` does."""
        more = size - self._size - self._reserved
        if more > 0:
            self.add(more)
        elif more < 0:
            self.release()
            self.add(size)

    def release(self) -> None:
        """Hold nothing any more. May be called again."""
        if self._size:
            self._main.give_back(self._owner, self._size)
        if self._reserved:
            self._reserve.give_back(self._owner, self._reserved)
        self._size = self._reserved = 0
