"""Entries of one channel that follow each other, in memory."""

from __future__ import annotations

from bisect import bisect_right
from typing import cast

from pushd.event import Entry

__all__ = ["Entries"]


class Entries:
    """Entries of one channel, oldest first, their offsets without holes.

    It is a list with a moving head, so that an entry is found by its offset at once, and by its place in the
    log by bisection. There is nothing before the head once there is nothing behind it.
    """

    __slots__ = ("_entries", "_head")

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._head = 0

    def __len__(self) -> int:
        return len(self._entries) - self._head

    @property
    def oldest(self) -> Entry | None:
        """The first entry, if there is one."""
        return self._entries[self._head] if self._entries else None

    @property
    def latest(self) -> Entry | None:
        """The last entry, if there is one."""
        return self._entries[-1] if self._entries else None

    def append(self, entry: Entry) -> None:
        """Add the next entry; its offset must follow the latest one's."""
        self._entries.append(entry)

    def drop(self) -> Entry:
        """Take away the oldest entry, which must exist, and answer it."""
        entries, head = self._entries, self._head
        entry, entries[head] = entries[head], _NOTHING
        self._head = head + 1
        if self._head * 2 > len(entries):
            del entries[: self._head]
            self._head = 0
        return entry

    def clear(self) -> None:
        """Take away all entries."""
        self._entries, self._head = [], 0

    def after(self, sequence: int) -> Entry | None:
        """Answer the first entry whose event came after `sequence` in the log."""
        index = bisect_right(self._entries, sequence, lo=self._head, key=_sequence)
        return self._entries[index] if index < len(self._entries) else None

    def at(self, offset: int) -> Entry | None:
        """Answer the entry at `offset`, if it is here."""
        oldest = self.oldest
        if oldest is None or not oldest.offset <= offset < oldest.offset + len(self):
            return None
        return self._entries[self._head + offset - oldest.offset]


_NOTHING = cast(Entry, None)
"""What stands in the place of an entry that was dropped, until the list is shortened."""


def _sequence(entry: Entry) -> int:
    return entry.event.sequence
