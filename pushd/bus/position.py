"""What a reader of the log is told: where it begins, and a page of what there is."""

from __future__ import annotations

from dataclasses import dataclass

from pushd.bus.event import Entry

__all__ = ["HistoryPage", "Room", "StartPosition"]

_PAGE_BYTES = 1024 * 1024
"""How much data a page has, unless its first event alone has more."""


@dataclass(frozen=True, slots=True)
class StartPosition:
    """Where a reader begins."""

    position: str
    """The position after which its events begin."""

    recovered: bool
    """True if nothing is missing between the position it asked for and the first event."""

    sequence: int
    """The place in the log after which it reads."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A part of the log."""

    entries: list[Entry]
    """The entries, oldest first."""

    position: str
    """The position to go on from."""

    recovered: bool
    """True if nothing is missing between the position asked for and the first entry."""


class Room:
    """The entries of one page, as far as there is room: for `limit` of them, one at least."""

    __slots__ = ("_bytes", "_limit", "entries")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = _PAGE_BYTES
        self.entries: list[Entry] = []
        """Those that are in it."""

    def add(self, entry: Entry) -> bool:
        """Add an entry; False if there is no room for it."""
        self._bytes -= len(entry.event.data)
        if self.entries and (len(self.entries) == self._limit or self._bytes < 0):
            return False
        self.entries.append(entry)
        return True
