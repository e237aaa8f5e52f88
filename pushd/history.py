"""The history of one channel: its latest entries, bounded by count and by age."""

from __future__ import annotations

from bisect import bisect_right
from typing import cast

from pushd.event import Entry

__all__ = ["History"]


class History:
    """The entries that a channel still has, oldest first, their offsets without holes.

    It is a list with a moving head, so that an entry is found by its offset at once, and by its place in the
    log by bisection. There is nothing before the head once there is nothing behind it.
    """

    __slots__ = ("_entries", "_head", "dropped")

    def __init__(self, dropped: int) -> None:
        self._entries: list[Entry] = []
        self._head = 0
        self.dropped = dropped
        """The sequence of the latest event that the channel had and has no more."""

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
        entry = self._entries[self._head]
        self._entries[self._head] = _NOTHING
        self._head += 1
        self.dropped = entry.event.sequence
        if self._head * 2 > len(self._entries):
            del self._entries[: self._head]
            self._head = 0
        return entry

    def trim(self, size: int, seconds: float) -> list[Entry]:
        """Take away the oldest entries while there are more than `size` or they have expired; answer them."""
        entries, dropped = self._entries, []
        while entries and (len(entries) - self._head > size or entries[self._head].expires_s <= seconds):
            dropped.append(self.drop())
        return dropped

    def after(self, sequence: int) -> Entry | None:
        """Answer the first entry whose event came after `sequence` in the log."""
        index = bisect_right(self._entries, sequence, lo=self._head, key=_sequence)
        return self._entries[index] if index < len(self._entries) else None

    def at(self, offset: int) -> Entry | None:
        """Answer the entry at `offset`, if the channel has it."""
        oldest = self.oldest
        if oldest is None or not oldest.offset <= offset < oldest.offset + len(self):
            return None
        return self._entries[self._head + offset - oldest.offset]


_NOTHING = cast(Entry, None)
"""What stands in the place of an entry that was dropped, until the list is shortened."""


def _sequence(entry: Entry) -> int:
    return entry.event.sequence
