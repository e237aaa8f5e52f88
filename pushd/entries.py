"""Entries of one channel that follow each other, in memory."""

from __future__ import annotations

from bisect import bisect_right

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

    def extend(self, entries: list[Entry]) -> None:
        """Add the next entries; their offsets must follow the latest one's."""
        self._entries += entries

    def drop_until(self, offset: int) -> None:
        """Take away the entries before `offset`."""
        oldest = self.oldest
        if oldest is not None and oldest.offset < offset:
            del self._entries[: self._head + offset - oldest.offset]
            self._head = 0

    def after(self, sequence: int) -> Entry | None:
        """Answer the first entry whose event came after `sequence` in the log."""
        index = bisect_right(self._entries, sequence, lo=self._head, key=_sequence)
        return self._entries[index] if index < len(self._entries) else None

    def run(self, first: int, count: int) -> list[Entry]:
        """Answer up to `count` entries from the offset `first` on, none if that one is not here."""
        oldest = self.oldest
        if oldest is None or first < oldest.offset:
            return []
        place = self._head + first - oldest.offset
        return self._entries[place : place + count]

    def at(self, offset: int) -> Entry | None:
        """Answer the entry at `offset`, if it is here."""
        oldest = self.oldest
        if oldest is None or not oldest.offset <= offset < oldest.offset + len(self):
            return None
        return self._entries[self._head + offset - oldest.offset]


def _sequence(entry: Entry) -> int:
    return entry.event.sequence
