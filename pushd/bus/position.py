"""The start position of a reader of the log, and a page of its events."""

from __future__ import annotations

from dataclasses import dataclass

from pushd.bus.event import Entry

__all__ = ["HistoryPage", "Room", "StartPosition"]

_PAGE_BYTES = 1024 * 1024
"""The maximum bytes of data in one page, unless its first event alone has more."""


@dataclass(frozen=True, slots=True)
class StartPosition:
    """The start position of a reader."""

    position: str
    """The position after which the events begin."""

    recovered: bool
    """True if no event is lost between the requested position and the first event."""

    sequence: int
    """The place in the log after which the events begin."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of the log."""

    entries: list[Entry]
    """The entries, oldest first."""

    position: str
    """The position to continue from."""

    recovered: bool
    """True if no event is lost between the requested position and the first entry."""


class Room:
    """The entries of one page: at most `limit`, at least one, and at most `_PAGE_BYTES` of data."""

    __slots__ = ("_bytes", "_limit", "entries")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = _PAGE_BYTES
        self.entries: list[Entry] = []
        """The entries of the page."""

    def add(self, entry: Entry) -> bool:
        """Add an entry. Return False if it does not fit."""
        self._bytes -= len(entry.event.data)
        if self.entries and (len(self.entries) == self._limit or self._bytes < 0):
            return False
        self.entries.append(entry)
        return True
